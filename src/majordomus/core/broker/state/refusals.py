"""How often the same thing was refused in a row: counts by kind, each with its last time.

A kind that was not refused for QUIET starts again at 1, so that the next refusal is reported.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

QUIET: Final = 60.0
"""Seconds without a refusal of a kind after which its count starts again."""
MOST_KINDS: Final = 1000
"""Kinds that are remembered; the one that was refused longest ago is dropped first."""


class Refusals:
    """The counts. A kind is any hashable value, usually the reason and the service."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: OrderedDict[object, tuple[int, float]] = OrderedDict()

    def count(self, kind: object, now: float) -> int:
        """Count one refusal, and return how many there were in a row."""
        times, last = self._kinds.pop(kind, (0, now))
        times = 1 if now - last > QUIET else times + 1
        self._kinds[kind] = times, now
        if len(self._kinds) > MOST_KINDS:
            self._kinds.popitem(last=False)
        return times
