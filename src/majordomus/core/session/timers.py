"""A timer queue with lazy deletion: each item has one timer.

The time of an item's timer is kept in the item (`timer_at`). An entry of the queue with another
time, or of an item that is gone, is stale, and is dropped when it comes up. Most times are added in
ascending order: these are appended to a row, and only an earlier time goes into a heap. Stale
entries are removed when they outnumber the valid ones four to one, so memory is bounded by the
number of items and not by the length of their deadlines.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Final, TypeAlias

_LEAST: Final = 256
_STALE_PER_VALID: Final = 4

Entry: TypeAlias = tuple[float, int]
"""The time, and the key of the item."""


class TimedItem:
    """An item with a timer. ``timer_at``: its time in monotonic seconds, inf = no timer."""

    __slots__ = ("timer_at",)

    timer_at: float


class TimerQueue:
    """The timers of the items of one dict, by their keys.

    `schedule` is O(1) for ascending times, else O(log n); all else is amortised.
    ``_items``: the dict. ``_row``: ascending entries, valid from ``_first`` on.
    ``_last``: the last time in the row. ``_heap``: all other entries.
    ``_limit``: number of entries at which stale ones are removed.
    """

    __slots__ = ("_first", "_heap", "_items", "_last", "_limit", "_row")

    def __init__(self, items: dict[int, Any]) -> None:
        self._items = items
        self._heap: list[Entry] = []
        self._row: list[Entry] = []
        self._first = 0
        self._last = -inf
        self._limit = _LEAST

    def __len__(self) -> int:
        return len(self._heap) + len(self._row) - self._first

    def schedule(self, key: int, item: TimedItem, when: float) -> None:
        """Set the timer of `item` to `when`, unless an earlier time is set already."""
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
        """When `pop` may next return an item; a stale entry can make it early, never late."""
        when = inf
        if self._first < len(self._row):
            when = self._row[self._first][0]
        if self._heap:
            return min(when, self._heap[0][0])
        return when

    def pop(self, now: float) -> Any:
        """Return the next item that is due, and clear its timer; None when no item is due."""
        while self.next() <= now:
            entry = self._take()
            item = self._items.get(entry[1])
            if item is not None and item.timer_at == entry[0]:
                item.timer_at = inf
                return item
        return None

    def clear(self) -> None:
        """Remove all timers. The caller drops the items with them."""
        self._heap.clear()
        self._row.clear()
        self._first, self._last = 0, -inf
        self._limit = _LEAST

    def _take(self) -> Entry:
        """Remove and return the earliest entry, which must exist."""
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
        self._row[:] = self._valid(self._row[self._first :])
        self._first = 0
        self._last = self._row[-1][0] if self._row else -inf
        self._heap[:] = self._valid(self._heap)
        heapify(self._heap)
        valid = len(self._row) + len(self._heap)
        self._limit = max(_LEAST, valid * (1 + _STALE_PER_VALID))

    def _valid(self, entries: list[Entry]) -> list[Entry]:
        valid: list[Entry] = []
        for entry in entries:
            item = self._items.get(entry[1])
            if item is not None and item.timer_at == entry[0]:
                valid.append(entry)
        return valid
