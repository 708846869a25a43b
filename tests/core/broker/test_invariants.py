"""Each invariant is reported when the machine is corrupted by hand, with its text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from majordomus.core.broker import invariants
from majordomus.core.broker.accel import links
from majordomus.core.broker.invariants import InvariantError, story
from majordomus.core.broker.state.peers import PeerOutbox
from majordomus.core.broker.state.registry import Counts
from majordomus.core.broker.state.services import Service
from majordomus.core.broker.state.subscribers import Subscriber
from majordomus.core.broker.state.timer_wheel import Bucket
from majordomus.core.broker.state.transitions import FORGOTTEN, LOST, RequestState, WorkerState
from majordomus.protocol import spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import BrokerHarness, number

B, C, D, V, W = b"client-b", b"client-c", b"client-d", b"worker-v", b"worker-w"


class Scenario:
    """A machine in which every invariant can be violated.

    W has a request of C. A worker U has one request of D, and another one of D waits. A request of
    B that U rejected is at the front of the queue. The legacy worker V is busy.
    """

    def __init__(self) -> None:
        self.harness = BrokerHarness()
        harness = self.harness
        harness.worker(W)
        harness.request(C, 1, b"at w")
        harness.receive(V, *LEGACY[Dialect.MDP02].w2b_ready(b"time"))
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


def overfull_outbox(scenario: Scenario) -> PeerOutbox:
    outbox = PeerOutbox(0.005)
    outbox.messages.extend((C, [b""], spec.FINAL, None) for _ in range(2001))
    return outbox


def foreign_subscriber(scenario: Scenario) -> Subscriber:
    """The subscriber of another client."""
    return Subscriber(scenario.registry.peers[C])


def miscounted_outbox(scenario: Scenario) -> PeerOutbox:
    outbox = PeerOutbox(0.005)
    outbox.messages.append((C, [b"abc"], spec.FINAL, None))
    return outbox


CORRUPTIONS: dict[str, Callable[[Scenario], object]] = {
    "rule 1: 6 accepted, but 0 ended and 5 open": lambda s: gain(s.registry.counts, "accepted"),
    "rule 1: 5 accepted, but 1 ended and 5 open": lambda s: gain(s.registry.counts, "failed"),
    "open = 6, but 5 are": lambda s: gain(s.registry, "open"),
    "6 deadlines for 5 open requests": lambda s: s.registry.requests.add(s.declined),
    "queued = 3/17, not 2/17": lambda s: gain(s.registry, "queued"),
    "queued = 2/18, not 2/17": lambda s: gain(s.registry, "queued_bytes"),
    "`registry.served` differs": lambda s: s.registry.served.clear(),
    "has a queue, but is not backlogged": lambda s: s.registry.backlogged.clear(),
    "is backlogged, but not registered": lambda s: s.registry.backlogged.update(
        {Service(b"ghost", s.service.strategy): None}
    ),
    "is open, but nothing holds it": lambda s: put(s.at_worker, "state", RequestState.HELD),
    "is not among its client's open requests": lambda s: s.registry.peers[C].requests.clear(),
    "its service is not registered": lambda s: s.registry.services.pop(b"time"),
    "rule 5: it has no deadline": lambda s: put(s.at_worker, "bucket", Bucket()),
    "queue and state differ": lambda s: put(s.waiting, "queue", None),
    "is not in its queue": lambda s: put(s.waiting, "queue", s.worker.reserved),
    "is queued, but has a worker": lambda s: put(s.waiting, "worker", s.worker),
    "its worker does not hold it": lambda s: put(s.at_worker, "dispatch_id", 99),
    "rule 3: too many attempts": lambda s: put(s.at_worker, "attempt", 4),
    "its queue is miscounted": lambda s: gain(s.service.queue, "count"),
    "the rejections in its queue are miscounted": lambda s: s.service.queue.declined.clear(),
    "rule 7: service b'echo': a turn": lambda s: s.service.queue.turns.update(
        {s.registry.peers[C]: s.service.queue.turns[s.peer]}
    ),
    "service b'echo': open = 5, but 4 are": lambda s: gain(s.service, "open"),
    "is registered, but has no worker": lambda s: s.registry.services.update(
        {b"ghost": Service(b"ghost", s.service.strategy)}
    ),
    "rule 6: a worker is free, but this request waits:": lambda s: put(s.worker, "capacity", 2),
    "rule 6: worker 776f726b65722d77 is free": lambda s: (
        s.harness.request(C, 9, address=W),
        put(s.worker, "capacity", 2),
    ),
    "is registered, but lost": lambda s: put(s.worker, "state", LOST),
    "is suspect, but no timer checks it": lambda s: put(s.worker, "state", WorkerState.SUSPECT),
    "its services and their order differ": lambda s: s.worker.order.clear(),
    "its newest worker is another one": lambda s: put(s.service, "newest_worker", None),
    "which does not list it": lambda s: s.service.workers.pop(W),
    "free=0, but its strategy disagrees": lambda s: s.service.strategy.put(s.worker),
    "its handles and its slots differ": lambda s: s.legacy.handles.clear(),
    "rule 2: worker": lambda s: links.hold(s.worker, s.legacy.oldest),
    "holding = 2, but 1 slots are in use": lambda s: gain(s.worker, "holding"),
    "4 dispatches are registered, but 3 slots": lambda s: gain(s.registry.dispatch_table, "count"),
    "is forgotten, but registered": lambda s: put(s.peer, "state", FORGOTTEN),
    "has no timer": lambda s: put(s.peer, "timer", None),
    "its worker is not registered": lambda s: s.registry.workers.pop(V),
    "peer 636c69656e742d64: queued = 2, but other": lambda s: gain(s.peer, "queued"),
    "rule 4: peer 636c69656e742d64: 10002": lambda s: s.peer.requests.extend([s.waiting] * 10_000),
    "an open request is not where it says": lambda s: put(s.waiting, "peer_index", 7),
    "the index of its open requests is wrong": lambda s: put(s.peer, "by_key", {}),
    "is not the handle of its peer": lambda s: s.registry.handles.update({b"ghost": s.peer}),
    "its handle does not lead to it": lambda s: s.registry.handles.pop(s.peer.handle),
    "its subscriber belongs to another peer": lambda s: put(
        s.peer, "subscriber", foreign_subscriber(s)
    ),
    "is in `away`, but its session is present": lambda s: s.registry.away.update(
        {b"ghost": foreign_subscriber(s)}
    ),
    "is in `away`, but its client is present": lambda s: s.registry.away.update(
        {s.peer.handle: foreign_subscriber(s)}
    ),
    "the sessions differ": lambda s: s.registry.sessions.update(
        {("", b"s" * 16): foreign_subscriber(s)}
    ),
    "the subscriptions differ": lambda s: s.registry.topics.add(b"a.b", foreign_subscriber(s)),
    "its outbox is miscounted": lambda s: put(s.peer, "outbox", miscounted_outbox(s)),
    "its outbox holds 2001 messages": lambda s: put(s.peer, "outbox", overfull_outbox(s)),
}


@pytest.mark.parametrize("words", CORRUPTIONS)
def test_violated_invariant_is_reported(words: str) -> None:
    scenario = Scenario()
    invariants.check(scenario.harness.machine)
    CORRUPTIONS[words](scenario)
    with pytest.raises(InvariantError) as caught:
        invariants.check(scenario.harness.machine)
    assert words in str(caught.value)


def test_check_changes_nothing() -> None:
    scenario = Scenario()

    def everything() -> object:
        counts = {name: getattr(scenario.registry.counts, name) for name in Counts.__slots__}
        return (
            counts,
            scenario.harness.machine.next_deadline(),
            [story(request) for request in scenario.service.queue],
            scenario.service.strategy.choose(None),
        )

    before = everything()
    for _ in range(3):
        invariants.check(scenario.harness.machine)
    assert everything() == before


def test_story_has_state_and_worker_of_a_request() -> None:
    scenario = Scenario()
    assert story(scenario.at_worker) == (
        "echo key=1 from 636c69656e742d63 mdp03 DISPATCHED attempt=1 worker=776f726b65722d77 "
        "dispatch=1 deadline=1060.000"
    )
    assert story(scenario.waiting).startswith("echo key=2 from 636c69656e742d64 mdp03 QUEUED")


def test_check_reports_all_contradictions_at_once() -> None:
    scenario = Scenario()
    scenario.registry.open += 1
    scenario.peer.timer = None
    with pytest.raises(InvariantError) as caught:
        invariants.check(scenario.harness.machine)
    assert len(str(caught.value).splitlines()) == 2
