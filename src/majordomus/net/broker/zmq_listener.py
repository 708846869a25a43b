"""The endpoints of a broker that libzmq serves: a ROUTER and its wire.

On Linux these are inproc endpoints. TCP and ipc follow where our own ZMTP does not serve them; then
`limits/connection_watch` follows their connections.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Final

import zmq

from majordomus.net import endpoints
from majordomus.net.broker.limits.connection_watch import ConnectionWatch
from majordomus.net.broker.listener import (
    BATCH,
    HEAD_BYTES,
    HEAD_FRAMES,
    LINGER,
    WAKER,
    PeerMessage,
)
from majordomus.net.broker.security.authentication import Authentication
from majordomus.net.waker import Waker
from majordomus.net.zmq import select as wires
from majordomus.net.zmq import sockets
from majordomus.net.zmq.wire import GONE, RouterWire, Wait

if TYPE_CHECKING:
    from majordomus.core.broker.contract import Machine
    from majordomus.core.broker.state.registry import Send

SOCKET, MONITOR = 2 * WAKER, 4 * WAKER
"""Bits of the result of `wait`."""
RESERVED_ID: Final = "routing-id-reserved"
UNBIND_WAIT: Final = 1.0
"""Seconds that libzmq has to close its listening sockets. The endpoints are free when `close`
returns."""
UNBIND_CHECK: Final = 0.005
"""Seconds between two checks of that."""


class ZmqListener:
    """Implements `listener.Listener`. `authentication` is None in a broker without it. `urls`: the
    endpoints that will be bound. Peers of inproc alone are not watched: their connections end with
    this process."""

    def __init__(
        self,
        machine: Machine,
        waker: Waker,
        authentication: Authentication | None,
        urls: Sequence[str],
    ) -> None:
        settings = machine.settings
        self.name = wires.PYZMQ
        self._machine, self._waker, self._authentication = machine, waker, authentication
        self.socket = sockets.router(settings.max_message, settings.send_hwm)
        self._wire = RouterWire(
            self.socket,
            max_frames=settings.max_frames + HEAD_FRAMES,
            max_bytes=settings.max_message + HEAD_BYTES,
        )
        self._rejected = 0
        self._bound: list[str] = []
        self._watch: ConnectionWatch | None = None
        self.sources: tuple[zmq.Socket[bytes], ...] = (self.socket,)
        if not all(map(endpoints.is_inproc, urls)):
            self._watch = ConnectionWatch(machine, self.socket, self._wire.forget, authentication)
            self.sources = (self.socket, self._watch.monitor.socket)
        self.wait = Wait(waker.fd, *self.sources)
        self.batch = BATCH

    @property
    def due(self) -> float:
        return inf if self._watch is None else self._watch.due

    def open(self) -> None:
        if self._authentication is not None and self._watch is not None:
            self._authentication.open(self.socket, self._watch.monitor, self._waker.wake)

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
            self._note_new_connections(now)
        else:
            with_users = self._wire.receive_with_users(self.batch)
            full = len(with_users) == self.batch
            self._note_new_connections(now)
            batch = self._authentication.accepted(with_users, self._machine, now)
        while self._rejected < self._wire.rejected:
            self._rejected += 1
            self._machine.count_dropped(RESERVED_ID, b"")
        return batch, full

    def report_connections(self, ready: int, now: float) -> None:
        if ready & MONITOR and self._watch is not None:
            self._watch.read(now)
        if self._authentication is not None:
            self._authentication.apply_changes(self._machine, now)

    def tick(self, now: float) -> None:
        if self._watch is not None:
            self._watch.tick(now)

    def send(self, batch: list[Send], now: float) -> list[tuple[int, int]]:
        refusals = self._wire.send(batch)
        if self._watch is not None:
            for index, number in refusals:
                if number == GONE:
                    self._watch.gone(batch[index][0])
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
        if self._watch is not None:
            self._watch.close()
        self.socket.close(linger=round(linger * 1000))
        until = time.monotonic() + UNBIND_WAIT
        for url in bound:
            while not sockets.is_free(url) and time.monotonic() < until:
                time.sleep(UNBIND_CHECK)
        if self._authentication is not None:
            self._authentication.close()

    def _note_new_connections(self, now: float) -> None:
        new = self._wire.connections()
        if new and self._watch is not None:
            self._watch.read(now)
            self._watch.opened(new, now)
