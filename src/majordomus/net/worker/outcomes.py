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
from typing import Final, TypeAlias

from majordomus.errors import LocalProtocolError, StatusError, class_name
from majordomus.net.bodies import Reply, to_frames
from majordomus.protocol import spec

Outcome: TypeAlias = tuple[int, list[bytes]]
"""Status and frames of a FINAL."""

MAX_TEXT: Final = 4096
"""Characters of an exception's text that leave the worker."""

MAX_STATUS: Final = 0xFFFF

logger = logging.getLogger("majordomus.worker")


def outcome_of_result(result: object) -> Outcome:
    """Return the outcome of a handler that has returned `result`.

    A result that is no body, or a `Reply` with an invalid status, is a failure of the handler: 500.
    """
    try:
        return status_of(result), to_frames(result)
    except BaseException as error:
        return outcome_of_error(error)


def status_of(result: object) -> int:
    """Return the status of a result: that of a `Reply`, 200 for every other body.

    Raises: LocalProtocolError for an invalid status; what the property of a subclass raises.
    """
    return checked_status(result.status) if isinstance(result, Reply) else spec.OK


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
        return checked_failure(error.status), [to_text(error.text)]
    except BaseException as fault:
        text = f"{class_name(error)}, of which no reply can be made: {described(fault)}"
        return spec.HANDLER_FAILED, [to_text(text)]


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


def logged_outcome_of_error(service: str, error: BaseException) -> Outcome:
    """Return the outcome of `error`, and log its traceback if the handler did not raise it on
    purpose: a StatusError and a cancellation are not logged."""
    if is_unintended(error):
        log_failure("the handler of %s failed", service, error)
    return outcome_of_error(error)


def log_failure(message: str, name: str, error: BaseException) -> None:
    """Log the traceback of `error`. Raises nothing: formatting it runs methods of the exception,
    and what logs it may be the program's own."""
    with contextlib.suppress(BaseException):
        logger.error(message, name, exc_info=(type(error), error, error.__traceback__))


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
