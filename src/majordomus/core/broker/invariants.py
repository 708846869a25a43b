"""Invariants of a broker machine: they hold between any two calls of its methods.

Only tests call `check`. Each counter of the machine is computed again here from the objects that
it counts, and compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from majordomus.core.broker.state.account import (
    ANSWERED,
    DURABLE_ROW,
    FRAME,
    MESSAGE,
    NOTE,
    PEER,
    REGISTRATION,
    REQUEST,
    STORY,
    SUBSCRIBER,
    SUBSCRIPTION,
    TOKEN,
    WORKER,
)
from majordomus.core.broker.state.requests import AcceptedRequest
from majordomus.core.broker.state.transitions import (
    AT_WORKER,
    ENDED,
    ENDING,
    FORGOTTEN,
    HELD,
    LOST,
    OPEN,
    QUEUED,
    REFUSED,
    REPLIED,
    RUNNING,
    SERVING,
    STORING,
    SUSPECT,
)
from majordomus.core.broker.state.transitions import WAITING as WAITING_STATE
from majordomus.errors import MajordomusError
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect, Frame

if TYPE_CHECKING:
    from majordomus.core.broker.machine import BrokerMachine
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.services import FairQueue, Service
    from majordomus.core.broker.state.workers import RegisteredWorker


WAITING = (QUEUED, HELD, REPLIED)
"""States in which a request counts toward the limits of the queues. A request that waits for a
hook counts, too."""


class InvariantError(MajordomusError):
    """An invariant is violated. The text has one line for each contradiction."""


def story(request: AcceptedRequest) -> str:
    """The state and history of `request`, in one line."""
    worker = request.worker.id.hex() if request.worker else "-"
    return (
        f"{request.service.name.decode()} key={request.key!r} from {request.peer.id.hex()} "
        f"{request.dialect.value} {request.state.name} attempt={request.attempt} worker={worker} "
        f"dispatch={request.dispatch_id & 0xFFFFFFFF} deadline={request.deadline:.3f}"
    )


def check(machine: BrokerMachine) -> None:
    """Check all invariants of `machine`.

    Raises:
        InvariantError: one is violated; the text has the `story` of each request concerned.
    """
    problems = list(contradictions(machine))
    if problems:
        raise InvariantError("\n".join(problems))


def contradictions(machine: BrokerMachine) -> Iterator[str]:
    """One line for each violated invariant."""
    registry = machine.registry
    requests = _open_requests(machine)
    yield from _outcomes(registry, requests)
    yield from _totals(registry, requests)
    yield from _account(machine, requests)
    yield from _durable(machine)
    for request in requests:
        yield from _request(registry, request)
    yield from _hooks(machine, requests)
    open_of = Counter(request.service for request in requests)
    for service in registry.services.values():
        yield from _service(service, open_of[service])
    for worker in registry.workers.values():
        yield from _worker(worker)
        if worker.state is SUSPECT and worker.peer not in machine.presence.suspects:
            yield f"worker {worker.id.hex()}: is suspect, but no timer checks it"
    yield from _events(registry)
    queued = [r for r in requests if r.state in WAITING]
    queued_of = Counter(r.peer for r in queued)
    bytes_of: Counter[Peer] = Counter()
    for request in queued:
        bytes_of[request.peer] += request.size
    for peer in registry.peers.values():
        yield from _peer(registry, peer)
        if (peer.queued, peer.queued_bytes) != (queued_of[peer], bytes_of[peer]):
            yield f"peer {peer.id.hex()}: queued = {peer.queued}, but other requests wait"


def _events(registry: Registry) -> Iterator[str]:
    """Each handle, subscription and session belongs to exactly one peer or absent session."""
    peers, settings = registry.peers, registry.settings
    for handle, peer in registry.handles.items():
        if peers.get(peer.id) is not peer or handle not in (peer.handle, peer.own_handle):
            yield f"handle {handle.hex()}: is not the handle of its peer"
    listeners = {peer.subscriber: None for peer in peers.values() if peer.subscriber is not None}
    for peer in peers.values():
        if registry.handles.get(peer.handle) is not peer:
            yield f"peer {peer.id.hex()}: its handle does not lead to it"
        if peer.subscriber is not None and peer.subscriber.peer is not peer:
            yield f"peer {peer.id.hex()}: its subscriber belongs to another peer"
    for handle, listener in registry.away.items():
        if listener.peer is not None or listener.key is None or listener.handle != handle:
            yield f"handle {handle.hex()}: is in `away`, but its session is present"
        if handle in registry.handles:
            yield f"handle {handle.hex()}: is in `away`, but its client is present"
    listeners.update(dict.fromkeys(registry.away.values()))
    sessions = {one.key: one for one in listeners if one.key is not None}
    if sessions != registry.sessions:
        yield "the sessions differ from those of the subscribers"
    pairs = {(pattern, one) for one in listeners for pattern in one.patterns}
    if pairs != set(registry.topics.pairs()) or len(pairs) != len(registry.topics):
        yield "the subscriptions differ from those of the subscribers"
    if any(len(one.patterns) > settings.max_client_topics for one in listeners):
        yield "rule 4: a client has more subscriptions than allowed"
    if len(pairs) > settings.max_topics or len(sessions) > settings.max_sessions:
        yield "rule 4: more subscriptions or sessions than allowed"


def _open_requests(machine: BrokerMachine) -> list[AcceptedRequest]:
    """All open requests: those of known peers, the broker's own, and one-way requests whose client
    has left."""
    registry = machine.registry
    seen: dict[AcceptedRequest, None] = dict.fromkeys(machine.calls.peer.open.values())
    if machine.hooks is not None:
        seen.update(dict.fromkeys(machine.hooks.pending.waiting))
    if machine.store.durable is not None:
        for owner in machine.store.durable.owners.values():
            seen.update(dict.fromkeys(owner.peer.open.values()))
    for peer in registry.peers.values():
        seen.update(dict.fromkeys(peer.open.values()))
    for worker in registry.workers.values():
        seen.update({r: None for r in worker.held.values() if r.state in OPEN})
        seen.update(dict.fromkeys(worker.reserved))
    for service in registry.services.values():
        seen.update(dict.fromkeys(service.queue))
    return list(seen)


def _outcomes(registry: Registry, requests: list[AcceptedRequest]) -> Iterator[str]:
    counts = registry.counts
    ended = counts.answered + counts.failed + counts.expired + counts.cancelled
    if counts.accepted != ended + len(requests):
        yield (
            f"rule 1: {counts.accepted} accepted, but {ended} ended and {len(requests)} open: "
            + "; ".join(map(story, requests))
        )
    if registry.open != len(requests):
        yield f"open = {registry.open}, but {len(requests)} are"
    if len(registry.requests) != len(requests):
        yield f"{len(registry.requests)} deadlines for {len(requests)} open requests"


def _totals(registry: Registry, requests: list[AcceptedRequest]) -> Iterator[str]:
    queued = [r for r in requests if r.state in WAITING]
    size = sum(r.size for r in queued)
    if (registry.queued, registry.queued_bytes) != (len(queued), size):
        yield f"queued = {registry.queued}/{registry.queued_bytes}, not {len(queued)}/{size}"
    holding = sum(worker.holding for worker in registry.workers.values())
    dispatches = registry.dispatch_table.count
    if dispatches != holding:
        yield f"{dispatches} dispatches are registered, but {holding} slots in use"
    held = sum(peer.outbox.size for peer in registry.peers.values() if peer.outbox is not None)
    if registry.outbox_bytes != held:
        yield f"outbox_bytes = {registry.outbox_bytes}, not {held}"
    if held > 2 * registry.settings.max_outboxes_bytes:
        yield f"rule 4: {held} bytes wait in outboxes"
    served = {s for s in registry.services.values() if s.workers}
    if set(registry.served) != served:
        yield "`registry.served` differs from the services with workers"
    backlogged = {s for s in registry.services.values() if s.queue}
    if not backlogged <= set(registry.backlogged):
        yield "a service has a queue, but is not backlogged"
    for service in registry.backlogged:
        if registry.services.get(service.name) is not service:
            yield f"service {service.name!r}: is backlogged, but not registered"
    for service in registry.services.values():
        if not service.known:
            yield f"service {service.name!r}: is registered, but not marked as known"
    for guess in registry.service_index.guessable():
        if registry.services.get(guess.name) is not guess:
            yield f"service {guess.name!r}: may be predicted, but is not registered"


def _durable(machine: BrokerMachine) -> Iterator[str]:
    """Each durable request is in one place, and its run is a request of its owner."""
    durable = machine.store.durable
    if durable is None:
        return
    placed: Counter[bytes] = Counter()
    owned: Counter[str] = Counter()
    for number, job in durable.jobs.items():
        name = f"durable {number}"
        owned[job.row.owner] += 1
        if job.row.number != number:
            yield f"{name}: is kept as {job.row.number}"
        if job.state in (ENDED, REFUSED):
            yield f"{name}: is kept, but has ended"
        if job.state is RUNNING and job.run is None:
            yield f"{name}: runs without a run"
        if job.state in (STORING, WAITING_STATE) and job.run is not None:
            yield f"{name}: has a run, but does not run"
        if job.state is ENDING and job.outcome is None:
            yield f"{name}: ends without an outcome"
        if job.run is not None:
            placed[job.row.service] += 1
            if job.peer.open.get(number) is not job.run or job.run.state not in OPEN:
                yield f"{name}: its run is not open: {story(job.run)}"
        own = durable.backlog.services.get(job.row.service)
        waits = own is not None and any(job in turn for turn in own.turns.values())
        places = (job.timer is not None) + waits + job.recording
        if job.state is WAITING_STATE and places != 1:
            drains = machine.registry.draining
            if not drains:
                yield f"{name}: waits in no place, or in two"
    for service, own in durable.backlog.services.items():
        if sum(own.placed.values()) != placed[service]:
            found = f"{sum(own.placed.values())} durable requests placed, not {placed[service]}"
            yield f"service {service!r}: {found}"
    jobs = {user: owner.jobs for user, owner in durable.owners.items()}
    if jobs != dict(owned):
        yield f"durable requests of owners: {jobs}, not {dict(owned)}"


def _account(machine: BrokerMachine, requests: list[AcceptedRequest]) -> Iterator[str]:
    """Everything that is held, counted anew: of each peer, of each user, in all."""
    registry = machine.registry
    account, peers = registry.account, registry.peers.values()
    held: Counter[Peer] = Counter(dict.fromkeys(peers, PEER))
    for request in requests:
        held[request.peer] += _cost(request)
        if request.cost != _cost(request):
            yield f"cost = {request.cost}, not {_cost(request)}: {story(request)}"
    durable = machine.store.durable
    for job in durable.jobs.values() if durable is not None else ():
        held[job.peer] += DURABLE_ROW + _bytes(job.row.body) + len(job.row.metadata)
    registrations = 0
    for worker in registry.workers.values():
        names = sum(REGISTRATION + len(name) for name in worker.services)
        fields = sum(map(len, worker.metadata.values()))
        fields += sum(
            len(one.data) + FRAME
            for one in registry.contracts.by_hash.values()
            if one.owner is worker
        )
        registrations += (own := WORKER + names + fields + ANSWERED * len(worker.answered or ()))
        ended = [request for request in worker.held.values() if request.state not in OPEN]
        slots = (REQUEST + len(r.metadata) + _bytes(list(r.envelope)) for r in ended)
        held[worker.peer] += own + sum(slots)
    outboxes = 0
    for peer in peers:
        for send in peer.outbox.messages if peer.outbox is not None else ():
            held[peer] += MESSAGE + _bytes(send[1])
            outboxes += MESSAGE + _bytes(send[1])
    for peer, cost in held.items():
        if peer.held != cost:
            yield f"peer {peer.id.hex()}: held = {peer.held}, not {cost}"
    listeners = {peer.subscriber for peer in peers if peer.subscriber is not None}
    listeners.update(registry.away.values())
    users: Counter[str] = Counter()
    for peer, cost in held.items():
        users[peer.account.user] += cost
    subscriptions = 0
    for listener in listeners:
        tokens = sum(len(pattern.split(b".")) for pattern in listener.patterns)
        names = sum(SUBSCRIPTION + len(pattern) for pattern in listener.patterns)
        own = SUBSCRIBER + names + TOKEN * tokens
        subscriptions += own
        users[listener.account.user] += own
        if listener.held != own:
            yield f"subscriber {listener.handle.hex()}: held = {listener.held}, not {own}"
    for name, user in account.users.items():
        topics = sum(len(one.patterns) for one in listeners if one.account is user)
        if (user.held, user.topics) != (users[name], topics):
            yield f"user {name}: held = {user.held}, not {users[name]}, with {topics} topics"
    stories = sum(
        STORY + NOTE * len(r.past_dispatches or ()) + len(r.metadata) + _bytes(list(r.envelope))
        for r in registry.history.notable
    )
    shares = (account.outboxes, account.subscriptions, account.registrations, account.stories)
    if shares != (outboxes, subscriptions, registrations, stories):
        yield f"account: {shares}, not {(outboxes, subscriptions, registrations, stories)}"
    total = sum(held.values()) + subscriptions + stories
    if account.held != total:
        yield f"account: held = {account.held}, not {total}"


def _cost(request: AcceptedRequest) -> int:
    cost = REQUEST + _bytes(request.body) + len(request.metadata) + _bytes(list(request.envelope))
    if request.state is REPLIED:
        return cost + _bytes(request.parts or [])
    if request.stream is not None:
        cost += request.stream.size + FRAME * request.stream.frames
    return cost + _bytes(request.parts or [])


def _bytes(frames: list[Frame]) -> int:
    return sum(FRAME + len(frame) for frame in frames)


def _hooks(machine: BrokerMachine, requests: list[AcceptedRequest]) -> Iterator[str]:
    """A request that waits for a hook waits in one place, and a decision or a timeout ends that."""
    holding = machine.hooks
    held = {r for r in requests if r.state in (HELD, REPLIED)}
    for request in held.symmetric_difference(
        holding.pending.waiting if holding is not None else ()
    ):
        yield f"is open, but nothing holds it: {story(request)}"
    if holding is None:
        return
    pending = holding.pending
    waiting = {r for client in holding.clients.values() if client.decision for r in client.waiting}
    for request, decision in pending.waiting.items():
        if decision is None and request not in waiting:
            yield f"rule 11: no decision about its client is pending: {story(request)}"
        if decision is not None and pending.open.get(decision.number) is not decision:
            yield f"rule 11: the decision that it waits for is not pending: {story(request)}"
    if len(pending.deadlines) != len(pending.open):
        yield f"rule 11: {len(pending.deadlines)} timeouts for {len(pending.open)} decisions"
    for service in machine.registry.services.values():
        own = [r for r in held if r.service is service]
        if (service.held, service.held_bytes) != (len(own), sum(r.size for r in own)):
            yield f"service {service.name!r}: held = {service.held}, but {len(own)} wait for hooks"


def _request(registry: Registry, request: AcceptedRequest) -> Iterator[str]:
    if request.state not in OPEN:
        yield f"is kept as open, but has ended: {story(request)}"
    if request.peer.open.get(request.key) is not request:
        yield f"is not among its client's open requests: {story(request)}"
    name = request.service.name
    made_here = request.service.own and not request.service.known
    if not made_here and registry.services.get(name) is not request.service:
        yield f"its service is not registered: {story(request)}"
    if request.bucket is None or request not in request.bucket:
        yield f"rule 5: it has no deadline: {story(request)}"
    if (request.queue is not None) != (request.state is QUEUED):
        yield f"queue and state differ: {story(request)}"
    queue = request.queue
    if queue is not None and request not in queue.front:
        own = queue.turns.get(request.peer)
        if own is None or request not in own:
            yield f"is not in its queue: {story(request)}"
    if request.state is QUEUED and request.worker is not None:
        yield f"is queued, but has a worker: {story(request)}"
    if request.state in AT_WORKER:
        worker = request.worker
        if worker is None or registry.dispatch_table.of(worker, request.dispatch_id) is not request:
            yield f"its worker does not hold it: {story(request)}"
    if request.hedge and request.state is QUEUED:
        yield f"rule 3: it is a hedge, but waits for a worker: {story(request)}"
    if request.state is QUEUED and request.flags & spec.FAIL_FAST:
        target, service = request.target, request.service
        served = service.served_now if target is None else target.state is SERVING
        if not served and not any(w.state is SUSPECT for w in service.workers.values()):
            yield f"rule 3: it is FAIL-FAST, but no worker may take it: {story(request)}"
    if request.attempt > registry.settings.max_attempts:
        yield f"rule 3: too many attempts: {story(request)}"
    yield from _stream(request)


def _stream(request: AcceptedRequest) -> Iterator[str]:
    stream = request.stream
    if stream is None:
        if request.flags & spec.MORE and request.state is not REPLIED:
            yield f"its flags announce a stream, but there is none: {story(request)}"
        return
    pieces = [*stream.waiting, *([stream.final] if stream.final else [])]
    sizes = sum(p.size for p in pieces), sum(len(p.body) for p in pieces)
    if (stream.size, stream.frames) != sizes:
        yield f"its stream is miscounted: {story(request)}"
    if request.size != stream.size + sum(map(len, request.body)):
        yield f"rule 4: its waiting parts are not part of its size: {story(request)}"
    if stream.up < 0 or stream.room < 0 or stream.down > spec.MOST_CREDIT:
        yield f"its credit is out of bounds: {story(request)}"
    if stream.open == (stream.final is not None) and request.flags & spec.MORE:
        yield f"its client's stream is open and final, or neither: {story(request)}"
    if request.state not in AT_WORKER or request.worker is None:
        return
    unsent = request.worker.is_undelivered(request.dispatch_id)
    if request.worker.dialect is not Dialect.MDP03:
        if stream.open and not unsent:
            yield f"its legacy worker has it before the client's last part: {story(request)}"
    elif stream.waiting and stream.room:
        yield f"its worker has credit, but parts wait: {story(request)}"
    elif stream.final_due and not stream.waiting:
        yield f"its client's FINAL waits behind no part: {story(request)}"


def _service(service: Service, is_open: int) -> Iterator[str]:
    name = f"service {service.name!r}"
    yield from _queue(name, service.queue)
    if service.open != is_open:
        yield f"{name}: open = {service.open}, but {is_open} are"
    if not service.open and not service.workers:
        yield f"{name}: is registered, but has no worker and no request"
    if service.newest_worker is not next(reversed(service.workers.values()), None):
        yield f"{name}: its newest worker is another one"
    free = [w for w in service.workers.values() if w.free]
    for request in service.queue if free else ():
        if any(worker not in (request.rejected or ()) for worker in free):
            yield f"rule 6: a worker is free, but this request waits: {story(request)}"


def _queue(name: str, queue: FairQueue) -> Iterator[str]:
    waiting = list(queue)
    if (queue.count, queue.size) != (len(waiting), sum(r.size for r in waiting)):
        yield f"{name}: its queue is miscounted"
    if queue.declined != Counter(w for r in queue.front for w in r.rejected or ()):
        yield f"{name}: the rejections in its queue are miscounted"
    for peer, own in queue.turns.items():
        if not own or any(request.peer is not peer for request in own):
            yield f"rule 7: {name}: a turn of {peer.id.hex()} holds requests of other peers"


def _worker(worker: RegisteredWorker) -> Iterator[str]:
    name = f"worker {worker.id.hex()}"
    if worker.state is LOST or worker.peer.worker is not worker:
        yield f"{name}: is registered, but lost"
    if {s.name: s for s in worker.order} != worker.services:
        yield f"{name}: its services and their order differ"
    yield from _queue(name, worker.reserved)
    if worker.reserved and worker.free:
        first = next(iter(worker.reserved))
        yield f"rule 6: {name} is free, but this request waits: {story(first)}"
    for service in worker.order:
        if service.workers.get(worker.id) is not worker:
            yield f"{name}: serves {service.name!r}, which does not list it"
            continue
        chosen = service.choose(_only_for(service, worker))
        if (chosen is worker) != bool(worker.free):
            yield f"{name}: free={worker.free}, but its strategy disagrees"
    handles = sorted(number for waiting in worker.handles.values() for number in waiting)
    if worker.dialect is not Dialect.MDP03 and handles != sorted(worker.held):
        yield f"{name}: its handles and its slots differ"
    held = worker.held
    if len(held) != worker.holding:
        yield f"{name}: holding = {worker.holding}, but {len(held)} slots are in use"
    for number, request in held.items():
        if request.worker is not worker:
            yield f"rule 2: {name} holds dispatch {number:#x} of {story(request)}"


def _only_for(service: Service, worker: RegisteredWorker) -> AcceptedRequest:
    """A request that every other worker of `service` has rejected."""
    request = AcceptedRequest().fill(
        worker.peer, Dialect.MDP03, (), 0, 0, service, [b""], 0, 0, b"", 0.0, 0.0
    )
    request.rejected = set(service.workers.values()) - {worker}
    return request


def _peer(registry: Registry, peer: Peer) -> Iterator[str]:
    name, settings = f"peer {peer.id.hex()}", registry.settings
    if peer.state is FORGOTTEN or registry.peers.get(peer.id) is not peer:
        yield f"{name}: is forgotten, but registered"
    if peer.timer is None or peer not in peer.timer:
        yield f"{name}: has no timer"
    if peer.worker is not None and registry.workers.get(peer.id) is not peer.worker:
        yield f"{name}: its worker is not registered"
    if len(peer.requests) > settings.max_open:
        yield f"rule 4: {name}: {len(peer.requests)} conversations are open"
    if [request.peer_index for request in peer.requests] != list(range(len(peer.requests))):
        yield f"{name}: an open request is not where it says"
    if peer.by_key is not None and peer.by_key != peer.open:
        yield f"{name}: the index of its open requests is wrong"
    outbox = peer.outbox
    if outbox is None:
        return
    if outbox.size != sum(len(frame) for send in outbox.messages for frame in send[1]):
        yield f"{name}: its outbox is miscounted"
    worker = peer.worker
    for _, _, command, conversation in outbox.messages:
        if worker is None or command != spec.REQUEST or not isinstance(conversation, int):
            continue
        request = registry.dispatch_table.of(worker, conversation)
        if request is not None and request.state not in OPEN:
            yield f"rule 5: {name}: its outbox holds an ended request: {story(request)}"
    if (
        len(outbox.messages) > 2 * settings.max_outbox
        or outbox.size > 2 * settings.max_outbox_bytes
    ):
        yield f"rule 4: {name}: its outbox holds {len(outbox.messages)} messages"
