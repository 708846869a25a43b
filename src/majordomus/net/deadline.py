"""The deadline and the trace of the request that is handled now: a call of a handler has no more
time than the handler has itself, and belongs to the same trace.

A worker sets both around each handler. Coroutines, tasks and `asyncio.to_thread` inherit them;
threads that a handler starts itself do not.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from math import inf
from typing import Any, Final, TypeVar

from majordomus.errors import RemoteProtocolError
from majordomus.protocol import metadata

T = TypeVar("T")

HANDLING: Final[ContextVar[float]] = ContextVar("majordomus_deadline", default=inf)
"""Monotonic seconds; infinite if no request with a deadline is handled."""
LEAST: Final = 0.001
"""Seconds of a call that is made after the deadline. Not 0: that would be a wrong argument, and the
call must fail with DeadlineExceeded as every late call."""


TRACE: Final[ContextVar[str]] = ContextVar("majordomus_trace", default="")
"""The `trace` in the metadata of that request (W3C traceparent); empty without one."""
REQUEST: Final[ContextVar[str]] = ContextVar("majordomus_request", default="")
"""The id of that request, where `middleware.LogIds` is used, and in handler processes; or empty."""
TRACE_KEY: Final = "trace"
_PACKED_KEY: Final = b"\xa5trace"
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-")


def value(variable: ContextVar[T]) -> T:
    """Return the value of `variable`, or its default. Compiled modules call the function of the
    same name in deadline.pxd instead, which looks up no method (docs/adr/0016)."""
    return variable.get()


def trace_of(packed: bytes) -> str:
    """Return the trace in packed metadata; empty without one, and for malformed metadata."""
    if _PACKED_KEY not in packed:
        return ""
    try:
        found = metadata.unpack(packed).get(TRACE_KEY, "")
    except RemoteProtocolError:
        return ""
    return found if isinstance(found, str) else ""


def trace_id_of(traceparent: str) -> str:
    """Return the trace id of a W3C traceparent; empty for other texts."""
    found = _TRACEPARENT.match(traceparent)
    return "" if found is None else found[1]


def inherited(given: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the metadata of a call with the trace of the request that is handled now, if there is
    one and the call has no other."""
    trace = TRACE.get()
    if not trace or (given and TRACE_KEY in given):
        return given
    return {TRACE_KEY: trace, **(given or {})}


def within(timeout: float) -> float:
    """Return `timeout`, or what is left to the request that is handled now, if that is less."""
    deadline = HANDLING.get()
    if deadline == inf:
        return timeout
    return min(timeout, max(LEAST, deadline - time.monotonic()))
