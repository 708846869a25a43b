"""Tasks whose first step runs at once: a handler that never waits costs no turn of the loop.

Python 3.12 has eager tasks of its own. For Python 3.11 this module makes them, with private names
of asyncio; docs/adr/0012-eager-tasks.md has the reasons and the measurements.

How it works: a task asks its loop for its first step with `call_soon`. `_EagerSpawner` replaces
`call_soon` for this one call, and so holds a task that has not begun. A coroutine takes its first
step as that task. If it ends with this step, the task is kept for the next coroutine, which saves
most of what a short one costs. If it waits, the task continues as an ordinary one. Each coroutine
has its own context. The current task and cancellation are as with any task.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from asyncio.tasks import _register_task, _unregister_task
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeAlias

from majordomus.net.deadline import HANDLING
from majordomus.net.worker import eager_steps as steps

Work: TypeAlias = Coroutine[Any, Any, Any]
Ended: TypeAlias = Callable[[Any, Any, BaseException | None], object]
"""Called when work has ended, with its subject, what it returned, and what it raised."""


_FAILED: Final = True, None
"""The first step of work that has raised."""


class Spawner(Protocol):
    """Makes the tasks of one loop."""

    def spawn(self, work: Work, subject: object, deadline: float) -> asyncio.Task[None] | None:
        """Take the first step of `work`, which has until `deadline` (deadline.py).

        When the work has ended, with this step or a later one, `ended` is called with `subject`;
        in the work's context, if code of the handler may run there. Return the task, or None for
        work that has ended already.
        """
        ...


def spawner(loop: asyncio.AbstractEventLoop, ended: Ended) -> Spawner:
    """Make the spawner of a loop, for callbacks of that loop.

    Before Python 3.12 there are two cases in which the first step comes in the loop's next turn:
    within a task, and on a loop whose `call_soon` cannot be replaced.
    """
    if sys.version_info >= (3, 12):
        return TaskSpawner(loop, ended, eager_start=True)
    try:
        loop.call_soon = loop.call_soon  # type: ignore[method-assign]
        del loop.call_soon
    except AttributeError:
        return TaskSpawner(loop, ended)
    return _EagerSpawner(loop, ended)


def _wrapped(work: Work, subject: object, deadline: float, ended: Ended) -> Work:
    """Wrap all of `work` for a task, under the work's name."""
    wrapped = _run_whole(work, subject, deadline, ended)
    wrapped.__qualname__ = getattr(work, "__qualname__", "work")  # type: ignore[attr-defined]
    return wrapped


async def _run_whole(work: Work, subject: object, deadline: float, ended: Ended) -> None:
    HANDLING.set(deadline)
    try:
        result = await work
    except BaseException as error:
        ended(subject, None, error)
    else:
        ended(subject, result, None)


class TaskSpawner:
    """Makes an ordinary task of asyncio for each coroutine."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Ended, **options: Any) -> None:
        self._loop, self._ended, self._options = loop, ended, options

    def spawn(self, work: Work, subject: object, deadline: float) -> asyncio.Task[None] | None:
        wrapped = _wrapped(work, subject, deadline, self._ended)
        task = asyncio.Task(wrapped, loop=self._loop, **self._options)
        done = task.done() and not task.cancelled() and task.exception() is None
        return None if done else task


class _Continuation(Coroutine[Any, Any, None]):
    """The coroutine of a prepared task: the rest of a `work` whose first step has been taken.

    work: None as long as the task is kept for work to come
    subject: what `ended` is called with
    context: the context of the work
    yielded: what the work has waited for since its first step
    started: whether the task has asked for its first step
    """

    __slots__ = ("context", "ended", "started", "subject", "work", "yielded")

    def __init__(self, ended: Ended) -> None:
        self.ended = ended
        self.subject: object = None
        self.work: Work | None = None
        self.context = contextvars.Context()
        self.yielded: Any = None
        self.started = False

    def send(self, value: Any) -> Any:
        if self.started and self.work is not None:
            return self._step(self.work.send, value)
        self.started = True
        if self.work is None:
            raise StopIteration
        yielded, self.yielded = self.yielded, None
        return yielded

    def throw(self, *error: Any) -> Any:
        yielded, self.yielded = self.yielded, None
        self.started = True
        if yielded is not None:  # cancelled before the task has begun to wait for it
            yielded._asyncio_future_blocking = False
            yielded.cancel()
        if self.work is None:
            raise error[0]
        return self._step(self.work.throw, *error)

    def _step(self, step: Callable[..., object], *arguments: Any) -> Any:
        try:
            return self.context.run(step, *arguments)
        except StopIteration as end:
            self.context.run(self.ended, self.subject, end.value, None)
        except BaseException as error:
            self.context.run(self.ended, self.subject, None, error)
        raise StopIteration

    def close(self) -> None:
        if self.work is not None:
            self.work.close()

    def __await__(self) -> Any:
        raise TypeError("only its task may run this coroutine")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.work, name)  # a task's repr reads code, frame and name


class _EagerSpawner:
    """Makes eager tasks for one loop of Python 3.11, in the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Ended) -> None:
        self._loop = loop
        self._ended = ended
        self._attributes = vars(loop)
        # What asyncio's `_enter_task` and `_leave_task` change: by loop, the task that runs.
        self._current_tasks: dict[Any, Any] = asyncio.tasks._current_tasks  # type: ignore[attr-defined]
        self._task: asyncio.Task[None] | None = None  # prepared, for the next work
        self._continuation: _Continuation  # its coroutine
        self._step: Callable[..., object] | None = None  # its first step, as given to call_soon
        self._context: contextvars.Context | None = None  # and the context of that

    def spawn(self, work: Work, subject: object, deadline: float) -> asyncio.Task[None] | None:
        loop = self._loop
        task = self._task
        if task is None:
            task = self._prepare_task()
        context = steps.copy_context()
        references = steps.references(task)
        current = self._current_tasks
        if loop in current:  # within a task
            return loop.create_task(_wrapped(work, subject, deadline, self._ended))
        current[loop] = task
        try:
            over, yielded = self._first_step(context, work, subject, deadline)
        finally:
            del current[loop]
        if over:
            if task.cancelling() or task._callbacks or steps.references(task) != references:
                # The work has changed the task, or something still refers to it and may cancel it
                # later: it cannot serve other work any more.
                return self._release_task(task)
            return None
        rest = self._continuation
        rest.work, rest.subject, rest.context, rest.yielded = work, subject, context, yielded
        return self._release_task(task)

    def _first_step(
        self, context: contextvars.Context, work: Work, subject: object, deadline: float
    ) -> tuple[bool, Any]:
        """Return whether the work has ended, and what it returned or waits for."""
        try:
            step = steps.first_step(context, work, HANDLING, deadline)
        except BaseException as error:
            context.run(self._ended, subject, None, error)
            return _FAILED
        over, given = step
        if over and type(given) is bytes:
            self._ended(subject, given, None)
        elif over:  # turning the result into frames may run code of the handler's author
            context.run(self._ended, subject, given, None)
        return step

    def _prepare_task(self) -> asyncio.Task[None]:
        """Make a task that has not begun. It is not registered: `asyncio.all_tasks` must not show
        it, and nothing may wait for its end."""
        loop = self._loop
        self._continuation = _Continuation(self._ended)
        self._attributes["call_soon"] = self._capture_step
        try:
            task = self._task = asyncio.Task(self._continuation, loop=loop)
        finally:
            del self._attributes["call_soon"]
        _unregister_task(task)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        return task

    def _release_task(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        """Let the prepared task go on as an ordinary one."""
        step, context = self._step, self._context
        self._task = self._step = self._context = None
        _register_task(task)
        task._log_destroy_pending = True  # type: ignore[attr-defined]
        if step is not None and context is not None:
            context.run(step)
        return task

    def _capture_step(self, step: Callable[..., object], context: contextvars.Context) -> None:
        self._step, self._context = step, context
