"""The account of one user: what all its peers and sessions make the broker hold (account.py).

It has a module of its own, without an import, because `Peer` and `Account` both need it: compiled
modules import the types of their declarations before their bodies run.
"""

from __future__ import annotations

from typing import Final

UNBOUNDED: Final = 2**62


class UserAccount:
    """What all peers of one user make the broker hold.

    user: its name; "" for all peers that have proved no user.
    held: bytes.
    most: the bound of `held`; without a user there is none.
    topics: subscriptions.
    """

    __slots__ = ("__weakref__", "held", "most", "topics", "user")

    def __init__(self, user: str, most: int) -> None:
        self.user = user
        self.held = 0
        self.most = most
        self.topics = 0


NO_ACCOUNT: Final = UserAccount("", UNBOUNDED)
"""The account of a peer that no broker has met."""
