"""The requests that hold a slot of a worker, found by the number of their dispatch: in a ring, in
the place that the number itself says.

Numbers only grow, and the ring has twice as many places as it holds requests, so the next number
finds its place free, or one of the next does: a number whose place is taken is never given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.core.broker.state.transitions import FORGOTTEN

if TYPE_CHECKING:
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.workers import RegisteredWorker

FIRST_SIZE: Final = 1024
"""Places; a power of two, as it always is."""


class DispatchTable:
    """The ring. It grows when it is half full, and what it holds is a reference each."""

    __slots__ = ("_mask", "_places", "count")

    def __init__(self) -> None:
        self._places: list[AcceptedRequest | None] = [None] * FIRST_SIZE
        self._mask = FIRST_SIZE - 1
        self.count = 0

    def give(self, request: AcceptedRequest, last: int) -> int:
        """The number by which `request` holds a slot from now on: the lowest above `last` whose
        place is free."""
        if 2 * self.count > self._mask:
            self._grow()
        number = last + 1
        at = number & self._mask
        while self._places[at] is not None:
            number += 1
            at = number & self._mask
        self._places[at] = request
        self.count += 1
        return number

    def of(self, worker: RegisteredWorker, number: int) -> AcceptedRequest | None:
        """The request that holds a slot of `worker` as `number`; None when none does (rule 2)."""
        request = self._places[number & self._mask]
        if request is None or request.dispatch_id != number or request.worker is not worker:
            return None
        return request

    def answerer(self, peer_id: bytes, number: int) -> Peer | None:
        """The peer whose worker has dispatch `number`, if its routing id is `peer_id`; None where
        it has to be looked up."""
        request = self._places[number & self._mask]
        if request is None or request.dispatch_id != number or request.worker is None:
            return None
        peer = request.worker.peer
        return peer if peer.id == peer_id and peer.state is not FORGOTTEN else None

    def take(self, worker: RegisteredWorker, number: int) -> AcceptedRequest | None:
        """What `of` finds holds its slot no more."""
        at = number & self._mask
        request = self._places[at]
        if request is None or request.dispatch_id != number or request.worker is not worker:
            return None
        self._places[at] = None
        self.count -= 1
        return request

    def _grow(self) -> None:
        """Two that had a place each have one each in a ring of twice the size."""
        held = [request for request in self._places if request is not None]
        self._places = [None] * (2 * len(self._places))
        self._mask = len(self._places) - 1
        for request in held:
            self._places[request.dispatch_id & self._mask] = request
