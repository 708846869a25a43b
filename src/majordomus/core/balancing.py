"""Which of the workers that have a slot gets the next request. One strategy object a service.

A strategy is told of every change to a worker that it holds, and holds exactly the workers with a
free slot.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
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
    """The worker that holds the fewest requests; among equals, who has waited longest. O(1)."""

    __slots__ = ("_at", "_levels", "_lowest")

    def __init__(self) -> None:
        self._levels: list[OrderedDict[Worker, None]] = []
        self._at: dict[Worker, int] = {}
        self._lowest = 0

    def put(self, worker: Worker) -> None:
        level = len(worker.held)
        before = self._at.get(worker, -1)
        if before == level:
            return
        if before >= 0:
            del self._levels[before][worker]
        while level >= len(self._levels):
            self._levels.append(OrderedDict())
        self._levels[level][worker] = None
        self._at[worker] = level
        if level < self._lowest:
            self._lowest = level

    def drop(self, worker: Worker) -> None:
        level = self._at.pop(worker, -1)
        if level >= 0:
            del self._levels[level][worker]

    def choose(self, rejected: set[Worker] | None) -> Worker | None:
        if not self._at:
            return None
        while not self._levels[self._lowest]:
            self._lowest += 1
        if rejected is None:
            return next(iter(self._levels[self._lowest]))
        for level in self._levels[self._lowest :]:
            for worker in level:
                if worker not in rejected:
                    return worker
        return None


STRATEGIES: Final[dict[str, Callable[[], Strategy]]] = {"least-outstanding": LeastOutstanding}
