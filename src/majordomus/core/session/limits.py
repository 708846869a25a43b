"""Which bodies are too large to be sent: what a broker's WELCOME has announced, checked before
anything is sent. And which messages of a broker are too large to be received.

"A peer MUST NOT send a larger body or part" (docs/spec/mdp-0.3.md). Before a WELCOME nothing is
known, and nothing is checked here: the broker answers what is too large with 413.
"""

from __future__ import annotations

from typing import Any, Final

from majordomus.protocol.spec import Frame

AROUND: Final = 1024 * 1024
"""Bytes that a message may need besides a body of the size that its broker takes: header, metadata,
and 64 bytes for each frame."""


def larger(most: int) -> bytes:
    """The text of a 413 for a message of the broker that is larger than `most` bytes."""
    return b"larger than the %d bytes that this side takes from its broker" % most


def announced(values: dict[str, Any], name: str) -> int:
    """Return the bytes that a WELCOME's metadata allow as `name`; 0 where they say nothing."""
    most = values.get(name)
    return most if type(most) is int and 0 < most < 1 << 62 else 0


def excess(frames: list[Frame], most: int) -> bytes:
    """Return why a body of these frames is too large for `most` bytes; empty when it is not."""
    size = 0
    for frame in frames:
        size += len(frame)
    if size <= most:
        return b""
    return b"%d bytes; the broker takes at most %d" % (size, most)
