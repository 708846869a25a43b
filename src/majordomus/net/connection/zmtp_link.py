"""Links of our own ZMTP over TCP and Unix sockets, in the thread that owns them.

A closed link whose data the kernel has not taken yet lingers in a thread of its own.
"""

from __future__ import annotations

import atexit
import errno
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

import zmq
from zmq.utils import z85

from majordomus.core.session.connection import Probe
from majordomus.net import forks
from majordomus.net.connection.credentials import (
    NO_ANSWER,
    NO_HANDSHAKE,
    WANTS_PASSWORD,
    Access,
)
from majordomus.net.readiness import Readiness
from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import MonitorEvent, MonitorRecord
from majordomus.net.zmtp import ipc, tcp
from majordomus.net.zmtp.dealer import TcpDealer
from majordomus.net.zmtp.engine import (
    ANOTHER_MECHANISM,
    BROKEN_OFF,
    CONNECTION_ENDED,
    CONNECTION_OPENED,
    HANDSHAKE_DONE,
    REFUSED,
    TOO_LARGE,
    UNREACHED,
)
from majordomus.net.zmtp.mechanisms import CurveClient, Mechanism, Null, PlainClient

logger = logging.getLogger("majordomus.net")

CONNECT: Final = 5.0
"""Seconds for the TCP connection."""
NEXT_ADDRESS: Final = 2.0
"""Seconds for the TCP connection when the host has another address that is not tried yet: the
longest delay between two attempts that RFC 8305 (section 5) allows."""
HANDSHAKE: Final = 3.0
"""Seconds for the handshake of ZMTP, since the TCP connection or the last byte of it."""
LONGEST_HANDSHAKE: Final = 15.0
"""Seconds for all of the handshake."""
SOCKET_TYPE: Final = b"DEALER"
LINGER: Final = 1.0
"""Seconds in which a closed connection may still send what was handed to it."""
_MISMATCH: Final = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
_NOT_ZMTP: Final = MonitorRecord(MonitorEvent.PROTOCOL_FAILED, 0)


class ZmtpLink:
    """See `link.Link`. Its one descriptor reports messages and changes of the connection, and is
    level-triggered. `place`: one address of a host; None for ipc. `more`: whether the host has
    other addresses that are not tried yet. `access`: the credentials for the endpoint. `most`:
    see `bound`; 0 for no bound.

    Raises: OSError when no connection can be begun.
    """

    edge_triggered = False

    def __init__(
        self,
        url: str,
        place: tcp.Address | None,
        more: bool = False,
        access: Access | None = None,
        most: int = 0,
    ) -> None:
        self.url = url
        self.up = False
        self.waits_for = NO_ANSWER
        self._expired = False
        self.due = time.monotonic() + (NEXT_ADDRESS if more else CONNECT)
        self._latest = inf  # when the handshake is over at the latest
        self._shaken = 0  # bytes of the handshake at the last tick
        identity = sockets.routing_id()
        mechanism = _mechanism(url, access, identity)
        with ipc.connect(url) if place is None else tcp.connect(place) as begun:
            self._dealer = TcpDealer(begun.fileno(), identity, mechanism=mechanism)
            begun.detach()
        self.bound = self._dealer.bound
        self.bound(most)
        self._generation = forks.generation
        self.receive, self.send = self._dealer.receive, self._dealer.send
        self.fds: tuple[int, ...] = (self._dealer.fd,)
        self._closed = False

    @property
    def truncated(self) -> int:
        return self._dealer.truncated

    @property
    def unsent(self) -> int:
        return self._dealer.unsent

    @property
    def received(self) -> int:
        return self._dealer.received

    @property
    def probe(self) -> Probe:
        return Probe.PING if self._dealer.answers_ping else Probe.REQUEST

    def ping(self) -> None:
        self._dealer.ping()

    def wait_with(self, fd: int) -> Callable[[int], int]:
        return self._dealer.wait_with(fd)

    def readable(self) -> bool:
        return self._dealer.waiting

    def news(self) -> Sequence[MonitorRecord]:
        changes = self._dealer.events()
        if not changes:
            return ()
        if changes[0][0] == CONNECTION_OPENED:
            now = time.monotonic()
            self.due, self._latest = now + HANDSHAKE, now + LONGEST_HANDSHAKE
            self.waits_for = NO_HANDSHAKE
            changes = changes[1:]
        return [self._record(*change) for change in changes]

    def tick(self, now: float) -> None:
        """End a handshake that takes too long."""
        if now < self.due:
            return
        if self.received != self._shaken and now < self._latest:
            self._shaken = self.received
            self.due = min(now + HANDSHAKE, self._latest)
            return
        self.due = inf
        self._expired = True
        self._dealer.expire()

    def close(self) -> None:
        """Close the connection. Sent messages may still leave for LINGER. May be repeated."""
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

    def _record(self, what: int, _fd: int, _peer: bytes | None, why: str) -> MonitorRecord:
        if why == TOO_LARGE:
            logger.warning(
                "%s has sent a message far larger than max_received: its connection is ended",
                self.url,
            )
        if what == HANDSHAKE_DONE:
            self.due = inf
            return MonitorRecord(MonitorEvent.CONNECTED, 0)
        if what == CONNECTION_ENDED:
            return MonitorRecord(MonitorEvent.LOST, 0)
        if why.startswith(REFUSED):
            return MonitorRecord(MonitorEvent.AUTH_FAILED, int(why.removeprefix(REFUSED)))
        if why == UNREACHED:
            error = errno.ETIMEDOUT if self._expired else self._dealer.connect_error
            return MonitorRecord(MonitorEvent.FAILED, error)
        if why == ANOTHER_MECHANISM:
            wanted = self._dealer.other_mechanism == b"PLAIN"
            return MonitorRecord(
                MonitorEvent.PROTOCOL_FAILED, WANTS_PASSWORD if wanted else _MISMATCH
            )
        if why == BROKEN_OFF:
            error = errno.ETIMEDOUT if self._expired else errno.ECONNRESET
            return MonitorRecord(MonitorEvent.BROKEN_OFF, error)
        return _NOT_ZMTP


def _mechanism(url: str, access: Access | None, identity: bytes) -> Mechanism:
    """Make the client's side of the handshake with the credentials for `url`."""
    keys = None if access is None else access.keys(url)
    if keys is not None:
        server, public, secret = (z85.decode(key.encode()) for key in keys)
        return CurveClient(server, public, secret, SOCKET_TYPE, identity)
    if access is not None and access.password is not None:
        user, password = access.password
        return PlainClient(user.encode(), password.encode(), SOCKET_TYPE, identity)
    return Null(SOCKET_TYPE, identity)


_lingering: set[threading.Thread] = set()


def _let_linger(dealer: TcpDealer) -> None:
    """Let `dealer` send its rest in a thread of its own.

    At the end of the interpreter no thread can start: then in this one.
    """
    if sys.is_finalizing():
        _linger(dealer)
        return
    thread = threading.Thread(target=_linger, args=(dealer,), name="majordomus-linger", daemon=True)
    _lingering.add(thread)
    try:
        thread.start()
    except RuntimeError:
        _linger(dealer)


def _linger(dealer: TcpDealer) -> None:
    """Send what the kernel has not taken yet, for LINGER at most, and close."""
    ready = Readiness(dealer.fd)
    until = time.monotonic() + LINGER
    while dealer.open and dealer.unsent and (left := until - time.monotonic()) > 0:
        ready(int(1000 * left) + 1)
        dealer.receive(1000)
    dealer.close()
    _lingering.discard(threading.current_thread())


def _wait_for_lingering() -> None:
    """Wait at the end of the process until closed connections have sent their rest."""
    for thread in list(_lingering):
        if thread.ident is not None:
            thread.join(LINGER)


atexit.register(_wait_for_lingering)
