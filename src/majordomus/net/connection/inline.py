"""Event loops on which everything runs in one thread: those of `majordomus.testing`.

Such a loop has a virtual clock and a method `step_until`: code that would block its thread runs the
loop instead, until it may go on. `def` handlers run on the loop itself. One that reads a client's
stream has a thread of its own, which runs only while the loop waits for it. Elsewhere nothing here
has an effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class InlineLoop(Protocol):
    """An event loop that one thread runs step by step."""

    def run_beside(self, work: Callable[[], None]) -> None:
        """Run a function in a thread that takes turns with the loop."""

    def step_until(self, done: Callable[[], bool], deadline: float = inf) -> bool:
        """Run the loop until `done` returns True, or the virtual time is `deadline`.

        Returns whether `done` has returned True. May be called by code that runs on the loop.
        """


_own = threading.local()


class Beside:
    """A function in a thread of its own that takes turns with the loop: one of both runs.

    over: whether it has returned.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self.over = False
        self._work = work
        self._waits: tuple[Callable[[], bool], float] = (lambda: True, inf)
        self._turn, self._loop_turn = threading.Event(), threading.Event()
        threading.Thread(target=self._run, name="majordomus-beside", daemon=True).start()

    @property
    def deadline(self) -> float:
        """The virtual time at which it goes on in any case."""
        return self._waits[1]

    def may_run(self, now: float) -> bool:
        """Whether what it waits for has happened."""
        return now >= self._waits[1] or self._waits[0]()

    def step(self) -> None:
        """Let it run until it waits or has returned. For the loop's thread."""
        self._turn.set()
        self._loop_turn.wait()
        self._loop_turn.clear()

    def wait_until(self, done: Callable[[], bool], deadline: float) -> None:
        """Let the loop run until `done`, or until the virtual time is `deadline`."""
        self._waits = done, deadline
        self._loop_turn.set()
        self._turn.wait()
        self._turn.clear()

    def _run(self) -> None:
        self._turn.wait()
        self._turn.clear()
        _own.beside = self
        try:
            self._work()
        finally:
            self.over = True
            self._loop_turn.set()


def is_inline(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether `loop` is one of `majordomus.testing`."""
    return hasattr(type(loop), "step_until")


def step_until(done: Callable[[], bool], deadline: float = inf) -> bool:
    """Run the loop of this thread until `done`, as `InlineLoop.step_until`.

    Returns False at once where the running loop is no `InlineLoop`: the caller has to block.
    """
    beside: Beside | None = getattr(_own, "beside", None)
    if beside is not None:
        beside.wait_until(done, deadline)
        return True
    loop = asyncio._get_running_loop()
    if loop is None or not is_inline(loop) or not isinstance(loop, InlineLoop):
        return False
    loop.step_until(done, deadline)
    return True


class InlinePool:
    """Runs functions on the loop, one after the other, in place of a `ThreadPool`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` in a later step of the loop."""
        self._loop.call_soon(work)

    def submit_beside(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread that takes turns with the loop."""
        if isinstance(self._loop, InlineLoop):
            self._loop.run_beside(work)

    def resize(self, size: int) -> None:
        """Do nothing: there are no threads."""

    def close(self, wait: float) -> None:
        """Do nothing: there are no threads."""


def as_async(generator: Callable[[Any], Any]) -> Callable[[Any], AsyncIterator[Any]]:
    """Return an async generator function with the parts of a plain one."""

    @functools.wraps(generator)
    async def parts(request: Any) -> AsyncIterator[Any]:
        with contextlib.closing(generator(request)) as found:
            for part in found:
                yield part

    return parts
