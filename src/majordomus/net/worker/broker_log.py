"""What the log says about a worker's connections: one line for each change of state.

A broker is connecting, registered, lost or refused. The state is read, and not reported by the
session, so that no request pays for it: the log looks after a connection was opened or closed, and
then every `LOOK` seconds until the broker has registered the worker. Lines are rate limited: a
state that is over before its line is due has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from majordomus.net.log_lines import SafeLines

LOOK: Final = 0.1
"""Seconds between two looks at a broker that has not registered the worker."""
SLOW: Final = 3.0
"""Seconds after which a connection without a registration is worth a line."""
BURST: Final = 8
"""Lines about one broker that are logged without a delay."""
REFILL: Final = 5.0
"""Seconds after which one more line may be logged."""

logger = logging.getLogger("majordomus.worker")


class WatchedConnection(Protocol):
    """One registration at the broker, as the log sees it.

    services: the names of its services.
    """

    services: list[str]

    @property
    def ready(self) -> bool:
        """Whether the broker has registered the services of this connection."""

    @property
    def refused(self) -> bool:
        """Whether the last handshake was refused, or the broker has disconnected with a reason.
        These have lines of their own."""

    @property
    def problem(self) -> str:
        """How the last attempt to connect has failed, in a few words."""

    def registered(self) -> None:
        """The broker has registered it: earlier refusals are over."""


class BrokerLog:
    """Logs the changes of state of all connections to one broker."""

    def __init__(
        self,
        url: str,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self._registrations: list[WatchedConnection] = []
        self._loop, self._clock = loop, clock
        self._timer: asyncio.Handle | None = None
        self._stopped = False
        self._last = ""  # the text of the last line
        self._troubled = False  # it was a warning
        self._registered = False  # the last state
        self._lost = False  # until the next registration
        self.losses = 0
        """How often the broker was lost after a registration."""
        self._since = clock()
        self._tokens = float(BURST)
        self._refilled = self._since

    def add(self, registration: WatchedConnection) -> None:
        """Watch one more registration at this broker."""
        self._registrations.append(registration)
        self._registered = False

    def changed(self) -> None:
        """Look at the state soon: a connection was opened or closed. May be repeated."""
        if not self._stopped:
            self._cancel()
            self._timer = self._loop.call_soon(self.look)

    @property
    def registered(self) -> bool:
        """Whether the broker had registered every service when it was last looked at."""
        return self._registered

    def stop(self) -> None:
        """Log nothing more: the worker ends. May be repeated."""
        self._stopped = True
        self._cancel()

    def look(self) -> None:
        """Log the state if it is another than in the last line, and look again later if needed."""
        self._timer = None
        level, text = self._state()
        logged = text == self._last or self._log(level, text)
        if not (self._registered and logged):
            self._timer = self._loop.call_later(LOOK, self.look)

    def _state(self) -> tuple[int, str]:
        ready = all(one.ready for one in self._registrations)
        if self._registered and not ready:
            self.losses += 1
            self._lost, self._since = True, self._clock()
        self._registered = ready
        if ready:
            self._lost = False
            names = ", ".join(sorted(name for one in self._registrations for name in one.services))
            for one in self._registrations:
                one.registered()
            # After a warning this is one too: a log of warnings alone has to show its end.
            level = logging.WARNING if self._troubled else logging.INFO
            return level, f"registered at {self.url}: {names}"
        if any(one.refused for one in self._registrations):
            self._troubled = True
            return logging.DEBUG, f"refused by {self.url}"
        problem = next((one.problem for one in self._registrations if one.problem), "")
        if problem:
            return logging.WARNING, f"cannot connect to {self.url} ({problem}); trying again"
        if self._lost:
            return logging.WARNING, f"lost the broker at {self.url}; connecting again"
        if self._clock() - self._since >= SLOW:
            return logging.WARNING, f"no broker at {self.url} has registered this worker yet"
        return logging.INFO, f"connecting to {self.url}"

    def _log(self, level: int, text: str) -> bool:
        now = self._clock()
        self._tokens = min(float(BURST), self._tokens + (now - self._refilled) / REFILL)
        self._refilled = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        logger.log(level, "%s", text)
        self._last = text
        if level >= logging.WARNING:
            self._troubled = not self._registered
        return True

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@contextlib.contextmanager
def lines_on_stderr() -> Iterator[None]:
    """Inside, the worker's log goes to stderr if the program has not set up logging at all."""
    if logger.hasHandlers():
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SafeLines("%(asctime)s %(levelname)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
