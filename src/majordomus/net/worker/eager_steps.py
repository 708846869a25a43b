"""The first step of a coroutine, in a context of its own.

Compiled modules call the functions of the same names in eager_steps.pxd instead. Those do the same
without an exception for a coroutine that ends (docs/adr/0008-compiled-rules.md).
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from sys import getrefcount
from typing import Any
from weakref import getweakrefcount

__all__ = ["copy_context", "first_step", "references"]


def references(task: object) -> int:
    """Count the references to a task, weak ones included. The number means something only next to
    another one that was counted from the same function."""
    return getrefcount(task) + getweakrefcount(task)


def first_step(
    context: Context, work: Coroutine[Any, Any, Any], variable: ContextVar[float], value: float
) -> tuple[bool, Any]:
    """Run `work` in `context` until it waits or ends, with `variable` set to `value` from now on.

    Return whether it has ended, and what it returned or waits for. Raises: what `work` raises.
    """
    return context.run(_step, work, variable, value)


def _step(
    work: Coroutine[Any, Any, Any], variable: ContextVar[float], value: float
) -> tuple[bool, Any]:
    variable.set(value)
    try:
        return False, work.send(None)
    except StopIteration as end:
        return True, end.value
