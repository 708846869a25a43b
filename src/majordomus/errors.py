"""The one exception tree: every error that this package raises on purpose is defined here.

    MajordomusError
    ├── ConfigurationError          a setting, flag or argument is wrong: the caller's fault
    ├── ProtocolError
    │   ├── LocalProtocolError      a call on this side breaks the protocol: the caller's fault
    │   └── RemoteProtocolError     a peer sent bytes that break the protocol: the peer's fault
    ├── FrameError                  a frame of a Message has another size or type than requested
    ├── RecordError                 a value does not fit its record, or bytes do not encode one
    ├── BrokerLost                  the broker was lost and the call may not be sent again
    └── StatusError                 a call ended with a status that is not 200
        ├── BadRequest              400
        ├── Unauthenticated         401
        ├── Forbidden               403
        ├── NotFound                404
        ├── DeadlineExceeded        408   (also a TimeoutError)
        ├── Conflict                409
        ├── Expired                 410
        ├── TooLarge                413
        ├── DoNotRetry              422
        ├── TooManyRequests         429
        ├── Cancelled               499
        ├── HandlerFailed           500
        ├── NotSupported            501
        ├── WorkerLost              502
        └── Unavailable             503

Programs use the attributes; the text is for people.
"""

from __future__ import annotations

import json
from typing import Any


class MajordomusError(Exception):
    """Base class of every error that this package raises on purpose.

    Each can be pickled and copied, whatever its constructor takes.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args), self.__dict__


class ConfigurationError(MajordomusError):
    """A setting, flag or argument is wrong. The text names it and the valid values."""


class ProtocolError(MajordomusError):
    """Bytes or a call break the protocol. ``reason`` is a short, stable key."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class LocalProtocolError(ProtocolError):
    """A call on this side breaks the protocol."""


class RemoteProtocolError(ProtocolError):
    """A peer sent bytes that break the protocol. No parser raises any other error."""


class FrameError(MajordomusError, ValueError):
    """A frame of a Message has another size or type than requested. Also a ValueError.

    ``position``: index of the frame, from 0, in the message as it was made, received or last pushed
    to; frames popped since are counted. ``size``: its size in bytes, None when there was no frame.
    ``expected``: the requested type and size.
    """

    def __init__(
        self, text: str, *, position: int = 0, size: int | None = None, expected: str = ""
    ):
        super().__init__(text)
        self.position = position
        self.size = size
        self.expected = expected


class RecordError(MajordomusError, ValueError):
    """A value does not fit its field (encoding), or bytes are wrong (decoding). Also a ValueError.

    ``record``: name of the record's class. ``field``: dotted path of the field, "" when it is
    not a single field.
    """

    def __init__(self, record: str, field: str, detail: str):
        super().__init__(f"{record}.{field}: {detail}" if field else f"{record}: {detail}")
        self.record = record
        self.field = field
        self.detail = detail


class BrokerLost(MajordomusError):
    """The broker was lost while the call was open, and the call may not be sent again (ONCE)."""


class StatusError(MajordomusError):
    """A call ended with ``status``. ``text`` is the explanation of the other side.

    A handler may raise one with a ``detail``: any value that can be a body (a Struct, a dataclass,
    a record, a dict …). The caller's error has it as JSON values.
    """

    status: int = 500

    def __init__(
        self,
        text: str = "",
        *,
        status: int | None = None,
        frames: tuple[bytes, ...] = (),
        detail: Any = None,
    ):
        text = text if isinstance(text, str) else str(text)  # `raise BadRequest(error)`
        super().__init__(text)
        self.text = text
        self.frames = frames
        self._detail = detail
        if status is not None:
            self.status = status

    @property
    def detail(self) -> Any:
        """The detail of the failure; None without one, and for one that is no JSON."""
        detail = self.__dict__.get("_detail")
        frames = self.__dict__.get("frames", ())  # a subclass may not call the constructor
        if detail is None and len(frames) > 1:
            try:
                detail = self._detail = json.loads(frames[1])
            except (ValueError, RecursionError):
                return None
        return detail

    @detail.setter
    def detail(self, detail: Any) -> None:
        self._detail = detail

    def __str__(self) -> str:
        return f"{self.status} {self.text}".strip()


class BadRequest(StatusError):
    """400: the request is malformed."""

    status = 400


class Unauthenticated(StatusError):
    """401: the broker has not identified the client."""

    status = 401


class Forbidden(StatusError):
    """403: the client is identified but not allowed to do this."""

    status = 403


class NotFound(StatusError):
    """404: no such worker, client or id."""

    status = 404


class DeadlineExceeded(StatusError, TimeoutError):
    """408: the deadline passed before the reply arrived."""

    status = 408


class Conflict(StatusError):
    """409: the request contradicts an earlier one."""

    status = 409


class Expired(StatusError):
    """410: the outcome of the durable request is no longer kept."""

    status = 410


class TooLarge(StatusError):
    """413: more frames or bytes than the limit allows."""

    status = 413


class DoNotRetry(StatusError):
    """422: the handler failed, and another attempt would fail as well. A handler raises it."""

    status = 422


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
    """501: the other side does not implement the request."""

    status = 501


class WorkerLost(StatusError):
    """502: the worker was lost and the request may not be retried."""

    status = 502


class Unavailable(StatusError):
    """503: no worker serves this, or the broker drains."""

    status = 503


def _restored(kind: type[MajordomusError], arguments: tuple[Any, ...]) -> MajordomusError:
    """Make an error again from its `args`, without its constructor."""
    error = kind.__new__(kind)
    error.args = arguments
    return error


BY_STATUS: dict[int, type[StatusError]] = {
    error.status: error
    for error in (
        BadRequest,
        Unauthenticated,
        Forbidden,
        NotFound,
        DeadlineExceeded,
        Conflict,
        Expired,
        TooLarge,
        DoNotRetry,
        TooManyRequests,
        Cancelled,
        HandlerFailed,
        NotSupported,
        WorkerLost,
        Unavailable,
    )
}


def class_name(value: object) -> str:
    """Return the name of a value's class. Raises nothing, where `__name__` may: a metaclass of the
    user's can override it."""
    name: str = type.__dict__["__name__"].__get__(type(value))
    return name


def error_for(status: int, frames: list[bytes] | tuple[bytes, ...]) -> StatusError:
    """Return the exception for a FINAL with `status`; body frame 0 is its text."""
    text = bytes(frames[0]).decode("utf-8", "replace") if frames else ""
    return BY_STATUS.get(status, StatusError)(text, status=status, frames=tuple(frames))
