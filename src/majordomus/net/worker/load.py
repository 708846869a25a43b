"""The machine's load, for a worker's heartbeats: measured every `REFRESH` seconds, in a thread of
its own, because a measurement may block.

1.0 is a machine that is fully used. On Unix the load is the load average of the last minute divided
by the cores; on Windows it is the busy share of the processors since the last measurement.
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

from majordomus.net.worker.outcomes import described

Measure: TypeAlias = Callable[[], float | None]
"""Returns the load, 1.0 for a machine that is fully used; None if it is unknown. It is called in a
thread of its own."""

REFRESH: Final = 10.0
"""Seconds between two measurements."""

logger = logging.getLogger("majordomus.worker")

if sys.platform == "win32":
    import ctypes

    _last: tuple[int, int] = (0, 0)

    def host_load() -> float | None:
        """Return the busy share of all processors since the last call. The first call returns it
        since the start of the machine."""
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
        """Return the load average of the last minute divided by the cores; None if the system does
        not provide it."""
        try:
            return os.getloadavg()[0] / (os.cpu_count() or 1)
        except OSError:
            return None


class LoadMeter:
    """Calls `report` with the load in the loop's thread, at once and then every `interval` seconds.

    A measure that raises or returns an invalid load is reported as None, and logged once.
    """

    def __init__(
        self,
        measure: Measure,
        report: Callable[[float | None], None],
        loop: asyncio.AbstractEventLoop,
        interval: float = REFRESH,
    ) -> None:
        self._measure, self._report, self._loop = measure, report, loop
        self._interval = interval
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._failure_logged = False

    def start(self) -> None:
        """Measure now and from now on. To be called in the loop's thread."""
        threading.Thread(target=self._measure_once, name="majordomus-load", daemon=True).start()

    def stop(self) -> None:
        """Report nothing from now on. May be repeated."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _measure_once(self) -> None:
        """Measure once; the thread ends with it."""
        load: float | None = None
        try:
            load = _checked(self._measure())
        except BaseException as error:
            if not self._failure_logged:
                self._failure_logged = True
                logger.warning("the load is unknown: %s", described(error))
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._measured, load)

    def _measured(self, load: float | None) -> None:
        if not self._stopped:
            self._report(load)
            self._timer = self._loop.call_later(self._interval, self.start)


def _checked(load: float | None) -> float | None:
    if load is not None and not (isfinite(load) and load >= 0):
        raise ValueError(f"a load is a number from 0, not {load!r}")
    return load
