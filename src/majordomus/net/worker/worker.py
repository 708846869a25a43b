"""The sync worker: the engine on an event loop of its own, in this thread or in another."""

from __future__ import annotations

import asyncio
import threading
import time
from types import TracebackType
from typing import Self

from majordomus.net.worker.base import Shift, WorkerBase


class Worker(WorkerBase):
    """Serves in the caller's thread (`run`) or in one of its own (`start`, `with`).

    Handlers made with `def` run in threads, those made with `async def` on the worker's own event
    loop.
    """

    _thread: threading.Thread | None = None
    _failure: BaseException | None = None

    def run(self) -> None:
        """Serves until `stop`, SIGINT or SIGTERM, then drains; a second signal ends at once.

        Signals are handled only in the main thread. Raises: ConfigurationError for a worker without
        a service.
        """
        shift = self._begin()
        try:
            asyncio.run(shift.serve(signals=True))
        finally:
            self._shift = None

    def start(self) -> None:
        """Serves in a thread of its own.

        Returns when it has begun to connect. Raises: ConfigurationError.
        """
        if self._thread is not None:
            return
        begun = threading.Event()
        self._failure = None
        self._thread = threading.Thread(
            target=self._in_thread,
            args=(self._begin(), begun),
            name="majordomus-worker",
            daemon=True,
        )
        self._thread.start()
        begun.wait()

    def stop(self, *, drain: bool = True) -> None:
        """Drains, unless told not to, and ends.

        From any thread; may be repeated. Does not wait for a `run` elsewhere.

        Raises: what has ended the thread before.
        """
        shift, thread = self._shift, self._thread
        if shift is not None:
            shift.stop(drain=drain)
        if thread is not None:
            thread.join()
            self._thread = None
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure

    def wait_ready(self, timeout: float = 5.0) -> None:
        """Until at least one broker has registered all services. Raises: TimeoutError."""
        until = time.monotonic() + timeout
        while not self.ready:
            if time.monotonic() > until:
                raise TimeoutError(f"no broker has registered this worker within {timeout:g} s")
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

    def _in_thread(self, shift: Shift, begun: threading.Event) -> None:
        try:
            asyncio.run(shift.serve(signals=False, begun=begun.set))
        except BaseException as error:
            self._failure = error
        finally:
            self._shift = None
            begun.set()
