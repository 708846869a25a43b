"""How loaded this machine is, as a worker's heartbeats tell it: measured at most every `REFRESH`
seconds, never in the thread that moves sockets.

1.0 is a machine that has just as much to do as it can: on Unix the load average of the last minute
divided by the cores, on Windows the share of the processors that was busy since the last look.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from math import isfinite
from typing import Final, TypeAlias

Measure: TypeAlias = Callable[[], float | None]
"""Returns the load, 1.0 for a machine that is fully used; None where it is unknown. It is called in
a thread of its own."""

REFRESH: Final = 10.0

logger = logging.getLogger("majordomus.worker")

if sys.platform == "win32":
    import ctypes

    _last: tuple[int, int] = (0, 0)

    def host_load() -> float | None:
        """The share of all processors that was busy since the last call; since the start of the
        machine, for the first."""
        global _last
        idle, kernel, user = (ctypes.c_ulonglong() for _ in range(3))
        ctypes.windll.kernel32.GetSystemTimes(
            ctypes.byref(idle), ctypes.byref(kernel), ctypes.byref(user)
        )
        before, _last = _last, (idle.value, kernel.value + user.value)
        total = _last[1] - before[1]
        return 1.0 - (_last[0] - before[0]) / total if total > 0 else None

else:

    def host_load() -> float | None:
        """The load average of the last minute divided by the cores; None where nobody knows it."""
        try:
            return os.getloadavg()[0] / (os.cpu_count() or 1)
        except OSError:
            return None


class LoadMeter:
    """Tells the load to `tell`, in the loop's thread, at once and then every `every` seconds.

    A measure that raises, or that returns what is no load, is told as None, and logged once.
    """

    def __init__(
        self,
        measure: Measure,
        tell: Callable[[float | None], None],
        loop: asyncio.AbstractEventLoop,
        every: float = REFRESH,
    ) -> None:
        self._measure, self._tell, self._loop, self._every = measure, tell, loop, every
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._complained = False

    def start(self) -> None:
        """Measures now and from now on. To be called in the loop's thread."""
        threading.Thread(target=self._work, name="majordomus-load", daemon=True).start()

    def stop(self) -> None:
        """Nothing is told from now on. May be repeated."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _work(self) -> None:
        """One measurement; its thread ends with it."""
        load: float | None = None
        try:
            load = _checked(self._measure())
        except Exception as error:
            if not self._complained:
                self._complained = True
                logger.warning("the load is unknown: %s: %s", type(error).__name__, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know
            self._loop.call_soon_threadsafe(self._told, load)

    def _told(self, load: float | None) -> None:
        if not self._stopped:
            self._tell(load)
            self._timer = self._loop.call_later(self._every, self.start)


def _checked(load: float | None) -> float | None:
    if load is not None and not (isfinite(load) and load >= 0):
        raise ValueError(f"a load is a number from 0, not {load!r}")
    return load
