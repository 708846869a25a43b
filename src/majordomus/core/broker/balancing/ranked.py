"""The strategies that rank workers by one number: `round-robin`, `least-recently-used`,
`least-load`.

The ranks are in a heap with lazy deletion: a changed rank is a new entry. A stale entry is removed
when it reaches the top, or when more than half of the heap is stale.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from majordomus.core.broker.balancing.strategy import Strategy

if TYPE_CHECKING:
    from majordomus.core.broker.balancing.rng import RandomSource
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.workers import RegisteredWorker

Entry: TypeAlias = "tuple[float, int, RegisteredWorker]"
SPARE: Final = 64
"""Stale entries that any heap may have."""


class Ranking:
    """Workers by (rank, tie), lowest first. Two workers never have the same pair."""

    __slots__ = ("_entries", "_heap")

    def __init__(self) -> None:
        self._entries: dict[RegisteredWorker, Entry] = {}
        self._heap: list[Entry] = []

    def __contains__(self, worker: RegisteredWorker) -> bool:
        return worker in self._entries

    def put(self, worker: RegisteredWorker, rank: float, tie: int) -> None:
        self._entries[worker] = entry = (rank, tie, worker)
        heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._entries) + SPARE:
            self._heap = list(self._entries.values())
            heapify(self._heap)

    def rank(self, worker: RegisteredWorker) -> float | None:
        entry = self._entries.get(worker)
        return None if entry is None else entry[0]

    def drop(self, worker: RegisteredWorker) -> None:
        self._entries.pop(worker, None)

    def first(self, rejected: set[RegisteredWorker] | None) -> RegisteredWorker | None:
        """Return the first worker that is not in `rejected`. O(log n) for each that is."""
        heap, entries = self._heap, self._entries
        aside: list[Entry] = []
        found = None
        while heap:
            entry = heap[0]
            if entries.get(entry[2]) is not entry:
                heappop(heap)
            elif rejected and entry[2] in rejected:
                aside.append(heappop(heap))
            else:
                found = entry[2]
                break
        for entry in aside:
            heappush(heap, entry)
        return found


class RoundRobin(Strategy):
    """Each worker in turn, in the order of registration; weight 2 means twice as many turns. A
    worker without a free slot loses its turn.

    A turn adds 1/weight to the position of a worker; the lowest position is next.
    """

    __slots__ = ("_at", "_last", "_numbers", "_ranking", "_reached", "_weights")

    def __init__(self, dice: RandomSource | None = None) -> None:
        self._ranking = Ranking()
        self._at: dict[RegisteredWorker, float] = {}
        self._numbers: dict[RegisteredWorker, int] = {}
        self._weights: dict[RegisteredWorker, float] = {}
        self._last = 0
        self._reached = 0.0
        """The position of the last worker that got a request: the least position of any worker."""

    def put(self, worker: RegisteredWorker) -> None:
        at = max(self._at.get(worker, 0.0), self._reached)
        if self._ranking.rank(worker) == at:
            return
        self._at[worker] = at
        self._ranking.put(worker, at, self._number(worker))

    def drop(self, worker: RegisteredWorker) -> None:
        self._ranking.drop(worker)

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        return self._ranking.first(request.rejected)

    def given(self, worker: RegisteredWorker) -> None:
        self._reached = max(self._at.get(worker, 0.0), self._reached)
        self._at[worker] = self._reached + 1.0 / self._weights.get(worker, 1.0)

    def enter(self, worker: RegisteredWorker, weight: float) -> None:
        self._weights[worker] = weight

    def forget(self, worker: RegisteredWorker) -> None:
        self.drop(worker)
        for table in (self._at, self._numbers, self._weights):
            table.pop(worker, None)

    def _number(self, worker: RegisteredWorker) -> int:
        number = self._numbers.get(worker)
        if number is None:
            self._last += 1
            number = self._numbers[worker] = self._last
        return number


class LeastRecentlyUsed(Strategy):
    """The worker that got its last request of this service longest ago; first of all, workers that
    never got one. The "LRU queue" of the ZeroMQ guide."""

    __slots__ = ("_given", "_last", "_ranking")

    def __init__(self, dice: RandomSource | None = None) -> None:
        self._ranking = Ranking()
        self._given: dict[RegisteredWorker, int] = {}
        self._last = 0

    def put(self, worker: RegisteredWorker) -> None:
        given = self._given.get(worker)
        if given is None:  # behind the workers that have waited unused for longer
            self._last += 1
            given = self._given[worker] = self._last - (1 << 62)
        if self._ranking.rank(worker) != given:
            self._ranking.put(worker, given, 0)

    def drop(self, worker: RegisteredWorker) -> None:
        self._ranking.drop(worker)

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        return self._ranking.first(request.rejected)

    def given(self, worker: RegisteredWorker) -> None:
        self._last += 1
        self._given[worker] = self._last

    def forget(self, worker: RegisteredWorker) -> None:
        self.drop(worker)
        self._given.pop(worker, None)


class LeastLoad(Strategy):
    """The worker whose host is least loaded: the load of its last heartbeat, plus the requests that
    it got since then. Each of these counts as one part of its slots (at most `MOST_SLOTS` parts,
    times its weight). An unknown load is taken as the mean of the known ones.

    The load alone would send every request to one worker until its next heartbeat.
    """

    __slots__ = ("_held", "_known", "_loads", "_sum", "_tie", "_unknown", "_weights")

    by_load = True
    MOST_SLOTS: ClassVar[int] = 16

    def __init__(self, dice: RandomSource | None = None) -> None:
        self._known = Ranking()
        self._unknown = Ranking()
        self._loads: dict[RegisteredWorker, float] = {}
        self._held: dict[RegisteredWorker, int] = {}
        """How many requests each worker held when it reported its load, which includes them."""
        self._weights: dict[RegisteredWorker, float] = {}
        self._sum = 0.0
        self._tie = 0

    def put(self, worker: RegisteredWorker) -> None:
        slots = min(worker.capacity, self.MOST_SLOTS) * self._weights.get(worker, 1.0)
        rank = (worker.holding - self._held.get(worker, 0)) / slots
        load = self._loads.get(worker)
        ranking = self._unknown if load is None else self._known
        if load is not None:
            rank += load
        if ranking.rank(worker) != rank:
            self._tie += 1
            ranking.put(worker, rank, self._tie)

    def drop(self, worker: RegisteredWorker) -> None:
        self._known.drop(worker)
        self._unknown.drop(worker)

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        known = self._known.first(request.rejected)
        unknown = self._unknown.first(request.rejected)
        if known is None or unknown is None:
            return known or unknown
        mean = self._sum / len(self._loads)
        return (
            known
            if self._rank(self._known, known) <= mean + self._rank(self._unknown, unknown)
            else unknown
        )

    @staticmethod
    def _rank(ranking: Ranking, worker: RegisteredWorker) -> float:
        return ranking.rank(worker) or 0.0

    def heard(self, worker: RegisteredWorker) -> None:
        listed = worker in self._known or worker in self._unknown
        self._take_out(worker)
        load = worker.load
        if load is not None and load >= 0.0:
            self._loads[worker] = load
            self._held[worker] = worker.holding
            self._sum += load
        if listed:
            self.put(worker)

    def enter(self, worker: RegisteredWorker, weight: float) -> None:
        self._weights[worker] = weight
        self.heard(worker)

    def forget(self, worker: RegisteredWorker) -> None:
        self._take_out(worker)
        self._weights.pop(worker, None)

    def _take_out(self, worker: RegisteredWorker) -> None:
        self.drop(worker)
        self._held.pop(worker, None)
        load = self._loads.pop(worker, None)
        if load is not None:
            self._sum = self._sum - load if self._loads else 0.0
