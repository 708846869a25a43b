"""The event loop of a test: it has a virtual clock, one thread and no descriptors.

When nothing is ready, the clock jumps to the next timer. So a test waits no real time, and the
order of its steps is always the same. `step_until` may be called by code that runs on the loop,
such as a `def` handler that calls another service: the loop then goes on inside of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import threading
import time
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Iterator
from math import inf
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

from majordomus.net.connection.inline import Beside
from majordomus.testing import clock

LONGEST_WORK: Final = 30.0
"""Real seconds that a thread of `asyncio.to_thread` may take."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class StuckError(RuntimeError):
    """The test waits for something that no timer and no message can cause."""


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. All methods but `call_soon_threadsafe` belong to one thread."""

    def __init__(self) -> None:
        super().__init__()
        self._now = time.monotonic()
        self._working = 0  # calls of `run_in_executor` that have not ended
        self._woken = threading.Event()
        self._beside: list[Beside] = []

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────

    def step_until(self, done: Callable[[], bool], deadline: float = inf) -> bool:
        """See `InlineLoop`. Raises: StuckError when nothing can happen any more."""
        with self._entered():
            while not done():
                if self._step(deadline):
                    continue
                if deadline == inf:
                    raise StuckError("the test waits for something that cannot happen")
                self._now = max(self._now, deadline)
                return False
        return True

    def run_until_complete(self, future: Any) -> Any:
        """Run the loop until `future` is done, and return its result."""
        task = asyncio.ensure_future(future, loop=self)
        self.step_until(task.done)
        return task.result()

    def run_coroutine(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine as a task, and return its result."""
        result: T = self.run_until_complete(coroutine)
        return result

    def settle(self) -> None:
        """Run what is ready, without a change of the time."""
        with self._entered():
            while self._step(self._now):
                pass

    def _step(self, limit: float) -> bool:
        """Run what is ready, or jump to the next timer that is due before `limit`.

        Returns False when there is neither.
        """
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        ready = self._ready  # type: ignore[attr-defined]
        while scheduled and (scheduled[0].cancelled() or scheduled[0].when() <= self._now):
            handle = heapq.heappop(scheduled)
            handle._scheduled = False  # type: ignore[attr-defined]
            if not handle.cancelled():
                ready.append(handle)
        for beside in [one for one in self._beside if one.may_run(self._now)]:
            self._run_step(beside)
            return True
        if ready:
            for _ in range(len(ready)):
                if ready:  # a nested step may have run some of them
                    handle = ready.popleft()
                    if not handle.cancelled():
                        handle._run()
            return True
        if self._working:
            self._woken.clear()
            if not ready and not self._woken.wait(LONGEST_WORK):
                raise StuckError(f"a thread has worked for more than {LONGEST_WORK:g} s")
            return True
        due = min((one.deadline for one in self._beside), default=inf)
        if scheduled:
            due = min(due, scheduled[0].when())
        if due > limit or due == inf:
            return False
        self._now = max(self._now, due)
        return True

    def run_beside(self, work: Callable[[], None]) -> None:
        """See `net.connection.inline.InlineLoop`."""

        def with_clock() -> None:
            clock.use_here(self.time)
            try:
                work()
            finally:
                clock.leave_here()

        self._beside.append(Beside(with_clock))

    def _run_step(self, beside: Beside) -> None:
        beside.step()
        if beside.over:
            self._beside.remove(beside)

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        """Make this the running loop; within a task, leave that task meanwhile."""
        outer = asyncio._get_running_loop()
        if outer is self:
            task = asyncio.current_task(self)
            if task is not None:
                _leave_task(self, task)
            try:
                yield
            finally:
                if task is not None:
                    _enter_task(self, task)
            return
        if outer is not None:
            raise RuntimeError("a TestBroker cannot be used while another event loop runs")
        self._thread_id = threading.get_ident()
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)
            self._thread_id = None  # type: ignore[assignment]

    # ── threads, descriptors ──────────────────────────────────────────────────────────────────────

    def _write_to_self(self) -> None:
        self._woken.set()

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run `func` in a thread. The virtual time stands still until it has ended."""
        self._working += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._worked)
        return future

    def _worked(self, _future: object) -> None:
        self._working -= 1

    def add_reader(self, fd: Any, callback: Callable[[Unpack[Ts]], Any], *args: *Ts) -> None:
        """Raises: NotImplementedError: there are no descriptors."""
        raise NotImplementedError("the event loop of a TestBroker has no sockets")

    def remove_reader(self, fd: Any) -> bool:
        """Return False: there are no descriptors."""
        return False

    def close(self) -> None:
        """Cancel what is left, and close the loop. May be repeated."""
        if self.is_closed():
            return
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(StuckError):
            self.step_until(lambda: all(task.done() for task in tasks))
        self.run_until_complete(self.shutdown_asyncgens())
        super().close()
