"""Threads for `def` handlers: made when they are needed, daemons, so that a handler that hangs
cannot hold the process. There are never more than `size`, which may change at any time.

(`concurrent.futures` joins its threads when the interpreter ends, and cannot be resized.)
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable


class ThreadPool:
    """At most `size` threads. From any thread."""

    def __init__(self, size: int, name: str = "majordomus-handler") -> None:
        self.size = size
        self._name = name
        self._work: deque[Callable[[], None]] = deque()
        self._change = threading.Condition(threading.Lock())
        self._waiting = 0
        self._closed = False
        self._threads: set[threading.Thread] = set()
        self._made = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Runs `work` in one of the threads, later when all are busy. It must not raise."""
        with self._change:
            self._work.append(work)
            self._get_hands()

    def resize(self, size: int) -> None:
        """More threads begin with what waits already; fewer, as those that are too many get done
        with what they are at.
        """
        with self._change:
            self.size = size
            self._get_hands()
            self._change.notify_all()

    def close(self, wait: float) -> None:
        """Ends the threads when they have nothing left to do; waits for them `wait` seconds at most
        in all.
        """
        with self._change:
            self._closed = True
            self._change.notify_all()
            threads = list(self._threads)
        until = time.monotonic() + wait
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _get_hands(self) -> None:
        """With the lock held: wakes or makes threads for what waits."""
        while len(self._work) > self._waiting and len(self._threads) < self.size:
            name = f"{self._name}-{self._made}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more: those that are there will do it
                if not self._threads:
                    raise
                break
            self._made += 1
            self._waiting += 1  # it will look at the work before it waits for any
            self._threads.add(thread)
        if self._work:
            self._change.notify(len(self._work))

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._work and not self._closed and len(self._threads) <= self.size:
                    self._change.wait()
                self._waiting -= 1
                if not self._work or len(self._threads) > self.size:
                    self._threads.discard(threading.current_thread())
                    return
                work = self._work.popleft()
            work()
            with self._change:
                self._waiting += 1
