"""Stalls of a worker's event loop: they are noticed here, logged, and told to `Serving`.

A handler that blocks the loop, or holds the interpreter's lock, keeps the heartbeats from being
sent; after three intervals its broker gives the worker up. A machine that was suspended does the
same. How it works: a timer that is due every `STEP` seconds and runs later than that was delayed by
a stall. A stall shorter than `STEP + LATE` may pass between two looks. It is left so: it cannot be
told from a slow network, and a finer timer would wake every idle worker more often. A request may
then begin that much after its deadline (docs/pools.md).
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
    `in_time` is called at each look that is not late.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        running: Callable[[], Iterable[str]],
        noted: Callable[[float], object],
        in_time: Callable[[], object] | None = None,
    ) -> None:
        self._loop, self._running, self._noted, self._in_time = loop, running, noted, in_time
        self._timer: asyncio.TimerHandle | None = None
        self._before: list[str] = []
        self.lag = 0.0
        """How late the last look was, in seconds."""
        self.lag_seconds = 0.0
        """How late all looks were, in sum."""

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
        self.lag = max(0.0, lasted)
        self.lag_seconds += self.lag
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
            if self._in_time is not None:
                self._in_time()
            self.start()
