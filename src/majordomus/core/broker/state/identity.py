"""The user of a connection or of a request: as the connection has proved it, or as a token or a
hook has named it. No rule lives here."""

from __future__ import annotations

from math import inf
from typing import NamedTuple


class Identity(NamedTuple):
    """What a connection has proved.

    user: its name; "" for a connection that is encrypted but not authenticated.
    groups: the groups of the user.
    key: the public CURVE key in Z85; "" without one.
    """

    user: str = ""
    groups: tuple[str, ...] = ()
    key: str = ""


class Caller(NamedTuple):
    """The user of one request, where that is not its peer.

    user: its name.
    groups: the groups of the user.
    prefix: the prefix of every name that it uses, where a group is a tenant.
    until: when the token expires, in monotonic seconds.
    token: the token that the request brought; "" where a hook named the user.
    """

    user: str
    groups: tuple[str, ...]
    prefix: bytes = b""
    until: float = inf
    token: str = ""


UNIX_USER = "uid:"
"""The prefix of the group that stands for the Unix user of an ipc connection, as `uid:1000`. No
key, password or token may name such a user or group."""


def unix_group(uid: int) -> str:
    """Return the group of a Unix user."""
    return f"{UNIX_USER}{uid}"


UNPROVED = Identity()
"""The identity of a connection that has proved none."""


def same(one: Identity, other: Identity) -> bool:
    """Whether both are the same user, who may have several keys; without a user, the same key."""
    return one.user == other.user and (bool(one.user) or one.key == other.key)
