"""One durable request in memory. No rule lives here.

It is in memory from its acceptance until its outcome is stored; later it is a row alone.
"""

from __future__ import annotations

from enum import IntEnum
from math import inf
from typing import TYPE_CHECKING, Final

from majordomus.core.broker.state.transitions import (
    DURABLE,
    OPEN,
    STORING,
    DurableState,
    unlisted,
)

if TYPE_CHECKING:
    from majordomus.core.broker.durable.records import StoredOutcome, StoredRequest
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.requests import AcceptedRequest

FEW: Final = 8
"""Waiting clients of a durable request before those that have left are looked for."""


class Wants(IntEnum):
    """What a waiting request is answered with.

    OUTCOME: the outcome itself. ID: the id, once it is stored. NOTHING: it is one-way.
    RESULT: the outcome behind its status. DONE: an empty answer.
    WITHDRAWN: that it is withdrawn, which is too late. TITANIC_…: as RFC 9 has it.
    """

    OUTCOME = 0
    ID = 1
    NOTHING = 2
    RESULT = 3
    DONE = 4
    TITANIC_ID = 5
    TITANIC_REPLY = 6
    TITANIC_DONE = 7
    WITHDRAWN = 8


OUTCOME: Final = Wants.OUTCOME


class Owner:
    """A user that has open durable requests.

    peer: the internal peer of which its runs are requests. It is in no table of peers.
    jobs: how many open durable requests it has.
    """

    __slots__ = ("jobs", "peer")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.jobs = 0


class DurableRequest:
    """A durable request without a stored outcome. Times are monotonic seconds.

    row: what is stored of it.
    peer: the owner, as a client of the broker itself: its runs belong to it.
    state: its state (transitions.py).
    attempts: dispatches that may have run; those before a restart are counted.
    recorded: how many of them are stored, or on their way to the store.
    recording: whether the last one is on its way there, and the next one waits for that.
    failures: attempts and refusals in a row, by which the delay grows.
    expires: when it ends without an outcome; infinity for never.
    kept: whether its outcome is kept although a client waits for it.
    decided: whether a hook has decided about the reply of its run: that is the outcome.
    waiting: the requests that wait for it, and what each wants.
    early: whether one of them may want something before there is an outcome.
    run: the request of its present run; None between two runs.
    outcome: its outcome, on its way to the store.
    size: the bytes of its body.
    cost: what it is charged (account.py).
    timer, expiry: its buckets of the timer wheels; None without one.
    """

    __slots__ = (
        "attempts",
        "cost",
        "decided",
        "early",
        "expires",
        "expiry",
        "failures",
        "kept",
        "outcome",
        "peer",
        "recorded",
        "recording",
        "row",
        "run",
        "size",
        "state",
        "timer",
        "waiting",
    )

    def __init__(self, row: StoredRequest, peer: Peer, cost: int) -> None:
        self.prepare(row, peer, cost)

    def prepare(self, row: StoredRequest, peer: Peer, cost: int) -> None:
        """Set every field of a new one. Separate from `__init__` because a positional call of a
        compiled method is cheaper."""
        self.row = row
        self.peer = peer
        self.size = 0
        self.cost = cost
        self.state: DurableState = STORING
        self.attempts = self.recorded = row.attempts
        self.failures = row.attempts
        self.expires = inf
        self.kept = True
        self.decided = self.recording = False
        self.waiting: list[tuple[AcceptedRequest, Wants]] = []
        self.early = False
        self.run: AcceptedRequest | None = None
        self.outcome: StoredOutcome | None = None
        self.timer: dict[DurableRequest, None] | None = None
        self.expiry: dict[DurableRequest, None] | None = None

    def move(self, event: str) -> None:
        """Follow `event` through the table of states. Raises: LocalProtocolError if unlisted."""
        try:
            self.state = DURABLE[event][self.state]
        except KeyError:
            raise unlisted("durable", event, self.state) from None

    def wait(self, request: AcceptedRequest, wants: Wants) -> None:
        """Let `request` wait for the next thing that it wants. Forget those that have ended."""
        if len(self.waiting) >= FEW:
            alive = [one for one in self.waiting if one[0].state in OPEN]
            if 2 * len(alive) < len(self.waiting):
                self.waiting = alive
        if wants is not OUTCOME:
            self.early = True
        self.waiting.append((request, wants))

    def take(self, wanted: tuple[Wants, ...]) -> list[tuple[AcceptedRequest, Wants]]:
        """Remove and return the open requests that want one of these."""
        found = [one for one in self.waiting if one[1] in wanted and one[0].state in OPEN]
        self.waiting = [one for one in self.waiting if one[1] not in wanted]
        return found

    def is_awaited(self) -> bool:
        """Whether a client waits for the outcome itself."""
        for request, wants in self.waiting:  # noqa: SIM110 (compiled, a generator costs more)
            if wants is OUTCOME and request.state in OPEN:
                return True
        return False
