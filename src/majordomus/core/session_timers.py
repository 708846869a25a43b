"""Times at which an item is to be looked at: a heap whose entries die with what they stand for.

An item has one time, written down in the item itself (`look`); an entry that says otherwise, or
whose item is gone, is dropped when it is met. Dead entries never outnumber the living by more than
four to one, so memory is bounded by what is open and not by how long its deadlines are.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Final, Protocol

_LEAST: Final = 256
_DEAD_PER_LIVING: Final = 4


class Watched(Protocol):
    """Something that waits. ``look``: monotonic seconds, inf = not waited for."""

    look: float


class Timers:
    """The times of the items of one dict, by their keys. `watch` is O(log n), the rest
    amortised."""

    __slots__ = ("_heap", "_items", "_limit")

    def __init__(self, items: dict[int, Any]) -> None:
        self._items = items
        self._heap: list[tuple[float, int]] = []
        self._limit = _LEAST

    def __len__(self) -> int:
        return len(self._heap)

    def watch(self, key: int, item: Watched, when: float) -> None:
        """Look at `item` at `when`, or earlier where an earlier time was asked for already."""
        if when < item.look:
            item.look = when
            heap = self._heap
            heappush(heap, (when, key))
            if len(heap) > self._limit:
                self._compact()

    def next(self) -> float:
        """When `pop` may next have something; early by a dead entry, never late."""
        return self._heap[0][0] if self._heap else inf

    def pop(self, now: float) -> Any:
        """The next item whose time has come, no longer watched; None when there is none."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            when, key = heappop(heap)
            item = self._items.get(key)
            if item is not None and item.look == when:
                item.look = inf
                return item
        return None

    def clear(self) -> None:
        """Forget all times. The items are to be forgotten with them."""
        self._heap.clear()
        self._limit = _LEAST

    def _compact(self) -> None:
        items = self._items
        heap = self._heap
        heap[:] = [
            entry for entry in heap if entry[1] in items and items[entry[1]].look == entry[0]
        ]
        heapify(heap)
        self._limit = max(_LEAST, len(heap) * (1 + _DEAD_PER_LIVING))
