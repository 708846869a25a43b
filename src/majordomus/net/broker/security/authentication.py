"""Authentication of a libzmq listener.

It sets the socket's options, checks the identity behind each message, and ends connections whose
key or password was removed.

A broker without authentication has no such object and pays nothing for it.
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
from majordomus.net.broker.security import curve, zap
from majordomus.net.broker.security.authenticator import (
    CURVE,
    NULL,
    PLAIN,
    AuthenticationRefusal,
    Authenticator,
)
from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import Monitor, MonitorEvent, MonitorRecord
from majordomus.security.certificates import Certificate

MISMATCH: Final = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
CRYPTOGRAPHIC: Final = int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC)
NO_HANDLER: Final = 14
"""EFAULT: libzmq's code for an enforced ZAP domain without a handler."""
PROBE_WAIT: Final = 5000
"""Milliseconds for the outcome of the probe connection."""

_numbers = itertools.count()


class Authentication:
    """Authentication of one broker.

    The methods but `open` and `close` are called with each batch: `accepted` returns the messages
    that the machine may receive.
    """

    def __init__(self, authenticator: Authenticator, certificate: Certificate | None) -> None:
        self.domain = f"majordomus.{os.getpid()}.{next(_numbers)}"
        self.certificate = certificate
        self.authenticator = authenticator
        self._version = authenticator.version
        self._proofs: dict[bytes, str] = {}
        self._marks: dict[bytes, tuple[int, Mark]] = {}

    def open(self, socket: zmq.Socket[bytes], monitor: Monitor, wake: Callable[[], None]) -> None:
        """Prepare a socket that is not bound yet, and prove by a probe that it refuses strangers.

        Raises: ConfigurationError when the probe connection was not refused.
        """
        self.authenticator.changed = wake
        zap.open_door(self.domain, self.authenticator)
        if self.authenticator.mechanism == CURVE and self.certificate is not None:
            curve.serve(socket, self.certificate, self.domain)
        else:
            if self.authenticator.mechanism == PLAIN:
                socket.setsockopt(zmq.PLAIN_SERVER, 1)
            curve.enforce(socket, self.domain)
        if self.authenticator.mechanism != NULL:  # a probe from another machine is not possible
            self._probe(socket, monitor)
        self.authenticator.refused.clear()

    def close(self) -> None:
        """Deregister from the ZAP handler, after the socket is closed. May be repeated."""
        self.authenticator.changed = lambda: None
        zap.shut_door(self.domain)

    def opened(self, peer: bytes, fd: int) -> None:
        """Note that the first message of `peer` came from `fd`."""
        mark = mark_of(fd)
        if mark is not None:
            self._marks[peer] = (fd, mark)

    def ended(self, peer: bytes) -> None:
        """Note the end of the connection of `peer`."""
        self._marks.pop(peer, None)
        self._proofs.pop(peer, None)

    def accepted(
        self,
        batch: list[tuple[bytes, list[bytes], str]],
        machine: Machine,
        now: float,
    ) -> list[tuple[bytes, list[bytes]]]:
        """Return the messages of a batch that the machine may receive.

        `batch` holds (routing id, frames, proof of the connection).
        """
        self.apply_changes(machine, now)
        proofs = self._proofs
        return [
            (peer, frames)
            for peer, frames, proof in batch
            if proofs.get(peer, "") == proof or self._authenticate(peer, proof, machine, now)
        ]

    def apply_changes(self, machine: Machine, now: float) -> None:
        """Apply changed identities to open connections; end those that are no longer accepted."""
        if self._version == self.authenticator.version:
            return
        self._version = self.authenticator.version
        for peer, proof in list(self._proofs.items()):
            identity = self.authenticator.identity(proof)
            if identity is None or not _identify(machine, peer, identity, now):
                self._end_connection(peer, machine, now)

    def last_refused(self) -> AuthenticationRefusal | None:
        """Take the oldest refusal of the authenticator that was not taken yet."""
        return self.authenticator.refused.popleft() if self.authenticator.refused else None

    def _probe(self, socket: zmq.Socket[bytes], monitor: Monitor) -> None:
        with sockets.dealer() as probe:
            probe.setsockopt(zmq.LINGER, 0)
            refused = MonitorEvent.AUTH_FAILED
            if self.authenticator.mechanism == PLAIN:
                probe.setsockopt(zmq.PLAIN_USERNAME, b"probe")
                probe.setsockopt(zmq.PLAIN_PASSWORD, os.urandom(16).hex().encode())
            elif self.authenticator.accepts_any_key or self.certificate is None:
                refused = MonitorEvent.PROTOCOL_FAILED  # only an unencrypted connection is refused
            else:
                stranger = curve.make()
                probe.setsockopt(zmq.CURVE_SERVERKEY, self.certificate.public.encode())
                probe.setsockopt(zmq.CURVE_PUBLICKEY, stranger.public.encode())
                probe.setsockopt(zmq.CURVE_SECRETKEY, stranger.secret.encode())
            outcome = _outcome_of(probe, socket, monitor)
        if outcome != [refused]:
            raise ConfigurationError(
                "the probe connection was not refused: this broker does not serve "
                f"({', '.join(event.name for event in outcome) or 'no answer'})"
            )

    def _authenticate(self, peer: bytes, proof: str, machine: Machine, now: float) -> bool:
        identity = self.authenticator.identity(proof)
        if identity is None:
            machine.count_dropped("revoked", peer)
            self._end_connection(peer, machine, now)
            return False
        if not _identify(machine, peer, identity, now):
            return False
        self._proofs[peer] = proof
        return True

    def _end_connection(self, peer: bytes, machine: Machine, now: float) -> None:
        self._proofs.pop(peer, None)
        machine.revoke(peer, now)
        if peer in self._marks:
            shut(*self._marks[peer])


def _identify(machine: Machine, peer: bytes, identity: Identity, now: float) -> bool:
    return machine.identify(peer, identity.user, identity.groups, now, identity.key)


def report_failure(
    authentication: Authentication | None, seen: MonitorRecord, machine: Machine
) -> None:
    """Report a failed handshake to the machine."""
    refusal = None
    if authentication is not None and seen.event is MonitorEvent.AUTH_FAILED:
        refusal = authentication.last_refused()
    if refusal is None:
        machine.handshake_failed(reason(seen))
    else:
        machine.handshake_failed(refusal.why, who=refusal.who, address=refusal.address)


def reason(seen: MonitorRecord) -> str:
    """Return the short key of a failed handshake."""
    if seen.event is MonitorEvent.AUTH_FAILED:
        return "refused"
    if seen.event is MonitorEvent.PROTOCOL_FAILED:
        known = {MISMATCH: "another-mechanism", CRYPTOGRAPHIC: "wrong-server-key"}
        return known.get(seen.value, "malformed")
    return "no-zap-handler" if seen.value == NO_HANDLER else "broken-off"


def _outcome_of(
    probe: zmq.Socket[bytes], socket: zmq.Socket[bytes], monitor: Monitor
) -> list[MonitorEvent]:
    """Connect `probe` to `socket` by a temporary endpoint; return the events of its handshake."""
    url = sockets.bind(socket, "tcp://127.0.0.1:*")
    watch = Monitor(
        probe, MonitorEvent.CONNECTED, MonitorEvent.AUTH_FAILED, MonitorEvent.PROTOCOL_FAILED
    )
    try:
        sockets.connect(probe, url)
        watch.socket.poll(PROBE_WAIT)
        return [seen.event for seen in watch.read()]
    finally:
        watch.close()
        sockets.unbind(socket, url)
        while monitor.socket.poll(PROBE_WAIT):
            if any(seen.event is MonitorEvent.UNBOUND for seen in monitor.read()):
                break  # the temporary endpoint is closed
