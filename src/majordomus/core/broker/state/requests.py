"""One accepted request: its message, its state and its past. No rule lives here."""

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
    from majordomus.core.broker.state.request_stream import RequestStream
    from majordomus.core.broker.state.services import FairQueue, Service
    from majordomus.core.broker.state.timer_wheel import Bucket
    from majordomus.core.broker.state.workers import RegisteredWorker


class AcceptedRequest:
    """A request that the broker has accepted. Times are monotonic seconds.

    peer: the client that sent it.
    peer_index: its index among the open requests of that client; −1 while it is not open.
    dialect: the dialect of its message.
    envelope: the frames before its header, which the answer gets back.
    named: the key of its conversation, where that is not its id alone.
    id: the client's id of the conversation; 0 in a dialect without ids.
    caller: the user of the request: its peer, unless it brought a token or a hook named a user.
    service: the service that it is for.
    called: the client's name of the service, without the prefix of a tenant.
    message: the message of its client until the first dispatch, whose message it becomes: the first
        frame is a header. None afterwards.
    kept: the body afterwards: its one frame, or the list of its frames; empty once the request has
        ended.
    size: the bytes of the body, and of the parts that wait.
    cost: what it is charged while it is open (account.py).
    slot_cost: what its worker is charged for its slot, once it has ended.
    flags: the flags that the worker gets.
    metadata: the client's metadata, encoded; empty without any.
    accepted: when it was accepted.
    deadline: when it expires.
    state: its state (transitions.py).
    attempt: how many dispatches may have run; a dispatch that was rejected does not count.
    dispatch_id: the id of its last dispatch; 0 before the first.
    worker: the worker of its last dispatch; None while it is queued.
    target: the worker that the client named; None when any worker will do.
    rejected: workers that must not get it any more; None without any.
    hedge: whether it is a second attempt of another open request.
    queue: the fair queue that it is in.
    older, newer: its neighbours among the requests that hold a slot of its worker.
    bucket: its bucket of the timer wheel.
    bucket_index: its index in that bucket.
    stream: the credit and the waiting parts of its streams; None for a plain request.
    parts: parts that are joined for a client whose dialect has none.
    parts_size: their bytes.
    past_dispatches: dispatches that ended without an answer: worker id, begin, end and reason.
    given: when it was dispatched last.
    ended: when it ended.
    behind: requests that were queued before it; −1 where no worker served the service.
    outcome: status and text of its end, where that is not status 200.
    place: which of all ended requests it is, from 1 on; set at its end.
    """

    __slots__ = (
        "accepted",
        "attempt",
        "behind",
        "bucket",
        "bucket_index",
        "called",
        "caller",
        "cost",
        "deadline",
        "dialect",
        "dispatch_id",
        "ended",
        "envelope",
        "flags",
        "given",
        "hedge",
        "id",
        "kept",
        "message",
        "metadata",
        "named",
        "newer",
        "older",
        "outcome",
        "parts",
        "parts_size",
        "past_dispatches",
        "peer",
        "peer_index",
        "place",
        "queue",
        "rejected",
        "service",
        "size",
        "slot_cost",
        "state",
        "stream",
        "target",
        "worker",
    )

    # ── construction ──────────────────────────────────────────────────────────────────────────────
    # A positional method, not `__init__`: a compiled constructor takes its arguments as a tuple of
    # Python objects, so numbers would be boxed and unboxed for every request.

    def fill(
        self,
        peer: Peer,
        dialect: Dialect,
        envelope: tuple[Frame, ...],
        named: object,
        id: int,
        service: Service,
        message: list[Frame],
        size: int,
        flags: int,
        metadata: bytes,
        accepted: float,
        deadline: float,
    ) -> AcceptedRequest:
        """Set every attribute of a new request: ``AcceptedRequest().fill(…)``."""
        self.peer = peer
        self.caller: Peer | Caller = peer
        self.dialect = dialect
        self.envelope = envelope
        self.named = named
        self.id = id
        self.service = service
        self.called = service.name
        self.message: list[Frame] | None = message
        self.kept: Frame | list[Frame] = b""
        self.size = size
        self.peer_index = -1
        self.cost = 0
        self.slot_cost = 0
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
        self.hedge = False
        self.queue: FairQueue | None = None
        self.older: AcceptedRequest | None = None
        self.newer: AcceptedRequest | None = None
        self.bucket: Bucket | None = None
        self.bucket_index = 0
        self.parts: list[Frame] | None = None
        self.parts_size = 0
        self.stream: RequestStream | None = None
        self.past_dispatches: list[tuple[bytes, float, float, str]] | None = None
        self.given = 0.0
        self.ended = 0.0
        self.behind = 0
        self.outcome: tuple[int, str] | None = None
        self.place = 0
        return self

    @property
    def body(self) -> list[Frame]:
        """The frames of the body; empty once the request has ended."""
        if self.message is not None:
            return self.message[1:]
        return self.kept if isinstance(self.kept, list) else [self.kept]

    @body.setter
    def body(self, frames: list[Frame]) -> None:
        self.message, self.kept = None, frames

    def frame_count(self) -> int:
        """How many frames the body has."""
        if self.message is not None:
            return len(self.message) - 1
        return len(self.kept) if isinstance(self.kept, list) else 1

    @property
    def key(self) -> object:
        """The key of its conversation (`peers.conversation`). One that no message can name has a
        number that the broker counts, below 0."""
        return self.id if self.named is None else self.named

    # ── states ────────────────────────────────────────────────────────────────────────────────────

    def move(self, event: str) -> None:
        """Follow `event` through the table of states. Raises: LocalProtocolError if unlisted."""
        steps = STEPS.get(event)
        if steps is None:
            raise unlisted("request", event, self.state)
        self.follow(steps)

    def follow(self, steps: RequestSteps) -> None:
        """`move` for an event whose steps have been looked up already."""
        at = self.state
        after = steps[at]
        if after is None:
            raise unlisted("request", event_of(steps), self.state)
        self.state = after
