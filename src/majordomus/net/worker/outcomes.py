"""The outcome of an invocation: everything that turns a handler's result or exception into the
status and the frames of a FINAL lives here.

Each invocation has exactly one outcome. Worker threads, the event loop and handler processes use
these functions and no others, so that a result means the same wherever the handler runs.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, TypeAlias

from majordomus.errors import StatusError
from majordomus.net.bodies import Reply, to_frames
from majordomus.protocol import spec

Outcome: TypeAlias = tuple[int, list[bytes]]
"""Status and frames of a FINAL."""

MAX_TEXT: Final = 4096
"""Characters of an exception's text that leave the worker."""

logger = logging.getLogger("majordomus.worker")


def outcome_of_result(result: object) -> Outcome:
    """Return the outcome of a handler that has returned `result`.

    A result that is no body is a failure of the handler: 500.
    """
    try:
        frames = to_frames(result)
    except Exception as error:
        return outcome_of_error(error)
    return (result.status if isinstance(result, Reply) else spec.OK), frames


def outcome_of_error(error: BaseException) -> Outcome:
    """Return the outcome of a handler that has raised `error`.

    A StatusError keeps its status and text. A cancellation is 499. Everything else is 500 with the
    class and the text of the exception.
    """
    if isinstance(error, asyncio.CancelledError):
        return cancelled()
    if isinstance(error, StatusError):
        text = error.text
        status = error.status
    else:
        text = f"{type(error).__name__}: {error}"
        status = spec.HANDLER_FAILED
    return status, [text[:MAX_TEXT].encode("utf-8", "backslashreplace")]


def logged_outcome_of_error(service: str, error: BaseException) -> Outcome:
    """Return the outcome of `error`, and log its traceback if the handler did not raise it on
    purpose: a StatusError and a cancellation are not logged."""
    if is_unintended(error):
        logger.error("the handler of %s failed", service, exc_info=error)
    return outcome_of_error(error)


def is_unintended(error: BaseException) -> bool:
    """Whether `error` is a fault of the handler, neither a StatusError nor a cancellation."""
    return not isinstance(error, StatusError | asyncio.CancelledError)


def cancelled() -> Outcome:
    """Return the outcome of an invocation that ended because its request was cancelled."""
    return spec.CANCELLED, [b"cancelled"]


def cancelled_before_start() -> Outcome:
    """Return the outcome of a request that was cancelled before its handler was called."""
    return spec.CANCELLED, [b"cancelled before it was begun"]
