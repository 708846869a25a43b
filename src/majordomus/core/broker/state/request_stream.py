"""The credit and the waiting parts of one request's streams. No rule lives here."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.protocol.spec import Frame


class StreamPart(NamedTuple):
    """A PARTIAL or the FINAL of a client.

    body: its body frames.
    flags: its flags.
    metadata: its metadata, encoded; empty without any.
    size: the bytes that it counts toward the bounds.
    """

    body: list[Frame]
    flags: int
    metadata: bytes
    size: int


class RequestStream:
    """The streams of one request, in both directions.

    down: parts that the client still accepts.
    up: parts that the client may still send.
    room: parts that the worker still accepts.
    open: whether the client has not sent its FINAL yet.
    waiting: parts of the client that no worker has got.
    final: the FINAL of the client; None before it has come.
    final_due: whether the worker has yet to get that FINAL.
    size: the bytes of `waiting` and of `final`.
    frames: their body frames.
    """

    __slots__ = ("down", "final", "final_due", "frames", "open", "room", "size", "up", "waiting")

    def __init__(self, is_open: bool) -> None:
        self.down = spec.FIRST_CREDIT
        self.up = spec.FIRST_CREDIT if is_open else 0
        self.room = 0
        self.open = is_open
        self.waiting: deque[StreamPart] = deque()
        self.final: StreamPart | None = None
        self.final_due = False
        self.size = 0
        self.frames = 0

    def joined(self, body: list[Frame]) -> list[Frame]:
        """Return `body` followed by the frames of all parts and of the FINAL.

        This is the one request for a worker whose dialect has no parts.
        """
        last = [self.final] if self.final is not None else []
        return [*body, *(frame for part in [*self.waiting, *last] for frame in part.body)]
