"""Who is at the other end of a connection, as the connection itself has proved it. No rules."""

from __future__ import annotations

from typing import NamedTuple


class Identity(NamedTuple):
    """``user`` is "" for who is encrypted but not known; ``key`` is the public CURVE key in Z85."""

    user: str = ""
    groups: tuple[str, ...] = ()
    key: str = ""


NOBODY = Identity()
