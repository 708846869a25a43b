"""Probes the first broker of a client in the background, while the client is connected to another.

A probe is a connection that is closed after its handshake. It runs in a thread of its own, because
a sync client has no thread that drives it between two calls.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from majordomus.errors import ConfigurationError
from majordomus.net.readiness import Readiness
from majordomus.net.zmq.monitor import HANDSHAKE_FAILED, MonitorEvent
from majordomus.net.zmtp import tcp

if TYPE_CHECKING:
    from majordomus.net.connection.credentials import Access
    from majordomus.net.connection.link import Link

    Open = Callable[[str, Access | None, tcp.Address | None, bool], Link]

LONGEST: Final = 10.0
"""Seconds for all addresses of the broker."""
LOOK: Final = 0.25
"""Seconds between two looks at a probe that has not ended."""
_ENDED: Final = (MonitorEvent.LOST, MonitorEvent.FAILED, *HANDSHAKE_FAILED)


class HomeProbe:
    """One probe of the broker at `url`. `answer`: whether it has answered; None before that."""

    def __init__(self, url: str, access: Access | None, open_link: Open) -> None:
        self.answer: bool | None = None
        self._url, self._access, self._open = url, access, open_link
        if has_green_threads():  # one that waits would stop all others
            self.answer = False
            return
        thread = threading.Thread(target=self._run, name="majordomus-home", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread, or the interpreter exits
            self.answer = False

    def _run(self) -> None:
        answer = False
        try:
            with suppress(OSError, ConfigurationError):
                answer = self._ask(time.monotonic() + LONGEST)
        finally:
            self.answer = answer

    def _ask(self, until: float) -> bool:
        """Try the addresses of the host in turn. Raises: OSError."""
        places: list[tcp.Address | None] = [None]
        if tcp.is_plain(self._url):
            places = [*(tcp.parse_addresses(self._url) or tcp.resolve(self._url))]
        return any(self._answers(place, place is not places[-1], until) for place in places)

    def _answers(self, place: tcp.Address | None, more: bool, until: float) -> bool:
        with suppress(OSError):
            link = self._open(self._url, self._access, place, more)
            try:
                return _shakes_hands(link, until)
            finally:
                link.close()
        return False


def _shakes_hands(link: Link, until: float) -> bool:
    """Wait until the handshake is done or has failed."""
    wait = Readiness(*dict.fromkeys(link.fds))
    while (now := time.monotonic()) < until:
        if now >= link.due:
            link.tick(now)
        link.receive(1)
        for seen in link.news():
            if seen.event is MonitorEvent.CONNECTED:
                return True
            if seen.event in _ENDED:
                return False
        left = min(until, link.due, now + 1.0) - time.monotonic()
        wait(max(0, ceil(1000 * left)))
    return False


def has_green_threads() -> bool:
    """Return whether gevent or eventlet has replaced the threads of this process."""
    gevent: Any = sys.modules.get("gevent.monkey")
    eventlet: Any = sys.modules.get("eventlet.patcher")
    return (gevent is not None and gevent.is_module_patched("threading")) or (
        eventlet is not None and eventlet.is_monkey_patched("thread")
    )
