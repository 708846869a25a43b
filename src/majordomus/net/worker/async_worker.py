"""The asyncio worker: it serves on the running event loop. engine.py does the work."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from majordomus.net.worker.base import Shift, WorkerBase


class AsyncWorker(WorkerBase):
    """Serves on the running event loop: `await run()`, or `start` and `stop`, or `async with`."""

    _task: asyncio.Task[None] | None = None

    async def run(self, *, signals: bool = True) -> None:
        """Serves until `stop`, SIGINT or SIGTERM, then drains; a second signal ends at once.

        With `signals` false, or where this is not the main thread, signals are left alone.
        Cancelling it ends at once. Raises: ConfigurationError for a worker without a service.
        """
        await self._serve(self._begin(), signals)

    async def start(self) -> None:
        """Serves in a task of its own, without touching signals. Raises: ConfigurationError."""
        if self._task is None:
            work = self._serve(self._begin(), signals=False)
            self._task = asyncio.create_task(work, name="majordomus-worker")
            await asyncio.sleep(0)  # from here on `stop` has somebody to talk to

    async def stop(self, *, drain: bool = True) -> None:
        """Drains, unless told not to, and ends.

        May be repeated. Raises: what has ended the task before.
        """
        task, self._task = self._task, None
        if self._shift is not None:
            self._shift.stop(drain=drain)
        if task is not None:
            await task

    async def wait_ready(self, timeout: float = 5.0) -> None:
        """Until at least one broker has registered all services. Raises: TimeoutError."""
        async with asyncio.timeout(timeout):
            while not self.ready:
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

    async def _serve(self, shift: Shift, signals: bool) -> None:
        try:
            await shift.serve(signals=signals)
        finally:
            self._shift = None
