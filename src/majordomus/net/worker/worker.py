"""The sync worker: it runs the engine on an event loop of its own, in the caller's thread or in
another one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from majordomus import system
from majordomus.net.worker.base import WorkerBase
from majordomus.net.worker.outcomes import log_failure
from majordomus.net.worker.run import WorkerRun


class Worker(WorkerBase):
    """A worker that serves in the caller's thread (`run`) or in its own (`start`, `with`).

    Handlers made with `def` run in threads, those made with `async def` on the worker's own event
    loop.
    """

    _thread: threading.Thread | None = None
    _failure: BaseException | None = None

    def run(self) -> None:
        """Serve until `stop`, SIGINT or SIGTERM, then drain; a second signal ends at once.

        Signals are handled only in the main thread. Raises: ConfigurationError for a worker without
        a service; LocalProtocolError when it is already running; what ended the engine.
        """
        run = self._new_run()
        try:
            _run(run, run.serve(signals=True))
        finally:
            self._active = None

    def start(self) -> None:
        """Serve in a thread of the worker's own. May be repeated.

        Return when the engine has started; use `wait_ready` to wait for brokers.
        Raises: ConfigurationError.
        """
        if self._thread is not None:
            return
        started = threading.Event()
        self._failure = None
        self._thread = threading.Thread(
            target=self._in_thread,
            args=(self._new_run(), started),
            name="majordomus-worker",
            daemon=True,
        )
        self._thread.start()
        started.wait()

    def stop(self, *, drain: bool = True) -> None:
        """Stop serving: drain, unless `drain` is false, and wait until the worker's thread ends.

        From any thread; may be repeated. A `run` in another thread is asked to stop, but not waited
        for. Raises: the error that has ended the thread before.
        """
        run, thread = self._active, self._thread
        if run is not None:
            run.stop(drain=drain)
        if thread is not None:
            thread.join()
            self._thread = None
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure

    def wait_ready(self, timeout: float = 5.0) -> None:
        """Wait until at least one broker has registered all services, `timeout` seconds at most.

        Within the same time wait until the handler processes have loaded the handlers. Later ones
        are no error: their requests wait for them.

        Raises: TimeoutError; a StatusError as soon as every broker has refused a service. The
        others are served, and the refused one is tried again. What has ended the worker's thread.
        """
        deadline = time.monotonic() + timeout
        while not self.ready:
            self._check_refused()
            if self._failure is not None:
                raise self._failure
            if time.monotonic() > deadline:
                raise TimeoutError(f"no broker has registered this worker within {timeout:g} s")
            time.sleep(0.005)
        while not self._processes_started and time.monotonic() < deadline:
            if self._failure is not None:
                raise self._failure
            time.sleep(0.005)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop(drain=error is None)

    def _in_thread(self, run: WorkerRun, started: threading.Event) -> None:
        try:
            _run(run, run.serve(signals=False, started=started.set))
        except BaseException as error:
            self._failure = error
        finally:
            self._active = None
            started.set()


def _run(run: WorkerRun, serving: Coroutine[Any, Any, None]) -> None:
    """Run a worker on an event loop of its own, as `asyncio.run` does.

    A handler's own tasks and callbacks may raise SystemExit or KeyboardInterrupt, which ends the
    turn of the loop. It concerns only what has raised it, as if the handler had raised it: the loop
    goes on. In the main thread a KeyboardInterrupt may be Ctrl-C, and ends the worker.
    """
    with asyncio.Runner(loop_factory=system.LOOP_FACTORY) as runner:
        loop = runner.get_loop()
        task = loop.create_task(serving)
        run.owns_loop = True
        try:
            while True:
                try:
                    loop.run_until_complete(task)
                except (SystemExit, KeyboardInterrupt) as error:
                    main = threading.current_thread() is threading.main_thread()
                    if task.done() or (main and isinstance(error, KeyboardInterrupt)):
                        raise
                    message = "a task or callback of the handlers of %s failed"
                    log_failure(message, "this worker", error)
                else:
                    return
        finally:
            run.owns_loop = False  # the runner cancels what is left
