"""Threads for `def` handlers: at most `size`, started when they are needed.

They are daemons, so that a handler that hangs cannot keep the process alive. `concurrent.futures`
is not used because it joins its threads when the interpreter ends, and cannot be resized.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

logger = logging.getLogger("majordomus.worker")


class PoolUsage(NamedTuple):
    """How much of a pool is in use.

    size: how many threads or processes there may be. busy: how many have work. waiting: how much
    work waits for one.
    """

    size: int
    busy: int
    waiting: int


class ThreadPool:
    """Runs functions in at most `size` threads. For any thread.

    size: threads that there may be; `resize` changes it
    """

    def __init__(self, size: int, name: str = "majordomus-handler") -> None:
        self.size = size
        self._name = name
        self._work: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._available = 0  # threads that wait for work or look for it next
        self._closed = False
        self._threads: set[threading.Thread] = set()
        self._started = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` in one of the threads; it waits while all are busy. It must not raise.

        Raises: RuntimeError when there is no thread and none can be started; `work` is dropped.
        """
        with self._changed:
            self._work.append(work)
            try:
                self._wake_or_start()
            except RuntimeError:
                self._work.pop()
                raise

    @property
    def usage(self) -> PoolUsage:
        """How much of it is in use now."""
        with self._changed:
            return PoolUsage(self.size, len(self._threads) - self._available, len(self._work))

    def resize(self, size: int) -> None:
        """Change the number of threads. New ones start with the waiting work; surplus ones end
        when their present work is done.
        """
        with self._changed:
            self.size = size
            self._wake_or_start()
            self._changed.notify_all()

    def close(self, wait: float) -> None:
        """End the threads when no work is left. Wait for them, `wait` seconds at most in all."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            threads = list(self._threads)
        deadline = time.monotonic() + wait
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _wake_or_start(self) -> None:
        """Wake or start threads for the waiting work. The caller holds the lock."""
        while len(self._work) > self._available and len(self._threads) < self.size:
            name = f"{self._name}-{self._started}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads can be started: the others do the work
                if not self._threads:
                    raise
                break
            self._started += 1
            self._available += 1  # it takes work before it waits
            self._threads.add(thread)
        if self._work:
            self._changed.notify(len(self._work))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._work and not self._closed and len(self._threads) <= self.size:
                    self._changed.wait()
                self._available -= 1
                if not self._work or len(self._threads) > self.size:
                    self._threads.discard(threading.current_thread())
                    return
                work = self._work.popleft()
            try:
                work()
            except BaseException:  # the thread goes on: a pool that loses threads ends unnoticed
                logger.critical("the work of a thread raised; please report this", exc_info=True)
            del work  # what it refers to must not wait for the next work
            with self._changed:
                self._available += 1
