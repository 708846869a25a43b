"""The asyncio worker: it runs the engine on the running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from majordomus.net.worker.base import WorkerBase
from majordomus.net.worker.run import WorkerRun


class AsyncWorker(WorkerBase):
    """A worker that serves on the running event loop: `await run()`, `start` and `stop`, or
    `async with`."""

    _task: asyncio.Task[None] | None = None

    def run(self, *, signals: bool = True) -> Coroutine[Any, Any, None]:
        """Serve until `stop`, SIGINT or SIGTERM, then drain; a second signal ends at once.

        The run begins with the call, so that a `stop` before its first step has an effect. With
        `signals` false, or outside of the main thread, signals are left alone. Cancelling this
        ends at once, without draining. Raises: ConfigurationError for a worker without a service;
        LocalProtocolError when it is already running; what ended the engine.
        """
        run = self._new_run()
        serving = self._serve(run, signals)
        run.made_for(serving)
        return serving

    async def start(self) -> None:
        """Serve in a task of the worker's own; signals are left alone. May be repeated.

        Raises: ConfigurationError.
        """
        if self._task is None:
            serving = self._serve(self._new_run(), signals=False)
            self._task = asyncio.create_task(serving, name="majordomus-worker")
            await asyncio.sleep(0)  # the task has begun: `stop` has an effect from here on

    async def stop(self, *, drain: bool = True) -> None:
        """Stop serving: drain, unless `drain` is false, and wait until the worker's task has ended.

        May be repeated. Raises: the error that has ended the task before.
        """
        task, self._task = self._task, None
        if self._active is not None:
            self._active.stop(drain=drain)
        if task is not None:
            await task

    async def wait_ready(self, timeout: float = 5.0) -> None:
        """Wait until at least one broker has registered all services, `timeout` seconds at most.

        Within the same time wait until the handler processes have loaded the handlers. Later ones
        are no error: their requests wait for them.

        Raises: TimeoutError; a StatusError as soon as every broker has refused a service. The
        others are served, and the refused one is tried again.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        async with asyncio.timeout_at(deadline):
            while not self.ready:
                self._check_refused()
                await asyncio.sleep(0.005)
        while not self._processes_started and loop.time() < deadline:
            await asyncio.sleep(0.005)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop(drain=error is None)

    async def _serve(self, run: WorkerRun, signals: bool) -> None:
        try:
            await run.serve(signals=signals)
        finally:
            self._active = None
