"""The tables that all modules of the broker share: peers, workers, services, deadlines, counters.

No rule lives here, and nothing is made here that has rules: the strategies and the index of
services are handed in.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from majordomus.core.broker.state.access_rules import AccessRules
from majordomus.core.broker.state.account import Account
from majordomus.core.broker.state.contract_table import ContractTable
from majordomus.core.broker.state.dispatch_table import DispatchTable
from majordomus.core.broker.state.history import History
from majordomus.core.broker.state.identity import Identity
from majordomus.core.broker.state.peers import Peer
from majordomus.core.broker.state.refusals import Refusals
from majordomus.core.broker.state.requests import AcceptedRequest
from majordomus.core.broker.state.services import Service
from majordomus.core.broker.state.subscribers import Key, Subscriber
from majordomus.core.broker.state.timer_wheel import Deadlines, RequestDeadlines
from majordomus.core.broker.state.times import BOXES, Times, times_of
from majordomus.core.broker.state.topics import Topics
from majordomus.core.broker.state.workers import RegisteredWorker
from majordomus.protocol.spec import Frame

if TYPE_CHECKING:
    from majordomus.core.broker.balancing.registry import Strategies
    from majordomus.core.broker.settings import BrokerSettings

IdSource: TypeAlias = Callable[[int], bytes]
Send: TypeAlias = tuple[bytes, list[Frame], int, object]
"""The routing id, the frames, and the tag: command and conversation (outgoing.py)."""
Fact: TypeAlias = tuple[str, dict[str, object]]
Write: TypeAlias = tuple[int, object]
"""A numbered write for a store: the number, and one of the operations of durable/records.py."""

RULES: Final = "python" if __file__.endswith(".py") else "compiled"
"""How the rules run: docs/adr/0008-compiled-rules.md."""


class ServiceIndex(Protocol):
    """The services by full name. The machine makes it, because it also knows the next messages."""

    services: dict[bytes, Service]

    def find(self, name: bytes) -> Service | None:
        """Return the service called `name`; None when it is not known."""

    def add(self, service: Service) -> None:
        """Make `service` known."""

    def remove(self, service: Service) -> None:
        """Forget `service`."""

    def guessable(self) -> list[Service]:
        """Return the services that a look-ahead may find, for the invariants."""


class Counts:
    """Counters since the start. A request ends in exactly one of four outcomes (rule 1).

    accepted: requests that were accepted.
    answered, failed, expired, cancelled: requests by their outcome.
    dispatched: dispatches.
    retried: dispatches of requests that had lost a worker.
    rejected: REJECTs.
    parts: PARTIALs of workers.
    unanswered: failures without a message: the dialect has none, or no answer was wanted.
    refused: client messages that did not become requests, by status.
    dropped: messages that were dropped, by reason.
    handshakes: connections that were refused, by reason.
    published: events for a topic.
    pushed: events for the client of a handle.
    delivered: events that were sent to a subscriber or client, one for each.
    undelivered: events that were lost on the way to one.
    asked: questions to the broker itself (`mmi.`), which are among the accepted and the answered.
    """

    __slots__ = (
        "accepted",
        "answered",
        "asked",
        "cancelled",
        "delivered",
        "dispatched",
        "dropped",
        "expired",
        "failed",
        "handshakes",
        "parts",
        "published",
        "pushed",
        "refused",
        "rejected",
        "retried",
        "unanswered",
        "undelivered",
    )

    def __init__(self) -> None:
        self.accepted = 0
        self.answered = 0
        self.failed = 0
        self.expired = 0
        self.cancelled = 0
        self.dispatched = 0
        self.retried = 0
        self.rejected = 0
        self.parts = 0
        self.pushed = 0
        self.published = 0
        self.delivered = 0
        self.undelivered = 0
        self.unanswered = 0
        self.asked = 0
        self.refused: Counter[int] = Counter()
        self.dropped: Counter[str] = Counter()
        self.handshakes: Counter[str] = Counter()

    def numbers(self) -> dict[str, int]:
        """The counters of requests, parts and events, by name."""
        return {
            "accepted": self.accepted,
            "answered": self.answered,
            "failed": self.failed,
            "expired": self.expired,
            "cancelled": self.cancelled,
            "dispatched": self.dispatched,
            "retried": self.retried,
            "rejected": self.rejected,
            "parts": self.parts,
            "unanswered": self.unanswered,
            "pushed": self.pushed,
            "published": self.published,
            "delivered": self.delivered,
            "undelivered": self.undelivered,
        }

    def by_reason(self) -> dict[str, dict[str, int]]:
        """The counters of what was refused or dropped, by status or reason."""
        return {
            "refused": {str(status): n for status, n in sorted(self.refused.items())},
            "dropped": dict(sorted(self.dropped.items())),
            "handshakes_refused": dict(sorted(self.handshakes.items())),
        }


class Registry:
    """The tables of one broker.

    settings: the settings in force.
    ids: ``ids(n)`` returns n unpredictable bytes.
    name, version, wire, started, restarts: what `mmi.broker` answers with.
    rights: the access rules; None while there are none.
    peers: every known peer by routing id.
    identities: what live connections have proved, by routing id.
    handles: peers by handle.
    topics: the subscriptions.
    sessions: the sessions of clients.
    away: sessions without a client by handle; the one that has been away longest comes first.
    workers: every registered worker by routing id.
    service_index: finds, adds and removes `services`.
    services: every known service by full name; changed by `service` and `tidy` alone.
    names: their names, sorted.
    backlogged: services that may have queued requests, in the order in which they get their turn.
    served: services that have a worker.
    counts: the counters.
    facts: rare events for observers, not taken yet.
    contracts: the contracts that workers state.
    account: what peers make the broker hold, in bytes.
    buffers: returns the bytes in the buffers of connections, for `mmi.stats`.
    process: returns what the process uses (CPU, memory, descriptors), for `mmi.metrics`.
    forgotten: the times of services that `tidy` has forgotten, merged.
    late, late_seconds: how late timers were handled: a histogram, and the sum.
    report_store: returns the state of the durable requests; None without a store.
    dispatch_table: the requests that hold a slot, by dispatch id.
    requests: the deadlines of open requests.
    timers: the deadlines of peers.
    retries: when outboxes are tried again.
    open: how many requests are open.
    queued, queued_bytes: how many of them are queued, and the bytes of their bodies.
    outbox_bytes: the bytes in all outboxes.
    strategies: makes the strategy of a new service.
    history: ended requests that are kept.
    last_number: the last number of `next_number` or of a dispatch.
    draining: whether new requests are refused.
    refusals: how often the same thing was refused in a row.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        ids: IdSource,
        name: str,
        strategies: Strategies,
        service_index: ServiceIndex,
    ) -> None:
        self.settings = settings
        self.ids = ids
        self.name = name
        self.version = ""
        self.wire = ""
        self.rights: AccessRules | None = None
        self.peers: dict[bytes, Peer] = {}
        self.identities: dict[bytes, Identity] = {}
        self.handles: dict[bytes, Peer] = {}
        self.topics: Topics[Subscriber] = Topics()
        self.sessions: dict[Key, Subscriber] = {}
        self.away: dict[bytes, Subscriber] = {}
        self.workers: dict[bytes, RegisteredWorker] = {}
        self.service_index = service_index
        self.services: dict[bytes, Service] = service_index.services
        self.names: list[bytes] = []
        self.backlogged: OrderedDict[Service, None] = OrderedDict()
        self.served: dict[Service, None] = {}
        self.counts = Counts()
        self.facts: list[Fact] = []
        self.account = Account(settings)
        self.contracts = ContractTable()
        self.dispatch_table = DispatchTable()
        self.requests = RequestDeadlines()
        self.timers: Deadlines = Deadlines()
        self.retries: Deadlines = Deadlines()
        self.open = 0
        self.queued = 0
        self.queued_bytes = 0
        self.outbox_bytes = 0
        self.strategies = strategies
        self.history = History(settings.slow, settings.max_stories, self.account)
        self.last_number = 0
        self.draining = False
        self.refusals = Refusals()
        self.buffers: Callable[[], dict[str, int]] = dict
        self.process: Callable[[], dict[str, float]] = dict
        self.forgotten = Times()
        self.late = [0] * BOXES
        self.late_seconds = 0.0
        self.report_store: Callable[[float], dict[str, object]] | None = None
        self.started = 0.0
        self.restarts = 0

    def next_number(self) -> int:
        """Return a number that this broker has not used before."""
        self.last_number += 1
        return self.last_number

    def service(self, name: bytes) -> Service | None:
        """Return the service called `name`, made if need be; None at the bound `max_services`."""
        service = self.services.get(name)
        if service is None and len(self.services) < self.settings.max_services:
            service = Service(name, self.strategies.make(name))
            service.known = True
            self.service_index.add(service)
            insort(self.names, name)
        return service

    def enter_queue(self, request: AcceptedRequest) -> None:
        """Count `request` among those that wait."""
        self.queued += 1
        self.queued_bytes += request.size
        request.peer.queued += 1
        request.peer.queued_bytes += request.size

    def leave_queue(self, request: AcceptedRequest) -> None:
        """Count `request` no more; it has left the queue of its service or worker."""
        self.queued -= 1
        self.queued_bytes -= request.size
        request.peer.queued -= 1
        request.peer.queued_bytes -= request.size
        waiting = request.service.waiting
        if waiting is None or not waiting.count:
            self.backlogged.pop(request.service, None)

    def find_service(self, name: bytes) -> Service | None:
        """Return the service called `name`; None when it is not known."""
        return self.service_index.find(name)

    def tidy(self, service: Service) -> None:
        """Forget `service` if it has neither a worker nor an open request."""
        if service.known and not service.workers and not service.open:
            service.known = False
            if service.counted:
                self.forgotten.add(times_of(service))
                service.forget_times()
            self.service_index.remove(service)
            del self.names[bisect_left(self.names, service.name)]

    def count_dropped(self, reason: str, peer_id: bytes, count_only: bool = False) -> None:
        """Count a message that is dropped. Each power of two of a reason is a fact, so that no peer
        can flood the observers."""
        dropped = self.counts.dropped
        dropped[reason] += 1
        times = dropped[reason]
        if not count_only and times & (times - 1) == 0:
            self.facts.append(("dropped", {"reason": reason, "peer": peer_id, "times": times}))

    def refuse(self, fact: str, kind: object, now: float, **data: object) -> int:
        """Count a refusal that its peer may repeat for ever. Each power of two is a fact. Returns
        how many of this `kind` there were in a row."""
        times = self.refusals.count((fact, kind), now)
        if times & (times - 1) == 0:
            self.emit(fact, **data, times=times)
        return times

    def emit(self, fact: str, **data: object) -> None:
        """Add a rare event for the observers."""
        self.facts.append((fact, data))
