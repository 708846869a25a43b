"""Password hashes (scrypt) of users in a file: one line `user:group,group:n:r:p:salt:hash` each.

Only for brokers on the same machine, because PLAIN sends the password unencrypted. The file is a
secret.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from majordomus.errors import ConfigurationError
from majordomus.security import files, keys

N: Final = 1 << 14
R: Final = 8
P: Final = 1
"""The costs of scrypt: 16 MiB and about 50 ms for each attempt."""
MOST_MEMORY: Final = 256 << 20
SALT_SIZE: Final = 16
HASH_SIZE: Final = 32
SHORTEST: Final = 8
"""Characters of a new password."""


class Entry(NamedTuple):
    """The password hash of one user.

    groups: the groups of the user.
    n, r, p: the cost parameters of scrypt.
    salt: random bytes.
    digest: the hash.
    """

    groups: tuple[str, ...]
    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    @property
    def mark(self) -> str:
        """An id of this password, which does not reveal it: it changes when the password does."""
        return hashlib.sha256(self.salt + self.digest).hexdigest()[:16]


Passwords = Mapping[str, Entry]


def hashed(password: str, groups: Iterable[str] = ()) -> Entry:
    """Hash a new password. Raises: ConfigurationError when it is too short."""
    if len(password) < SHORTEST:
        raise ConfigurationError(f"a password must have at least {SHORTEST} characters")
    salt = os.urandom(SALT_SIZE)
    names = tuple(keys.check_group(group) for group in groups)
    for name in names:
        _check_no_colon(name)
    return Entry(names, N, R, P, salt, _scrypt(password.encode(), salt, N, R, P))


def fits(entry: Entry | None, password: bytes) -> bool:
    """Whether `password` is the user's. An unknown user (None) takes the same time."""
    if entry is None:
        _scrypt(password, bytes(SALT_SIZE), N, R, P)
        return False
    found = _scrypt(password, entry.salt, entry.n, entry.r, entry.p)
    return hmac.compare_digest(found, entry.digest)


def load(path: Path) -> Passwords:
    """Read all users. Raises: ConfigurationError, also when other users can read the file."""
    users: dict[str, Entry] = {}
    for number, line in enumerate(files.read_secret(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            user, entry = _parsed(line)
        except ValueError as error:
            text = "write user:groups:n:r:p:salt:hash"
            raise ConfigurationError(f"{path}: line {number}: {text}") from error
        if user in users:
            raise ConfigurationError(f"{path}: line {number}: {user} is listed twice")
        users[user] = entry
    return users


def store(path: Path, user: str, entry: Entry | None) -> None:
    """Set or remove (None) the entry of one user in the file. Raises: ConfigurationError."""
    _check_no_colon(keys.check_user(user))
    users = dict(load(path)) if path.exists() else {}
    if entry is None:
        if user not in users:
            raise ConfigurationError(f"{path} has no user {user}")
        del users[user]
    else:
        users[user] = entry
    lines = [_line(name, found) for name, found in sorted(users.items())]
    text = "# user:groups:n:r:p:salt:hash of scrypt, made by majordomus passwd\n"
    files.replace(path, text + "".join(lines), files.SECRET)


def _line(user: str, entry: Entry) -> str:
    costs = f"{entry.n}:{entry.r}:{entry.p}"
    return f"{user}:{','.join(entry.groups)}:{costs}:{entry.salt.hex()}:{entry.digest.hex()}\n"


def _parsed(line: str) -> tuple[str, Entry]:
    user, groups, *costs, salt, digest = line.split(":")
    n, r, p = (int(cost) for cost in costs)
    if n < 2 or n & (n - 1) or not 1 <= r <= 64 or not 1 <= p <= 16 or 128 * n * r > MOST_MEMORY:
        raise ValueError("invalid costs")
    names = tuple(keys.check_group(group) for group in groups.split(",") if group)
    entry = Entry(names, n, r, p, bytes.fromhex(salt), bytes.fromhex(digest))
    if len(entry.digest) != HASH_SIZE or not entry.salt:
        raise ValueError("invalid hash size")
    return keys.check_user(user), entry


def _scrypt(password: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password, salt=salt, n=n, r=r, p=p, maxmem=2 * MOST_MEMORY, dklen=HASH_SIZE
    )


def _check_no_colon(name: str) -> None:
    if ":" in name:
        raise ConfigurationError(f"{name!r}: a name in the password file must have no colon")
