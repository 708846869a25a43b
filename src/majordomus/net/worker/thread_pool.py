"""Threads for `def` handlers: at most `size`, started when they are needed.

They are daemons, so that a handler that hangs cannot keep the process alive. `concurrent.futures`
is not used because it joins its threads when the interpreter ends, and cannot be resized.

One thread is woken at a time: it takes work, and wakes the next one if more is left. While it runs
work that does not wait, it holds the interpreter's lock, and the next thread cannot begin. So one
thread does a batch of short work, in place of as many threads as there is work, each of which would
take the lock from another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
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
        self._lock = threading.Lock()
        self._wakes: SimpleQueue[None] = SimpleQueue()  # each item ends the sleep of one thread
        self._asleep = 0  # threads that sleep, and for which there is no item
        self._waking = False  # a thread was woken or started, and has not looked for work since
        self._available = 0  # threads that sleep, or look for work next
        self._closed = False
        self._threads: set[threading.Thread] = set()
        self._started = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` in one of the threads; it waits while all are busy. It must not raise.

        Raises: RuntimeError when there is no thread and none can be started; `work` is dropped.
        """
        with self._lock:
            self._work.append(work)
            if not self._waking:
                try:
                    self._wake_or_start()
                except RuntimeError:
                    self._work.pop()
                    raise

    @property
    def usage(self) -> PoolUsage:
        """How much of it is in use now."""
        with self._lock:
            return PoolUsage(self.size, len(self._threads) - self._available, len(self._work))

    def resize(self, size: int) -> None:
        """Change the number of threads. New ones start with the waiting work; surplus ones end
        when their present work is done.
        """
        with self._lock:
            self.size = size
            self._wake_all()
            if self._work and not self._waking:
                self._wake_or_start()

    def close(self, wait: float) -> None:
        """End the threads when no work is left. Wait for them, `wait` seconds at most in all."""
        with self._lock:
            self._closed = True
            self._wake_all()
            threads = list(self._threads)
        deadline = time.monotonic() + wait
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _wake_or_start(self) -> None:
        """Wake or start one thread for the waiting work. The caller holds the lock.

        Raises: RuntimeError when there is no thread and none can be started.
        """
        if self._asleep:
            self._asleep -= 1
            self._waking = True
            self._wakes.put(None)
        elif len(self._work) > self._available and len(self._threads) < self.size:
            name = f"{self._name}-{self._started}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads can be started: the others do the work
                if not self._threads:
                    raise
                return
            self._started += 1
            self._waking = True
            self._available += 1
            self._threads.add(thread)

    def _wake_all(self) -> None:
        """Let every thread look whether it is still needed. The caller holds the lock."""
        while self._asleep:
            self._asleep -= 1
            self._wakes.put(None)

    def _run(self) -> None:
        woken, worked = True, False
        while True:
            with self._lock:
                self._available += worked
                if woken:
                    self._waking = woken = False
                work = self._take_work()
                if work is None and self._is_surplus():
                    self._available -= 1
                    self._threads.discard(threading.current_thread())
                    return
                self._asleep += work is None
            worked = work is not None
            if work is None:
                self._wakes.get()
                woken = True
                continue
            try:
                work()
            except BaseException:  # the thread goes on: a pool that loses threads ends unnoticed
                logger.critical("the work of a thread raised; please report this", exc_info=True)
            del work  # what it refers to must not wait for the next work

    def _take_work(self) -> Callable[[], None] | None:
        """Take work, and wake a thread for the next. None if there is none, or this thread is one
        too many. The caller holds the lock."""
        if not self._work or len(self._threads) > self.size:
            return None
        work = self._work.popleft()
        self._available -= 1
        if self._work and not self._waking:
            self._wake_or_start()
        return work

    def _is_surplus(self) -> bool:
        """Whether a thread without work ends. The caller holds the lock."""
        return self._closed or len(self._threads) > self.size
