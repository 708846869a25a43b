"""A timer queue: each item has one timer.

Most times are set in ascending order. Their items stand in a row, each knows its place in it, and
one that leaves makes a gap. Only a time before that of the last item in the row goes into a heap;
such an entry stays when its timer is removed, and is dropped when it comes up. Gaps and these
entries are removed when they outnumber the timers four to one, so memory is bounded by the number
of items and not by the length of their deadlines.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Final, TypeAlias

_LEAST: Final = 256
_OLD_PER_VALID: Final = 4

Entry: TypeAlias = tuple[float, int]
"""The time, and the number of the item."""


class TimedItem:
    """An item with a timer.

    ``number``: its key. ``timer_at``: the time of its timer in monotonic seconds, inf = no timer.
    ``timer_place``: its place in the row, −1 = none.
    """

    __slots__ = ("number", "timer_at", "timer_place")

    number: int
    timer_at: float
    timer_place: int


class TimerQueue:
    """The timers of the items of one dict, by their numbers.

    `schedule` and `remove` are O(1) for ascending times, else O(log n); all else is amortised.

    ``_items``: the dict. ``_row``: the items with ascending times; None is a gap.
    ``_first``: index of the first item in the row. It is 0 where the row is empty.
    ``_passed``: places before the row's first entry.
    ``_last``: the time of the last item that was put into the row. ``_heap``: all other timers.
    ``_limit``: number of entries at which old ones are removed.
    """

    __slots__ = ("_first", "_heap", "_items", "_last", "_limit", "_passed", "_row")

    def __init__(self, items: dict[int, Any]) -> None:
        self._items = items
        self._heap: list[Entry] = []
        self._row: list[Any] = []
        self._first = 0
        self._passed = 0
        self._last = -inf
        self._limit = _LEAST

    def __len__(self) -> int:
        return len(self._heap) + len(self._row) - self._first

    def schedule(self, item: TimedItem, when: float) -> None:
        """Set the timer of `item` to `when`, unless an earlier time is set already."""
        if when < item.timer_at:
            if item.timer_place >= 0:
                self._leave_row(item)
            item.timer_at = when
            if when >= self._last:
                self._last = when
                item.timer_place = self._passed + len(self._row)
                self._row.append(item)
            else:
                heappush(self._heap, (when, item.number))
            if len(self._row) + len(self._heap) > self._limit:
                self._compact()

    def remove(self, item: TimedItem) -> None:
        """Remove the timer of `item`, which leaves the dict."""
        item.timer_at = inf
        if item.timer_place >= 0:
            self._leave_row(item)

    def next(self) -> float:
        """When `pop` may next return an item; an old entry can make it early, never late."""
        when = inf
        if self._first < len(self._row):
            first = self._row[self._first]
            when = first.timer_at
        if self._heap:
            return min(when, self._heap[0][0])
        return when

    def pop(self, now: float) -> Any:
        """Return the next item that is due, and remove its timer; None when no item is due."""
        while self.next() <= now:
            found = self._take()
            if found is not None:
                found.timer_at = inf
                return found
        return None

    def clear(self) -> None:
        """Remove all timers. Items that are scheduled again have to be reset by the caller."""
        self._heap.clear()
        self._row.clear()
        self._first = self._passed = 0
        self._last = -inf
        self._limit = _LEAST

    def _take(self) -> Any:
        """Remove the earliest entry, which must exist. Return its item; None if it is old."""
        heap, row = self._heap, self._row
        if self._first < len(row):
            item = row[self._first]
            if not (heap and heap[0][0] < item.timer_at):
                self._leave_row(item)
                return item
        when, number = heappop(heap)
        item = self._items.get(number)
        return item if item is not None and item.timer_at == when else None

    def _leave_row(self, item: TimedItem) -> None:
        """Make a gap of the place of `item`; gaps at the begin of the row are passed."""
        row = self._row
        at = item.timer_place - self._passed
        item.timer_place = -1
        row[at] = None
        if at == self._first:
            end = len(row)
            while at < end and row[at] is None:
                at += 1
            if at == end:
                del row[:]
                self._passed += end
                self._last = -inf
                at = 0
            self._first = at

    def _compact(self) -> None:
        row = [item for item in self._row if item is not None]
        for place, item in enumerate(row):
            item.timer_place = place
        self._row[:] = row
        self._first = self._passed = 0
        self._last = row[-1].timer_at if row else -inf
        self._heap[:] = [entry for entry in self._heap if self._is_valid(entry)]
        heapify(self._heap)
        valid = len(row) + len(self._heap)
        self._limit = max(_LEAST, valid * (1 + _OLD_PER_VALID))

    def _is_valid(self, entry: Entry) -> bool:
        item = self._items.get(entry[1])
        return item is not None and item.timer_at == entry[0]
