"""Checks every message of a broker against what the rules promise to each peer.

It uses nothing of the machine: it reads the messages as a peer would.
"""

from __future__ import annotations

from collections import defaultdict

from majordomus.protocol import spec
from majordomus.protocol.recognise import recognise
from majordomus.protocol.spec import Dialect, Frame
from tests import headers

Key = tuple[bytes, tuple[Frame, ...], int]
"""A conversation: routing id, envelope, id."""


class Oracle:
    """Reads every message that has left the broker, and raises at the first that is not allowed.

    A client that uses an id once gets at most one FINAL for it, and nothing of that id afterwards.
    A peer gets at most 16 parts more than it has granted credit for; a client of a worker without
    credit gets `ahead` more. A worker gets nothing of a stream after its client's FINAL.
    A worker gets a dispatch id once. It never gets more requests than the capacity that it has
    announced. It gets at most one CANCEL for each dispatch, which its answer may cross.
    """

    def __init__(self) -> None:
        self.ended: set[Key] = set()
        self.given: set[int] = set()
        self.holds: dict[bytes, set[int]] = defaultdict(set)
        self.may_cancel: dict[bytes, set[int]] = defaultdict(set)
        self.announced: dict[bytes, int] = {}
        self.finals = 0
        self.parts: dict[Key, int] = defaultdict(int)
        self.credit: dict[Key, int] = defaultdict(lambda: spec.FIRST_CREDIT)
        self.ahead = 0
        """Parts beyond its credit that a client may get from an older worker."""

    def add_credit(
        self, peer: bytes, id: int, parts: int, envelope: tuple[Frame, ...] = ()
    ) -> None:
        """`peer` has sent CREDIT."""
        self.credit[peer, envelope, id] += parts

    def set_capacity(self, worker: bytes, capacity: int) -> None:
        """`worker` has sent READY or CAPACITY. Requests for an earlier, larger capacity may still
        be on their way."""
        self.announced[worker] = max(capacity, self.announced.get(worker, 0))

    def remove_dispatch(self, worker: bytes, number: int) -> None:
        """`worker` has sent FINAL or REJECT."""
        self.holds[worker].discard(number)

    def remove_worker(self, worker: bytes) -> None:
        """`worker` is unregistered; its dispatches are void."""
        self.holds.pop(worker, None)
        self.may_cancel.pop(worker, None)
        self.announced.pop(worker, None)

    def check(self, peer: bytes, frames: list[Frame]) -> None:
        """Check one message of the broker to `peer`."""
        dialect, at = recognise(frames)
        if dialect is not Dialect.MDP03:
            return
        command, _, status, id, ttl, *_ = headers.parse(frames[at])
        key = (peer, tuple(frames[:at]), id)
        if command in (spec.PARTIAL, spec.FINAL):
            assert key not in self.ended, f"{peer!r} gets a message for {id} after its FINAL"
            self.parts[key] += command == spec.PARTIAL
            ahead = 0 if id & spec.BROKER_ID_BIT else self.ahead
            assert self.parts[key] <= self.credit[key] + ahead, f"{peer!r} gets too much of {id}"
            if command == spec.FINAL and id:
                assert status >= 100
                self.ended.add(key)
                self.finals += not id & spec.BROKER_ID_BIT
        elif command == spec.REQUEST:
            self._request(peer, id, ttl)
        elif command == spec.CANCEL:
            assert id in self.may_cancel[peer], f"{peer!r} gets CANCEL for no dispatch of its own"
            self.may_cancel[peer].discard(id)
        elif command == spec.DISCONNECT:
            self.remove_worker(peer)

    def _request(self, worker: bytes, number: int, ttl: int) -> None:
        assert number & spec.BROKER_ID_BIT
        assert ttl >= 1
        assert number not in self.given, f"dispatch {number:#x} is sent twice"
        self.given.add(number)
        self.holds[worker].add(number)
        self.may_cancel[worker].add(number)
        assert len(self.holds[worker]) <= self.announced[worker], f"{worker!r} has too many"
