"""The endpoints of a broker that libzmq serves: a ROUTER, its monitor and its wire.

libzmq's monitor names connections by descriptor only, and reports an end before the connection is
torn down. So the listener keeps a map from descriptor to routing id, and ends are confirmed by
probes (limits/connections.py).
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

import zmq

from majordomus.net import endpoints
from majordomus.net.broker.limits.connections import ConnectionMap, Probes
from majordomus.net.broker.limits.guard import Guard
from majordomus.net.broker.listener import (
    BATCH,
    HEAD_BYTES,
    HEAD_FRAMES,
    LINGER,
    WAKER,
    PeerMessage,
)
from majordomus.net.broker.security.authentication import Authentication, report_failure
from majordomus.net.waker import Waker
from majordomus.net.zmq import select as wires
from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import HANDSHAKE_FAILED, Monitor, MonitorEvent
from majordomus.net.zmq.wire import GONE

if TYPE_CHECKING:
    from majordomus.core.broker.contract import Machine
    from majordomus.core.broker.state.registry import Send

WATCHED: Final = (
    MonitorEvent.ACCEPTED,
    MonitorEvent.CONNECTED,
    MonitorEvent.LOST,
    MonitorEvent.UNBOUND,
    *HANDSHAKE_FAILED,
)
SOCKET, MONITOR = 2 * WAKER, 4 * WAKER
"""Bits of the result of `wait`."""
UNBIND_WAIT: Final = 1.0
"""Seconds that libzmq has to close its listening sockets. The endpoints are free when `close`
returns."""
UNBIND_CHECK: Final = 0.005
"""Seconds between two checks of that."""


class ZmqListener:
    """Implements `listener.Listener`. `authentication` is None in a broker without it."""

    def __init__(
        self, machine: Machine, waker: Waker, authentication: Authentication | None
    ) -> None:
        settings = machine.settings
        self.name = wires.WIRE
        self._machine, self._waker, self._authentication = machine, waker, authentication
        self.socket = sockets.router(settings.max_message, settings.send_hwm)
        self._monitor = Monitor(self.socket, *WATCHED)
        self._wire = wires.make_router(
            self.socket,
            max_frames=settings.max_frames + HEAD_FRAMES,
            max_bytes=settings.max_message + HEAD_BYTES,
        )
        self._bound: list[str] = []
        self._connections = ConnectionMap()
        self._guard = Guard(machine, self._connections)
        self._probes = Probes()
        self.sources = (self.socket, self._monitor.socket)
        self.wait = wires.make_wait(waker.fd, *self.sources)
        self.batch = BATCH

    @property
    def due(self) -> float:
        return min(self._probes.next(), self._guard.due)

    def open(self) -> None:
        if self._authentication is not None:
            self._authentication.open(self.socket, self._monitor, self._waker.wake)

    def bind(self, url: str) -> str:
        real = sockets.bind(self.socket, url)
        self._bound.append(real)
        return real

    def receive(self, ready: int, now: float) -> tuple[list[PeerMessage], bool]:
        if not ready & SOCKET:
            return [], False
        if self._authentication is None:
            batch = self._wire.receive(self.batch)
            full = len(batch) == self.batch
            self._read_new_connections(now)
        else:
            with_users = self._wire.receive_with_users(self.batch)
            full = len(with_users) == self.batch
            self._read_new_connections(now)
            batch = self._authentication.accepted(with_users, self._machine, now)
        self._guard.delivered(batch)
        return batch, full

    def report_connections(self, ready: int, now: float) -> None:
        if ready & MONITOR:
            self._read_monitor(now)
        if self._authentication is not None:
            self._authentication.apply_changes(self._machine, now)

    def tick(self, now: float) -> None:
        if now >= self._guard.due:
            self._guard.tick(now)
        for peer in self._probes.due(now):
            self._machine.connection_ended(peer, now)

    def send(self, batch: list[Send], now: float) -> list[tuple[int, int]]:
        refusals = self._wire.send(batch)
        for index, number in refusals:
            if number == GONE:
                self._probes.gone(batch[index][0])
        return refusals

    def undelivered(self) -> int:
        return 0

    def buffers(self) -> dict[str, int]:
        return {}  # libzmq does not tell

    def close(self, linger: float = LINGER) -> None:
        # Not `unbind`: with it libzmq drops what the connections of the endpoint have not sent.
        bound, self._bound = self._bound, []
        for url in bound:
            sockets.remove_file(url)
            if endpoints.is_inproc(url) and not self.socket.closed:
                # Nothing is on its way here, and the name would be free only when libzmq's own
                # thread has ended the socket.
                with contextlib.suppress(zmq.ZMQError):
                    self.socket.unbind(url)
        self._monitor.close()
        self.socket.close(linger=round(linger * 1000))
        until = time.monotonic() + UNBIND_WAIT
        for url in bound:
            while not sockets.is_free(url) and time.monotonic() < until:
                time.sleep(UNBIND_CHECK)
        if self._authentication is not None:
            self._authentication.close()

    def _read_new_connections(self, now: float) -> None:
        new = self._wire.connections()
        if new:
            # libzmq reports an end before it reuses the descriptor: read the ends first.
            self._read_monitor(now)
        for peer, fd in new:
            self._guard.opened(fd)
            self._probes.received(peer, fd)
            replaced = self._connections.opened(peer, fd)
            if replaced is not None:
                self._end(replaced, fd, now)
            if self._authentication is not None:
                self._authentication.opened(peer, fd)

    def _read_monitor(self, now: float) -> None:
        for seen in self._monitor.read():
            if seen.event in HANDSHAKE_FAILED:
                report_failure(self._authentication, seen, self._machine)
            self._guard.handle(seen, now)
            if seen.event is MonitorEvent.ACCEPTED:
                self._probes.accepted(seen.value)
            if seen.event is not MonitorEvent.LOST:
                continue
            peer = self._connections.ended(seen.value)
            if peer is not None:
                self._end(peer, seen.value, now)

    def _end(self, peer: bytes, fd: int, now: float) -> None:
        if self._authentication is not None:
            self._authentication.ended(peer)
        self._wire.forget(peer)
        self._probes.begin(peer, fd, now)
        self._machine.connection_ended(peer, now)
