"""Which connections a broker accepts: by CURVE key, by password, or from this machine only.

An accepted connection gets a *proof*: `curve:KEY`, `plain:USER:MARK` or `null:`. Our own ZMTP binds
it to the connection; libzmq attaches it to every message as `User-Id`. The proof names the
credential and not the user, so a removed key is noticed with the next message of any of its
connections. Another thread than the broker's reloads files and hashes passwords; the broker's
thread reads the result.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from zmq.utils import z85

from majordomus.core.broker.state.identity import UNIX_USER, UNPROVED, Identity
from majordomus.security import keys, passwords
from majordomus.security.certificates import Certificate
from majordomus.security.passwords import Entry
from majordomus.security.watched import Watched

CURVE: Final = "CURVE"
PLAIN: Final = "PLAIN"
NULL: Final = "NULL"
LOCAL_ADDRESS: Final = "localhost"
"""The address that libzmq reports for an ipc connection; user and process may follow."""
MOST_REMOVED: Final = 10_000
"""Removed keys that are remembered, for the reason in the log."""
TRIES: Final = 10
"""Passwords checked per second. Each costs 50 ms of scrypt in the thread that serves all brokers of
the process. A password that was accepted before is recognised without scrypt."""
TOO_MANY_TRIES: Final = "too-many-tries"
MOST_REMEMBERED: Final = 10_000
"""Accepted passwords that are recognised."""

logger = logging.getLogger("majordomus.zap")


class BusyError(Exception):
    """Too many passwords are to be checked at once: the client may try again."""


class AuthenticationRefusal(NamedTuple):
    """A refused connection. `why` is a short key, `who` a public key or a user's name."""

    why: str
    who: str
    address: str


class Authenticator:
    """Checks the credentials of one mechanism.

    CURVE without `known` accepts every key. `changed` is called in the ZAP handler's thread after a
    reload that may have removed identities; `version` is incremented before.
    """

    def __init__(
        self,
        mechanism: str,
        known: Watched[Identity] | Watched[Entry] | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.mechanism = mechanism
        self.version = 0
        self.refused: deque[AuthenticationRefusal] = deque(maxlen=1000)
        self.changed = changed
        self._known = known
        self._by_proof = self._identities()
        self._removed: dict[str, None] = {}
        self._tries, self._second = 0, 0
        self._accepted: dict[bytes, None] = {}
        self._salt = os.urandom(32)
        self._looking = threading.Lock()
        self._log_problems()

    @property
    def accepts_any_key(self) -> bool:
        """Whether every key is accepted."""
        return self.mechanism == CURVE and self._known is None

    # ── any thread ────────────────────────────────────────────────────────────────────────────────

    def judge(self, mechanism: str, address: str, credentials: Sequence[bytes]) -> str:
        """Check the credentials of a new connection; return its proof, "" when it is refused.

        Several threads may call it. Raises: BusyError when too many passwords are being tried.
        """
        proof, who, why = "", "", "another-mechanism"
        if mechanism == self.mechanism:
            proof, who, why = self.check(address, credentials)
        if not proof:
            self.refused.append(AuthenticationRefusal(why, who, address))
        if why == TOO_MANY_TRIES:
            raise BusyError
        return proof

    def check(self, address: str, credentials: Sequence[bytes]) -> tuple[str, str, str]:
        """Check the credentials of a new connection. Returns its proof, "" when it is refused;
        whose credentials they are, and the reason of the refusal.

        Several threads may call it. It takes 50 ms unless `is_quick`.
        """
        check = {CURVE: self._check_key, PLAIN: self._check_password, NULL: self._check_null}
        return check[self.mechanism](address, credentials)

    def is_quick(self, address: str, credentials: Sequence[bytes]) -> bool:
        """Whether `check` decides about these credentials without scrypt."""
        if self.mechanism != PLAIN or not is_local_address(address) or len(credentials) != 2:
            return True
        _, entry, seal = self._entry(credentials)
        return entry is not None and seal in self._accepted

    def _check_key(self, address: str, credentials: Sequence[bytes]) -> tuple[str, str, str]:
        if len(credentials) != 1 or len(credentials[0]) != 32:
            return "", "", "malformed"
        key = z85.encode(credentials[0]).decode()
        proof = f"curve:{key}"
        if self._known is None or proof in self._by_proof:
            return proof, key, ""
        return "", key, "removed-key" if proof in self._removed else "unknown-key"

    def _check_password(self, address: str, credentials: Sequence[bytes]) -> tuple[str, str, str]:
        if not is_local_address(address):
            return "", "", "password-from-elsewhere"
        if len(credentials) != 2 or self._known is None:
            return "", "", "malformed"
        user, entry, seal = self._entry(credentials)
        if entry is not None and seal in self._accepted:
            return f"plain:{user}:{entry.mark}", user, ""
        if not self._may_try():
            return "", user, TOO_MANY_TRIES
        if passwords.fits(entry, credentials[1]) and entry is not None:
            if len(self._accepted) >= MOST_REMEMBERED:
                self._accepted.clear()
            self._accepted[seal] = None
            return f"plain:{user}:{entry.mark}", user, ""
        return "", user, "wrong-password"

    def _entry(self, credentials: Sequence[bytes]) -> tuple[str, Entry | None, bytes]:
        """Return the user of a name and password, the user's entry, and the digest of both."""
        user = credentials[0].decode("utf-8", "replace")
        entry = self._known.value.get(user) if self._known is not None else None
        if not isinstance(entry, Entry):
            return user, None, b""
        return user, entry, self._seal(f"{user}:{entry.mark}", credentials[1])

    def _may_try(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._tries, self._second = 0, second
        self._tries += 1
        return self._tries <= TRIES

    def _seal(self, name: str, password: bytes) -> bytes:
        """Return the digest by which this process recognises an accepted password."""
        return hmac.digest(self._salt, name.encode() + b"\0" + password, "sha256")

    def _check_null(self, address: str, credentials: Sequence[bytes]) -> tuple[str, str, str]:
        return ("null:", "", "") if is_local_address(address) else ("", "", "from-elsewhere")

    def look(self) -> None:
        """Reload what has changed. Several threads may call it."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        if self._known is None or not self._known.look():
            return
        before, self._by_proof = self._by_proof, self._identities()
        removed = [proof for proof in before if proof not in self._by_proof]
        self._removed = dict.fromkeys([*self._removed, *removed][-MOST_REMOVED:])
        self._log_problems()
        logger.info("%s: %d known, %d removed", self._known.path, len(self._by_proof), len(removed))
        self.version += 1
        self.changed()

    # ── the broker's thread ───────────────────────────────────────────────────────────────────────

    def identity(self, proof: str) -> Identity | None:
        """Return the identity of a proof; None when it may not, or no longer, be connected.

        A message without a proof came by inproc, from this process.
        """
        if not proof or proof == "null:":
            return UNPROVED
        found = self._by_proof.get(proof)
        if found is None and self.accepts_any_key:
            return Identity(key=proof.removeprefix("curve:"))
        return found

    # ── inside ────────────────────────────────────────────────────────────────────────────────────

    def _identities(self) -> Mapping[str, Identity]:
        by_proof: dict[str, Identity] = {}
        if self._known is not None:
            for name, one in self._known.value.items():
                if isinstance(one, Identity):
                    by_proof[f"curve:{name}"] = one
                else:
                    by_proof[f"plain:{name}:{one.mark}"] = Identity(name, one.groups)
        return by_proof

    def _log_problems(self) -> None:
        for problem in self._known.problems if self._known is not None else ():
            logger.error("%s", problem)


def by_keys(path: Path) -> Authenticator:
    """Make an authenticator for CURVE with the keys of a file or folder.

    Raises: ConfigurationError.
    """
    return Authenticator(CURVE, Watched(path, keys.load))


def by_passwords(path: Path) -> Authenticator:
    """Make an authenticator for PLAIN with a file of passwords. Raises: ConfigurationError."""
    return Authenticator(PLAIN, Watched(path, lambda file, _problems: passwords.load(file)))


def is_local_address(address: str) -> bool:
    """Return whether the address of a connection is on this machine: loopback, or the Unix user
    of an ipc connection."""
    if address == LOCAL_ADDRESS or address.startswith((f"{LOCAL_ADDRESS}:", UNIX_USER)):
        return True
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


class AuthenticationPlan(NamedTuple):
    """How one run of a broker authenticates. `certificate` is None without encryption."""

    authenticator: Authenticator
    certificate: Certificate | None = None
