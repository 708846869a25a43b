"""Integer functions of the rules that make no object where they are compiled.

The compiled rules call the functions of the same names in arithmetic.pxd instead
(docs/adr/0008-compiled-rules.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from majordomus.protocol.spec import Frame

whole = int
"""Truncate a number of seconds, steps or milliseconds to an int."""

length = len
"""The bytes of a frame."""


def size(frames: list[Frame]) -> int:
    """The bytes of all frames."""
    return sum(map(len, frames))


bits = int.bit_length
"""The bit length of a number that is not negative."""
