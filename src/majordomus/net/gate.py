"""Waits between threads that an exception out of a signal handler cannot break.

The conditions and events of the standard library are written in Python. A signal handler that
raises (Ctrl-C, an alarm) may end them between two lines and leave their lock held; then every other
thread that needs the lock waits forever. Here each lock is taken and released by one step of the
interpreter.
"""

from __future__ import annotations

import threading
from typing import Any


class Gate:
    """An event on which one thread waits. Each wait that succeeds closes it again.

    `open` may be called from any thread and from finalizers, any number of times.
    """

    __slots__ = ("_closed",)

    def __init__(self) -> None:
        self._closed = threading.Lock()
        self._closed.acquire()

    def open(self) -> None:
        """End the wait, or the next one."""
        try:
            self._closed.release()
        except RuntimeError:  # it is open already
            return

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is open, and close it. Returns False after `timeout` seconds."""
        if timeout is None:
            return self._closed.acquire()
        return self._closed.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))


class SafeCondition(threading.Condition):
    """A condition. `with` enters and leaves its lock itself, not by a method in Python.

    `with` looks up `__enter__` and `__exit__` in the class, and here finds the lock's own methods.
    """

    __slots__ = ("__enter__", "__exit__")

    def __init__(self) -> None:
        super().__init__()
        lock: Any = self._lock  # type: ignore[attr-defined]
        self.__enter__ = lock.__enter__  # type: ignore[method-assign]
        self.__exit__ = lock.__exit__  # type: ignore[method-assign]
