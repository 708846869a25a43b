"""The deadline of the request that is being handled: what a handler asks of others has no more time
than it has itself.

A worker sets it around each handler; it goes along into coroutines, tasks and `asyncio.to_thread`,
but not into threads that a handler starts itself.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from math import inf
from typing import Final

HANDLING: Final[ContextVar[float]] = ContextVar("majordomus_deadline", default=inf)
"""Monotonic seconds; infinite where no request with a deadline is handled."""
LEAST: Final = 0.001
"""What is left when nothing is left: such a call fails with DeadlineExceeded, as any that is too
late."""


def within(timeout: float) -> float:
    """`timeout` seconds, or what is left of the request that is being handled, if that is less."""
    deadline = HANDLING.get()
    if deadline == inf:
        return timeout
    return min(timeout, max(LEAST, deadline - time.monotonic()))
