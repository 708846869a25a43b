"""The endpoints of a broker that libzmq serves: a ROUTER, its monitor, its wire, and what has to be
done because libzmq tells little: connections are known by descriptors, and their ends are probed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from majordomus.net import endpoints
from majordomus.net.broker.limits.connections import Connections, Probes
from majordomus.net.broker.limits.guard import Guard
from majordomus.net.broker.listener import BATCH, HEAD_BYTES, HEAD_FRAMES, WAKER, Message
from majordomus.net.broker.security.authentication import Authentication, refused
from majordomus.net.waker import Waker
from majordomus.net.zmq import select as wires
from majordomus.net.zmq import sockets
from majordomus.net.zmq._pure import GONE
from majordomus.net.zmq.monitor import HANDSHAKE_FAILED, Monitor, MonitorEvent

if TYPE_CHECKING:
    from majordomus.core.broker.machine import BrokerMachine
    from majordomus.core.broker.state.registry import Send

WATCHED: Final = (
    MonitorEvent.ACCEPTED,
    MonitorEvent.CONNECTED,
    MonitorEvent.LOST,
    MonitorEvent.UNBOUND,
    *HANDSHAKE_FAILED,
)
SOCKET, MONITOR = 2 * WAKER, 4 * WAKER
"""What `wait` says is readable."""
UNBIND_WAIT: Final = 1.0
"""Seconds that libzmq gets to close its listeners, so that the endpoints are free when `close`
returns.
"""


class ZmqListener:
    """A port; see `port.Port`. `gate` asks who connects; None where nobody is asked."""

    def __init__(self, machine: BrokerMachine, waker: Waker, gate: Authentication | None) -> None:
        settings = machine.settings
        self.name = wires.WIRE
        self._machine, self._waker, self._gate = machine, waker, gate
        self.socket = sockets.router(settings.max_message, settings.send_hwm)
        self._monitor = Monitor(self.socket, *WATCHED)
        self._wire = wires.make_router(
            self.socket,
            max_frames=settings.max_frames + HEAD_FRAMES,
            max_bytes=settings.max_message + HEAD_BYTES,
        )
        self._bound: list[str] = []
        self._connections = Connections()
        self._guard = Guard(machine, self._connections)
        self._probes = Probes()
        self.sources = (self.socket, self._monitor.socket)
        self.wait = wires.make_wait(waker.fd, *self.sources)

    @property
    def due(self) -> float:
        return min(self._probes.next(), self._guard.due)

    def open(self) -> None:
        if self._gate is not None:
            self._gate.open(self.socket, self._monitor, self._waker.wake)

    def bind(self, url: str) -> str:
        real = sockets.bind(self.socket, url)
        self._bound.append(real)
        return real

    def receive(self, ready: int, now: float) -> tuple[list[Message], bool]:
        if not ready & SOCKET:
            return [], False
        if self._gate is None:
            batch = self._wire.receive(BATCH)
            full = len(batch) == BATCH
            self._hear_of_new(now)
        else:
            told = self._wire.receive_with_users(BATCH)
            full = len(told) == BATCH
            self._hear_of_new(now)
            batch = self._gate.judge(told, self._machine, now)
        self._guard.delivered(batch)
        return batch, full

    def hear(self, ready: int, now: float) -> None:
        if ready & MONITOR:
            self._hear_of_ends(now)
        if self._gate is not None:
            self._gate.look(self._machine, now)

    def look(self, now: float) -> None:
        if now >= self._guard.due:
            self._guard.look(now)
        for peer in self._probes.due(now):
            self._machine.connection_ended(peer, now)

    def send(self, batch: list[Send], now: float) -> list[tuple[int, int]]:
        refusals = self._wire.send(batch)
        for index, number in refusals:
            if number == GONE:
                self._probes.gone(batch[index][0])
        return refusals

    def close(self) -> None:
        if not self.socket.closed:
            self._unbind()
        self._monitor.close()
        self.socket.close()
        if self._gate is not None:
            self._gate.close()

    def _unbind(self) -> None:
        for url in self._bound:
            sockets.unbind(self.socket, url)
        listeners = sum(not endpoints.is_inproc(url) for url in self._bound)
        until = time.monotonic() + UNBIND_WAIT
        while listeners > 0 and time.monotonic() < until:
            self._monitor.socket.poll(50)
            listeners -= sum(seen.event is MonitorEvent.UNBOUND for seen in self._monitor.read())
        self._bound.clear()

    def _hear_of_new(self, now: float) -> None:
        new = self._wire.connections()
        if new:  # libzmq tells of an end before the descriptor can be another connection's
            self._hear_of_ends(now)
        for peer, fd in new:
            self._guard.opened(fd)
            self._probes.seen(peer, fd)
            replaced = self._connections.opened(peer, fd)
            if replaced is not None:
                self._end(replaced, fd, now)
            if self._gate is not None:
                self._gate.opened(peer, fd)

    def _hear_of_ends(self, now: float) -> None:
        for seen in self._monitor.read():
            if seen.event in HANDSHAKE_FAILED:
                refused(self._gate, seen, self._machine)
            self._guard.hear(seen, now)
            if seen.event is MonitorEvent.ACCEPTED:
                self._probes.accepted(seen.value)
            if seen.event is not MonitorEvent.LOST:
                continue
            peer = self._connections.ended(seen.value)
            if peer is not None:
                self._end(peer, seen.value, now)

    def _end(self, peer: bytes, fd: int, now: float) -> None:
        if self._gate is not None:
            self._gate.ended(peer)
        self._wire.forget(peer)
        self._probes.begin(peer, fd, now)
        self._machine.connection_ended(peer, now)
