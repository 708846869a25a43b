"""Which of the workers that have a slot gets the next request. One strategy object a service.

A strategy is told of every change to a worker that it holds, and holds exactly the workers with a
free slot. What it does costs O(1) or O(log n) of its workers (rule 10). Their names are in
strategies.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from majordomus.core.broker.accel import prefetch_hints as hints

if TYPE_CHECKING:
    from majordomus.core.broker.balancing.rng import RandomSource
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.workers import RegisteredWorker

HIGHEST_LEVEL: Final = 1 << 16


class Strategy:
    """What the dispatcher asks of a way to balance, and the base of one's own.

    `choose` is all that has to be written; `free` holds the workers that it may return. One object
    serves one service, and nobody else calls it. ``dice(n)`` is a random number below n.
    """

    __slots__ = ("dice", "free")

    by_load: bool = False
    """Whether `heard` is to be called."""

    def __init__(self, dice: RandomSource) -> None:
        self.dice = dice
        self.free: dict[RegisteredWorker, None] = {}

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        """The worker for `request`: a free one, none that has rejected it; None only when there is
        none. Asking changes nothing."""
        raise NotImplementedError

    def willing(self, request: AcceptedRequest) -> Iterator[RegisteredWorker]:
        """The free workers that have not rejected `request`."""
        rejected = request.rejected
        return (worker for worker in self.free if not rejected or worker not in rejected)

    def put(self, worker: RegisteredWorker) -> None:
        """`worker` has a free slot, or what it holds has changed. May be repeated."""
        self.free[worker] = None

    def drop(self, worker: RegisteredWorker) -> None:
        """`worker` may not be given anything for now. May be repeated."""
        self.free.pop(worker, None)

    def given(self, worker: RegisteredWorker) -> None:
        """A request of this service went to `worker`, chosen here or next in the queue. `put` or
        `drop` follows."""

    def heard(self, worker: RegisteredWorker) -> None:
        """A heartbeat of `worker` told ``worker.load``."""

    def enter(self, worker: RegisteredWorker, weight: float) -> None:
        """`worker` serves the service from now on with `weight`, or its weight has changed; `put`
        follows when it has a free slot."""

    def forget(self, worker: RegisteredWorker) -> None:
        """`worker` has left."""
        self.drop(worker)


class RingNode:
    """A worker's place in the ring of those that hold as much as it does. The head of a ring is a
    place too, of no worker. ``giver``: the strategy whose ring it is; ``listed``: of a head,
    whether its level is in the heap."""

    __slots__ = ("after", "before", "giver", "level", "listed", "worker")

    def __init__(
        self, giver: LeastOutstanding, worker: RegisteredWorker | None, level: int
    ) -> None:
        self.giver = giver
        self.worker = worker
        self.level = level
        self.listed = False
        self.before: RingNode = self
        self.after: RingNode = self

    def stand_before(self, other: RingNode) -> None:
        """Leave where one is; stand in the ring of `other`, right before it."""
        self.before.after = self.after
        self.after.before = self.before
        self.before = other.before
        self.after = other
        other.before.after = self
        other.before = self

    def leave(self) -> None:
        """Stand alone."""
        self.before.after = self.after
        self.after.before = self.before
        self.before = self.after = self


class LeastOutstanding(Strategy):
    """The worker that holds the fewest requests for its weight; among equals, who has waited
    longest. O(log n) of the numbers that are held."""

    __slots__ = ("_at", "_heap", "_levels", "_only", "_weights")

    def __init__(self, dice: RandomSource | None = None) -> None:
        self._only: RegisteredWorker | None = None
        """The one free worker, which needs no rank: all the tables are empty then."""
        self._levels: list[RingNode] = []
        """The head of each level's ring: behind it stands who has waited longest."""
        self._at: dict[RegisteredWorker, RingNode] = {}
        self._heap: list[int] = []
        """Every level that is not empty, once, and perhaps some that are."""
        self._weights: dict[RegisteredWorker, float] = {}
        """Of those whose weight is not 1."""

    def put(self, worker: RegisteredWorker) -> None:
        only = self._only
        if only is worker:
            return
        if only is not None:
            self._only = None
            self._rank(only)
        elif not self._at:
            self._only = worker
            return
        self._rank(worker)

    def _rank(self, worker: RegisteredWorker) -> None:
        level = worker.holding
        if self._weights and worker in self._weights:
            level = min(int(level / self._weights[worker]), HIGHEST_LEVEL)
        place = worker.place
        if place is None or place.giver is not self:
            place = worker.place = self._place_of(worker)
        if place.level == level:
            return
        while level >= len(self._levels):
            self._levels.append(RingNode(self, None, len(self._levels)))
        head = self._levels[level]
        place.level = level
        place.stand_before(head)
        if not head.listed:
            head.listed = True
            heappush(self._heap, level)

    def _place_of(self, worker: RegisteredWorker) -> RingNode:
        place = self._at.get(worker)
        if place is None:
            place = self._at[worker] = RingNode(self, worker, -1)
        return place

    def drop(self, worker: RegisteredWorker) -> None:
        if self._only is worker:
            self._only = None
            return
        place = self._at.pop(worker, None)
        if place is not None:
            place.leave()
            if worker.place is place:
                worker.place = None

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        only = self._only
        if only is not None:
            return None if request.rejected and only in request.rejected else only
        if not self._at:
            return None
        while True:
            lowest = self._heap[0]
            head = self._levels[lowest]
            if head.after is not head:
                break
            heappop(self._heap)
            head.listed = False
        if request.rejected is None:
            place = head.after
            if len(self._at) > hints.RING:
                self._look_ahead(place.after)
            return place.worker
        for level in sorted(self._heap):
            place = self._levels[level].after
            while place.worker is not None:
                if place.worker not in request.rejected:
                    return place.worker
                place = place.after
        return None

    def _look_ahead(self, place: RingNode) -> None:
        """Fetch what the next one holds, the worker behind it, and the place after that: one step
        each, so that every step finds what the last call fetched."""
        if place.worker is not None:
            hints.peer_at(place)
            hints.id_at(place)
            place = place.after
        if place.worker is not None:
            hints.worker_at(place)
            hints.place_after(place)

    def enter(self, worker: RegisteredWorker, weight: float) -> None:
        self._weights.pop(worker, None)
        if weight != 1.0:
            self._weights[worker] = weight

    def forget(self, worker: RegisteredWorker) -> None:
        self.drop(worker)
        self._weights.pop(worker, None)
