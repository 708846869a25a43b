"""One request: what was asked, by whom, where it is, and what it has been through. No rule lives
here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from majordomus.core.broker.state.transitions import (
    HELD,
    STEPS,
    RequestState,
    RequestSteps,
    event_of,
    unlisted,
)
from majordomus.protocol.spec import Dialect, Frame

if TYPE_CHECKING:
    from majordomus.core.broker.state.identity import Caller
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.services import FairQueue, Service
    from majordomus.core.broker.state.timer_wheel import Bucket
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.core.broker.streams import RequestStream


class AcceptedRequest:
    """A conversation that a client opened. ``deadline`` and ``accepted`` are monotonic seconds.

    ``caller``: who asks, its peer unless it brought a token of its own. ``called``: what the client
    calls the service.
    """

    __slots__ = (
        "accepted",
        "attempt",
        "behind",
        "body",
        "bucket",
        "bucket_index",
        "called",
        "caller",
        "deadline",
        "dialect",
        "dispatch_id",
        "ended",
        "envelope",
        "flags",
        "given",
        "id",
        "key",
        "metadata",
        "newer",
        "older",
        "outcome",
        "parts",
        "parts_size",
        "past_dispatches",
        "peer",
        "queue",
        "rejected",
        "service",
        "size",
        "state",
        "stream",
        "target",
        "worker",
    )

    def ask(
        self,
        peer: Peer,
        dialect: Dialect,
        envelope: tuple[Frame, ...],
        key: object,
        id: int,
        service: Service,
        body: list[Frame],
        size: int,
        flags: int,
        metadata: bytes,
        accepted: float,
        deadline: float,
    ) -> AcceptedRequest:
        """Fill in what a new request is: `Request().ask(…)`. Not `__init__`, which takes its
        arguments as objects even where it is compiled."""
        self.peer = peer
        self.caller: Peer | Caller = peer
        self.dialect = dialect
        self.envelope = envelope
        self.key = key
        self.id = id
        self.service = service
        self.called = service.name
        self.body = body
        self.size = size
        self.flags = flags
        self.metadata = metadata
        self.accepted = accepted
        self.deadline = deadline
        self.state: RequestState = HELD
        self.attempt = 0
        self.dispatch_id = 0
        self.worker: RegisteredWorker | None = None
        self.target: RegisteredWorker | None = None
        self.rejected: set[RegisteredWorker] | None = None
        self.queue: FairQueue | None = None
        self.older: AcceptedRequest | None = None
        self.newer: AcceptedRequest | None = None
        """Its neighbours among those that hold a slot of its worker."""
        self.bucket: Bucket | None = None
        self.bucket_index = 0
        """Where it stands in that."""
        self.parts: list[Frame] | None = None
        self.parts_size = 0
        self.stream: RequestStream | None = None
        self.past_dispatches: list[tuple[bytes, float, float, str]] | None = None
        """Workers that had it and have it no more: id, from, until, why."""
        self.given = 0.0
        """When its worker got it."""
        self.ended = 0.0
        self.behind = 0
        """Requests that waited when it began to wait; −1 where nobody served it."""
        self.outcome: tuple[int, str] | None = None
        """Status and sentence, where it was not answered with 200."""
        return self

    def move(self, event: str) -> None:
        """Follow `event` through the table of states."""
        steps = STEPS.get(event)
        if steps is None:
            raise unlisted("request", event, self.state)
        self.follow(steps)

    def follow(self, steps: RequestSteps) -> None:
        """The same, for an event whose steps are at hand."""
        at = self.state
        after = steps[at]
        if after is None:
            raise unlisted("request", event_of(steps), self.state)
        self.state = after
