"""Who hears events: a peer's subscriptions and handle, and the session that lets both outlive its
connection. No rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from majordomus.core.broker.state.peers import Peer

Key = tuple[str, bytes]
"""A session: its user, and the 16 bytes of HELLO. Another user's session of the same bytes is
another one."""


class Subscriber:
    """One who subscribed, or keeps a session. ``peer`` is None while a session waits for its client
    to come back, ``until`` which monotonic second. ``handle``: under which workers know it."""

    __slots__ = ("handle", "key", "patterns", "peer", "until")

    def __init__(self, peer: Peer) -> None:
        self.peer: Peer | None = peer
        self.handle = peer.handle
        self.patterns: dict[bytes, None] = {}
        self.key: Key | None = None
        self.until = 0.0
