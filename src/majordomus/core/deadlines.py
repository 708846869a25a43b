"""One wheel of deadlines: adding, removing and finding what is due cost O(1) an item.

Everything that waits for a point in time waits in one of these. An item that ended early is removed
at once, so a wheel never holds more than what is open, however long the deadlines are.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import Any

STEPS_PER_SECOND = 128
"""An item is due at most 1/128 s after its time, and never before."""


class Deadlines:
    """Items by their time in monotonic seconds. Items are told apart by identity or hash."""

    __slots__ = ("_slots", "_steps")

    def __init__(self) -> None:
        self._slots: dict[int, dict[Any, None]] = {}
        self._steps: list[int] = []

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def add(self, item: Any, when: float) -> dict[Any, None]:
        """Hold `item` until `when`. The slot that holds it is returned: ``slot.pop(item, None)``
        removes it."""
        step = int(when * STEPS_PER_SECOND) + 1
        slot = self._slots.get(step)
        if slot is None:
            slot = self._slots[step] = {}
            heappush(self._steps, step)
        slot[item] = None
        return slot

    def due(self, now: float) -> list[Any]:
        """Take out everything whose time has come, oldest first."""
        items: list[Any] = []
        steps = self._steps
        last = now * STEPS_PER_SECOND
        while steps and steps[0] <= last:
            slot = self._slots.pop(heappop(steps))
            items.extend(slot)
            slot.clear()
        return items

    def next(self) -> float:
        """When `due` next has something to return; infinity when nothing is held."""
        steps = self._steps
        while steps:
            if self._slots[steps[0]]:
                return steps[0] / STEPS_PER_SECOND
            del self._slots[heappop(steps)]
        return inf
