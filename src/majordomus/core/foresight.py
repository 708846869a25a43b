"""What the next messages of a batch will touch is fetched into the cache while there is time: hints
to the processor, which no rule depends on and which change nothing.

Of ten thousand services no cache holds all, and what a request then waits for is memory, one object
after the other: the service, its worker, the worker's peer. Of several requests the processor
fetches them at the same time, if it is told early (docs/adr/0008-compiled-rules.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.core import hints
from majordomus.protocol import octets, spec

if TYPE_CHECKING:
    from majordomus.core.registry import Registry
    from majordomus.core.workers import Worker
    from majordomus.protocol.spec import Frame

AT_ONCE: Final = 16
"""Messages: what they touch fits into the nearest cache."""


def ahead(registry: Registry, batch: list[tuple[bytes, list[Frame]]], at: int) -> int:
    """Look at the messages of `batch` from `at` on. Up to where it has looked; -1 where so few
    services are known that it is not worth a look."""
    if len(registry.services) <= hints.MANY:
        return -1
    services = []
    end = min(at + AT_ONCE, len(batch))
    for n in range(at, end):
        _, frames = batch[n]
        name = called(frames)
        service = registry.services.get(name) if name is not None else None
        if service is not None:
            hints.fetch(service)
            services.append(service)
    fetch_workers([service.only_worker for service in services if service.only_worker is not None])
    return end


def called(frames: list[Frame]) -> bytes | None:
    """The name that a REQUEST calls; None where this is none, or stands behind an envelope."""
    if not frames or type(frames[0]) is not bytes or not octets.is_mdp03(frames[0]):
        return None
    header = frames[0]
    if len(header) <= 21 or header[4] != spec.REQUEST:
        return None
    end = 21 + header[20]
    return octets.piece(header, 21, end) if end < len(header) else None


def fetch_workers(workers: list[Worker]) -> None:
    """Workers, with their peers and routing ids. One step for all of them, then the next: so that
    none waits for another."""
    for worker in workers:
        hints.fetch(worker)
    for worker in workers:
        hints.fetch(worker.peer)
    for worker in workers:
        hints.fetch(worker.peer.id)
