"""The closing hash of raw PascalZMQ messages: a last frame of 4 bytes, little-endian MurmurHash2A.

This is the only module of `messages` that imports from majordomus.protocol. The hash belongs to the
Delphi dialect and is implemented once, in protocol/murmur.py, which imports nothing of `messages`.
"""

from __future__ import annotations

from collections.abc import Sequence

from majordomus.errors import FrameError
from majordomus.protocol.murmur import murmur2a

__all__ = ["add_hash", "remove_hash"]

_SIZE = 4


def hash_of(frames: Sequence[bytes], routed: bool) -> bytes:
    """Return the hash of `frames`.

    `routed`: frame 0 is a ROUTER's routing id, which the hash leaves out.
    """
    hashed = frames[1:] if routed and len(frames) > 1 else frames
    return murmur2a(hashed).to_bytes(_SIZE, "little")


def add_hash(frames: Sequence[bytes], *, routed: bool) -> list[bytes]:
    """Return `frames` followed by their hash."""
    return [*frames, hash_of(frames, routed)]


def remove_hash(frames: Sequence[bytes], *, routed: bool) -> list[bytes]:
    """Return `frames` without the last one, the hash, after verifying it.

    Raises: FrameError when the hash is missing or wrong.
    """
    if not frames or len(frames[-1]) != _SIZE:
        raise FrameError(
            "the last frame is not a closing hash",
            position=max(len(frames) - 1, 0),
            size=len(frames[-1]) if frames else None,
            expected="4 (closing hash)",
        )
    body = list(frames[:-1])
    expected = hash_of(body, routed)
    if frames[-1] != expected:
        raise FrameError(
            f"the closing hash is {frames[-1].hex()}, expected {expected.hex()}",
            position=len(body),
            size=_SIZE,
            expected=expected.hex(),
        )
    return body
