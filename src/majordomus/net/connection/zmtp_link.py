"""A link that speaks our own ZMTP over plain TCP, in the thread of whoever owns it; and what stands
in its place as long as a name is being looked up.
"""

from __future__ import annotations

import atexit
import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

import zmq

from majordomus.net import forks
from majordomus.net.readiness import Readiness
from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import MonitorEvent, MonitorRecord
from majordomus.net.zmtp import tcp
from majordomus.net.zmtp.dealer import TcpDealer
from majordomus.net.zmtp.engine import (
    ANOTHER_MECHANISM,
    BROKEN_OFF,
    CONNECTION_ENDED,
    CONNECTION_OPENED,
    HANDSHAKE_DONE,
    REFUSED,
    UNREACHED,
)

CONNECT: Final = 5.0
"""Seconds for the kernel to have a connection."""
HANDSHAKE: Final = 3.0
"""Seconds for the handshake of ZMTP, once the kernel has a connection."""
LINGER: Final = 1.0
"""Seconds that a closed connection may still need for what was handed to it."""
_MISMATCH: Final = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
_FAILURES: Final = {
    UNREACHED: MonitorRecord(MonitorEvent.FAILED, 0),
    ANOTHER_MECHANISM: MonitorRecord(MonitorEvent.PROTOCOL_FAILED, _MISMATCH),
    BROKEN_OFF: MonitorRecord(MonitorEvent.BROKEN_OFF, errno.ECONNRESET),
}
_NOT_ZMTP: Final = MonitorRecord(MonitorEvent.PROTOCOL_FAILED, 0)


class ZmtpLink:
    """See `link.Link`. Its one descriptor tells of messages and of the connection, as long as there
    is something to tell.

    Raises: OSError when no connection can be begun.
    """

    tells_once = False

    def __init__(self, url: str, place: tcp.Address) -> None:
        self.url = url
        self.up = False
        self.due = time.monotonic() + CONNECT
        with tcp.connect(place) as begun:
            self._dealer = TcpDealer(begun.fileno(), sockets.routing_id())
            begun.detach()
        self._generation = forks.generation
        self.receive, self.send = self._dealer.receive, self._dealer.send
        self.fds: tuple[int, ...] = (self._dealer.fd,)
        self._closed = False

    @property
    def unsent(self) -> int:
        return self._dealer.unsent

    def wait_with(self, fd: int) -> Callable[[int], int]:
        return self._dealer.wait_with(fd)

    def readable(self) -> bool:
        return self._dealer.waiting

    def news(self) -> Sequence[MonitorRecord]:
        told = self._dealer.events()
        if not told:
            return ()
        if told[0][0] == CONNECTION_OPENED:
            self.due = time.monotonic() + HANDSHAKE
            told = told[1:]
        return [self._seen(*one) for one in told]

    def look(self, now: float) -> None:
        """Ends a handshake that takes too long."""
        if now >= self.due:
            self.due = inf
            self._dealer.expire()

    def close(self) -> None:
        """What was sent may still leave, for LINGER at most. May be repeated."""
        if self._closed:
            return
        self._closed = True
        if self._generation != forks.generation:
            self._dealer.abandon()
            return
        self._dealer.write()
        if self._dealer.unsent:
            _let_linger(self._dealer)
        else:
            self._dealer.close()

    def _seen(self, what: int, _fd: int, _peer: bytes | None, why: str) -> MonitorRecord:
        if what == HANDSHAKE_DONE:
            self.due = inf
            return MonitorRecord(MonitorEvent.CONNECTED, 0)
        if what == CONNECTION_ENDED:
            return MonitorRecord(MonitorEvent.LOST, 0)
        if why.startswith(REFUSED):
            return MonitorRecord(MonitorEvent.AUTH_FAILED, int(why.removeprefix(REFUSED)))
        return _FAILURES.get(why, _NOT_ZMTP)


class ResolvingLink:
    """Looks a name up in a thread of its own, for that may take seconds; `place` is what it found.

    Its one descriptor becomes readable when that is known.
    """

    tells_once = False
    due = inf
    unsent = 0

    def __init__(self, url: str) -> None:
        self.url = url
        self.up = False
        self.place: tcp.Address | None = None
        self._known = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.fds: tuple[int, ...] = (self._known,)
        self._lock = threading.Lock()
        try:
            threading.Thread(target=self._look_up, name="majordomus-name", daemon=True).start()
        except RuntimeError as error:
            self.close()
            raise OSError(0, f"no thread to look up {url}: {error}") from error

    def receive(self, most: int) -> list[list[bytes]]:
        return []

    def wait_with(self, fd: int) -> Callable[[int], int]:
        return Readiness(fd, *self.fds)

    def send(self, batch: list[list[bytes]]) -> list[tuple[int, int]]:
        return [(index, errno.EAGAIN) for index in range(len(batch))]

    def readable(self) -> bool:
        return False

    def news(self) -> Sequence[MonitorRecord]:
        try:
            os.eventfd_read(self._known)
        except BlockingIOError:
            return ()
        return (MonitorRecord(MonitorEvent.FAILED, 0),)

    def look(self, now: float) -> None:
        """Nothing is due."""

    def close(self) -> None:
        """May be repeated."""
        with self._lock:
            if self._known >= 0:
                os.close(self._known)
            self._known = -1

    def _look_up(self) -> None:
        try:
            self.place = tcp.resolve(self.url)
        except OSError:
            self.place = None
        with self._lock:
            if self._known >= 0:
                os.eventfd_write(self._known, 1)


_lingering: set[threading.Thread] = set()


def _let_linger(dealer: TcpDealer) -> None:
    """In a thread of its own; at the interpreter's end, where none can be had, in this one."""
    thread = threading.Thread(target=_linger, args=(dealer,), name="majordomus-linger", daemon=True)
    _lingering.add(thread)
    try:
        thread.start()
    except RuntimeError:
        _linger(dealer)


def _linger(dealer: TcpDealer) -> None:
    """Writes what the kernel did not take at once."""
    ready = Readiness(dealer.fd)
    until = time.monotonic() + LINGER
    while dealer.open and dealer.unsent and (left := until - time.monotonic()) > 0:
        ready(int(1000 * left) + 1)
        dealer.receive(1000)
    dealer.close()
    _lingering.discard(threading.current_thread())


def _wait_for_lingering() -> None:
    """What was handed to a connection leaves before the process does."""
    for thread in list(_lingering):
        if thread.ident is not None:
            thread.join(LINGER)


atexit.register(_wait_for_lingering)
