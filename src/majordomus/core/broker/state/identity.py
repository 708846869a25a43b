"""Who is at the other end of a connection, as the connection itself has proved it. No rules."""

from __future__ import annotations

from typing import NamedTuple


class Identity(NamedTuple):
    """``user`` is "" for who is encrypted but not known; ``key`` is the public CURVE key in Z85."""

    user: str = ""
    groups: tuple[str, ...] = ()
    key: str = ""


NOBODY = Identity()


def same(one: Identity, other: Identity) -> bool:
    """Whether both are the same user, who may have several keys; without one, the same key."""
    return one.user == other.user and (bool(one.user) or one.key == other.key)
