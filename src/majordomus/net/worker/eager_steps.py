"""The first step of a coroutine, in a context of its own.

What is compiled calls the functions of the same names in steps.pxd instead, which do the same
without an exception for a coroutine that ends (docs/adr/0008-compiled-rules.md).
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

__all__ = ["copy_context", "first_step"]


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
