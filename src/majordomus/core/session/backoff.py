"""Delays before a retry: they grow, and are random, so that peers that failed together do not retry
together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

Rng: TypeAlias = Callable[[], float]
"""A source of numbers in [0, 1)."""

_MOST_DOUBLINGS: Final = 64


def delay(first: float, most: float, failures: int, rng: Rng) -> float:
    """Return the seconds to wait before a try that follows `failures` failed ones.

    The bound doubles from `first` up to `most`. The delay lies between half of it and all of it.
    """
    bound = min(most, first * 2.0 ** min(failures, _MOST_DOUBLINGS))
    return bound * (0.5 + 0.5 * rng())
