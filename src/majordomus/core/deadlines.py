"""One wheel of deadlines: adding, removing and finding what is due cost O(1) an item.

Everything that waits for a point in time waits in one of these. An item that ended early is removed
at once, so a wheel never holds more than what is open, however long the deadlines are.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import Any

from majordomus.core import arithmetic

STEPS_PER_SECOND = 128
"""An item is due at most 1/128 s after its time, and never before."""
_PER_SECOND = STEPS_PER_SECOND


class Deadlines:
    """Items by their time in monotonic seconds. Items are told apart by identity or hash."""

    __slots__ = ("_last", "_last_step", "_slots", "_steps")

    def __init__(self) -> None:
        self._slots: dict[int, dict[Any, None]] = {}
        self._steps: list[int] = []
        self._last_step = -1
        """The step of the item that was added last: the next one often has the same."""
        self._last: dict[Any, None] = {}

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def add(self, item: Any, when: float) -> dict[Any, None]:
        """Hold `item` until `when`. The slot that holds it is returned: ``slot.pop(item, None)``
        removes it."""
        step = arithmetic.whole(when * _PER_SECOND) + 1
        if step != self._last_step:
            self._last = self._slot(step)
            self._last_step = step
        self._last[item] = None
        return self._last

    def _slot(self, step: int) -> dict[Any, None]:
        slot = self._slots.get(step)
        if slot is None:
            slot = self._slots[step] = {}
            heappush(self._steps, step)
        return slot

    def _drop(self) -> dict[Any, None]:
        """Forget the first step; what it holds."""
        step = heappop(self._steps)
        if step == self._last_step:
            self._last_step = -1
        return self._slots.pop(step)

    def due(self, now: float) -> list[Any]:
        """Take out everything whose time has come, oldest first."""
        items: list[Any] = []
        steps = self._steps
        last = now * STEPS_PER_SECOND
        while steps and steps[0] <= last:
            slot = self._drop()
            items.extend(slot)
            slot.clear()
        return items

    def next(self) -> float:
        """When `due` next has something to return; infinity when nothing is held."""
        steps = self._steps
        while steps:
            if self._slots[steps[0]]:
                return steps[0] / STEPS_PER_SECOND
            self._drop()
        return inf
