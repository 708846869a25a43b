"""The one exception tree. Every error that this package raises on purpose lives here.

    MajordomusError
    ├── ConfigurationError          a setting, flag or argument of ours is wrong: the caller's fault
    ├── ProtocolError
    │   ├── LocalProtocolError      we were asked to do what the protocol forbids: our fault
    │   └── RemoteProtocolError     a peer sent bytes that the protocol forbids: the peer's fault
    ├── FrameError                  a frame of a Message is not what was asked for
    ├── RecordError                 a value does not fit its record, or bytes are not one
    ├── BrokerLost                  the broker went away and the call may not be sent again
    └── StatusError                 a call ended with a status that is not 200
        ├── BadRequest              400
        ├── Unauthenticated         401
        ├── Forbidden               403
        ├── NotFound                404
        ├── DeadlineExceeded        408   (also a TimeoutError)
        ├── Conflict                409
        ├── TooLarge                413
        ├── TooManyRequests         429
        ├── Cancelled               499
        ├── HandlerFailed           500
        ├── NotSupported            501
        ├── WorkerLost              502
        └── Unavailable             503

Data are attributes; the text is for people.
"""

from __future__ import annotations


class MajordomusError(Exception):
    """Root of everything that this package raises on purpose."""


class ConfigurationError(MajordomusError):
    """A setting, a flag or an argument is wrong; the text says which and what would be right."""


class ProtocolError(MajordomusError):
    """Bytes or calls that the protocol does not allow. ``reason`` is a short, stable key."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class LocalProtocolError(ProtocolError):
    """This side was asked to do what the protocol does not allow."""


class RemoteProtocolError(ProtocolError):
    """A peer sent what the protocol does not allow. No parser raises anything else."""


class FrameError(MajordomusError, ValueError):
    """A frame of a Message is not what was asked for.

    `position` counts from 0, from the front that the message had when it was made, received or last
    pushed to: frames popped since count. `size` is the frame's size in bytes, None when there was
    none at all; `expected` says what was asked for. Also a ValueError.
    """

    def __init__(
        self, text: str, *, position: int = 0, size: int | None = None, expected: str = ""
    ):
        super().__init__(text)
        self.position = position
        self.size = size
        self.expected = expected


class RecordError(MajordomusError, ValueError):
    """A value does not fit the field of its record (encoding), or bytes are not it (decoding).

    `record` is the name of the record's class, `field` the dotted path of the field, "" when no
    single field is to blame. Also a ValueError.
    """

    def __init__(self, record: str, field: str, detail: str):
        super().__init__(f"{record}.{field}: {detail}" if field else f"{record}: {detail}")
        self.record = record
        self.field = field
        self.detail = detail


class BrokerLost(MajordomusError):
    """The broker went away while the call was open, and sending it again is not allowed (ONCE)."""


class StatusError(MajordomusError):
    """A call ended with ``status``; ``text`` is the sentence that the other side sent with it."""

    status: int = 500

    def __init__(
        self, text: str = "", *, status: int | None = None, frames: tuple[bytes, ...] = ()
    ):
        super().__init__(text)
        self.text = text
        self.frames = frames
        if status is not None:
            self.status = status

    def __str__(self) -> str:
        return f"{self.status} {self.text}".strip()


class BadRequest(StatusError):
    """400: the request is malformed."""

    status = 400


class Unauthenticated(StatusError):
    """401: the broker does not know who asks."""

    status = 401


class Forbidden(StatusError):
    """403: the broker knows who asks, and it is not allowed."""

    status = 403


class NotFound(StatusError):
    """404: no such worker, client or id."""

    status = 404


class DeadlineExceeded(StatusError, TimeoutError):
    """408: the deadline passed before the answer was there."""

    status = 408


class Conflict(StatusError):
    """409: the request contradicts an earlier one."""

    status = 409


class TooLarge(StatusError):
    """413: more frames or bytes than the limit allows."""

    status = 413


class TooManyRequests(StatusError):
    """429: a queue, a rate or a credit is used up."""

    status = 429


class Cancelled(StatusError):
    """499: the caller cancelled the request."""

    status = 499


class HandlerFailed(StatusError):
    """500: the handler raised; the text is the exception's type and message."""

    status = 500


class NotSupported(StatusError):
    """501: the other side does not implement what was asked."""

    status = 501


class WorkerLost(StatusError):
    """502: the worker went away and the request may not be tried again."""

    status = 502


class Unavailable(StatusError):
    """503: no worker serves this, or the broker drains."""

    status = 503


BY_STATUS: dict[int, type[StatusError]] = {
    error.status: error
    for error in (
        BadRequest,
        Unauthenticated,
        Forbidden,
        NotFound,
        DeadlineExceeded,
        Conflict,
        TooLarge,
        TooManyRequests,
        Cancelled,
        HandlerFailed,
        NotSupported,
        WorkerLost,
        Unavailable,
    )
}


def error_for(status: int, frames: list[bytes] | tuple[bytes, ...]) -> StatusError:
    """The exception for a FINAL with `status`, whose body frame 0 is its sentence."""
    text = bytes(frames[0]).decode("utf-8", "replace") if frames else ""
    return BY_STATUS.get(status, StatusError)(text, status=status, frames=tuple(frames))
