"""What a task waits for while a call is open, and how the tasks of one turn of the loop wake.

A `Waiter` has those parts of an `asyncio.Future` that a task uses: "a Future-compatible object"
(the documentation of Extending asyncio). A future would ask its loop for a callback of its own, and
a call costs more for that than for anything else (docs/adr/0016-the-path-of-a-call.md). All tasks
whose answers came in one batch are woken by one callback of the loop, in the order of the answers,
each in its own context. The types are in waiter.pxd.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from typing import Any, Self


class Wakeups:
    """The tasks that one callback of a loop wakes.

    over: a future that is done. A task whose wait has ended well is woken with this one: it reads
        the result of a future of asyncio's own without a look-up.
    _due: waiters that are done and whose task has not run since.
    """

    __slots__ = ("_due", "_loop", "over")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[Waiter] = []
        self.over: asyncio.Future[None] = loop.create_future()
        self.over.set_result(None)

    def waiter(self) -> Waiter:
        """Make a waiter for a task of the loop."""
        made = Waiter.__new__(Waiter)
        made.fill(self, self._loop)
        return made

    def add(self, waiter: Waiter) -> None:
        """Wake the task of `waiter` in the next turn of the loop."""
        if not self._due:
            self._loop.call_soon(self.run)
        self._due.append(waiter)

    def run(self) -> None:
        """Wake the tasks. Raises: what a task may raise into its loop (SystemExit and
        KeyboardInterrupt); the others are woken in the next turn then."""
        due, self._due = self._due, []
        due.reverse()
        try:
            self.wake(due)
        finally:
            if due:
                if not self._due:
                    self._loop.call_soon(self.run)
                self._due[:0] = reversed(due)

    def wake(self, due: list[Waiter]) -> None:
        """Wake the tasks of `due` from its end, and remove each before. Raises: as `run`."""
        while due:
            waiter = due.pop()
            waiter.wake()


class Waiter:
    """What one task waits for. All methods are called in the loop's thread.

    _asyncio_future_blocking: set while the task begins to wait, by asyncio's protocol.
    _loop: the task's loop.
    _wakeups: that of the loop.
    _done: `complete` or `cancel` was called.
    _cancelled: it was `cancel`. _message: with this message.
    _callback, _context: what wakes the task, and the context to do that in; None before the task
        waits, and after it was woken.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_callback",
        "_cancelled",
        "_context",
        "_done",
        "_loop",
        "_message",
        "_wakeups",
    )

    def fill(self, wakeups: Wakeups, loop: asyncio.AbstractEventLoop) -> None:
        """Set every field of a new waiter."""
        self._asyncio_future_blocking = False
        self._wakeups = wakeups
        self._loop = loop
        self._done = self._cancelled = False
        self._message: object = None
        self._callback: Callable[[Any], object] | None = None
        self._context: Context | None = None

    def complete(self) -> None:
        """Wake the task in the next turn of the loop. Only the first call, of this and `cancel`,
        has an effect."""
        if not self._done:
            self._done = True
            if self._callback is not None:
                self._wakeups.add(self)

    def cancel(self, msg: object = None) -> bool:
        """End the wait with a CancelledError. Return whether it has not ended before."""
        if self._done:
            return False
        self._cancelled = True
        self._message = msg
        self.complete()
        return True

    def wake(self) -> None:
        """Run the callback. Only the first call has an effect."""
        callback, context = self._callback, self._context
        self._callback = self._context = None
        if callback is not None and context is not None:
            context.run(callback, self if self._cancelled else self._wakeups.over)

    def done(self) -> bool:
        """Return whether the wait is over."""
        return self._done

    def cancelled(self) -> bool:
        """Return whether the wait was cancelled."""
        return self._cancelled

    def result(self) -> None:
        """Raises: CancelledError after `cancel`; InvalidStateError before the end of the wait."""
        if self._cancelled:
            if self._message is None:
                raise asyncio.CancelledError
            raise asyncio.CancelledError(self._message)
        if not self._done:
            raise asyncio.InvalidStateError("the wait is not over")

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: Context | None = None
    ) -> None:
        """Call `callback` at the end of the wait: the task's own, and there is no other."""
        self._callback = callback
        self._context = copy_context() if context is None else context
        if self._done:
            self._wakeups.add(self)

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Remove the callback. Return how many were removed."""
        if self._callback is None or self._callback != callback:
            return 0
        self._callback = self._context = None
        return 1

    def __await__(self) -> Generator[Any, None, None]:
        return self  # type: ignore[return-value]  # an iterator is all that `await` needs

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Self:
        """Yield this object to the task, once; end when the wait is over."""
        if not self._done:
            self._asyncio_future_blocking = True
            return self
        self.result()
        raise StopIteration
