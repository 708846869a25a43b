"""The endpoints of a broker that our own ZMTP serves, in the broker's own thread.

It sees every connection come, say hello and end, in the order in which that happens, so nothing has
to be probed or guessed here as with libzmq.
"""

from __future__ import annotations

import os
import socket as plain
import time
from math import inf
from typing import TYPE_CHECKING, Final

from majordomus.net import forks
from majordomus.net.broker.limits.connection_limits import Crowd
from majordomus.net.broker.listener import BATCH, HEAD_BYTES, HEAD_FRAMES, WAKER, Message
from majordomus.net.waker import Waker
from majordomus.net.zmtp import tcp
from majordomus.net.zmtp._engine import BROKEN_OFF, GONE_AWAY, GREETED_WELL, NEW
from majordomus.net.zmtp._router import TcpRouter

if TYPE_CHECKING:
    from majordomus.core.broker.machine import BrokerMachine
    from majordomus.core.broker.state.registry import Send

HANDSHAKE: Final = 3.0
"""Seconds for the handshake of ZMTP; a connection that says nothing is cut after it."""
LINGER: Final = 1.0
"""Seconds that peers get at the end to take what was sent to them."""
FAREWELL: Final = 0.1
"""Seconds that they get at the end to close, once they have taken it."""
UNSENT: Final = 16 * 1024 * 1024
"""Bytes that wait in here for one peer, or as many as a message may have; what is beyond waits in
its outbox."""
NO_DESCRIPTOR: Final = 0.1
"""Seconds until it is tried again to accept, when no descriptor was left for one who came."""


class ZmtpListener:
    """A port; see `port.Port`."""

    name = "zmtp"

    def __init__(self, machine: BrokerMachine, waker: Waker, mark: bytes = b"") -> None:
        settings = machine.settings
        self._machine, self._waker = machine, waker
        self._crowd = Crowd(settings.max_address_connections, settings.max_address_handshakes)
        self._router = TcpRouter(
            os.urandom,
            hwm=settings.send_hwm,
            max_frames=settings.max_frames + HEAD_FRAMES,
            max_bytes=settings.max_message + HEAD_BYTES,
            # A larger one cuts the connection; up to this size the core can still answer 413.
            max_message=2 * (settings.max_message + HEAD_BYTES),
            max_unsent=max(settings.max_message, UNSENT),
            max_unfinished=settings.max_unfinished_bytes,
            extra=waker.fd,
            mark=mark,
        )
        self._listening: list[plain.socket] = []
        self._hosts: dict[int, str] = {}
        self._next_handshake = inf
        self._accept_at = inf
        self.due = inf
        self._over: list[bytes] = []
        """Whose connections have ended; what was to be sent to them has been refused meanwhile."""
        self._closed = False
        self._generation = forks.generation
        self.fd = self._router.fd
        self.wait = self._router.wait

    def open(self) -> None:
        """Nothing is to be done: nobody is asked who he is."""

    def bind(self, url: str) -> str:
        made, real = tcp.listen(url)
        self._listening.append(made)
        self._router.listen(made.fileno())
        return real

    def receive(self, ready: int, now: float) -> tuple[list[Message], bool]:
        if not ready & ~WAKER:
            return [], False
        batch = self._router.receive(BATCH, now)
        return batch, self._router.pending

    def hear(self, ready: int, now: float) -> None:
        if self._over:
            over, self._over = self._over, []
            for whose in over:
                self._machine.connection_over(whose, now)
                self._router.release(whose)
            self._plan()
        for what, fd, peer, why in self._router.news():
            if what == NEW:
                self._came(fd, why, now)
            elif what == GREETED_WELL:
                self._crowd.spoke(fd)
            else:
                self._left(what == GONE_AWAY, fd, peer, why, now)
        if self._router.exhausted and self._accept_at == inf:
            self._accept_at = now + NO_DESCRIPTOR
            self._plan()

    def look(self, now: float) -> None:
        if now >= self._next_handshake:
            self._next_handshake = HANDSHAKE + self._router.expire(now - HANDSHAKE)
            self.hear(0, now)
        if now >= self._accept_at:
            self._accept_at = inf
            self._router.accept_again()
        self._plan()

    def send(self, batch: list[Send], now: float) -> list[tuple[int, int]]:
        return self._router.send(batch)

    @property
    def pending(self) -> bool:
        """Whether there is more to receive of which `fd` does not tell."""
        return self._router.pending

    def knows(self, peer: bytes) -> bool:
        """Whether there is a connection of this routing id."""
        return self._router.knows(peer)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._generation != forks.generation:
            self._router.abandon()
            return
        for listening in self._listening:
            self._router.unlisten(listening.fileno())
            listening.close()
        self._say_goodbye()
        self._router.close()

    def _say_goodbye(self) -> None:
        """Ends the connections in order: where one is closed while something is unread, the other
        end forgets what was sent to it."""
        router, began = self._router, time.monotonic()
        while True:
            router.finish()
            now = time.monotonic()
            if not router.drop(now):
                return
            if now - began >= (LINGER if router.unsent() else FAREWELL):
                return
            if router.wait(10) & WAKER:
                self._waker.clear()

    def _came(self, fd: int, host: str, now: float) -> None:
        reason = self._crowd.accepted(fd, host, now)
        if reason:
            self._router.cut(fd)
            self._crowd.ended(fd)
            self._machine.cut_off(reason, host)
            return
        self._hosts[fd] = host
        if self._next_handshake == inf:
            self._next_handshake = now + HANDSHAKE
            self._plan()

    def _left(self, served: bool, fd: int, peer: bytes | None, why: str, now: float) -> None:
        self._crowd.ended(fd)
        host = self._hosts.pop(fd, "")
        if not served:
            self._machine.handshake_failed(why, address=host)
            return
        if why != BROKEN_OFF:
            self._machine.cut_off(why, host)
        if peer is not None:
            self._machine.connection_ended(peer, now)
            self._over.append(peer)
            self._plan()

    def _plan(self) -> None:
        self.due = -inf if self._over else min(self._next_handshake, self._accept_at)
