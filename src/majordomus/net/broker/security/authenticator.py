"""Who may connect to one broker: by CURVE key, by password, or from this machine.

The `User-Id` that every message then carries names the proof, not the user: `curve:KEY`,
`plain:USER:MARK` or `null:`. So a key that is taken away is seen with the very next message,
whatever connection it comes by. One thread judges and looks, another one reads.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from zmq.utils import z85

from majordomus.core.broker.state.identity import NOBODY, Identity
from majordomus.net.broker.security.zap import BusyError
from majordomus.security import keys, passwords
from majordomus.security.passwords import Entry
from majordomus.security.watched import Watched

CURVE: Final = "CURVE"
PLAIN: Final = "PLAIN"
NULL: Final = "NULL"
LOCAL_ADDRESS: Final = "localhost"
"""How libzmq calls the other end of an ipc connection; its user and process may follow."""
MOST_REMOVED: Final = 10_000
TRIES: Final = 10
"""Passwords that are tried in a second, for each costs scrypt's 50 ms in the one thread that judges
for all; who was let in before is known again without."""
MOST_REMEMBERED: Final = 10_000

logger = logging.getLogger("majordomus.zap")


class AuthenticationRefusal(NamedTuple):
    """Somebody was not let in. `why` is a short key, `who` a key or a user's name."""

    why: str
    who: str
    address: str


class Authenticator:
    """One mechanism, and whom it lets in.

    CURVE without `known` lets in everybody: encrypted, and nobody knows who. `changed` is called,
    in the thread that looks, when somebody may have been taken away; `version` has risen by then.
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
        self._people = self._identities()
        self._removed: dict[str, None] = {}
        self._tries, self._second = 0, 0
        self._fitted: dict[bytes, None] = {}
        self._salt = os.urandom(32)
        self._tell_problems()

    @property
    def lets_in_anybody(self) -> bool:
        """Whether there is no key that would be refused."""
        return self.mechanism == CURVE and self._known is None

    # ── the handler's thread ──────────────────────────────────────────────────────────────────────

    def judge(self, mechanism: str, address: str, credentials: Sequence[bytes]) -> str:
        """The proof of who it is; "" refuses. Several threads may ask.

        Raises: BusyError.
        """
        who, why = "", "another-mechanism"
        if mechanism == self.mechanism:
            judge = {CURVE: self._judge_key, PLAIN: self._judge_password, NULL: self._judge_null}
            proof, who, why = judge[mechanism](address, credentials)
            if proof:
                return proof
        self.refused.append(AuthenticationRefusal(why, who, address))
        return ""

    def _judge_key(self, address: str, credentials: Sequence[bytes]) -> tuple[str, str, str]:
        if len(credentials) != 1 or len(credentials[0]) != 32:
            return "", "", "malformed"
        key = z85.encode(credentials[0]).decode()
        proof = f"curve:{key}"
        if self._known is None or proof in self._people:
            return proof, key, ""
        return "", key, "removed-key" if proof in self._removed else "unknown-key"

    def _judge_password(self, address: str, credentials: Sequence[bytes]) -> tuple[str, str, str]:
        if not is_here(address):
            return "", "", "password-from-elsewhere"
        if len(credentials) != 2 or self._known is None:
            return "", "", "malformed"
        user = credentials[0].decode("utf-8", "replace")
        entry = self._known.value.get(user)
        if not isinstance(entry, Entry):
            entry = None
        seal = b"" if entry is None else self._seal(f"{user}:{entry.mark}", credentials[1])
        if entry is not None and seal in self._fitted:
            return f"plain:{user}:{entry.mark}", user, ""
        if not self._may_try():
            self.refused.append(AuthenticationRefusal("too-many-tries", user, address))
            raise BusyError
        if passwords.fits(entry, credentials[1]) and entry is not None:
            if len(self._fitted) >= MOST_REMEMBERED:
                self._fitted.clear()
            self._fitted[seal] = None
            return f"plain:{user}:{entry.mark}", user, ""
        return "", user, "wrong-password"

    def _may_try(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._tries, self._second = 0, second
        self._tries += 1
        return self._tries <= TRIES

    def _seal(self, name: str, password: bytes) -> bytes:
        """What a password that fitted is known by again, in this process alone."""
        return hmac.digest(self._salt, name.encode() + b"\0" + password, "sha256")

    def _judge_null(self, address: str, credentials: Sequence[bytes]) -> tuple[str, str, str]:
        return ("null:", "", "") if is_here(address) else ("", "", "from-elsewhere")

    def look(self) -> None:
        """Reads what has changed."""
        if self._known is None or not self._known.look():
            return
        before, self._people = self._people, self._identities()
        removed = [proof for proof in before if proof not in self._people]
        self._removed = dict.fromkeys([*self._removed, *removed][-MOST_REMOVED:])
        self._tell_problems()
        logger.info("%s: %d known, %d removed", self._known.path, len(self._people), len(removed))
        self.version += 1
        self.changed()

    # ── the broker's thread ───────────────────────────────────────────────────────────────────────

    def identity(self, proof: str) -> Identity | None:
        """Who that is, by now; None for who may not be connected (any more).

        Without a proof a message comes by inproc, from this process.
        """
        if not proof or proof == "null:":
            return NOBODY
        found = self._people.get(proof)
        if found is None and self.lets_in_anybody:
            return Identity(key=proof.removeprefix("curve:"))
        return found

    # ── inside ────────────────────────────────────────────────────────────────────────────────────

    def _identities(self) -> Mapping[str, Identity]:
        people: dict[str, Identity] = {}
        if self._known is not None:
            for name, one in self._known.value.items():
                if isinstance(one, Identity):
                    people[f"curve:{name}"] = one
                else:
                    people[f"plain:{name}:{one.mark}"] = Identity(name, one.groups)
        return people

    def _tell_problems(self) -> None:
        for problem in self._known.problems if self._known is not None else ():
            logger.error("%s", problem)


def by_keys(path: Path) -> Authenticator:
    """CURVE, with the keys of a file or folder. Raises: ConfigurationError."""
    return Authenticator(CURVE, Watched(path, keys.load))


def by_passwords(path: Path) -> Authenticator:
    """PLAIN, with a file of passwords. Raises: ConfigurationError."""
    return Authenticator(PLAIN, Watched(path, lambda file, _problems: passwords.load(file)))


def is_here(address: str) -> bool:
    """Whether libzmq says that the other end is on this machine."""
    if address == LOCAL_ADDRESS or address.startswith(f"{LOCAL_ADDRESS}:"):
        return True
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)
