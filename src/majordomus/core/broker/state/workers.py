"""One worker: what it serves, what it holds, how loaded it says it is. No rule lives here."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from majordomus.core.broker.state.services import FairQueue
from majordomus.core.broker.state.transitions import SERVING, WORKER, WorkerState, unlisted
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.core.broker.balancing.ring import RingNode
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.services import Service


class RegisteredWorker:
    """A peer that serves. ``holding``: how many of its slots are in use, those of ended requests
    included; ``oldest`` and ``newest``: the requests that have them, each of which knows its
    neighbours. ``place``: where the strategy that last had it in a ring keeps it. ``answered``: of
    a Delphi worker, the handles that it may use again, with the handles of their clients.
    ``only_service``: the one that it serves, where it serves one."""

    __slots__ = (
        "answered",
        "busy_since",
        "capacity",
        "dialect",
        "handles",
        "holding",
        "id",
        "last_beat_sent",
        "load",
        "metadata",
        "newest",
        "oldest",
        "order",
        "peer",
        "reserved_last",
        "ring_node",
        "services",
        "state",
        "undelivered",
        "waiting",
    )

    def __init__(self, peer: Peer, dialect: Dialect, capacity: int, now: float) -> None:
        self.peer = peer
        self.id = peer.id
        self.dialect = dialect
        self.capacity = capacity
        self.state = WorkerState.SERVING
        self.services: dict[bytes, Service] = {}
        self.metadata: dict[bytes, bytes] = {}
        self.order: list[Service] = []
        self.holding = 0
        self.oldest: AcceptedRequest | None = None
        self.newest: AcceptedRequest | None = None
        self.handles: dict[bytes, deque[int]] = {}
        self.undelivered: set[int] | None = None
        """Dispatches whose message never left: nobody has seen them."""
        self.answered: dict[bytes, bytes] | None = None
        self.waiting: FairQueue | None = None
        """What asks for it alone; made when a queue is first asked for."""
        self.reserved_last = False
        self.ring_node: RingNode | None = None
        self.load: float | None = None
        self.busy_since = now
        self.last_beat_sent = now

    @property
    def reserved(self) -> FairQueue:
        """The requests that wait for this worker and no other."""
        if self.waiting is None:
            self.waiting = FairQueue()
        return self.waiting

    def has_room(self) -> bool:
        """Whether a slot may be given out now."""
        if self.state is not SERVING or (self.load is not None and self.load == -1.0):
            return False
        return self.holding < self.capacity

    def hold(self, request: AcceptedRequest) -> None:
        """`request` has one of its slots from now on."""
        newest = request.older = self.newest
        if newest is None:
            self.oldest = request
        else:
            newest.newer = request
        self.newest = request
        self.holding += 1

    def let_go(self, request: AcceptedRequest) -> None:
        """`request` has given its slot back."""
        older, newer = request.older, request.newer
        if older is None:
            self.oldest = newer
        else:
            older.newer = newer
            request.older = None
        if newer is None:
            self.newest = older
        else:
            newer.older = older
            request.newer = None
        self.holding -= 1

    def not_delivered(self, number: int) -> None:
        """Dispatch `number` never left: nothing of it can have run."""
        if self.undelivered is None:
            self.undelivered = set()
        self.undelivered.add(number)

    def is_undelivered(self, number: int) -> bool:
        return self.undelivered is not None and number in self.undelivered

    def delivered(self, number: int) -> None:
        """Dispatch `number` is of no interest any more, or has left after all."""
        if self.undelivered is not None:
            self.undelivered.discard(number)

    @property
    def held(self) -> dict[int, AcceptedRequest]:
        """Who has its slots, by number of dispatch, oldest first: for those that look on."""
        held = {}
        request = self.oldest
        while request is not None:
            held[request.dispatch_id] = request
            request = request.newer
        return held

    @property
    def free(self) -> int:
        """Slots that may be given out now."""
        if self.state is not WorkerState.SERVING or self.load == -1.0:
            return 0
        return max(0, self.capacity - self.holding)

    def move(self, event: str) -> None:
        """Follow `event` through the table of states."""
        try:
            self.state = WORKER[event][self.state]
        except KeyError:
            raise unlisted("worker", event, self.state) from None
