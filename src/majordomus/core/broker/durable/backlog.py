"""The durable requests that wait for a run, by service and owner.

Only a few of them are placed in the queue of their service at a time, and no more than the bounds
of the queues allow. So a long backlog does not fill the queues of plain requests, and owners take
turns, as clients do (rule 7).
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from majordomus.core.broker.durable.requests import DurableRequest
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry

QUEUED: Final = 256
"""Requests in the queue of a service beyond which no durable one is added; half of what the bounds
of the queues allow, if that is less: the rest is for plain requests."""
LEAST_PLACED: Final = 16
"""Durable requests of a service and owner that are placed in any case, within those bounds."""
MOST_LOOKED_AT: Final = 64
"""Owners that are looked at for one that has fewer placed."""


class ServiceBacklog:
    """The waiting durable requests of one service.

    turns: those of each owner; the owner whose turn it is comes first.
    placed: how many of each owner are placed: in the queue or at a worker.
    count: how many wait here.
    """

    __slots__ = ("count", "placed", "turns")

    def __init__(self) -> None:
        self.turns: OrderedDict[Peer, OrderedDict[DurableRequest, None]] = OrderedDict()
        self.placed: dict[Peer, int] = {}
        self.count = 0

    def push(self, job: DurableRequest) -> None:
        """Add `job` behind the others of its owner."""
        own = self.turns.get(job.peer)
        if own is None:
            own = self.turns[job.peer] = OrderedDict()
        own[job] = None
        self.count += 1

    def pop(self, has_space: bool) -> DurableRequest | None:
        """Remove and return the next one; None without one. Unless the queue `has_space`, it is
        one of an owner that has few placed."""
        if not self.turns:
            return None
        peer = next(iter(self.turns)) if has_space else self._with_few()
        if peer is None:
            return None
        own = self.turns.pop(peer)
        job, _ = own.popitem(last=False)
        self.count -= 1
        if own:
            self.turns[peer] = own
        return job

    def remove(self, job: DurableRequest) -> None:
        """Remove `job`, if it waits here."""
        own = self.turns.get(job.peer)
        if own is None or job not in own:
            return
        del own[job]
        self.count -= 1
        if not own:
            del self.turns[job.peer]

    def _with_few(self) -> Peer | None:
        for peer in islice(self.turns, MOST_LOOKED_AT):
            if self.placed.get(peer, 0) < LEAST_PLACED:
                return peer
        return None

    def enter(self, peer: Peer) -> None:
        """One of this owner is placed."""
        self.placed[peer] = self.placed.get(peer, 0) + 1

    def leave(self, peer: Peer) -> None:
        """One of this owner is placed no longer."""
        placed = self.placed[peer] - 1
        if placed:
            self.placed[peer] = placed
        else:
            del self.placed[peer]


class Backlog:
    """The backlogs of all services, by full name."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.services: dict[bytes, ServiceBacklog] = {}

    def of(self, name: bytes) -> ServiceBacklog:
        """The backlog of a service, made if need be."""
        found = self.services.get(name)
        if found is None:
            found = self.services[name] = ServiceBacklog()
        return found

    def has_space(self, name: bytes) -> bool:
        """Whether the queue of a service has space for another durable request."""
        registry = self.registry
        if not registry.queued:
            return True
        service = registry.services.get(name)
        if service is not None and service.waiting is not None and service.waiting.count >= QUEUED:
            return False
        return not self.is_used(name, 2)

    def is_used(self, name: bytes, share: int) -> bool:
        """Whether one part of `share` of a bound of the queues is used up for a service; with 1
        nothing more may wait for it (rule 4)."""
        registry = self.registry
        settings = registry.settings
        if share * registry.queued >= settings.max_queue:
            return True
        if share * registry.queued_bytes >= settings.max_queue_bytes:
            return True
        service = registry.services.get(name)
        if service is None or service.waiting is None:
            return False
        queue = service.waiting
        return (
            share * queue.count >= settings.max_service_queue
            or share * queue.size >= settings.max_service_queue_bytes
        )

    @property
    def placed(self) -> int:
        """How many durable requests are in queues or at workers."""
        return sum([sum(own.placed.values()) for own in self.services.values()])

    def tidy(self, name: bytes) -> None:
        """Forget the backlog of a service when it is empty."""
        own = self.services.get(name)
        if own is not None and not own.placed and not own.count:
            del self.services[name]
