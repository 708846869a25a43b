"""What must be true of a broker machine between any two calls. Tests call `check`; nothing else
does.

Every number that the machine keeps is computed here once more from what it counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

from majordomus.core.states import AT_WORKER, DISPATCHED, FORGOTTEN, LOST, OPEN, QUEUED
from majordomus.errors import MajordomusError

if TYPE_CHECKING:
    from majordomus.core.broker import BrokerMachine
    from majordomus.core.registry import Registry
    from majordomus.core.requests import Request
    from majordomus.core.workers import Worker


class InvariantError(MajordomusError):
    """The machine contradicts itself; the text lists every contradiction."""


def story(request: Request) -> str:
    """Where `request` is and what it has been through, in one line."""
    worker = request.worker.id.hex() if request.worker else "-"
    return (
        f"{request.service.name.decode()} key={request.key!r} from {request.peer.id.hex()} "
        f"{request.dialect.value} {request.state.name} attempt={request.attempt} worker={worker} "
        f"dispatch={request.dispatch & 0xFFFFFFFF} deadline={request.deadline:.3f}"
    )


def check(machine: BrokerMachine) -> None:
    """Raise unless all of the machine's bookkeeping agrees.

    Raises:
        InvariantError: something does not; the text tells the stories of the requests concerned.
    """
    problems = list(contradictions(machine))
    if problems:
        raise InvariantError("\n".join(problems))


def contradictions(machine: BrokerMachine) -> Iterator[str]:
    """Everything that does not agree, a sentence each."""
    registry = machine.registry
    requests = list(_open_requests(registry))
    yield from _outcomes(registry, requests)
    yield from _queues(registry, requests)
    yield from _workers(registry)
    yield from _peers(registry)
    for request in requests:
        yield from _request(registry, request)
    if len(registry.requests) != len(requests):
        yield f"{len(registry.requests)} deadlines for {len(requests)} open requests"
    if machine.next_deadline() == inf and requests:
        yield "requests are open and no deadline is set"


def _open_requests(registry: Registry) -> Iterator[Request]:
    """All open requests: of known peers, and ONE-WAY ones whose client has left."""
    seen: set[Request] = set()
    for peer in registry.peers.values():
        seen.update(peer.open.values())
    for worker in registry.workers.values():
        seen.update(r for r in worker.held.values() if r.state in OPEN)
        seen.update(worker.reserved)
    for service in registry.services.values():
        seen.update(service.queue)
    return iter(seen)


def _outcomes(registry: Registry, requests: list[Request]) -> Iterator[str]:
    counts = registry.counts
    ended = counts.answered + counts.failed + counts.expired + counts.cancelled
    if counts.accepted != ended + len(requests):
        yield (
            f"rule 1: {counts.accepted} accepted, but {ended} ended and {len(requests)} open: "
            + "; ".join(map(story, requests))
        )
    if registry.open != len(requests):
        yield f"open = {registry.open}, but {len(requests)} are"


def _queues(registry: Registry, requests: list[Request]) -> Iterator[str]:
    queued = [r for r in requests if r.state is QUEUED]
    size = sum(r.size for r in queued)
    if (registry.queued, registry.queued_bytes) != (len(queued), size):
        yield f"queued = {registry.queued}/{registry.queued_bytes}, not {len(queued)}/{size}"
    for peer in registry.peers.values():
        own = [r for r in queued if r.peer is peer]
        if (peer.queued, peer.queued_bytes) != (len(own), sum(r.size for r in own)):
            yield f"peer {peer.id.hex()}: queued = {peer.queued}, not {len(own)}"
    for service in registry.services.values():
        waiting = list(service.queue)
        if (service.queue.count, service.queue.size) != (
            len(waiting),
            sum(r.size for r in waiting),
        ):
            yield f"service {service.name!r}: its queue miscounts"
        if bool(waiting) and service not in registry.backlogged:
            yield f"service {service.name!r}: has a queue and is not backlogged"
        free = [w for w in service.workers.values() if w.free]
        served = [r for r in waiting if any(w not in (r.rejected or ()) for w in free)]
        if served:
            yield f"rule 6: {len(free)} workers are free, and there waits {story(served[0])}"


def _workers(registry: Registry) -> Iterator[str]:
    for worker in registry.workers.values():
        yield from _worker(registry, worker)


def _worker(registry: Registry, worker: Worker) -> Iterator[str]:
    name = f"worker {worker.id.hex()}"
    if worker.state is LOST or worker.peer.worker is not worker:
        yield f"{name}: is registered, and lost"
    if len(worker.held) > worker.capacity and worker.free:
        yield f"{name}: holds more than its capacity, and is free"
    if list(worker.services.values()) != sorted(
        worker.order, key=lambda s: list(worker.services).index(s.name)
    ):
        yield f"{name}: its services and their order differ"
    for service in worker.order:
        if service.workers.get(worker.id) is not worker:
            yield f"{name}: serves {service.name!r}, which does not know it"
        chosen = service.strategy.choose(set(service.workers.values()) - {worker})
        if (chosen is worker) != bool(worker.free):
            yield f"{name}: free={worker.free}, and its strategy says otherwise"
    handles = sum(map(len, worker.handles.values()))
    if worker.handles and handles != len(worker.held):
        yield f"{name}: {handles} handles for {len(worker.held)} slots"
    for number, request in worker.held.items():
        if request.state in AT_WORKER and (request.worker, request.dispatch) != (worker, number):
            yield f"{name}: holds dispatch {number:#x} of {story(request)}"


def _peers(registry: Registry) -> Iterator[str]:
    for peer in registry.peers.values():
        if peer.state is FORGOTTEN:
            yield f"peer {peer.id.hex()} is forgotten, and known"
        if peer.timer is None or peer not in peer.timer:
            yield f"peer {peer.id.hex()} has no timer"
        if peer.worker is not None and registry.workers.get(peer.id) is not peer.worker:
            yield f"peer {peer.id.hex()}: its worker is not registered"


def _request(registry: Registry, request: Request) -> Iterator[str]:
    if request.state not in OPEN:
        yield f"has ended, and is open: {story(request)}"
    if request.peer.open.get(request.key) is not request:
        yield f"its client does not know it: {story(request)}"
    if registry.services.get(request.service.name) is not request.service:
        yield f"its service is not known: {story(request)}"
    if (request.queue is not None) != (request.state is QUEUED):
        yield f"queue and state differ: {story(request)}"
    if request.state in AT_WORKER:
        worker = request.worker
        if worker is None or worker.held.get(request.dispatch) is not request:
            yield f"its worker does not hold it: {story(request)}"
    elif request.worker is not None and request.state is not DISPATCHED:
        yield f"waits, and has a worker: {story(request)}"
    if request.attempt > registry.settings.max_attempts:
        yield f"rule 3: too many attempts: {story(request)}"
