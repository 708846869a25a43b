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
from typing import Any, Protocol, TypeAlias

from majordomus.net.deadline import HANDLING
from majordomus.net.worker import eager_steps as steps

Work: TypeAlias = Coroutine[Any, Any, Any]
Ended: TypeAlias = Callable[[Any, Any, BaseException | None], object]
"""What the work is about, what it returned, what it raised."""


class Spawner(Protocol):
    """What makes tasks on a loop."""

    def spawn(self, work: Work, about: object, deadline: float) -> asyncio.Task[None] | None:
        """Takes the first step of `work`, which has until `deadline` (see deadline.py).

        When it has ended, with this step or a later one, `ended` is called, in the work's context
        where that may matter. None for work that has ended already."""
        ...


def spawner(loop: asyncio.AbstractEventLoop, ended: Ended) -> Spawner:
    """What makes tasks on `loop`, from callbacks of the loop. Before Python 3.12, from within a
    task and on a loop that cannot be stood in for, their first step comes in the loop's next
    turn."""
    if sys.version_info >= (3, 12):
        return _Tasks(loop, ended, eager_start=True)
    try:
        loop.call_soon = loop.call_soon  # type: ignore[method-assign]
        del loop.call_soon
    except AttributeError:
        return _Tasks(loop, ended)
    return _Spawner(loop, ended)


def _whole(work: Work, about: object, deadline: float, ended: Ended) -> Work:
    """All of `work`, for a task that shows its name."""
    through = _through(work, about, deadline, ended)
    through.__qualname__ = getattr(work, "__qualname__", "work")  # type: ignore[attr-defined]
    return through


async def _through(work: Work, about: object, deadline: float, ended: Ended) -> None:
    HANDLING.set(deadline)
    try:
        result = await work
    except BaseException as error:
        ended(about, None, error)
    else:
        ended(about, result, None)


class _Tasks:
    """Makes a task for each piece of work, as Python itself can."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Ended, **options: Any) -> None:
        self._loop, self._ended, self._options = loop, ended, options

    def spawn(self, work: Work, about: object, deadline: float) -> asyncio.Task[None] | None:
        whole = _whole(work, about, deadline, self._ended)
        task = asyncio.Task(whole, loop=self._loop, **self._options)
        done = task.done() and not task.cancelled() and task.exception() is None
        return None if done else task


class _Steps(Coroutine[Any, Any, None]):
    """What a task made ahead runs: the rest of `work`, whose first step has been taken.

    ``given``: what it waits for since then.
    """

    __slots__ = ("about", "context", "ended", "given", "taken", "work")

    def __init__(self, ended: Ended) -> None:
        self.ended = ended
        self.about: object = None
        self.work: Work | None = None
        self.context = contextvars.Context()
        self.given: Any = None
        self.taken = False

    def send(self, value: Any) -> Any:
        if self.taken and self.work is not None:
            return self._go_on(self.work.send, value)
        self.taken = True
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
        return self._go_on(self.work.throw, *error)

    def _go_on(self, step: Callable[..., Any], *given: Any) -> Any:
        try:
            return self.context.run(step, *given)
        except StopIteration as end:
            self.context.run(self.ended, self.about, end.value, None)
        except BaseException as error:
            self.context.run(self.ended, self.about, None, error)
        raise StopIteration

    def close(self) -> None:
        if self.work is not None:
            self.work.close()

    def __await__(self) -> Any:
        raise TypeError("a task's own")

    def __getattr__(self, name: str) -> Any:  # for who prints a task: its code, frame and name
        return getattr(self.work, name)


class _Spawner:
    """Makes the tasks of one loop, in the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Ended) -> None:
        self._loop = loop
        self._ended = ended
        self._attributes = vars(loop)
        self._step: Callable[..., object] | None = None
        self._context: contextvars.Context | None = None
        self._task: asyncio.Task[None] | None = None
        self._steps = _Steps(ended)

    def spawn(self, work: Work, about: object, deadline: float) -> asyncio.Task[None] | None:
        loop = self._loop
        task = self._task
        if task is None:
            task = self._ahead()
        context = steps.copy_context()
        try:
            _enter_task(loop, task)
        except RuntimeError:  # within a task
            return loop.create_task(_whole(work, about, deadline, self._ended))
        try:
            over, given = self._begin(context, work, about, deadline)
        finally:
            _leave_task(loop, task)
        if over:
            if task.cancelling() or task._callbacks:
                return self._go_on(task)  # it is marked, and ends with this work
            return None
        rest = self._steps
        rest.work, rest.about, rest.context, rest.given = work, about, context, given
        return self._go_on(task)

    def _begin(
        self, context: contextvars.Context, work: Work, about: object, deadline: float
    ) -> tuple[bool, Any]:
        try:
            over, given = steps.first_step(context, work, HANDLING, deadline)
        except BaseException as error:
            context.run(self._ended, about, None, error)
            return True, None
        if over and type(given) is bytes:
            self._ended(about, given, None)
        elif over:  # what it returned may have code of its own
            context.run(self._ended, about, given, None)
        return over, given

    def _ahead(self) -> asyncio.Task[None]:
        """A task that has not begun. Nobody is to see it, or to wait for its end."""
        loop = self._loop
        self._steps = _Steps(self._ended)
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
