"""Threads for `def` handlers: made when they are needed, daemons, so that a handler that hangs
cannot hold the process.

(`concurrent.futures` joins its threads when the interpreter ends.)
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Pool:
    """At most `size` threads. `submit` is for one thread at a time."""

    def __init__(self, size: int, name: str = "majordomus-handler") -> None:
        self.size = size
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)  # threads that wait, less work that is queued for them
        self._threads: list[threading.Thread] = []

    def submit(self, work: Callable[[], None]) -> None:
        """Runs `work` in one of the threads, later when all are busy. It must not raise."""
        self._work.put(work)
        if not self._idle.acquire(blocking=False) and len(self._threads) < self.size:
            name = f"{self._name}-{len(self._threads)}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more: those that are there will do it
                if not self._threads:
                    raise
                return
            self._threads.append(thread)

    def close(self, wait: float) -> None:
        """Ends the threads when they have nothing left to do; waits for them `wait` seconds at most
        in all.
        """
        for _ in self._threads:
            self._work.put(None)
        share = wait / max(1, len(self._threads))
        for thread in self._threads:
            thread.join(share)

    def _run(self) -> None:
        while True:
            work = self._work.get()
            if work is None:
                return
            work()
            self._idle.release()
