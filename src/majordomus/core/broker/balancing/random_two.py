"""`random-two`: of two random workers, the less busy one. It keeps no order of all workers."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from majordomus.core.broker.balancing.strategy import Strategy

if TYPE_CHECKING:
    from majordomus.core.broker.balancing.rng import RandomSource
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.workers import RegisteredWorker


class RandomTwo(Strategy):
    """Of two random workers the one with fewer requests for its weight. O(1)."""

    __slots__ = ("_indexes", "_weights", "_workers")

    def __init__(self, dice: RandomSource) -> None:
        self.dice = dice
        self._workers: list[RegisteredWorker] = []
        self._indexes: dict[RegisteredWorker, int] = {}
        self._weights: dict[RegisteredWorker, float] = {}

    def put(self, worker: RegisteredWorker) -> None:
        if worker not in self._indexes:
            self._indexes[worker] = len(self._workers)
            self._workers.append(worker)

    def drop(self, worker: RegisteredWorker) -> None:
        index = self._indexes.pop(worker, None)
        if index is None:
            return
        last = self._workers.pop()
        if last is not worker:
            self._workers[index] = last
            self._indexes[last] = index

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        workers, count = self._workers, len(self._workers)
        if not count:
            return None
        first = self.dice(count)
        rejected = request.rejected
        if rejected:
            indexes = chain(range(first, count), range(first))
            return next((workers[n] for n in indexes if workers[n] not in rejected), None)
        if count == 1:
            return workers[0]
        second = self.dice(count - 1)
        one, other = workers[first], workers[second + (second >= first)]
        return one if self._cost(one) <= self._cost(other) else other

    def _cost(self, worker: RegisteredWorker) -> float:
        """The number of its requests with one more, divided by its weight."""
        return (worker.holding + 1) / self._weights.get(worker, 1.0)

    def enter(self, worker: RegisteredWorker, weight: float) -> None:
        self._weights.pop(worker, None)
        if weight != 1.0:
            self._weights[worker] = weight

    def forget(self, worker: RegisteredWorker) -> None:
        self.drop(worker)
        self._weights.pop(worker, None)
