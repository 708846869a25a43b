"""The outcome of an invocation: everything that turns a handler's result or exception into the
status and the frames of a FINAL lives here.

Each invocation has exactly one outcome. Worker threads, the event loop and handler processes use
these functions and no others, so that a result means the same wherever the handler runs.

These functions raise nothing, whatever they are given: methods, properties and conversions of a
result or an exception are code of the handler's author, which may raise anything. The status of an
outcome is a plain int that fits its field, its frames are plain bytes, and both can be sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import msgspec

from majordomus.errors import LocalProtocolError, StatusError, class_name
from majordomus.messages.bodies import JSON, encode_body
from majordomus.net.bodies import Reply, to_frames
from majordomus.net.deadline import trace_of
from majordomus.protocol import metadata as packing
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.net.worker.request import Request

Outcome: TypeAlias = tuple[int, list[bytes]]
"""Status and frames of a FINAL."""


class OutcomeWithMetadata(tuple[int, list[bytes]]):
    """An outcome whose FINAL carries metadata. ``metadata``: the packed map."""

    metadata: bytes

    def __new__(cls, status: int, frames: list[bytes], metadata: bytes) -> Self:
        made = super().__new__(cls, (status, frames))
        made.metadata = metadata
        return made


class PartWithMetadata(list[bytes]):
    """The frames of a part whose PARTIAL carries metadata. ``metadata``: the packed map."""

    metadata = b""


MAX_TEXT: Final = 4096
"""Characters of an exception's text that leave the worker."""

LONGEST_TRACE: Final = 120
"""Characters of a trace that are logged."""

MAX_STATUS: Final = 0xFFFF

logger = logging.getLogger("majordomus.worker")


def outcome_of_result(result: object) -> Outcome:
    """Return the outcome of a handler that has returned `result`.

    A result that is no body, or a `Reply` with an invalid status, is a failure of the handler: 500.
    """
    try:
        if isinstance(result, Reply):
            return checked_outcome(result)
        return spec.OK, to_frames(result)
    except BaseException as error:
        return outcome_of_error(error)


def checked_outcome(result: object) -> Outcome:
    """Return the outcome of a result.

    Raises: LocalProtocolError for what is no body or has an invalid status; what the result's own
    methods raise.
    """
    if not isinstance(result, Reply):
        return spec.OK, to_frames(result)
    status, frames, metadata = checked_status(result.status), to_frames(result), _metadata(result)
    return OutcomeWithMetadata(status, frames, metadata) if metadata else (status, frames)


def part_of(result: object) -> list[bytes]:
    """Return the frames of a part that a handler sends. Raises: as `to_frames`."""
    frames = to_frames(result)
    if isinstance(result, Reply) and (metadata := _metadata(result)):
        part = PartWithMetadata(frames)
        part.metadata = metadata
        return part
    return frames


def metadata_of(sent: Outcome | list[bytes]) -> bytes:
    """Return the packed metadata of an outcome or a part; empty where it has none."""
    if isinstance(sent, OutcomeWithMetadata | PartWithMetadata):
        return sent.metadata
    return b""


def _metadata(reply: Reply) -> bytes:
    """The packed metadata of a reply, which a subclass may have put there: they are checked."""
    packed = packing.packed_metadata(reply)
    if not isinstance(packed, bytes):
        raise LocalProtocolError("bad-metadata", f"packed metadata are a {class_name(packed)}")
    return packed


def checked_status(status: object) -> int:
    """Return a status as a plain int. Raises: LocalProtocolError unless it is 1 to 65535."""
    if isinstance(status, int) and not isinstance(status, bool):
        number = int.__index__(status)  # of an IntEnum, its value
        if 0 < number <= MAX_STATUS:
            return number
    shown = repr(status) if type(status) in (int, float, str, bool) else type(status).__name__
    raise LocalProtocolError("bad-status", f"a status is an int from 1 to 65535, not {shown:.40}")


def checked_failure(status: object) -> int:
    """Return a status as a plain int. Raises: LocalProtocolError unless it is one of a failure."""
    number = checked_status(status)
    if number == spec.OK:
        raise LocalProtocolError("bad-status", f"a failure is not {number}")
    return number


def outcome_of_error(error: BaseException) -> Outcome:
    """Return the outcome of a handler that has raised `error`.

    A StatusError keeps its status and text; one whose status is 200, or invalid, is 500. A
    cancellation is 499. Everything else is 500 with the class and the text of the exception.
    """
    kind = type(error)
    if issubclass(kind, asyncio.CancelledError):
        return cancelled()
    try:
        if not isinstance(error, StatusError):
            return spec.HANDLER_FAILED, [to_text(described(error))]
        frames = [to_text(error.text)]
        if error.detail is not None:
            frames.append(_detail(error.detail))
        return checked_failure(error.status), frames
    except BaseException as fault:
        text = f"{class_name(error)}, of which no reply can be made: {described(fault)}"
        return spec.HANDLER_FAILED, [to_text(text)]


def _detail(detail: object) -> bytes:
    """Return the detail of a failure as JSON. Raises: what its encoding raises."""
    if isinstance(detail, dict | list | tuple | int | float | bool):
        return msgspec.json.encode(detail)
    return encode_body(detail, JSON).frames[0]


def described(error: BaseException) -> str:
    """Return the class and the text of an exception, the class alone if it has no readable text."""
    name = class_name(error)
    try:
        return f"{name}: {error}"
    except BaseException as fault:
        return f"{name}: its text cannot be read ({class_name(fault)})"


def to_text(text: object) -> bytes:
    """Return the beginning of a text as the body of a failure. Raises: what its `str` raises."""
    # `join` returns a plain str, whatever a subclass overrides.
    plain = str.join("", (text if isinstance(text, str) else str(text),))
    return plain[:MAX_TEXT].encode("utf-8", "backslashreplace")


def logged_outcome_of_error(request: Request, error: BaseException) -> Outcome:
    """Return the outcome of `error`, and log its traceback if the handler did not raise it on
    purpose: a StatusError and a cancellation are not logged.

    The line has the request's id and the `trace` of its metadata, where there are any.
    """
    if is_unintended(error):
        ids = ids_of(request)
        message = "the handler of %s failed" + shown_ids(ids).replace("%", "%%")
        log_failure(message, request.service, error, {"service": request.service, **ids})
    return outcome_of_error(error)


def ids_of(request: Request) -> dict[str, str]:
    """Return the id of a request and the `trace` of its metadata, each if there is one."""
    found = {"request": request.id, "trace": trace_of(request._packed)[:LONGEST_TRACE]}
    return {key: value for key, value in found.items() if value}


def shown_ids(ids: dict[str, str]) -> str:
    """Return what `ids_of` returns as the end of a line; empty without any."""
    shown = ", ".join(f"{key} {value}" for key, value in ids.items())
    return f" ({shown})" if shown else ""


def log_failure(
    message: str, name: str, error: BaseException, fields: dict[str, str] | None = None
) -> None:
    """Log the traceback of `error`; a structured log has `fields`. Raises nothing: formatting it
    runs methods of the exception, and what logs it may be the program's own."""
    extra = {} if fields is None else {"fact": ("handler-failed", fields)}
    with contextlib.suppress(BaseException):
        traceback = (type(error), error, error.__traceback__)
        logger.error(message, name, exc_info=traceback, extra=extra)


def is_unintended(error: BaseException) -> bool:
    """Whether `error` is a fault of the handler, neither a StatusError nor a cancellation."""
    return not issubclass(type(error), (StatusError, asyncio.CancelledError))


def cancelled() -> Outcome:
    """Return the outcome of an invocation that ended because its request was cancelled."""
    return spec.CANCELLED, [b"cancelled"]


def no_thread() -> Outcome:
    """Return the outcome of a request for which no thread can be started."""
    return spec.UNAVAILABLE, [b"the worker cannot start a thread for its handler"]


def cancelled_before_start() -> Outcome:
    """Return the outcome of a request that was cancelled before its handler was called."""
    return spec.CANCELLED, [b"cancelled before it was begun"]


def outcome_without_caller(request: Request, *, begun: bool) -> Outcome:
    """Return the outcome of a request whose caller no longer waits: it has cancelled the request,
    or the deadline has passed. `begun`: whether the handler was called."""
    if request._cancelled:
        return cancelled() if begun else cancelled_before_start()
    when = b"while the handler ran" if begun else b"before the handler was called"
    return spec.DEADLINE_EXCEEDED, [b"the deadline passed " + when]
