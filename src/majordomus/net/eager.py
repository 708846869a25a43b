"""Tasks whose first step runs at once: what never waits is done without a turn of the loop.

Python 3.12 can do that itself. Before it, a task asks its loop for its first step while it is being
made (`call_soon`); we stand in for that one question and take the step ourselves. The task is an
ordinary one in every respect, current task and cancellation included.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

Work: TypeAlias = Coroutine[Any, Any, None]
Spawn: TypeAlias = Callable[[Work], asyncio.Task[None]]


def spawner(loop: asyncio.AbstractEventLoop) -> Spawn:
    """What makes tasks on `loop`, from callbacks of the loop; from within a task, and on a loop
    that cannot be stood in for, their first step comes in the loop's next turn."""
    if sys.version_info >= (3, 12):
        return lambda work: asyncio.Task(work, loop=loop, eager_start=True)
    try:
        loop.call_soon = loop.call_soon  # type: ignore[method-assign]
        del loop.call_soon
    except AttributeError:
        return loop.create_task
    return _Spawner(loop).spawn


class _Spawner:
    """Makes the tasks of one loop, in the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._attributes = vars(loop)
        self._step: Callable[..., object] | None = None
        self._context: contextvars.Context | None = None

    def spawn(self, work: Work) -> asyncio.Task[None]:
        loop = self._loop
        if asyncio.current_task(loop) is not None:
            return loop.create_task(work)
        self._attributes["call_soon"] = self._take
        try:
            task = asyncio.Task(work, loop=loop)
        finally:
            del self._attributes["call_soon"]
        step, context = self._step, self._context
        self._step = self._context = None
        if step is not None and context is not None:
            context.run(step)
        return task

    def _take(self, step: Callable[..., object], context: contextvars.Context) -> None:
        self._step, self._context = step, context
