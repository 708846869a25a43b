"""Everything that the broker knows: peers, workers, services, counters, wheels of deadlines. No
rule lives here."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from majordomus.core.broker.state.access_rules import AccessRules
from majordomus.core.broker.state.dispatch_table import DispatchTable
from majordomus.core.broker.state.history import History
from majordomus.core.broker.state.identity import Identity
from majordomus.core.broker.state.peers import Peer
from majordomus.core.broker.state.requests import AcceptedRequest
from majordomus.core.broker.state.services import Service
from majordomus.core.broker.state.subscribers import Key, Subscriber
from majordomus.core.broker.state.timer_wheel import Deadlines, RequestDeadlines
from majordomus.core.broker.state.topics import Topics
from majordomus.core.broker.state.workers import RegisteredWorker
from majordomus.protocol.spec import Frame

if TYPE_CHECKING:
    from majordomus.core.broker.accel.prefetch import Prefetcher
    from majordomus.core.broker.balancing.registry import Strategies
    from majordomus.core.broker.settings import BrokerSettings

IdSource: TypeAlias = Callable[[int], bytes]
Send: TypeAlias = tuple[bytes, list[Frame], int, object]
"""The routing id, the frames, and the tag: command and conversation (outgoing.py)."""
Fact: TypeAlias = tuple[str, dict[str, object]]
Write: TypeAlias = tuple[int, object]
"""A numbered write for a store. Its place is kept: no rule makes one yet."""


RULES: Final = "python" if __file__.endswith(".py") else "compiled"
"""How these rules run: docs/adr/0008-compiled-rules.md."""


class Counts:
    """What happened since the start. Requests end in exactly one of the four outcomes (rule 1)."""

    __slots__ = (
        "accepted",
        "answered",
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
        """Events that came, for the client of a handle and for a topic."""
        self.delivered = 0
        self.undelivered = 0
        """What each of them was for one who was to hear it: on its way, or lost."""
        self.unanswered = 0
        """Failures that nobody was told of: the dialect has no words, or no answer was wanted."""
        self.refused: Counter[int] = Counter()
        """Messages of clients that never became a request, by the status they were answered."""
        self.dropped: Counter[str] = Counter()
        """Messages that were dropped, by reason."""
        self.handshakes: Counter[str] = Counter()
        """Connections that never came to be, by reason."""


class Registry:
    """The broker's memory, shared by its rooms. `ids` makes random bytes."""

    def __init__(
        self,
        settings: BrokerSettings,
        ids: IdSource,
        name: str,
        strategies: Strategies,
        prefetcher: Prefetcher,
    ) -> None:
        self.settings = settings
        self.ids = ids
        self.name = name
        self.version = ""
        """The package's version and the kind of wire: told by the shell, shown by `mmi.broker`."""
        self.wire = ""
        self.rights: AccessRules | None = None
        """Who may do what; None while nobody asks."""
        self.peers: dict[bytes, Peer] = {}
        self.identities: dict[bytes, Identity] = {}
        """Who is at the other end of a live connection, where it has proved that."""
        self.handles: dict[bytes, Peer] = {}
        self.topics: Topics[Subscriber] = Topics()
        self.sessions: dict[Key, Subscriber] = {}
        self.away: dict[bytes, Subscriber] = {}
        """Sessions whose client is not there, by handle; who has been away longest comes first."""
        self.workers: dict[bytes, RegisteredWorker] = {}
        self.prefetcher = prefetcher
        self.services: dict[bytes, Service] = prefetcher.services
        self.backlogged: OrderedDict[Service, None] = OrderedDict()
        self.served: dict[Service, None] = {}
        self.counts = Counts()
        self.facts: list[Fact] = []
        self.dispatch_table = DispatchTable()
        self.requests = RequestDeadlines()
        self.timers: Deadlines = Deadlines()
        self.retries: Deadlines = Deadlines()
        self.open = 0
        self.queued = 0
        self.queued_bytes = 0
        self.outbox_bytes = 0
        self.strategies = strategies
        self.history = History(settings.slow, settings.max_stories)
        self.last_number = 0
        self.draining = False
        self.started = 0.0
        self.restarts = 0

    def next_number(self) -> int:
        """A number that this broker never used before."""
        self.last_number += 1
        return self.last_number

    def service(self, name: bytes) -> Service | None:
        """The service of that name, made when there is room for one more; else None."""
        service = self.services.get(name)
        if service is None and len(self.services) < self.settings.max_services:
            service = Service(name, self.strategies.make(name))
            service.known = True
            self.prefetcher.add(service)
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
        """The service of that name; None when it is not known."""
        service: Service | None = self.prefetcher.find(name)
        return service

    def tidy(self, service: Service) -> None:
        """Forget `service` when nobody serves it and nobody waits for it."""
        if service.known and not service.workers and not service.open:
            service.known = False
            self.prefetcher.remove(service)

    def drop(self, reason: str, peer_id: bytes, count_only: bool = False) -> None:
        """Count a message that goes no further; a fact is told at each power of two, so none can
        flood."""
        dropped = self.counts.dropped
        dropped[reason] += 1
        times = dropped[reason]
        if not count_only and times & (times - 1) == 0:
            self.facts.append(("dropped", {"reason": reason, "peer": peer_id, "times": times}))

    def tell(self, fact: str, **data: object) -> None:
        """Note a rare event for the observers."""
        self.facts.append((fact, data))
