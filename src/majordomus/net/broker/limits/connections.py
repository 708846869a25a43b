"""Connections of a libzmq socket: the routing id of each descriptor, and probes of ended ones.

libzmq reports the end of a connection before it removes its pipe: of 60 sends right after the event
five still found the pipe, for up to 4.2 ms. So a peer whose connection has ended is probed (sent a
message that its end refuses) at once, and again after each of DELAYS.
"""

from __future__ import annotations

import heapq
from math import inf
from typing import Final

DELAYS: Final = (0.02, 0.1, 0.5)
"""Seconds from the end of a connection to each later probe."""


class ConnectionMap:
    """Routing id by descriptor and descriptor by routing id: one entry per connection."""

    def __init__(self) -> None:
        self._peers: dict[int, bytes] = {}
        self._fds: dict[bytes, int] = {}

    def opened(self, peer: bytes, fd: int) -> bytes | None:
        """Note that the first message of `peer` came from `fd`.

        Returns the peer that had `fd` before: its connection must have ended.
        """
        before = self._peers.get(fd)
        old_fd = self._fds.get(peer)
        if old_fd is not None:
            self._peers.pop(old_fd, None)
        if before is not None:
            self._fds.pop(before, None)
        self._peers[fd] = peer
        self._fds[peer] = fd
        return before if before != peer else None

    def fd_of(self, peer: bytes) -> int | None:
        """Return the descriptor of the connection of `peer`."""
        return self._fds.get(peer)

    def ended(self, fd: int) -> bytes | None:
        """Note the end of the connection of `fd`.

        Returns its peer; None for a connection that has sent no message.
        """
        peer = self._peers.pop(fd, None)
        if peer is not None:
            self._fds.pop(peer, None)
        return peer


class Probes:
    """The peers to probe again, and when."""

    def __init__(self) -> None:
        self._due: list[tuple[float, bytes]] = []
        self._of: dict[bytes, tuple[int, float]] = {}
        self._by: dict[int, bytes] = {}
        """The peer whose ended connection had this descriptor last, until it is used again."""

    def begin(self, peer: bytes, fd: int, now: float) -> None:
        """Begin the probes of `peer`, whose connection by `fd` has ended.

        The caller makes the first probe.
        """
        self._forget(peer)
        self._of[peer] = (fd, now)
        self._by[fd] = peer
        for delay in DELAYS:
            heapq.heappush(self._due, (now + delay, peer))

    def accepted(self, fd: int) -> None:
        """Note that a new connection has this descriptor."""
        self._by.pop(fd, None)

    def received(self, peer: bytes, fd: int) -> None:
        """Note a message of `peer` from `fd`.

        A message from a new connection ends the probes: the peer is back. A message from the ended
        connection may be the last one that it had sent.
        """
        if self._by.get(fd) != peer:
            self._forget(peer)

    def gone(self, peer: bytes) -> None:
        """Note a send that was refused because `peer` is gone: no more probes are needed."""
        self._forget(peer)

    def due(self, now: float) -> list[bytes]:
        """Return the peers to probe now."""
        found: list[bytes] = []
        while self._due and self._due[0][0] <= now:
            when, peer = heapq.heappop(self._due)
            begun = self._of.get(peer)
            if begun is None:
                continue
            found.append(peer)
            if when >= begun[1] + DELAYS[-1]:
                self._forget(peer)
        return found

    def next(self) -> float:
        """Return when `due` has a peer next, in monotonic seconds."""
        return self._due[0][0] if self._due else inf

    def _forget(self, peer: bytes) -> None:
        fd, _ = self._of.pop(peer, (-1, 0.0))
        if self._by.get(fd) == peer:
            del self._by[fd]
