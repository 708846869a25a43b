"""Each invariant fires when the machine is corrupted by hand, and tells what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from majordomus.core.broker import invariants
from majordomus.core.broker.invariants import InvariantError, story
from majordomus.core.broker.state.listeners import Subscriber
from majordomus.core.broker.state.peers import PeerOutbox
from majordomus.core.broker.state.registry import Counts
from majordomus.core.broker.state.services import Service
from majordomus.core.broker.state.timer_wheel import Bucket
from majordomus.core.broker.state.transitions import FORGOTTEN, LOST, RequestState, WorkerState
from majordomus.protocol import spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import BrokerHarness, number

B, C, D, V, W = b"client-b", b"client-c", b"client-d", b"worker-v", b"worker-w"


class Dependencies:
    """A harness with all that can be wrong in it: C's request is at W, one of D at U and one waits,
    one that U declined is back at the front, and a legacy worker V is busy."""

    def __init__(self) -> None:
        self.harness = BrokerHarness()
        harness = self.harness
        harness.worker(W)
        harness.request(C, 1, b"at w")
        harness.hear(V, *LEGACY[Dialect.MDP02].w2b_ready(b"time"))
        harness.request(C, 2, b"at v", service=b"time")
        harness.request(B, 1, b"declined")
        harness.request(D, 1, b"waits")
        harness.request(D, 2, b"waits too")
        harness.worker(b"worker-u")
        harness.reject(b"worker-u", number(3))
        self.registry = harness.machine.registry
        self.at_worker = self.registry.peers[C].open[1]
        self.waiting = self.registry.peers[D].open[2]
        self.declined = self.registry.peers[B].open[1]
        self.service = self.registry.services[b"echo"]
        self.worker = self.registry.workers[W]
        self.legacy = self.registry.workers[V]
        self.peer = self.registry.peers[D]


def gain(thing: Any, name: str) -> None:
    setattr(thing, name, getattr(thing, name) + 1)


def put(thing: Any, name: str, value: Any) -> None:
    setattr(thing, name, value)


def overfull_outbox(rooms: Dependencies) -> PeerOutbox:
    outbox = PeerOutbox(0.005)
    outbox.messages.extend((C, [b""], spec.FINAL, None) for _ in range(2001))
    return outbox


def foreign(rooms: Dependencies) -> Subscriber:
    """What somebody else subscribed to."""
    return Subscriber(rooms.registry.peers[C])


def miscounted_outbox(rooms: Dependencies) -> PeerOutbox:
    outbox = PeerOutbox(0.005)
    outbox.messages.append((C, [b"abc"], spec.FINAL, None))
    return outbox


CORRUPTIONS: dict[str, Callable[[Dependencies], object]] = {
    "rule 1: 6 accepted, but 0 ended and 5 open": lambda r: gain(r.registry.counts, "accepted"),
    "rule 1: 5 accepted, but 1 ended and 5 open": lambda r: gain(r.registry.counts, "failed"),
    "open = 6, but 5 are": lambda r: gain(r.registry, "open"),
    "6 deadlines for 5 open requests": lambda r: r.registry.requests.add(r.declined),
    "queued = 3/17, not 2/17": lambda r: gain(r.registry, "queued"),
    "queued = 2/18, not 2/17": lambda r: gain(r.registry, "queued_bytes"),
    "what is told to be served differs": lambda r: r.registry.served.clear(),
    "has a queue and is not backlogged": lambda r: r.registry.backlogged.clear(),
    "is backlogged, and not known": lambda r: r.registry.backlogged.update(
        {Service(b"ghost", r.service.strategy): None}
    ),
    "is open, and in no place": lambda r: put(r.at_worker, "state", RequestState.HELD),
    "its client does not know it": lambda r: r.registry.peers[C].open.pop(1),
    "its service is not known": lambda r: r.registry.services.pop(b"time"),
    "rule 5: it has no deadline": lambda r: put(r.at_worker, "slot", Bucket()),
    "queue and state differ": lambda r: put(r.waiting, "queue", None),
    "is not in its queue": lambda r: put(r.waiting, "queue", r.worker.reserved),
    "waits, and has a worker": lambda r: put(r.waiting, "worker", r.worker),
    "its worker does not hold it": lambda r: put(r.at_worker, "dispatch", 99),
    "rule 3: too many attempts": lambda r: put(r.at_worker, "attempt", 4),
    "its queue miscounts": lambda r: gain(r.service.queue, "count"),
    "its queue miscounts who declined": lambda r: r.service.queue.declined.clear(),
    "rule 7: service b'echo': a turn": lambda r: r.service.queue.turns.update(
        {r.registry.peers[C]: r.service.queue.turns[r.peer]}
    ),
    "service b'echo': open = 5, but 4 are": lambda r: gain(r.service, "open"),
    "is known, and nobody serves it": lambda r: r.registry.services.update(
        {b"ghost": Service(b"ghost", r.service.strategy)}
    ),
    "rule 6: a worker is free, and there waits": lambda r: put(r.worker, "capacity", 2),
    "rule 6: worker 776f726b65722d77 is free": lambda r: (
        r.harness.request(C, 9, address=W),
        put(r.worker, "capacity", 2),
    ),
    "is registered, and lost": lambda r: put(r.worker, "state", LOST),
    "is suspect, and nobody will judge it": lambda r: put(r.worker, "state", WorkerState.SUSPECT),
    "its services and their order differ": lambda r: r.worker.order.clear(),
    "is known to serve another number": lambda r: put(r.worker, "only_service", None),
    "its only worker is not the only one": lambda r: put(r.service, "only_worker", r.worker),
    "which does not know it": lambda r: r.service.workers.pop(W),
    "free=0, and its strategy says otherwise": lambda r: r.service.strategy.put(r.worker),
    "its handles and its slots differ": lambda r: r.legacy.handles.clear(),
    "rule 2: worker": lambda r: r.worker.hold(r.legacy.oldest),
    "holding = 2, but 1 slots are in use": lambda r: gain(r.worker, "holding"),
    "4 dispatches are known, and 3 slots": lambda r: gain(r.registry.dispatched, "count"),
    "is forgotten, and known": lambda r: put(r.peer, "state", FORGOTTEN),
    "has no timer": lambda r: put(r.peer, "timer", None),
    "its worker is not registered": lambda r: r.registry.workers.pop(V),
    "peer 636c69656e742d64: queued = 2, not what": lambda r: gain(r.peer, "queued"),
    "rule 4: peer 636c69656e742d64: 10002": lambda r: r.peer.open.update(
        {-n: r.waiting for n in range(1, 10_001)} | {1: r.waiting}
    ),
    "is not its peer's": lambda r: r.registry.handles.update({b"ghost": r.peer}),
    "is not reached by its handle": lambda r: r.registry.handles.pop(r.peer.handle),
    "what it subscribed to is another's": lambda r: put(r.peer, "listener", foreign(r)),
    "waits, and nobody is away": lambda r: r.registry.away.update({b"ghost": foreign(r)}),
    "waits for a client that is here": lambda r: r.registry.away.update(
        {r.peer.handle: foreign(r)}
    ),
    "the sessions differ": lambda r: r.registry.sessions.update({("", b"s" * 16): foreign(r)}),
    "the subscriptions differ": lambda r: r.registry.topics.add(b"a.b", foreign(r)),
    "its outbox miscounts": lambda r: put(r.peer, "outbox", miscounted_outbox(r)),
    "its outbox holds 2001 messages": lambda r: put(r.peer, "outbox", overfull_outbox(r)),
}


@pytest.mark.parametrize("words", CORRUPTIONS)
def test_invariant_fires_when_it_is_broken(words: str) -> None:
    rooms = Dependencies()
    invariants.check(rooms.harness.machine)
    CORRUPTIONS[words](rooms)
    with pytest.raises(InvariantError) as caught:
        invariants.check(rooms.harness.machine)
    assert words in str(caught.value)


def test_checking_changes_nothing() -> None:
    rooms = Dependencies()

    def everything() -> object:
        counts = {name: getattr(rooms.registry.counts, name) for name in Counts.__slots__}
        return (
            counts,
            rooms.harness.machine.next_deadline(),
            [story(request) for request in rooms.service.queue],
            rooms.service.strategy.choose(None),
        )

    before = everything()
    for _ in range(3):
        invariants.check(rooms.harness.machine)
    assert everything() == before


def test_story_tells_where_a_request_is() -> None:
    rooms = Dependencies()
    assert story(rooms.at_worker) == (
        "echo key=1 from 636c69656e742d63 mdp03 DISPATCHED attempt=1 worker=776f726b65722d77 "
        "dispatch=1 deadline=1060.000"
    )
    assert story(rooms.waiting).startswith("echo key=2 from 636c69656e742d64 mdp03 QUEUED")


def test_contradictions_are_told_all_at_once() -> None:
    rooms = Dependencies()
    rooms.registry.open += 1
    rooms.peer.timer = None
    with pytest.raises(InvariantError) as caught:
        invariants.check(rooms.harness.machine)
    assert len(str(caught.value).splitlines()) == 2
