"""Takes the place of a link while the name of its host is resolved, which may take seconds.

The name is resolved in a thread of its own, by the system: hosts file, name server and so on.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from math import inf

from majordomus.core.session.connection import Probe
from majordomus.net.readiness import Readiness
from majordomus.net.waker import Waker
from majordomus.net.zmq.monitor import MonitorEvent, MonitorRecord
from majordomus.net.zmtp import tcp


class ResolvingLink:
    """See `link.Link`. Its one descriptor becomes readable when the name is resolved; `news` then
    reports a failed connection, and the next attempt uses `places`.

    places: the addresses in the order in which they are tried; none if the name has none.
    problem: why there are none.

    Raises: OSError when there is no thread or descriptor for it.
    """

    edge_triggered = False
    due = inf
    unsent = 0
    received = 0
    truncated = 0
    probe = Probe.NONE
    waits_for = "its name is not resolved yet"

    def __init__(self, url: str) -> None:
        self.url = url
        self.up = False
        self.places: Sequence[tcp.Address] = ()
        self.problem = ""
        self._resolved = False
        self._waker = Waker()
        self.fds: tuple[int, ...] = (self._waker.fd,)
        try:
            threading.Thread(target=self._resolve, name="majordomus-name", daemon=True).start()
        except RuntimeError as error:
            self.close()
            raise OSError(0, f"no thread to resolve {url}: {error}") from error

    def ping(self) -> None:
        """Do nothing: there is no connection."""

    def bound(self, most: int) -> None:
        """Do nothing: no message comes."""

    def receive(self, most: int) -> list[list[bytes]]:
        return []

    def wait_with(self, fd: int) -> Callable[[int], int]:
        return Readiness(fd, *self.fds)

    def send(self, batch: list[list[bytes]]) -> list[tuple[int, int]]:
        return [(index, errno.EAGAIN) for index in range(len(batch))]

    def readable(self) -> bool:
        return False

    def news(self) -> Sequence[MonitorRecord]:
        if not self._resolved:
            return ()
        self._resolved = False
        self._waker.clear()
        return (MonitorRecord(MonitorEvent.FAILED, 0),)

    def tick(self, now: float) -> None:
        """Do nothing: nothing is due."""

    def close(self) -> None:
        """Close the descriptor. May be repeated."""
        self._waker.close()

    def _resolve(self) -> None:
        try:
            self.places = tcp.resolve(self.url)
        except OSError as error:
            self.problem = f"its name cannot be resolved: {error.strerror or error}"
        self._resolved = True
        self._waker.wake()
