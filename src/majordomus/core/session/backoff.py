"""How long to wait before the next try: growing, and never the same for two who fail together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

Rng: TypeAlias = Callable[[], float]
"""A source of numbers in [0, 1)."""

_MOST_DOUBLINGS: Final = 64


def delay(first: float, most: float, failures: int, rng: Rng) -> float:
    """Seconds before the try after `failures` earlier ones (0: the first delay).

    The bound doubles from `first` up to `most`; half of it is waited for in any case.
    """
    bound = min(most, first * 2.0 ** min(failures, _MOST_DOUBLINGS))
    return bound * (0.5 + 0.5 * rng())
