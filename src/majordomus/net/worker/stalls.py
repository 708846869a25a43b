"""Stalls of a worker's event loop: they are noticed here, logged, and told to `Serving`.

A handler that blocks the loop, or holds the interpreter's lock, keeps the heartbeats from being
sent; after three intervals its broker gives the worker up. A machine that was suspended does the
same. How it works: a timer that is due every `STEP` seconds and runs later than that was delayed by
a stall.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final

STEP: Final = 1.0
"""Seconds between two looks at the clock."""
LATE: Final = 0.25
"""Seconds that a look may be late on a busy machine. What is read later than that was kept by a
stall."""
GRACE: Final = 0.1
"""Seconds after a late look in which what is read still counts as kept."""
LOGGED: Final = 2.0
"""Seconds of a stall that is logged."""

logger = logging.getLogger("majordomus.worker")


class StallWatch:
    """Watches one loop from `start` to `stop`. In the loop's thread.

    `running` returns the names of the services whose handlers run now, or began last. `noted` gets
    the time until which no stall can be noticed: a message that arrives later was kept by one.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        running: Callable[[], Iterable[str]],
        noted: Callable[[float], object],
    ) -> None:
        self._loop, self._running, self._noted = loop, running, noted
        self._timer: asyncio.TimerHandle | None = None
        self._before: list[str] = []

    def start(self) -> None:
        """Watch from now on."""
        due = monotonic() + STEP
        self._timer = self._loop.call_later(STEP, self._look, due)
        self._noted(due + LATE)

    def stop(self) -> None:
        """Watch no more. May be repeated."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, due: float) -> None:
        lasted = monotonic() - due
        now = list(self._running())
        if lasted >= LOGGED:
            names = ", ".join(dict.fromkeys([*self._before, *now]))
            if names:
                logger.warning(
                    "the event loop was not run for %.1f s while handlers of %s ran: for a handler"
                    ' that blocks it, or holds the interpreter\'s lock, use run="process"',
                    lasted,
                    names,
                )
            else:
                logger.warning("the event loop was not run for %.1f s", lasted)
        self._before = now
        if lasted >= LATE:  # what the stall has kept may be read after this
            self._timer = self._loop.call_later(GRACE, self.start)
        else:
            self.start()
