"""One run of a worker's engine: it starts, serves until it is asked to stop, drains and closes.

Signals are handled here, and calls from other threads are passed to the loop here. What the engine
does meanwhile is in engine.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import signal
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from majordomus.errors import StatusError
from majordomus.net.worker.broker_log import lines_on_stderr
from majordomus.net.worker.declare.lifespan import Lifespan
from majordomus.net.worker.engine import EngineSettings, WorkerEngine, WorkerUsage
from majordomus.net.worker.events import EngineEvents
from majordomus.net.worker.handlers import Handler

logger = logging.getLogger("majordomus.worker")


class WorkerRun:
    """One run of the engine, until `stop`.

    `serve` is for the loop. Everything else may be called from any thread, and does nothing after
    `serve` has ended. Before it has begun, `stop` is kept for it, and the rest does nothing.

    owns_loop: whether the event loop is the worker's own. A cancellation of the task that serves
        then comes from a handler that cancels all tasks of the loop, and ends nothing.
    """

    owns_loop = False

    def __init__(
        self,
        settings: EngineSettings,
        handlers: dict[str, Handler],
        drain_timeout: float,
        lifespan: Lifespan,
    ) -> None:
        self._settings, self._handlers = settings, handlers
        self._drain_timeout = drain_timeout
        self._lifespan = lifespan
        self._stop_requested, self._abort_requested = asyncio.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: WorkerEngine | None = None
        self._failure: Exception | None = None
        self._coroutine: weakref.ref[Coroutine[Any, Any, None]] | None = None

    @property
    def refusal(self) -> StatusError | None:
        """Why every broker has refused a service; None when one may still register all."""
        return None if self._engine is None else self._engine.refusal

    def made_for(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Note the coroutine that is to call `serve`."""
        self._coroutine = weakref.ref(coroutine)

    @property
    def dropped(self) -> bool:
        """Whether its coroutine was dropped or cancelled before it began: `serve` is never
        called."""
        if self._loop is not None or self._coroutine is None:
            return False
        coroutine = self._coroutine()
        return coroutine is None or inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED

    @property
    def usage(self) -> WorkerUsage | None:
        """What the engine uses now; None while it does not run."""
        engine = self._engine
        return None if engine is None else engine.usage

    @property
    def ready(self) -> bool:
        """Whether at least one broker has registered all services."""
        return self._engine is not None and self._engine.ready

    @property
    def processes_started(self) -> bool:
        """Whether the handler processes, if there are any, have loaded the handlers."""
        return self._engine is not None and self._engine.processes_started

    async def serve(self, *, signals: bool, started: Callable[[], object] | None = None) -> None:
        """Serve from the first connection to the last FINAL. Cancelling this ends it without
        draining.

        `started` is called as soon as the other methods have an effect. With `signals`, SIGINT,
        SIGTERM and SIGHUP are handled, and the worker's log goes to stderr if the program has set
        up no logging. Raises: the failure of a connection or of the handler processes.
        """
        loop = self._loop = asyncio.get_running_loop()
        engine = self._engine = WorkerEngine(self._settings, self._handlers, loop, self._fail)
        if started is not None:
            started()
        with contextlib.ExitStack() as stack:
            if signals:
                stack.enter_context(lines_on_stderr())
                stack.enter_context(self._signals(loop))
            try:
                await self._lifespan.start()
                engine.open()
                await self._until_stop()
                await _first_of(engine.drain(), self._abort_requested.wait(), self._drain_timeout)
            finally:
                self._engine = self._loop = None
                await engine.close()
                await self._lifespan.stop()
        if self._failure is not None:
            raise self._failure

    async def _until_stop(self) -> None:
        """Wait for `stop`."""
        while True:
            try:
                await self._stop_requested.wait()
            except asyncio.CancelledError:
                if not self.owns_loop:
                    logger.warning("the worker ends without draining: its task was cancelled")
                    raise
                task = asyncio.current_task()
                if task is not None:
                    task.uncancel()
                logger.warning("the tasks of this worker's event loop were cancelled; it goes on")
            else:
                return

    def add(self, name: str, handler: Handler) -> None:
        """Serve one more service."""
        loop, engine = self._loop, self._engine
        if loop is not None and engine is not None:
            loop.call_soon_threadsafe(engine.add, name, handler)

    def resize(self, threads: int | None, processes: int | None) -> None:
        """Change the sizes of the pools; None leaves one as it is."""
        loop, engine = self._loop, self._engine
        if loop is not None and engine is not None:
            loop.call_soon_threadsafe(engine.resize, threads, processes)

    def set_capacity(self, capacity: int | None) -> None:
        """Change the capacity; None is what the pools allow."""
        loop, engine = self._loop, self._engine
        if loop is not None and engine is not None:
            loop.call_soon_threadsafe(engine.set_capacity, capacity)

    def with_events(self, action: Callable[[EngineEvents], object]) -> None:
        """Call `action` with the engine's events, on the loop."""
        loop, engine = self._loop, self._engine
        if loop is not None and engine is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(action, engine.events)

    def stop(self, *, drain: bool) -> None:
        """Ask the run to drain, or to end at once. One that has not begun ends when it begins."""
        if self._loop is None:
            self._stop(drain)
        loop = self._loop  # read again: `serve` may have begun meanwhile
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(self._stop, drain)

    def _stop(self, drain: bool) -> None:
        self._stop_requested.set()
        if not drain:
            self._abort_requested.set()

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._stop(drain=False)

    def _signal_received(self) -> None:
        logger.info("the worker %s", "ends" if self._stop_requested.is_set() else "drains")
        self._stop(drain=not self._stop_requested.is_set())

    @contextlib.contextmanager
    def _signals(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP: the first drains, the second ends at once.

        Signals are left alone outside of the main thread and on a loop that cannot handle them;
        SIGHUP also where the program ignores or handles it.
        """
        numbers = [signal.SIGINT, signal.SIGTERM]
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None and signal.getsignal(hangup) is signal.SIG_DFL:
            numbers.append(hangup)
        handled: list[signal.Signals] = []
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            for number in numbers:
                loop.add_signal_handler(number, self._signal_received)
                handled.append(number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)


async def _first_of(work: Awaitable[object], abort: Awaitable[object], timeout: float) -> None:
    """Wait until one of both is done or `timeout` seconds have passed, and cancel the rest."""
    tasks = [asyncio.ensure_future(one) for one in (work, abort)]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
