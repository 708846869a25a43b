"""Which routing id each descriptor belongs to, and which ended connections are still to be probed.

libzmq reports the end of a connection before it tears its pipe down: of 60 sends right after the
event five still found the pipe (for 4.2 ms at most). So an ended connection is probed at once and
again after each of DELAYS.
"""

from __future__ import annotations

import heapq
from math import inf
from typing import Final

DELAYS: Final = (0.02, 0.1, 0.5)


class Connections:
    """As many entries as descriptors; both maps are each other's inverse."""

    def __init__(self) -> None:
        self._peers: dict[int, bytes] = {}
        self._fds: dict[bytes, int] = {}

    def opened(self, peer: bytes, fd: int) -> bytes | None:
        """The first message of `peer` came by `fd`.

        Returns whose connection must have ended: `fd` was theirs.
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
        """By which descriptor `peer` speaks."""
        return self._fds.get(peer)

    def ended(self, fd: int) -> bytes | None:
        """The connection of `fd` has ended.

        Returns whose it was; None for one that never said anything.
        """
        peer = self._peers.pop(fd, None)
        if peer is not None:
            self._fds.pop(peer, None)
        return peer


class Probes:
    """Whom to probe again, and when."""

    def __init__(self) -> None:
        self._due: list[tuple[float, bytes]] = []
        self._of: dict[bytes, tuple[int, float]] = {}
        self._by: dict[int, bytes] = {}
        """Whose connection had this descriptor, and has ended; until another one has it."""

    def begin(self, peer: bytes, fd: int, now: float) -> None:
        """The connection that `peer` had by `fd` has ended; the probe of this moment is the
        caller's.
        """
        self._forget(peer)
        self._of[peer] = (fd, now)
        self._by[fd] = peer
        for delay in DELAYS:
            heapq.heappush(self._due, (now + delay, peer))

    def accepted(self, fd: int) -> None:
        """Another connection has this descriptor from now on."""
        self._by.pop(fd, None)

    def seen(self, peer: bytes, fd: int) -> None:
        """`peer` speaks by `fd`.

        By another connection than before, it is back; by the same, it may be its last words.
        """
        if self._by.get(fd) != peer:
            self._forget(peer)

    def gone(self, peer: bytes) -> None:
        """A send told that `peer` is gone: there is nothing more to find out."""
        self._forget(peer)

    def due(self, now: float) -> list[bytes]:
        """Whom to probe now."""
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
        """When `due` will find something next."""
        return self._due[0][0] if self._due else inf

    def _forget(self, peer: bytes) -> None:
        fd, _ = self._of.pop(peer, (-1, 0.0))
        if self._by.get(fd) == peer:
            del self._by[fd]
