"""A link through libzmq: one DEALER socket to one endpoint, its monitor and its wire."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

import zmq

from majordomus.core.session.connection import Probe
from majordomus.net import endpoints
from majordomus.net.connection.credentials import NO_ANSWER, Access
from majordomus.net.readiness import Readiness
from majordomus.net.zmq import select as wires
from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import HANDSHAKE_FAILED, Monitor, MonitorEvent
from majordomus.net.zmq.wire import DealerWire
from majordomus.net.zmtp import tcp

CONNECT: Final = 5000
"""Milliseconds for the TCP connection, as those of `zmtp_link`."""
NEXT_ADDRESS: Final = 2000
"""Milliseconds for the TCP connection when the host has another address that is not tried yet."""
WATCHED: Final = (
    MonitorEvent.ATTACHED,
    MonitorEvent.CONNECTED,
    MonitorEvent.LOST,
    MonitorEvent.FAILED,
    *HANDSHAKE_FAILED,
)
"""Changes of the connection that the monitor reports."""


class ZmqLink:
    """See `link.Link`. Its first descriptor reports messages, its second changes of the
    connection.

    place: the resolved address of a TCP endpoint, because libzmq tries one address of a name alone.
    more: whether the host has other addresses that are not tried yet.
    most: bytes of one frame, at most; a larger one ends the connection. 0 for no bound.
    """

    due = inf
    edge_triggered = True
    unsent = 0
    received = 0
    truncated = 0

    def __init__(
        self,
        url: str,
        access: Access | None = None,
        place: tcp.Address | None = None,
        more: bool = False,
        most: int = 0,
    ) -> None:
        self.url = url
        self.up = False
        self.waits_for = NO_ANSWER
        self.socket = sockets.dealer(most)
        self.monitor = Monitor(self.socket, *WATCHED)
        try:
            wires.check()
            wire = DealerWire(self.socket)
            if access is not None:
                access.secure(self.socket, url)
            if place is not None:
                wait = NEXT_ADDRESS if more else CONNECT
                self.socket.setsockopt(zmq.CONNECT_TIMEOUT, wait)
            sockets.connect(self.socket, url if place is None else tcp.to_url(place))
        except BaseException:
            self.close()
            raise
        self.receive, self.send, self.readable = wire.receive, wire.send, wire.readable
        self.news = self.monitor.read
        self.fds: tuple[int, ...] = (_fd(self.socket), _fd(self.monitor.socket))

    def bound(self, most: int) -> None:
        """Do nothing: libzmq takes a bound only before it connects."""

    def wait_with(self, fd: int) -> Callable[[int], int]:
        return Readiness(fd, *self.fds)

    @property
    def probe(self) -> Probe:
        return Probe.NONE if endpoints.is_inproc(self.url) else Probe.REQUEST

    def ping(self) -> None:
        """Do nothing: libzmq sends a PING only by timers of its own."""

    def tick(self, now: float) -> None:
        """Do nothing: libzmq has timers of its own."""

    def close(self) -> None:
        """Close the socket. Sent messages may still leave for LINGER. May be repeated."""
        self.monitor.close()
        self.socket.close()


def _fd(socket: zmq.Socket[bytes]) -> int:
    return int(socket.getsockopt(zmq.FD))
