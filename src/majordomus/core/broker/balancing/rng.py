"""Random numbers for the strategies: one seed from outside, and the same numbers for each seed."""

from __future__ import annotations

from typing import Final

_MASK: Final = (1 << 64) - 1


class RandomSource:
    """``dice(n)`` returns a number from 0 to n − 1. The generator is splitmix64; `seed` should be
    unpredictable."""

    __slots__ = ("_state",)

    def __init__(self, seed: bytes) -> None:
        self._state = int.from_bytes(seed, "big") & _MASK

    def __call__(self, n: int) -> int:
        self._state = z = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) * n) >> 64
