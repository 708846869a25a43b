"""Which of the workers that have a slot gets the next request. One strategy object a service.

A strategy is told of every change to a worker that it holds, and holds exactly the workers with a
free slot.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from majordomus.core.workers import Worker


class Strategy(Protocol):
    """What the dispatcher asks of a way to balance."""

    def put(self, worker: Worker) -> None:
        """`worker` has a free slot, or what it holds has changed. May be repeated."""

    def drop(self, worker: Worker) -> None:
        """`worker` may not be given anything. May be repeated."""

    def choose(self, rejected: set[Worker] | None) -> Worker | None:
        """The worker for the next request, none of `rejected`; None when there is none."""


class LeastOutstanding:
    """The worker that holds the fewest requests; among equals, who has waited longest. O(log n) of
    the numbers that are held."""

    __slots__ = ("_at", "_heap", "_levels", "_listed")

    def __init__(self) -> None:
        self._levels: list[OrderedDict[Worker, None]] = []
        self._at: dict[Worker, int] = {}
        self._heap: list[int] = []
        """Every level that is not empty, once, and perhaps some that are."""
        self._listed: list[bool] = []
        """Of each level, whether it is in the heap."""

    def put(self, worker: Worker) -> None:
        level = len(worker.held)
        before = self._at.get(worker, -1)
        if before == level:
            return
        if before >= 0:
            del self._levels[before][worker]
        while level >= len(self._levels):
            self._levels.append(OrderedDict())
            self._listed.append(False)
        self._levels[level][worker] = None
        self._at[worker] = level
        if not self._listed[level]:
            self._listed[level] = True
            heappush(self._heap, level)

    def drop(self, worker: Worker) -> None:
        level = self._at.pop(worker, -1)
        if level >= 0:
            del self._levels[level][worker]

    def choose(self, rejected: set[Worker] | None) -> Worker | None:
        if not self._at:
            return None
        while not self._levels[self._heap[0]]:
            self._listed[heappop(self._heap)] = False
        if rejected is None:
            return next(iter(self._levels[self._heap[0]]))
        willing = (w for level in sorted(self._heap) for w in self._levels[level])
        return next((worker for worker in willing if worker not in rejected), None)


STRATEGIES: Final[dict[str, Callable[[], Strategy]]] = {"least-outstanding": LeastOutstanding}
