"""Times at which an item is to be looked at: entries that die with what they stand for.

An item has one time, written down in the item itself (`look`); an entry that says otherwise, or
whose item is gone, is dropped when it is met. Most times come in their order: those stand in a row,
and only what is earlier than the last of the row goes into a heap. Dead entries never outnumber the
living by more than four to one, so memory is bounded by what is open and not by how long its
deadlines are.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Final, TypeAlias

_LEAST: Final = 256
_DEAD_PER_LIVING: Final = 4

Entry: TypeAlias = tuple[float, int]
"""When, and the key of whom."""


class TimedItem:
    """Something that waits. ``timer_at``: monotonic seconds, inf = not waited for."""

    __slots__ = ("timer_at",)

    timer_at: float


class TimerQueue:
    """The times of the items of one dict, by their keys. `watch` is O(1) for times in their order
    and else O(log n), the rest amortised."""

    __slots__ = ("_first", "_heap", "_items", "_last", "_limit", "_row")

    def __init__(self, items: dict[int, Any]) -> None:
        self._items = items
        self._heap: list[Entry] = []
        self._row: list[Entry] = []
        self._first = 0  # where the row begins
        self._last = -inf
        self._limit = _LEAST

    def __len__(self) -> int:
        return len(self._heap) + len(self._row) - self._first

    def schedule(self, key: int, item: TimedItem, when: float) -> None:
        """Look at `item` at `when`, or earlier where an earlier time was asked for already."""
        if when < item.timer_at:
            item.timer_at = when
            if when >= self._last:
                self._last = when
                self._row.append((when, key))
            else:
                heappush(self._heap, (when, key))
            if len(self._row) + len(self._heap) > self._limit:
                self._compact()

    def next(self) -> float:
        """When `pop` may next have something; early by a dead entry, never late."""
        when = inf
        if self._first < len(self._row):
            when = self._row[self._first][0]
        if self._heap:
            return min(when, self._heap[0][0])
        return when

    def pop(self, now: float) -> Any:
        """The next item whose time has come, no longer watched; None when there is none."""
        while self.next() <= now:
            entry = self._take()
            item = self._items.get(entry[1])
            if item is not None and item.timer_at == entry[0]:
                item.timer_at = inf
                return item
        return None

    def clear(self) -> None:
        """Forget all times. The items are to be forgotten with them."""
        self._heap.clear()
        self._row.clear()
        self._first, self._last = 0, -inf
        self._limit = _LEAST

    def _take(self) -> Entry:
        """The earliest entry; there is one."""
        heap, row = self._heap, self._row
        if self._first >= len(row) or (heap and heap[0] < row[self._first]):
            return heappop(heap)
        entry = row[self._first]
        self._first += 1
        if self._first == len(row):
            row.clear()
            self._first, self._last = 0, -inf
        return entry

    def _compact(self) -> None:
        self._row[:] = self._living(self._row[self._first :])
        self._first = 0
        self._last = self._row[-1][0] if self._row else -inf
        self._heap[:] = self._living(self._heap)
        heapify(self._heap)
        living = len(self._row) + len(self._heap)
        self._limit = max(_LEAST, living * (1 + _DEAD_PER_LIVING))

    def _living(self, entries: list[Entry]) -> list[Entry]:
        living: list[Entry] = []
        for entry in entries:
            item = self._items.get(entry[1])
            if item is not None and item.timer_at == entry[0]:
                living.append(entry)
        return living
