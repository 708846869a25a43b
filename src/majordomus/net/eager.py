"""Tasks whose first step runs at once: what never waits is done without a turn of the loop.

Python 3.12 can do that itself. Before it, a task is made ahead (it asks its loop for its first
step, `call_soon`, and we stand in for that one question), and work takes its first step as that
task. What has not ended then goes on as it; what has leaves the task for the next, which saves most
of what a short piece of work costs. Each has a context of its own. In every other respect, current
task and cancellation included, the task is an ordinary one.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from asyncio.tasks import _enter_task, _leave_task, _register_task, _unregister_task
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

Work: TypeAlias = Coroutine[Any, Any, None]
Spawn: TypeAlias = Callable[[Work], "asyncio.Task[None] | None"]


def spawner(loop: asyncio.AbstractEventLoop) -> Spawn:
    """What makes tasks on `loop`, from callbacks of the loop; from within a task, and on a loop
    that cannot be stood in for, their first step comes in the loop's next turn. It returns None for
    work that has ended already."""
    if sys.version_info >= (3, 12):
        return lambda work: _unless_done(asyncio.Task(work, loop=loop, eager_start=True))
    try:
        loop.call_soon = loop.call_soon  # type: ignore[method-assign]
        del loop.call_soon
    except AttributeError:
        return loop.create_task
    return _Spawner(loop).spawn


def _unless_done(task: asyncio.Task[None]) -> asyncio.Task[None] | None:
    return None if task.done() and not task.cancelled() and task.exception() is None else task


class _Steps(Coroutine[Any, Any, None]):
    """What a task made ahead runs: the rest of `work`, whose first step has been taken.

    ``given``: what it waits for since then. ``error``: what it has raised.
    """

    __slots__ = ("context", "error", "given", "taken", "work")

    def __init__(self) -> None:
        self.work: Work | None = None
        self.context = contextvars.Context()
        self.given: Any = None
        self.error: BaseException | None = None
        self.taken = False

    def send(self, value: Any) -> Any:
        if self.taken and self.work is not None:
            return self.context.run(self.work.send, value)
        self.taken = True
        if self.error is not None:
            raise self.error
        if self.work is None:
            raise StopIteration
        given, self.given = self.given, None
        return given

    def throw(self, *error: Any) -> Any:
        given, self.given = self.given, None
        self.taken = True
        if given is not None:  # cancelled before the task could begin to wait for it
            given._asyncio_future_blocking = False
            given.cancel()
        if self.work is None:
            raise error[0]
        return self.context.run(self.work.throw, *error)

    def close(self) -> None:
        if self.work is not None:
            self.work.close()

    def __await__(self) -> Any:
        raise TypeError("a task's own")

    def __getattr__(self, name: str) -> Any:  # for who prints a task: its code, frame and name
        return getattr(self.work, name)


class _Spawner:
    """Makes the tasks of one loop, in the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._attributes = vars(loop)
        self._step: Callable[..., object] | None = None
        self._context: contextvars.Context | None = None
        self._task: asyncio.Task[None] | None = None
        self._steps = _Steps()

    def spawn(self, work: Work) -> asyncio.Task[None] | None:
        loop = self._loop
        if asyncio.current_task(loop) is not None:
            return loop.create_task(work)
        task = self._task
        if task is None:
            task = self._ahead()
        context = contextvars.copy_context()
        _enter_task(loop, task)
        try:
            given = context.run(work.send, None)
        except StopIteration:
            _leave_task(loop, task)
            if task.cancelling() or task._callbacks:
                return self._go_on(task)  # it is marked, and ends with this work
            return None
        except BaseException as error:
            _leave_task(loop, task)
            self._steps.error = error
            return self._go_on(task)
        _leave_task(loop, task)
        steps = self._steps
        steps.work, steps.context, steps.given = work, context, given
        return self._go_on(task)

    def _ahead(self) -> asyncio.Task[None]:
        """A task that has not begun. Nobody is to see it, or to wait for its end."""
        loop = self._loop
        self._steps = _Steps()
        self._attributes["call_soon"] = self._take
        try:
            task = self._task = asyncio.Task(self._steps, loop=loop)
        finally:
            del self._attributes["call_soon"]
        _unregister_task(task)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        return task

    def _go_on(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        step, context = self._step, self._context
        self._task = self._step = self._context = None
        _register_task(task)
        task._log_destroy_pending = True  # type: ignore[attr-defined]
        if step is not None and context is not None:
            context.run(step)
        return task

    def _take(self, step: Callable[..., object], context: contextvars.Context) -> None:
        self._step, self._context = step, context
