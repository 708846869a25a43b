"""One registered worker: its services, its slots and its load. No rule lives here."""

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
    """A peer that has registered for services. Times are monotonic seconds.

    peer: the peer.
    id: the routing id of the peer.
    dialect: the dialect of its registration.
    capacity: how many slots it has.
    state: its state (transitions.py).
    services: the services that it is registered for, by name.
    metadata: the metadata of each registration, by service; encoded.
    order: the same services, in the order in which their queues are looked at next.
    holding: how many slots are in use, also by requests that have ended.
    oldest, newest: the ends of the list of requests that hold its slots.
    handles: of a 0.1 or 0.2 worker: the dispatch ids of each client's handle.
    undelivered: ids of dispatches whose message was refused by the socket; None without any.
    answered: of a Delphi worker: the handles that it may use again, with their clients' handles.
    waiting: the queue of requests that name it; made when `reserved` is first read.
    reserved_last: whether its last request came from that queue.
    ring_node: its node in the ring of the strategy that last ranked it.
    load: the load of its last heartbeat; -1.0 when it takes nothing, None when unknown.
    busy_since: when it last changed from idle to busy.
    last_heartbeat: when the last heartbeat was sent to it.
    cost: what its peer is charged for this record (account.py).
    """

    __slots__ = (
        "answered",
        "busy_since",
        "capacity",
        "cost",
        "dialect",
        "handles",
        "holding",
        "id",
        "last_heartbeat",
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
        self.answered: dict[bytes, bytes] | None = None
        self.waiting: FairQueue | None = None
        self.reserved_last = False
        self.ring_node: RingNode | None = None
        self.load: float | None = None
        self.busy_since = now
        self.last_heartbeat = now
        self.cost = 0

    @property
    def reserved(self) -> FairQueue:
        """The queue of the requests that name this worker."""
        if self.waiting is None:
            self.waiting = FairQueue()
        return self.waiting

    def has_free_slot(self) -> bool:
        """Whether a request may be dispatched to it now."""
        if self.state is not SERVING or (self.load is not None and self.load == -1.0):
            return False
        return self.holding < self.capacity

    def not_delivered(self, number: int) -> None:
        """The socket refused the message of dispatch `number`: nothing of it can have run."""
        if self.undelivered is None:
            self.undelivered = set()
        self.undelivered.add(number)

    def is_undelivered(self, number: int) -> bool:
        return self.undelivered is not None and number in self.undelivered

    def delivered(self, number: int) -> None:
        """Dispatch `number` has been sent after all, or has ended."""
        if self.undelivered is not None:
            self.undelivered.discard(number)

    @property
    def held(self) -> dict[int, AcceptedRequest]:
        """The requests that hold its slots by dispatch id, oldest first. For tests and tools."""
        held = {}
        request = self.oldest
        while request is not None:
            held[request.dispatch_id] = request
            request = request.newer
        return held

    @property
    def free(self) -> int:
        """How many requests may be dispatched to it now."""
        if self.state is not WorkerState.SERVING or self.load == -1.0:
            return 0
        return max(0, self.capacity - self.holding)

    def move(self, event: str) -> None:
        """Follow `event` through the table of states. Raises: LocalProtocolError if unlisted."""
        try:
            self.state = WORKER[event][self.state]
        except KeyError:
            raise unlisted("worker", event, self.state) from None
