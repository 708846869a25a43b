"""A witness of everything that the broker sends: what no peer may ever hear, whatever happened.

It knows nothing of the machine; it reads the messages as a peer would.
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
    """Hears every message that really left, and raises at the first that must not be.

    A client hears at most one FINAL for an id that it uses once, and nothing of that id afterwards.
    It hears of no more parts than 16 and what it gave credit for (more from a worker that knows no
    credit), and so does a worker; a worker hears nothing of a stream behind its client's FINAL.
    A worker gets a dispatch number once, never more requests than the capacity that it announced,
    and one CANCEL at most, for what it was given (its answer may cross it).
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
        """Parts beyond its credit that a client may hear of, from an older worker."""

    def grants(self, peer: bytes, id: int, parts: int, envelope: tuple[Frame, ...] = ()) -> None:
        """`peer` said CREDIT."""
        self.credit[peer, envelope, id] += parts

    def announces(self, worker: bytes, capacity: int) -> None:
        """`worker` said READY or CAPACITY. What it once allowed may still be on its way."""
        self.announced[worker] = max(capacity, self.announced.get(worker, 0))

    def answers(self, worker: bytes, number: int) -> None:
        """`worker` said FINAL or REJECT."""
        self.holds[worker].discard(number)

    def left(self, worker: bytes) -> None:
        """`worker` is no worker any more; what it had is void."""
        self.holds.pop(worker, None)
        self.may_cancel.pop(worker, None)
        self.announced.pop(worker, None)

    def hears(self, peer: bytes, frames: list[Frame]) -> None:
        """One message of the broker."""
        dialect, at = recognise(frames)
        if dialect is not Dialect.MDP03:
            return
        command, _, status, id, ttl, *_ = headers.parse(frames[at])
        key = (peer, tuple(frames[:at]), id)
        if command in (spec.PARTIAL, spec.FINAL):
            assert key not in self.ended, f"{peer!r} hears of {id} after its FINAL"
            self.parts[key] += command == spec.PARTIAL
            ahead = 0 if id & spec.BROKER_ID_BIT else self.ahead
            assert self.parts[key] <= self.credit[key] + ahead, f"{peer!r} hears too much of {id}"
            if command == spec.FINAL and id:
                assert status >= 100
                self.ended.add(key)
                self.finals += not id & spec.BROKER_ID_BIT
        elif command == spec.REQUEST:
            self._request(peer, id, ttl)
        elif command == spec.CANCEL:
            assert id in self.may_cancel[peer], f"{peer!r} hears CANCEL for what it was not given"
            self.may_cancel[peer].discard(id)
        elif command == spec.DISCONNECT:
            self.left(peer)

    def _request(self, worker: bytes, number: int, ttl: int) -> None:
        assert number & spec.BROKER_ID_BIT
        assert ttl >= 1
        assert number not in self.given, f"dispatch {number:#x} is given twice"
        self.given.add(number)
        self.holds[worker].add(number)
        self.may_cancel[worker].add(number)
        assert len(self.holds[worker]) <= self.announced[worker], f"{worker!r} has too many"
