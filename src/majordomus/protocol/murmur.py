"""MurmurHash2A with 32 bits, little-endian words and seed 0: the checksum of Delphi messages.

The incremental hash of several buffers equals the hash of their concatenation. So the frames are
joined and hashed at once.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable

_M = 0x5BD1E995
_MASK = 0xFFFFFFFF
_BLOCK = 1 << 16
"""Bytes that are converted to words at a time, so that a large message is not copied as a whole."""


def murmur2a(frames: Iterable[bytes]) -> int:
    """The hash of the concatenation of `frames`, as an unsigned 32-bit number."""
    data = memoryview(b"".join(frames))
    size = len(data)
    whole = size & ~3
    state = 0
    for start in range(0, whole, _BLOCK):
        state = _mix(state, data[start : min(start + _BLOCK, whole)])
    state = _step(state, int.from_bytes(data[whole:], "little"))
    state = _step(state, size & _MASK)
    state ^= state >> 13
    state = state * _M & _MASK
    return state ^ state >> 15


def _mix(state: int, block: memoryview) -> int:
    """`state` after the words of `block`. The constants are literals because this loop is hot."""
    words = array("I", block.tobytes())
    if sys.byteorder == "big":
        words.byteswap()
    for word in words:
        word = word * 0x5BD1E995 & 0xFFFFFFFF
        state = (state * 0x5BD1E995 ^ (word ^ word >> 24) * 0x5BD1E995) & 0xFFFFFFFF
    return state


def _step(state: int, word: int) -> int:
    word = word * _M & _MASK
    return (state * _M ^ (word ^ word >> 24) * _M) & _MASK
