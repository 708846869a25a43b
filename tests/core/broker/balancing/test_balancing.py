"""Which of the workers with a free slot gets the next request: the strategy `least-outstanding`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from majordomus.core.broker.balancing.strategy import LeastOutstanding
from majordomus.core.broker.state.peers import Peer
from majordomus.core.broker.state.requests import AcceptedRequest
from majordomus.core.broker.state.services import Service
from majordomus.core.broker.state.workers import RegisteredWorker
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import BrokerHarness, number

C, U, V, W = b"client-c", b"worker-u", b"worker-v", b"worker-w"


def chosen(harness: BrokerHarness, requests: int) -> list[bytes]:
    """The workers that get the next requests."""
    harness.sent()
    for _ in range(requests):
        harness.request(C, harness.counts.accepted + 1)
    return [peer for peer, _ in harness.dispatched()]


def make_worker(name: bytes) -> RegisteredWorker:
    return RegisteredWorker(Peer(name, Dialect.MDP03, name, 0.0), Dialect.MDP03, 100, 0.0)


def asks(*rejected: RegisteredWorker, metadata: bytes = b"") -> AcceptedRequest:
    """A request that `rejected` have rejected."""
    client = Peer(C, Dialect.MDP03, b"handle-c", 0.0)
    service = Service(b"echo", LeastOutstanding())
    flags = spec.METADATA if metadata else 0
    request = AcceptedRequest().fill(
        client, Dialect.MDP03, (), 1, 1, service, [], 0, flags, metadata, 0.0, 60.0
    )
    request.rejected = set(rejected) or None
    return request


def hold(worker: RegisteredWorker, count: int) -> None:
    worker.holding = count


def test_worker_that_holds_the_fewest_gets_the_next_request(harness: BrokerHarness) -> None:
    harness.worker(U, capacity=9)
    assert chosen(harness, 2) == [U, U]
    harness.worker(V, capacity=9)
    assert chosen(harness, 5) == [V, V, U, V, U]


def test_among_equals_the_one_that_waited_longest_gets_it(harness: BrokerHarness) -> None:
    for worker in (U, V, W):
        harness.worker(worker, capacity=2)
    assert chosen(harness, 6) == [U, V, W, U, V, W]
    harness.answer(V, number(2))
    harness.answer(U, number(1))
    assert chosen(harness, 2) == [V, U]


def test_worker_without_a_free_slot_gets_nothing(harness: BrokerHarness) -> None:
    harness.worker(U, capacity=1)
    harness.worker(V, capacity=3)
    assert chosen(harness, 6) == [U, V, V, V]


def test_slots_of_requests_that_have_ended_are_outstanding_too(harness: BrokerHarness) -> None:
    harness.worker(U, capacity=9)
    harness.worker(V, capacity=9)
    chosen(harness, 1)
    harness.receive_03(C, spec.CANCEL, id=1)
    assert chosen(harness, 1) == [V]
    assert chosen(harness, 2) == [U, V]


def test_requests_of_one_service_weigh_at_the_workers_others(harness: BrokerHarness) -> None:
    harness.worker(U, b"echo", capacity=9)
    harness.worker(V, b"echo", capacity=9)
    harness.worker(V, b"time", capacity=9)
    harness.request(C, 1, service=b"time")
    assert chosen(harness, 4) == [U, V, U, V]


def test_worker_that_leaves_or_drains_is_not_chosen(harness: BrokerHarness) -> None:
    for worker in (U, V, W):
        harness.worker(worker, capacity=9)
    harness.leave(U)
    harness.receive_03(V, spec.CAPACITY, code=0)
    assert chosen(harness, 2) == [W, W]
    harness.receive_03(V, spec.CAPACITY, code=9)
    assert chosen(harness, 2) == [V, V]


def test_those_that_rejected_are_passed_over() -> None:
    strategy = LeastOutstanding()
    workers = [make_worker(name) for name in (U, V, W)]
    for count, worker in enumerate(workers):
        hold(worker, count)
        strategy.put(worker)
    assert strategy.choose(asks()) is workers[0]
    assert strategy.choose(asks(workers[0])) is workers[1]
    assert strategy.choose(asks(*workers[:2])) is workers[2]
    assert strategy.choose(asks(*workers)) is None


def test_strategy_may_be_told_the_same_twice() -> None:
    strategy = LeastOutstanding()
    worker = make_worker(W)
    assert strategy.choose(asks()) is None
    strategy.drop(worker)
    strategy.put(worker)
    strategy.put(worker)
    assert strategy.choose(asks()) is worker
    strategy.drop(worker)
    strategy.drop(worker)
    assert strategy.choose(asks()) is None


MOVES = st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 30)), max_size=80)


@given(MOVES)
def test_least_outstanding_is_what_its_name_says(moves: list[tuple[int, int]]) -> None:
    """Against a plain list, searched: −1 stands for "no free slot"."""
    strategy = LeastOutstanding()
    workers = [make_worker(b"%d" % n) for n in range(5)]
    order: list[RegisteredWorker] = []
    for which, count in moves:
        worker = workers[which]
        moved = worker not in order or worker.holding != count
        if count < 0:
            strategy.drop(worker)
        else:
            hold(worker, count)
            strategy.put(worker)
        if worker in order and moved:
            order.remove(worker)
        if count >= 0 and moved:
            order.append(worker)
        expected = min(order, key=lambda each: each.holding, default=None)
        assert strategy.choose(asks()) is expected
        rest = [each for each in order if each is not expected]
        if expected is not None:
            second = min(rest, key=lambda each: each.holding, default=None)
            assert strategy.choose(asks(expected)) is second
