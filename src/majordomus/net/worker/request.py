"""A request as its handler sees it; everything that a handler may ask of its request is here.

The engine makes requests with `Request._fill` and cancels them with `Request._cancel`. Neither is
part of the public interface.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf
from typing import Any, Final

from majordomus.errors import LocalProtocolError
from majordomus.net.connection.inline import step_until
from majordomus.net.worker.deferred_reply import DeferredReply, ReplyBox
from majordomus.net.worker.parts import NO_PARTS, NoParts, RequestParts
from majordomus.protocol import metadata, spec

NUMBER: Final = spec.BROKER_ID_BIT - 1

_clock = time.monotonic


def dispatch_name(number: int) -> str:
    """Return the id of a request by the number of its dispatch, whose sign does not matter."""
    number = abs(number)
    return f"d{number & NUMBER}" if number & spec.BROKER_ID_BIT else ""


class Request:
    """One request, as its handler sees it. Any thread may read it; nothing in it may be changed.

    service: the name by which the client called the service
    frames: the body, frame by frame
    client: the handle of the client at its broker; `push` takes it
    deadline: monotonic seconds; infinite in a dialect without deadlines
    once: whether the client wants the request to be run at most once
    parts: the parts of the client's stream: `for` in a thread, `async for` on the event loop
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
        parts: RequestParts | None = None,
        number: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fill(service, frames, client, deadline, packed, broker_packed, once, parts, number)
        self._clock = clock

    def _fill(
        self,
        service: str,
        frames: list[bytes],
        client: bytes,
        deadline: float,
        packed: bytes,
        broker_packed: bytes,
        once: bool,
        parts: RequestParts | None,
        number: int,
    ) -> None:
        """Set every attribute of a request made with `Request.__new__`.

        The engine makes one request for each dispatch. Compiled, a call by position costs less
        than the constructor, which collects its keywords in a dictionary (ADR 0008).
        """
        self.service = service
        self.frames = frames
        self.client = client
        self.deadline = deadline
        self.once = once
        self.parts: RequestParts | NoParts = NO_PARTS if parts is None else parts
        self._packed, self._broker_packed = packed, broker_packed
        self._number = number  # of the dispatch; negative in a process, 0 without a dispatch
        self._clock = _clock
        self._reply_box: ReplyBox | None = None  # from the call of `reply_later` on
        self._cancel_event: threading.Event | None = None  # made by the first `wait_cancelled`
        self._cancelled = False
        self._cancel_callback: Callable[[], None] | None = None
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
        """Whether the caller no longer waits: it has cancelled, or the deadline has passed.

        A `def` handler that runs long should check this from time to time.
        """
        return self._cancelled or self._clock() >= self.deadline

    def wait_cancelled(self, timeout: float | None = None) -> bool:
        """Wait until the request is cancelled or `timeout` seconds have passed. Return `cancelled`.

        For threads: it blocks.
        """
        if self._cancel_event is None:
            self._cancel_event = threading.Event()
        left = self.deadline - self._clock()
        waits = left if timeout is None else min(timeout, left)
        if (
            not self._cancelled
            and waits > 0
            and not step_until(lambda: self._cancelled, self._clock() + waits)
        ):
            self._cancel_event.wait(None if waits == inf else waits)
        return self.cancelled

    def reply_later(self) -> DeferredReply:
        """Return an object with which the reply is given later than the handler returns.

        What the handler returns is then ignored. The slot stays held until the reply is given.

        Raises: LocalProtocolError the second time, and in a handler that runs in a process.
        """
        if self._reply_box is not None or self._number <= 0:
            raise LocalProtocolError(
                "no-later", "reply_later is called once, and not in a handler process"
            )
        self._reply_box = ReplyBox()
        return DeferredReply(self, self._reply_box)

    @property
    def id(self) -> str:
        """What `majordomus explain` takes: the number of this dispatch at its broker, as ``d17``.
        Empty in the dialects without such numbers.
        """
        return dispatch_name(self._number)

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
        """What the broker states about the request (`user`, `attempt`). A client cannot forge it,
        as it can `metadata`.
        """
        if self._broker_metadata is None:
            packed = self._broker_packed
            self._broker_metadata = metadata.unpack(packed) if packed else {}
        return self._broker_metadata

    @property
    def user(self) -> str:
        """The user that the broker has authenticated; empty when it has none."""
        return str(self.broker_metadata.get("user", ""))

    @property
    def attempt(self) -> int:
        """Which dispatch of the request this is, from 1. Above 1 an earlier one may have run."""
        found = self.broker_metadata.get("attempt", 1)
        return found if isinstance(found, int) else 1

    @property
    def key(self) -> str | bytes | None:
        """The idempotency key that the caller has given; None without one."""
        found = self.metadata.get("key")
        return found if isinstance(found, str | bytes) else None

    def _cancel(self) -> None:
        """Cancel the request, for the engine: the caller no longer waits. May be repeated."""
        self._cancelled = True
        if self._cancel_event is not None:
            self._cancel_event.set()
        if isinstance(self.parts, RequestParts):
            self.parts.cancel()
        if self._reply_box is not None:
            self._reply_box.parts_ahead.release()  # `part` waits there, and raises Cancelled
        if self._cancel_callback is not None:
            self._cancel_callback()

    def _on_cancel(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` when the request is cancelled, at once if it is already; None removes
        the callback."""
        self._cancel_callback = callback
        if callback is not None and self._cancelled:
            callback()

    def __repr__(self) -> str:
        return f"Request(service={self.service!r}, frames={len(self.frames)})"
