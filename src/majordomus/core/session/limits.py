"""Which bodies are too large to be sent: what a broker's WELCOME has announced, checked before
anything is sent.

"A peer MUST NOT send a larger body or part" (docs/spec/mdp-0.3.md). Before a WELCOME nothing is
known, and nothing is checked here: the broker answers what is too large with 413.
"""

from __future__ import annotations

from typing import Any

from majordomus.protocol.spec import Frame


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
