"""The closing hash of raw PascalZMQ messages: one more frame, 4 bytes, little-endian MurmurHash2A.

`messages` stands alone but for this file: the hash is a rule of the Delphi dialect and lives once,
in protocol/murmur.py, which imports nothing of this package. This is the only import across.
"""

from __future__ import annotations

from collections.abc import Sequence

from majordomus.errors import FrameError
from majordomus.protocol.murmur import murmur2a

__all__ = ["closed", "opened"]

_SIZE = 4


def closing(frames: Sequence[bytes], routed: bool) -> bytes:
    """The hash of `frames`. `routed`: frame 0 is a ROUTER's routing id, which no hash covers."""
    hashed = frames[1:] if routed and len(frames) > 1 else frames
    return murmur2a(hashed).to_bytes(_SIZE, "little")


def closed(frames: Sequence[bytes], *, routed: bool) -> list[bytes]:
    """`frames` and behind them their hash."""
    return [*frames, closing(frames, routed)]


def opened(frames: Sequence[bytes], *, routed: bool) -> list[bytes]:
    """`frames` without their last, the hash. Raises FrameError when it is missing or wrong."""
    if not frames or len(frames[-1]) != _SIZE:
        raise FrameError(
            "the last frame is no closing hash",
            position=max(len(frames) - 1, 0),
            size=len(frames[-1]) if frames else None,
            expected="4 (closing hash)",
        )
    body = list(frames[:-1])
    expected = closing(body, routed)
    if frames[-1] != expected:
        raise FrameError(
            f"closing hash is {frames[-1].hex()}, the frames give {expected.hex()}",
            position=len(body),
            size=_SIZE,
            expected=expected.hex(),
        )
    return body
