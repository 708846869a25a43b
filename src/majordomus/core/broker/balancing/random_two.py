"""`random-two`: two workers are drawn, the less busy one is taken. It needs no order of all of
them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from majordomus.core.broker.balancing.strategy import Strategy

if TYPE_CHECKING:
    from majordomus.core.broker.balancing.rng import RandomSource
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.workers import RegisteredWorker


class RandomTwo(Strategy):
    """Of two workers at random the one that holds less for its weight. O(1)."""

    __slots__ = ("_places", "_weights", "_workers")

    def __init__(self, dice: RandomSource) -> None:
        self.dice = dice
        self._workers: list[RegisteredWorker] = []
        self._places: dict[RegisteredWorker, int] = {}
        self._weights: dict[RegisteredWorker, float] = {}

    def put(self, worker: RegisteredWorker) -> None:
        if worker not in self._places:
            self._places[worker] = len(self._workers)
            self._workers.append(worker)

    def drop(self, worker: RegisteredWorker) -> None:
        place = self._places.pop(worker, None)
        if place is None:
            return
        last = self._workers.pop()
        if last is not worker:
            self._workers[place] = last
            self._places[last] = place

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        workers, count = self._workers, len(self._workers)
        if not count:
            return None
        first = self.dice(count)
        rejected = request.rejected
        if rejected:
            places = chain(range(first, count), range(first))
            return next((workers[p] for p in places if workers[p] not in rejected), None)
        if count == 1:
            return workers[0]
        second = self.dice(count - 1)
        one, other = workers[first], workers[second + (second >= first)]
        return one if self._burden(one) <= self._burden(other) else other

    def _burden(self, worker: RegisteredWorker) -> float:
        """What it would hold with one more."""
        return (worker.holding + 1) / self._weights.get(worker, 1.0)

    def enter(self, worker: RegisteredWorker, weight: float) -> None:
        self._weights.pop(worker, None)
        if weight != 1.0:
            self._weights[worker] = weight

    def forget(self, worker: RegisteredWorker) -> None:
        self.drop(worker)
        self._weights.pop(worker, None)
