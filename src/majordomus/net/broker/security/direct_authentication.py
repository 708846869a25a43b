"""Authentication of the connections that our own ZMTP serves.

The router asks during the handshake, and what a peer has proved belongs to its connection from then
on: nothing is checked with each message. Keys are looked up in the broker's thread. A thread of its
own hashes passwords, and looks whether the files have changed.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from zmq.utils import z85

from majordomus.net.broker.security.authenticator import (
    CURVE,
    LOCAL_ADDRESS,
    PLAIN,
    TOO_MANY_TRIES,
    AuthenticationRefusal,
    Authenticator,
)
from majordomus.net.broker.security.zap import LOOK
from majordomus.net.zmtp import mechanisms

if TYPE_CHECKING:
    from majordomus.core.broker.contract import Machine
    from majordomus.net.zmtp.router import TcpRouter
    from majordomus.security.certificates import Certificate

PENDING: Final = 0
"""The status of an authentication whose outcome comes later."""
SOCKET_TYPE: Final = b"ROUTER"

logger = logging.getLogger("majordomus.security")

Question = tuple[int, int, str, Sequence[bytes]]
"""Serial number and descriptor of a connection, its address, and its credentials."""
Verdict = tuple[int, int, int, str, AuthenticationRefusal | None]
"""Serial number and descriptor of a connection, status, proof, and the reason of a refusal."""


class DirectAuthentication:
    """Authentication of one listener. The broker's thread calls all methods."""

    def __init__(self, authenticator: Authenticator, certificate: Certificate | None) -> None:
        self.authenticator = authenticator
        self._version = authenticator.version
        self._keys: mechanisms.CurveKeys | None = None
        if certificate is not None:
            public, secret = (
                z85.decode(key.encode()) for key in (certificate.public, certificate.secret)
            )
            self._keys = mechanisms.CurveKeys(public, secret)
        self._peers: dict[bytes, tuple[int, str, tuple[str, ...]]] = {}
        """Descriptor and proof of each accepted peer, and the group of its Unix user."""
        self._refusals: dict[int, AuthenticationRefusal] = {}
        """Why a connection was refused that has not ended yet, by descriptor."""
        self._questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._verdicts: deque[Verdict] = deque()
        self._wake: Callable[[], None] = lambda: None
        self._thread: threading.Thread | None = None
        self._closed = False

    def open(self, wake: Callable[[], None]) -> None:
        """Start the thread. `wake` is called in it when the broker's thread has something to do."""
        self._wake = self.authenticator.changed = wake
        self._thread = threading.Thread(
            target=self._run, name="majordomus-credentials", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the thread. May be repeated."""
        self._closed = True
        self._wake = self.authenticator.changed = lambda: None
        self._questions.put(None)
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._thread = None

    def make_mechanism(self) -> mechanisms.Mechanism:
        """Make the server's side of a handshake."""
        if self.authenticator.mechanism == CURVE and self._keys is not None:
            return mechanisms.CurveServer(self._keys, SOCKET_TYPE)
        if self.authenticator.mechanism == PLAIN:
            return mechanisms.PlainServer(SOCKET_TYPE)
        return mechanisms.Null(SOCKET_TYPE, asks=True)

    def authenticate(
        self, serial: int, fd: int, host: str, credentials: Sequence[bytes]
    ) -> tuple[int, str]:
        """Check the credentials of a connection; see `TcpRouter`."""
        address = host or LOCAL_ADDRESS
        if not self.authenticator.is_quick(address, credentials):
            self._questions.put((serial, fd, address, credentials))
            return PENDING, ""
        status, proof, refusal = self._answer(address, credentials)
        if refusal is not None:
            self._refusals[fd] = refusal
        return status, proof

    def decide(self, router: TcpRouter) -> None:
        """Tell the router the outcomes of pending authentications."""
        while self._verdicts:
            serial, fd, status, proof, refusal = self._verdicts.popleft()
            if router.decide(serial, status, proof) and refusal is not None:
                self._refusals[fd] = refusal

    def admit(
        self,
        machine: Machine,
        fd: int,
        peer: bytes,
        proof: str,
        now: float,
        unix: tuple[str, ...] = (),
    ) -> bool:
        """Set the identity of an accepted peer before its first message. `unix` is the group of
        the Unix user of an ipc connection.

        Returns False when its key was removed meanwhile, or the routing id was another user's a
        moment ago.
        """
        identity = self.authenticator.identity(proof)
        if identity is None:
            return False
        groups = identity.groups + unix
        if not machine.identify(peer, identity.user, groups, now, identity.key):
            return False
        self._peers[peer] = (fd, proof, unix)
        return True

    def ended(self, peer: bytes) -> None:
        """Note the end of the connection of `peer`."""
        self._peers.pop(peer, None)

    def refusal(self, fd: int) -> AuthenticationRefusal | None:
        """Take the reason why the connection of `fd` was refused; None when it was not."""
        return self._refusals.pop(fd, None)

    def revoked(self, machine: Machine, now: float) -> list[int]:
        """Apply changed files to accepted peers.

        Returns the descriptors of connections that are no longer accepted; the caller ends them.
        """
        if self._version == self.authenticator.version:
            return []
        self._version = self.authenticator.version
        found: list[int] = []
        for peer, (fd, proof, unix) in list(self._peers.items()):
            identity = self.authenticator.identity(proof)
            if identity is not None and machine.identify(
                peer, identity.user, identity.groups + unix, now, identity.key
            ):
                continue
            del self._peers[peer]
            machine.revoke(peer, now)
            found.append(fd)
        return found

    def _answer(
        self, address: str, credentials: Sequence[bytes]
    ) -> tuple[int, str, AuthenticationRefusal | None]:
        """Return status and proof, and the reason of a refusal."""
        try:
            proof, who, why = self.authenticator.check(address, credentials)
        except Exception:  # a fault of ours accepts no connection
            logger.critical("credentials could not be checked; please report this", exc_info=True)
            return mechanisms.FAULT, "", None
        if proof:
            return mechanisms.ACCEPTED, proof, None
        status = mechanisms.TEMPORARY if why == TOO_MANY_TRIES else mechanisms.DENIED
        return status, "", AuthenticationRefusal(why, who, address)

    # ── the thread ────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while not self._closed:
            try:
                self._serve()
            except BaseException:  # whatever it was: removed keys must be noticed
                logger.critical("the thread of credentials failed; it goes on", exc_info=True)

    def _serve(self) -> None:
        next_look = time.monotonic() + LOOK
        while not self._closed:
            with contextlib.suppress(queue.Empty):
                question = self._questions.get(timeout=max(0.0, next_look - time.monotonic()))
                if question is not None:
                    serial, fd, address, credentials = question
                    self._verdicts.append((serial, fd, *self._answer(address, credentials)))
                    self._wake()
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOOK
                self._look()

    def _look(self) -> None:
        try:
            self.authenticator.look()
        except Exception:  # accepted keys stay accepted
            logger.critical("the files of a broker cannot be looked at", exc_info=True)
