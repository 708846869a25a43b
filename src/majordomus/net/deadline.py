"""The deadline of the request that is handled now: a call of a handler has no more time than the
handler has itself.

A worker sets the deadline around each handler. Coroutines, tasks and `asyncio.to_thread` inherit
it; threads that a handler starts itself do not.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from math import inf
from typing import Final

HANDLING: Final[ContextVar[float]] = ContextVar("majordomus_deadline", default=inf)
"""Monotonic seconds; infinite if no request with a deadline is handled."""
LEAST: Final = 0.001
"""Seconds of a call that is made after the deadline. Not 0: that would be a wrong argument, and the
call must fail with DeadlineExceeded as every late call."""


def within(timeout: float) -> float:
    """Return `timeout`, or what is left to the request that is handled now, if that is less."""
    deadline = HANDLING.get()
    if deadline == inf:
        return timeout
    return min(timeout, max(LEAST, deadline - time.monotonic()))
