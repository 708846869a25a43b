"""The requests that hold a slot of a worker, by dispatch id, in a ring that is indexed by the id.

Ids only grow, and the ring has at least twice as many entries as requests. An id whose entry is
taken is skipped, so no entry ever holds two requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.core.broker.state.transitions import FORGOTTEN

if TYPE_CHECKING:
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.workers import RegisteredWorker

FIRST_SIZE: Final = 1024
"""Entries; the size is always a power of two."""


class DispatchTable:
    """The ring. It doubles when it is half full.

    count: how many requests it holds.
    """

    __slots__ = ("_entries", "_mask", "count")

    def __init__(self) -> None:
        self._entries: list[AcceptedRequest | None] = [None] * FIRST_SIZE
        self._mask = FIRST_SIZE - 1
        self.count = 0

    def give(self, request: AcceptedRequest, last: int) -> int:
        """Enter `request`, and return its number: the lowest above `last` whose entry is free."""
        if 2 * self.count > self._mask:
            self._grow()
        number = last + 1
        at = number & self._mask
        while self._entries[at] is not None:
            number += 1
            at = number & self._mask
        self._entries[at] = request
        self.count += 1
        return number

    def of(self, worker: RegisteredWorker, number: int) -> AcceptedRequest | None:
        """Return the request that holds a slot of `worker` as `number`; else None (rule 2)."""
        at = number & self._mask
        request = self._entries[at]
        if request is None or request.dispatch_id != number or request.worker is not worker:
            return None
        return request

    def numbered(self, number: int) -> AcceptedRequest | None:
        """Return the request that holds a slot as `number`, of whichever worker; else None."""
        request = self._entries[number & self._mask]
        return request if request is not None and request.dispatch_id == number else None

    def answerer(self, peer_id: bytes, number: int) -> Peer | None:
        """Return the peer whose worker has dispatch `number`, if its routing id is `peer_id`. None
        means that the peer must be looked up."""
        at = number & self._mask
        request = self._entries[at]
        if request is None or request.dispatch_id != number or request.worker is None:
            return None
        peer = request.worker.peer
        return peer if peer.id == peer_id and peer.state is not FORGOTTEN else None

    def take(self, worker: RegisteredWorker, number: int) -> AcceptedRequest | None:
        """Remove and return the request that `of` would return."""
        at = number & self._mask
        request = self._entries[at]
        if request is None or request.dispatch_id != number or request.worker is not worker:
            return None
        self._entries[at] = None
        self.count -= 1
        return request

    def _grow(self) -> None:
        """Double the ring. Ids that differ in their last bits still do with one bit more, so no
        entry is needed twice."""
        held = [request for request in self._entries if request is not None]
        self._entries = [None] * (2 * len(self._entries))
        self._mask = len(self._entries) - 1
        for request in held:
            self._entries[request.dispatch_id & self._mask] = request
