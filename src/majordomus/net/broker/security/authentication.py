"""Between the wire and the machine of a broker that asks who connects: every message is checked
against what its connection has proved, and connections of who was taken away are ended.

A broker that asks nobody has no gate, and pays nothing for this one.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Final

import zmq

from majordomus.core.broker.contract import Machine
from majordomus.core.broker.state.identity import Identity
from majordomus.errors import ConfigurationError
from majordomus.net.broker.limits.descriptors import Mark, mark_of, shut
from majordomus.net.broker.security import authenticator as doors
from majordomus.net.broker.security import curve, zap
from majordomus.net.broker.security.authenticator import AuthenticationRefusal, Authenticator
from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import Monitor, MonitorEvent, MonitorRecord
from majordomus.security.certificates import Certificate

MISMATCH: Final = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
CRYPTOGRAPHIC: Final = int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC)
NO_HANDLER: Final = 14
"""EFAULT: what libzmq says when a domain is enforced and nobody answers for it."""
CANARY_WAIT: Final = 5000
"""Milliseconds for the canary's fate to be known."""

_numbers = itertools.count()


class Authentication:
    """For one broker: its socket's security, and whose messages go on to the machine."""

    def __init__(self, door: Authenticator, certificate: Certificate | None) -> None:
        self.domain = f"majordomus.{os.getpid()}.{next(_numbers)}"
        self.certificate = certificate
        self._door = door
        self._version = door.version
        self._proofs: dict[bytes, str] = {}
        self._marks: dict[bytes, tuple[int, Mark]] = {}

    def open(self, socket: zmq.Socket[bytes], monitor: Monitor, wake: Callable[[], None]) -> None:
        """Before the socket is bound: the handler answers for it, and a canary has proved it.

        Raises: ConfigurationError when a stranger could come in.
        """
        self._door.changed = wake
        zap.open_door(self.domain, self._door)
        if self._door.mechanism == doors.CURVE and self.certificate is not None:
            curve.serve(socket, self.certificate, self.domain)
        else:
            if self._door.mechanism == doors.PLAIN:
                socket.setsockopt(zmq.PLAIN_SERVER, 1)
            curve.enforce(socket, self.domain)
        if self._door.mechanism != doors.NULL:  # a stranger from elsewhere cannot be sent
            self._prove(socket, monitor)
        self._door.refused.clear()

    def close(self) -> None:
        """After the socket is closed. May be repeated."""
        self._door.changed = lambda: None
        zap.shut_door(self.domain)

    def opened(self, peer: bytes, fd: int) -> None:
        """The first message of a connection has come by `fd`."""
        mark = mark_of(fd)
        if mark is not None:
            self._marks[peer] = (fd, mark)

    def ended(self, peer: bytes) -> None:
        """The connection of `peer` has ended."""
        self._marks.pop(peer, None)
        self._proofs.pop(peer, None)

    def judge(
        self,
        told: list[tuple[bytes, list[bytes], str]],
        machine: Machine,
        now: float,
    ) -> list[tuple[bytes, list[bytes]]]:
        """The messages of a batch that may go on. Each carries the proof of its connection."""
        self.look(machine, now)
        proofs = self._proofs
        return [
            (peer, frames)
            for peer, frames, proof in told
            if proofs.get(peer, "") == proof or self._enters(peer, proof, machine, now)
        ]

    def look(self, machine: Machine, now: float) -> None:
        """Acts on what has changed about who may be connected."""
        if self._version == self._door.version:
            return
        self._version = self._door.version
        for peer, proof in list(self._proofs.items()):
            identity = self._door.identity(proof)
            if identity is None or not _tell(machine, peer, identity, now):
                self._expel(peer, machine, now)

    def last_refused(self) -> AuthenticationRefusal | None:
        """Whom the door has refused, as far as nobody has asked yet; the oldest first."""
        return self._door.refused.popleft() if self._door.refused else None

    def _prove(self, socket: zmq.Socket[bytes], monitor: Monitor) -> None:
        with sockets.dealer() as canary:
            canary.setsockopt(zmq.LINGER, 0)
            refused = MonitorEvent.AUTH_FAILED
            if self._door.mechanism == doors.PLAIN:
                canary.setsockopt(zmq.PLAIN_USERNAME, b"canary")
                canary.setsockopt(zmq.PLAIN_PASSWORD, os.urandom(16).hex().encode())
            elif self._door.lets_in_anybody or self.certificate is None:
                refused = MonitorEvent.PROTOCOL_FAILED  # who does not encrypt is the only stranger
            else:
                stranger = curve.make()
                canary.setsockopt(zmq.CURVE_SERVERKEY, self.certificate.public.encode())
                canary.setsockopt(zmq.CURVE_PUBLICKEY, stranger.public.encode())
                canary.setsockopt(zmq.CURVE_SECRETKEY, stranger.secret.encode())
            fate = _fate_of(canary, socket, monitor)
        if fate != [refused]:
            raise ConfigurationError(
                "a stranger's connection was not refused: this broker does not serve "
                f"({', '.join(event.name for event in fate) or 'no answer'})"
            )

    def _enters(self, peer: bytes, proof: str, machine: Machine, now: float) -> bool:
        identity = self._door.identity(proof)
        if identity is None:
            machine.count_dropped("revoked", peer)
            self._expel(peer, machine, now)
            return False
        if not _tell(machine, peer, identity, now):
            return False
        self._proofs[peer] = proof
        return True

    def _expel(self, peer: bytes, machine: Machine, now: float) -> None:
        self._proofs.pop(peer, None)
        machine.revoke(peer, now)
        if peer in self._marks:
            shut(*self._marks[peer])


def _tell(machine: Machine, peer: bytes, identity: Identity, now: float) -> bool:
    return machine.identify(peer, identity.user, identity.groups, now, identity.key)


def refused(gate: Authentication | None, seen: MonitorRecord, machine: Machine) -> None:
    """A handshake has failed: counted, and one line of the log."""
    judged = seen.event is MonitorEvent.AUTH_FAILED
    who = gate.last_refused() if gate is not None and judged else None
    if who is None:
        machine.handshake_failed(reason(seen))
    else:
        machine.handshake_failed(who.why, who=who.who, address=who.address)


def reason(seen: MonitorRecord) -> str:
    """A short key for a failed handshake."""
    if seen.event is MonitorEvent.AUTH_FAILED:
        return "refused"
    if seen.event is MonitorEvent.PROTOCOL_FAILED:
        known = {MISMATCH: "another-mechanism", CRYPTOGRAPHIC: "wrong-server-key"}
        return known.get(seen.value, "malformed")
    return "no-zap-handler" if seen.value == NO_HANDLER else "broken-off"


def _fate_of(
    canary: zmq.Socket[bytes], socket: zmq.Socket[bytes], monitor: Monitor
) -> list[MonitorEvent]:
    """What becomes of a stranger that tries to come in by a private door of the very socket, before
    others are opened.
    """
    url = sockets.bind(socket, "tcp://127.0.0.1:*")
    watch = Monitor(
        canary, MonitorEvent.CONNECTED, MonitorEvent.AUTH_FAILED, MonitorEvent.PROTOCOL_FAILED
    )
    try:
        sockets.connect(canary, url)
        watch.socket.poll(CANARY_WAIT)
        return [seen.event for seen in watch.read()]
    finally:
        watch.close()
        sockets.unbind(socket, url)
        while monitor.socket.poll(CANARY_WAIT):
            if any(seen.event is MonitorEvent.UNBOUND for seen in monitor.read()):
                break  # the private door is shut
