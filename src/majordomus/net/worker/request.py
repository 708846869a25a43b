"""What a handler is given: one request, and what became of the wish for its answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf
from typing import Any

from majordomus.errors import LocalProtocolError
from majordomus.net.worker.deferred_reply import Box, DeferredReply
from majordomus.net.worker.parts import NO_PARTS, NoParts, Parts
from majordomus.protocol import metadata


class Request:
    """One request as its handler sees it.

    Reading it is safe from any thread; nothing in it can be changed.
    """

    def __init__(
        self,
        service: str,
        frames: list[bytes],
        *,
        client: bytes = b"",
        deadline: float = inf,
        packed: bytes = b"",
        broker_packed: bytes = b"",
        once: bool = False,
        parts: Parts | None = None,
        loop_thread: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fill(
            service, frames, client, deadline, packed, broker_packed, once, parts, loop_thread
        )
        self._clock = clock

    def fill(
        self,
        service: str,
        frames: list[bytes],
        client: bytes,
        deadline: float,
        packed: bytes,
        broker_packed: bytes,
        once: bool,
        parts: Parts | None,
        loop_thread: int,
    ) -> None:
        """What a new request is; the engine's, who makes many: by position, it costs less than the
        constructor where this is compiled."""
        self.service = service
        self.frames = frames
        self.client = client
        """The handle by which the broker knows the client."""
        self.deadline = deadline
        """Monotonic seconds; infinite where the dialect knows no deadlines."""
        self.once = once
        """Whether the client wants it to be run at most once."""
        self.parts: Parts | NoParts = NO_PARTS if parts is None else parts
        """The parts of the client's stream: `for` in a thread, `async for` on the event loop."""
        self._packed, self._broker_packed = packed, broker_packed
        self._loop_thread = loop_thread
        self._clock = time.monotonic
        self._box: Box | None = None
        self._end: threading.Event | None = None
        self._withdrawn = False
        self._when_withdrawn: Callable[[], None] | None = None
        self._metadata: dict[str, Any] | None = None
        self._broker_metadata: dict[str, Any] | None = None

    @property
    def body(self) -> bytes:
        """All frames joined."""
        frames = self.frames
        return frames[0] if len(frames) == 1 else b"".join(frames)

    @property
    def text(self) -> str:
        """The body as UTF-8. Raises: UnicodeDecodeError."""
        return self.body.decode()

    @property
    def remaining(self) -> float:
        """Seconds left until the deadline; 0 when it has passed."""
        return max(0.0, self.deadline - self._clock())

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more.

        A `def` handler that runs long should look at it.
        """
        return self._withdrawn or self._clock() >= self.deadline

    def wait_cancelled(self, timeout: float | None = None) -> bool:
        """Waits until nobody waits for the answer any more, `timeout` seconds at most; whether it
        is so. For threads."""
        if self._end is None:
            self._end = threading.Event()
        left = self.deadline - self._clock()
        waits = left if timeout is None else min(timeout, left)
        if not self._withdrawn and waits > 0:
            self._end.wait(None if waits == inf else waits)
        return self.cancelled

    def reply_later(self) -> DeferredReply:
        """The answer is given later than the handler returns, by what this returns; whatever the
        handler returns then is ignored. Its slot stays held.

        Raises: LocalProtocolError the second time, and in a handler that runs in a process.
        """
        if self._box is not None or not self._loop_thread:
            raise LocalProtocolError("no-later", "an answer can be promised once, and by a worker")
        self._box = Box()
        return DeferredReply(self, self._box, self._loop_thread)

    @property
    def box(self) -> Box | None:
        """What `reply_later` has begun; the engine's."""
        return self._box

    @property
    def metadata(self) -> dict[str, Any]:
        """What the client sent with the request.

        Raises: RemoteProtocolError when it is malformed.
        """
        if self._metadata is None:
            self._metadata = metadata.unpack(self._packed) if self._packed else {}
        return self._metadata

    @property
    def broker_metadata(self) -> dict[str, Any]:
        """What the broker itself says of the request (`user`, `attempt`): only this is to be
        trusted.
        """
        if self._broker_metadata is None:
            packed = self._broker_packed
            self._broker_metadata = metadata.unpack(packed) if packed else {}
        return self._broker_metadata

    @property
    def user(self) -> str:
        """Who asks, as the broker found out; empty when it does not know."""
        return str(self.broker_metadata.get("user", ""))

    @property
    def packed_metadata(self) -> tuple[bytes, bytes]:
        """Both maps as they came."""
        return self._packed, self._broker_packed

    def withdraw(self) -> None:
        """The engine's word that the answer is not wanted any more."""
        self._withdrawn = True
        if self._end is not None:
            self._end.set()
        if isinstance(self.parts, Parts):
            self.parts.cancel()
        if self._box is not None:
            self._box.ahead.release()
        if self._when_withdrawn is not None:
            self._when_withdrawn()

    def tell_withdrawn(self, to: Callable[[], None] | None) -> None:
        """`to` is called by `withdraw`, or at once if that came before; None ends it."""
        self._when_withdrawn = to
        if to is not None and self._withdrawn:
            to()

    def __repr__(self) -> str:
        return f"Request(service={self.service!r}, frames={len(self.frames)})"
