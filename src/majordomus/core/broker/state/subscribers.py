"""One subscriber: a client's subscriptions and handle, and the session that keeps both when its
connection ends. No rule lives here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from majordomus.core.broker.state.peers import Peer

Key = tuple[str, bytes]
"""The key of a session: its user and the 16 bytes of HELLO. The same bytes of another user are
another session."""


class Subscriber:
    """A client that has subscribed, or has a session.

    peer: the peer; None while the client of a session is away.
    handle: the address by which workers know it.
    patterns: the patterns that it has subscribed to.
    key: the key of its session; None without one.
    held: what is charged to its user (account.py).
    account: the account of that user.
    until: when the session of a client that is away ends, in monotonic seconds.
    """

    __slots__ = ("account", "handle", "held", "key", "patterns", "peer", "until")

    def __init__(self, peer: Peer) -> None:
        self.peer: Peer | None = peer
        self.handle = peer.handle
        self.patterns: dict[bytes, None] = {}
        self.key: Key | None = None
        self.held = 0
        self.account = peer.account
        self.until = 0.0
