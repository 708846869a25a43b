"""Which of the workers with a free slot gets the next request. One strategy object per service.

A strategy is notified of every change to the workers of its service, and holds exactly those with a
free slot. A call costs O(1) or O(log n) of its workers (rule 10). The names of the strategies are
in registry.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from majordomus.core.broker.accel import links
from majordomus.core.broker.balancing.ring import RingNode

if TYPE_CHECKING:
    from majordomus.core.broker.balancing.rng import RandomSource
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.workers import RegisteredWorker

HIGHEST_LEVEL: Final = 1 << 16


class Strategy:
    """The interface between a service and its way of balancing, and the base class of custom ones.

    Only `choose` must be written. One object serves one service, and only the broker calls it.

    dice: ``dice(n)`` returns a random number from 0 to n − 1.
    free: the workers that `choose` may return.
    """

    __slots__ = ("dice", "free")

    by_load: bool = False
    """Whether `heard` is to be called."""

    def __init__(self, dice: RandomSource) -> None:
        self.dice = dice
        self.free: dict[RegisteredWorker, None] = {}

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        """Return a free worker for `request` that has not rejected it; None only when there is
        none. The call changes nothing."""
        raise NotImplementedError

    def willing(self, request: AcceptedRequest) -> Iterator[RegisteredWorker]:
        """Return the free workers that have not rejected `request`."""
        rejected = request.rejected
        return (worker for worker in self.free if not rejected or worker not in rejected)

    def put(self, worker: RegisteredWorker) -> None:
        """`worker` has a free slot, or the number of its requests has changed. May be repeated."""
        self.free[worker] = None

    def drop(self, worker: RegisteredWorker) -> None:
        """`worker` must not be chosen for now. May be repeated."""
        self.free.pop(worker, None)

    def given(self, worker: RegisteredWorker) -> None:
        """A request of this service was dispatched to `worker`, whether it was chosen here or took
        the request from the queue. `put` or `drop` follows."""

    def heard(self, worker: RegisteredWorker) -> None:
        """A heartbeat of `worker` has updated ``worker.load``."""

    def enter(self, worker: RegisteredWorker, weight: float) -> None:
        """`worker` serves the service with `weight` from now on, or its weight has changed. `put`
        follows when it has a free slot."""

    def forget(self, worker: RegisteredWorker) -> None:
        """`worker` no longer serves the service."""
        self.drop(worker)

    @property
    def notify_dispatch(self) -> Callable[[RegisteredWorker], None] | None:
        """`given`; None where the class does not define it, so that a dispatch does not call it."""
        return None if type(self).given is Strategy.given else self.given


class LeastOutstanding(Strategy):
    """The worker with the fewest requests for its weight; among equals, the one that has waited
    longest. O(log n) of the different numbers of requests."""

    __slots__ = ("_heap", "_levels", "_lowest", "_nodes", "_only_worker", "_weights")

    def __init__(self, dice: RandomSource | None = None) -> None:
        self._only_worker: RegisteredWorker | None = None
        """The one free worker. It needs no rank: all tables are empty then."""
        self._levels: list[RingNode] = []
        """The head of the ring of each level. The worker after it has waited longest."""
        self._nodes: dict[RegisteredWorker, RingNode] = {}
        """The node of each free worker."""
        self._heap: list[int] = []
        """Every level that is not empty, once; a level that has become empty is removed late."""
        self._lowest = 0
        """No level below this one has a worker."""
        self._weights: dict[RegisteredWorker, float] = {}
        """The weights that are not 1."""

    def put(self, worker: RegisteredWorker) -> None:
        """Move `worker` to the end of the ring of its level, unless it is in that ring already."""
        if self._only_worker is worker:
            return
        node = worker.ring_node
        if node is None or node.owner is not self:
            node = self._enter(worker)
            if node is None:
                return
        level = worker.holding
        if self._weights and worker in self._weights:
            level = min(int(level / self._weights[worker]), HIGHEST_LEVEL)
        if node.level != level:
            while level >= len(self._levels):
                self._levels.append(RingNode(self, None, len(self._levels)))
            head = self._levels[level]
            node.level = level
            if level < self._lowest:
                self._lowest = level
            links.move_before(node, head)
            if not head.listed:
                head.listed = True
                heappush(self._heap, level)

    def drop(self, worker: RegisteredWorker) -> None:
        if self._only_worker is worker:
            self._only_worker = None
            return
        node = self._nodes.pop(worker, None)
        if node is not None:
            node.unlink()
            if worker.ring_node is node:
                worker.ring_node = None

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        only = self._only_worker
        if only is not None:
            return None if request.rejected and only in request.rejected else only
        if not self._nodes:
            return None
        head = self._levels[self._lowest]
        if head.after is head:
            head = self._rise()
        if request.rejected is None:
            node = head.after
            node.look_ahead(len(self._nodes))
            return node.worker
        for level in sorted(self._heap):
            node = self._levels[level].after
            while node.worker is not None:
                if node.worker not in request.rejected:
                    return node.worker
                node = node.after
        return None

    def _rise(self) -> RingNode:
        """The head of the lowest level that has a worker, now that `_lowest` has none."""
        self._lowest += 1
        if self._lowest < len(self._levels):
            head = self._levels[self._lowest]
            if head.after is not head:
                return head
        while True:
            self._lowest = self._heap[0]
            head = self._levels[self._lowest]
            if head.after is not head:
                return head
            heappop(self._heap)
            head.listed = False

    def enter(self, worker: RegisteredWorker, weight: float) -> None:
        self._weights.pop(worker, None)
        if weight != 1.0:
            self._weights[worker] = weight

    def forget(self, worker: RegisteredWorker) -> None:
        self.drop(worker)
        self._weights.pop(worker, None)

    def _enter(self, worker: RegisteredWorker) -> RingNode | None:
        """The node of `worker`, which may be new here; None where it is the only one."""
        only = self._only_worker
        if only is None and not self._nodes:
            self._only_worker = worker
            return None
        if only is not None:
            self._only_worker = None
            only.ring_node = self._node_of(only)
            self.put(only)
        node = worker.ring_node = self._node_of(worker)
        return node

    def _node_of(self, worker: RegisteredWorker) -> RingNode:
        node = self._nodes.get(worker)
        if node is None:
            node = self._nodes[worker] = RingNode(self, worker, -1)
        return node
