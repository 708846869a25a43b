"""The first step of a coroutine, in a context of its own.

What is compiled calls the function of the same name in steps.pxd instead, which does the same
without an exception for a coroutine that ends (docs/adr/0008-compiled-rules.md).
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import Context, ContextVar
from typing import Any


def first_step(
    context: Context, work: Coroutine[Any, Any, Any], variable: ContextVar[float], value: float
) -> tuple[bool, Any]:
    """`work` until it waits, in `context`, where `variable` has `value` from now on: whether it
    has ended, and what it returned or waits for. Raises: what it raises."""
    return context.run(_step, work, variable, value)


def _step(
    work: Coroutine[Any, Any, Any], variable: ContextVar[float], value: float
) -> tuple[bool, Any]:
    variable.set(value)
    try:
        return False, work.send(None)
    except StopIteration as end:
        return True, end.value
