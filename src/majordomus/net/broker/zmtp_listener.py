"""The endpoints of a broker that our own ZMTP serves, in the broker's own thread.

The router reports when each connection opens, completes its handshake and ends, in order. So this
listener needs no probes and no guesses, unlike the one for libzmq.
"""

from __future__ import annotations

import os
import socket as plain
import time
from math import inf
from typing import TYPE_CHECKING, Final

from majordomus.core.broker.state.identity import unix_group
from majordomus.net import forks
from majordomus.net.broker.limits.connection_limits import crowd_of
from majordomus.net.broker.listener import (
    BATCH,
    HEAD_BYTES,
    HEAD_FRAMES,
    LINGER,
    WAKER,
    PeerMessage,
)
from majordomus.net.waker import Waker
from majordomus.net.zmtp import ipc, tcp
from majordomus.net.zmtp.engine import (
    BROKEN_OFF,
    CONNECTION_ENDED,
    CONNECTION_OPENED,
    HANDSHAKE_DONE,
    REFUSED,
)
from majordomus.net.zmtp.router import TcpRouter

if TYPE_CHECKING:
    from majordomus.core.broker.contract import Machine
    from majordomus.core.broker.state.registry import Send
    from majordomus.net.broker.security.direct_authentication import DirectAuthentication

HANDSHAKE: Final = 3.0
"""Seconds for the ZMTP handshake; a connection that does not complete it is ended."""
CLOSE_WAIT: Final = 0.1
"""Seconds at the end in which peers can close, once they have read everything."""
MAX_UNSENT: Final = 16 * 1024 * 1024
"""Bytes that wait in the router for one peer, or `max_message` if that is more. Further messages
wait in the peer's outbox."""
MAX_DROPPED: Final = 256 * 1024 * 1024
MAX_DROPPING: Final = 30.0
"""Bytes (or four times `max_message`, if that is more) and seconds of a message that is too large.
The machine answers it with 413 as soon as it exceeds a bound; the rest is read and dropped up to
here, and beyond the connection is ended."""
ACCEPT_RETRY: Final = 0.1
"""Seconds until the next accept after one that failed for want of descriptors."""


class ZmtpListener:
    """Implements `listener.Listener`.

    `mark` is the prefix of all routing ids of this listener. `authentication` is None in a broker
    without it.
    """

    name = "zmtp"

    def __init__(
        self,
        machine: Machine,
        waker: Waker,
        mark: bytes = b"",
        authentication: DirectAuthentication | None = None,
    ) -> None:
        settings = machine.settings
        self._authentication = authentication
        self._now = 0.0
        """The time of the current `receive`."""
        self._machine, self._waker = machine, waker
        self._limits = crowd_of(settings)
        self._router = TcpRouter(
            os.urandom,
            hwm=settings.send_hwm,
            max_frames=settings.max_frames + HEAD_FRAMES,
            max_bytes=settings.max_message + HEAD_BYTES,
            max_dropped=max(MAX_DROPPED, 4 * settings.max_message),
            max_dropping=MAX_DROPPING,
            max_unsent=max(settings.max_message, MAX_UNSENT),
            max_all_unsent=settings.max_unsent_bytes,
            max_unfinished=settings.max_unfinished_bytes,
            extra=waker.fd,
            mark=mark,
            make_mechanism=None if authentication is None else authentication.make_mechanism,
            authenticate=None if authentication is None else authentication.authenticate,
            admit=self._admit,
        )
        self._listening: list[plain.socket | ipc.UnixListener] = []
        self._hosts: dict[int, str] = {}
        self._next_handshake = inf
        self._accept_at = inf
        self.due = inf
        self.batch = BATCH
        self._ended: list[bytes] = []
        """Peers whose connections have ended. One turn later all sends to them were refused, and
        their routing ids are released."""
        self._closed = False
        self._generation = forks.generation
        self.fd = self._router.fd
        self.wait = self._router.wait

    def open(self) -> None:
        if self._authentication is not None:
            self._authentication.open(self._waker.wake)

    def bind(self, url: str) -> str:
        made: plain.socket | ipc.UnixListener
        if url.startswith(ipc.SCHEME):
            made = ipc.listen(url)
            real = made.url
        else:
            made, real = tcp.listen(url)
        self._listening.append(made)
        self._router.listen(made.fileno())
        return real

    def receive(self, ready: int, now: float) -> tuple[list[PeerMessage], bool]:
        if not ready & ~WAKER:
            return [], False
        self._now = now
        batch = self._router.receive(self.batch, now)
        return batch, self._router.pending

    def report_connections(self, ready: int, now: float) -> None:
        if self._ended:
            ended, self._ended = self._ended, []
            for peer in ended:
                self._machine.connection_over(peer, now)
                self._router.release(peer)
            self._set_due()
        for event, fd, routing_id, detail in self._router.events():
            if event == CONNECTION_OPENED:
                self._connection_opened(fd, detail, now)
            elif event == HANDSHAKE_DONE:
                self._limits.spoke(fd)
            else:
                self._connection_ended(event == CONNECTION_ENDED, fd, routing_id, detail, now)
        if self._authentication is not None:
            self._authentication.decide(self._router)
            for fd in self._authentication.revoked(self._machine, now):
                self._router.cut(fd)
                self._limits.ended(fd)
                self._hosts.pop(fd, None)
        if self._router.exhausted and self._accept_at == inf:
            self._accept_at = now + ACCEPT_RETRY
            self._set_due()

    def tick(self, now: float) -> None:
        if now >= self._next_handshake:
            self._next_handshake = HANDSHAKE + self._router.expire(now - HANDSHAKE)
            self.report_connections(0, now)
        if now >= self._accept_at:
            self._accept_at = inf
            self._router.accept_again()
        self._set_due()

    def send(self, batch: list[Send], now: float) -> list[tuple[int, int]]:
        return self._router.send(batch)

    def buffers(self) -> dict[str, int]:
        unsent, unfinished = self._router.buffered()
        return {"unsent": unsent, "unfinished": unfinished}

    @property
    def pending(self) -> bool:
        """Whether `receive` has work although `fd` is not readable."""
        return self._router.pending

    def has_peer(self, peer: bytes) -> bool:
        """Return whether a connection has this routing id."""
        return self._router.has_peer(peer)

    def undelivered(self) -> int:
        return self._router.undelivered()

    def close(self, linger: float = LINGER) -> None:
        if self._closed:
            return
        self._closed = True
        if self._authentication is not None:
            self._authentication.close()
        if self._generation != forks.generation:
            self._router.abandon()
            return
        for listening in self._listening:
            self._router.unlisten(listening.fileno())
            listening.close()
        self._finish_connections(min(linger, LINGER))
        self._router.close()

    def _finish_connections(self, linger: float) -> None:
        """Write what is unsent, then wait for the peers to close.

        A connection that is closed with unread input is reset, and the kernel of the other end
        then drops what was sent to it.
        """
        router, began = self._router, time.monotonic()
        while True:
            router.finish()
            now = time.monotonic()
            if not router.discard_input(now):
                return
            if now - began >= (linger if router.unsent() else CLOSE_WAIT):
                return
            if router.wait(10) & WAKER:
                self._waker.clear()

    def _connection_opened(self, fd: int, host: str, now: float) -> None:
        reason = self._limits.accepted(fd, ipc.user_of(host), now)
        if reason:
            self._router.cut(fd)
            self._limits.ended(fd)
            self._machine.cut_off(reason, host)
            return
        self._hosts[fd] = host
        if self._next_handshake == inf:
            self._next_handshake = now + HANDSHAKE
            self._set_due()

    def _connection_ended(
        self, was_open: bool, fd: int, peer: bytes | None, reason: str, now: float
    ) -> None:
        self._limits.ended(fd)
        host = self._hosts.pop(fd, "")
        if not was_open:
            self._handshake_failed(fd, reason, host)
            return
        if reason != BROKEN_OFF:
            self._machine.cut_off(reason, host)
        if peer is not None:
            if self._authentication is not None:
                self._authentication.ended(peer)
            self._machine.connection_ended(peer, now)
            self._ended.append(peer)
            self._set_due()

    def _admit(self, fd: int, peer: bytes, proof: str) -> bool:
        """Set the identity of a peer whose handshake is done; see `TcpRouter`."""
        machine, now = self._machine, self._now
        unix: tuple[str, ...] = ()
        credentials = ipc.credentials(self._hosts.get(fd, ""))
        if credentials is not None:
            uid, pid = credentials
            machine.unix_peer(peer, uid, pid)
            unix = (unix_group(uid),)
        if self._authentication is not None:
            return self._authentication.admit(machine, fd, peer, proof, now, unix)
        return not unix or machine.identify(peer, "", unix, now)

    def _handshake_failed(self, fd: int, reason: str, host: str) -> None:
        refusal = None if self._authentication is None else self._authentication.refusal(fd)
        if refusal is not None:
            self._machine.handshake_failed(refusal.why, who=refusal.who, address=refusal.address)
        else:
            reason = "refused" if reason.startswith(REFUSED) else reason
            self._machine.handshake_failed(reason, address=host)

    def _set_due(self) -> None:
        self.due = -inf if self._ended else min(self._next_handshake, self._accept_at)
