"""Which of the workers with a free slot gets the next request: the strategies by name, alone and in
the broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.core.broker.balancing.ranked import LeastLoad, LeastRecentlyUsed, RoundRobin
from majordomus.core.broker.balancing.registry import STRATEGIES, weight_of
from majordomus.core.broker.balancing.rng import RandomSource
from majordomus.core.broker.balancing.sticky import Sticky
from majordomus.core.broker.balancing.strategy import Strategy
from majordomus.core.broker.state.requests import AcceptedRequest
from majordomus.core.broker.state.workers import RegisteredWorker
from majordomus.protocol import metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker.balancing.test_balancing import asks, chosen, hold, make_worker
from tests.core.broker.rules.test_rule_10_cost import lines_of
from tests.core.broker_harness import BrokerHarness, number

A, B, C, U, V, W = b"client-a", b"client-b", b"client-c", b"worker-u", b"worker-v", b"worker-w"
MakeHarness = Callable[..., BrokerHarness]


def strategy_named(name: str) -> Strategy:
    return STRATEGIES[name](RandomSource(b"seed"))


def fleet(strategy: Strategy, count: int, weight: float = 1.0) -> list[RegisteredWorker]:
    """So many new workers, all with free slots."""
    workers = [make_worker(b"worker-%05d" % n) for n in range(count)]
    for worker in workers:
        strategy.enter(worker, weight)
        strategy.put(worker)
    return workers


def give(strategy: Strategy, request: AcceptedRequest) -> RegisteredWorker:
    """What the dispatcher does with a request."""
    worker = strategy.choose(request)
    assert worker is not None
    hold(worker, worker.holding + 1)
    strategy.given(worker)
    if worker.free:
        strategy.put(worker)
    else:
        strategy.drop(worker)
    return worker


# ── every strategy ────────────────────────────────────────────────────────────────────────────────


def test_strategies_are_these() -> None:
    assert set(STRATEGIES) == {
        "least-outstanding",
        "least-load",
        "round-robin",
        "least-recently-used",
        "random-two",
        "sticky",
    }


STEPS = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(("hold", "full", "leave", "heard", "weigh", "give")),
        st.integers(0, 20),
    ),
    max_size=60,
)


@pytest.mark.parametrize("name", STRATEGIES)
@given(STEPS)
def test_strategy_returns_a_free_worker_that_has_not_rejected_as_long_as_there_is_one(
    name: str, steps: list[tuple[int, str, int]]
) -> None:
    strategy = strategy_named(name)
    workers = [make_worker(b"w%d" % n) for n in range(6)]
    free: set[RegisteredWorker] = set()
    for which, step, n in steps:
        worker = workers[which]
        if step in ("hold", "give"):
            hold(worker, n)
            if step == "give":
                strategy.given(worker)
            strategy.put(worker)
            free.add(worker)
        elif step == "heard":
            worker.load = None if n == 0 else n / 10
            strategy.heard(worker)
        elif step == "weigh":
            strategy.enter(worker, (n + 1) / 4)
            if worker in free:
                strategy.put(worker)
        else:
            (strategy.drop if step == "full" else strategy.forget)(worker)
            free.discard(worker)
        assert (strategy.choose(asks()) in free) == bool(free)
        for rejected in (workers[:1], workers[:3], workers[2:], workers):
            willing = free - set(rejected)
            found = strategy.choose(asks(*rejected))
            assert found in willing if willing else found is None


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"random-two"}))
def test_asking_alone_changes_nothing(name: str) -> None:
    strategy = strategy_named(name)
    fleet(strategy, 5)
    assert strategy.choose(asks()) is strategy.choose(asks())


@pytest.mark.parametrize("name", STRATEGIES)
def test_worker_that_left_leaves_nothing_behind(name: str) -> None:
    strategy = strategy_named(name)
    for worker in fleet(strategy, 20, weight=2.0):
        give(strategy, asks())
        worker.load = 0.5
        strategy.heard(worker)
    for worker in _known(strategy):
        strategy.forget(worker)
    assert _known(strategy) == set()
    assert strategy.choose(asks()) is None


def _known(strategy: Strategy) -> set[RegisteredWorker]:
    """Every worker in any table of `strategy`."""
    slots = {slot for kind in type(strategy).__mro__ for slot in getattr(kind, "__slots__", ())}
    tables = [getattr(strategy, slot) for slot in slots if hasattr(strategy, slot)]
    keyed = [table for table in tables if isinstance(table, dict | set)]
    return {worker for table in keyed for worker in table if isinstance(worker, RegisteredWorker)}


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("busy", [0, 1])
def test_cost_of_a_dispatch_is_that_of_ten_workers_with_ten_thousand(name: str, busy: int) -> None:
    """Rule 10. `busy`: of the workers all but two are full."""
    work = {}
    for count in (10, 10_000):
        strategy = strategy_named(name)
        workers = fleet(strategy, count)
        for worker in workers[2:] if busy else ():
            hold(worker, 100)
            strategy.drop(worker)

        def turns(strategy: Strategy = strategy) -> None:
            for n in range(50):
                worker = give(strategy, asks(metadata=metadata.pack({"key": str(n)})))
                hold(worker, worker.holding - 1)
                strategy.put(worker)

        turns()
        work[count] = lines_of(turns)
    assert work[10] > 500
    assert work[10_000] <= work[10] * 1.5


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"least-recently-used"}))
def test_heavier_worker_gets_its_share_where_weights_mean_something(name: str) -> None:
    strategy = strategy_named(name)
    light, heavy = make_worker(b"light"), make_worker(b"heavy")
    light.capacity = heavy.capacity = 10_000
    strategy.enter(light, 1.0)
    strategy.enter(heavy, 3.0)
    strategy.put(light)
    strategy.put(heavy)
    keys = (metadata.pack({"key": b"%d" % n}) for n in range(3000))
    got = Counter(give(strategy, asks(metadata=key)).id for key in keys)
    assert 0.68 <= got[b"heavy"] / 3000 <= 0.85


# ── round-robin ───────────────────────────────────────────────────────────────────────────────────


def test_round_robin_gives_to_each_in_the_order_in_which_they_came(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(balancing="round-robin")
    for worker in (U, V, W):
        harness.worker(worker, capacity=9)
    assert chosen(harness, 7) == [U, V, W, U, V, W, U]


def test_round_robin_passes_over_who_is_full_and_owes_it_nothing(make_harness: MakeHarness) -> None:
    harness = make_harness(balancing="round-robin")
    harness.worker(U, capacity=1)
    harness.worker(V, capacity=9)
    harness.worker(W, capacity=9)
    assert chosen(harness, 5) == [U, V, W, V, W]
    harness.answer(U, number(1))
    assert chosen(harness, 4) == [U, V, W, V]


def test_round_robin_gives_two_turns_to_a_worker_of_weight_two() -> None:
    strategy = RoundRobin()
    one, two = make_worker(b"one"), make_worker(b"two")
    for worker, weight in ((one, 1.0), (two, 2.0)):
        strategy.enter(worker, weight)
        strategy.put(worker)
    assert Counter(give(strategy, asks()).id for _ in range(30)) == {b"one": 10, b"two": 20}


# ── least-recently-used ───────────────────────────────────────────────────────────────────────────


def test_least_recently_used_gives_to_who_was_used_longest_ago(make_harness: MakeHarness) -> None:
    harness = make_harness(balancing="least-recently-used")
    harness.worker(U, capacity=1)
    harness.worker(V, capacity=2)
    assert chosen(harness, 3) == [U, V, V]
    harness.worker(W, capacity=9)
    harness.answer(V, number(2))
    harness.answer(U, number(1))
    assert chosen(harness, 3) == [W, U, V]


def test_least_recently_used_counts_what_came_from_the_queue() -> None:
    strategy = LeastRecentlyUsed()
    one, two, three = fleet(strategy, 3)
    strategy.given(one)
    strategy.put(one)
    assert [give(strategy, asks()) for _ in range(3)] == [two, three, one]


# ── least-load ────────────────────────────────────────────────────────────────────────────────────


def test_least_load_gives_to_the_least_loaded_host(make_harness: MakeHarness) -> None:
    harness = make_harness(balancing="least-load")
    for worker, load in ((U, 150), (V, 20), (W, 90)):
        harness.worker(worker, capacity=100)
        harness.receive_03(worker, spec.HEARTBEAT, code=load)
    assert chosen(harness, 3) == [V, V, V]
    harness.receive_03(V, spec.HEARTBEAT, code=200)
    assert chosen(harness, 2) == [W, W]


def test_least_load_counts_what_a_worker_was_given_since_its_heartbeat(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(balancing="least-load")
    harness.worker(U, capacity=4)
    harness.worker(V, capacity=4)
    harness.receive_03(U, spec.HEARTBEAT, code=0)
    harness.receive_03(V, spec.HEARTBEAT, code=30)
    assert chosen(harness, 5) == [U, U, V, U, V]
    harness.receive_03(U, spec.HEARTBEAT, code=0)
    assert chosen(harness, 1) == [U]


def test_least_load_takes_an_unknown_load_as_the_mean_of_the_others(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(balancing="least-load")
    for worker in (U, V, W):
        harness.worker(worker, capacity=16)
    harness.receive_03(U, spec.HEARTBEAT, code=100)
    harness.receive_03(W, spec.HEARTBEAT, code=spec.LOAD_UNKNOWN)
    harness.receive_03(V, spec.HEARTBEAT, code=0)
    assert chosen(harness, 8) == [V] * 8
    harness.receive_03(V, spec.HEARTBEAT, code=70)
    assert chosen(harness, 1) == [V]
    harness.receive_03(V, spec.HEARTBEAT, code=200)
    assert chosen(harness, 2) == [U, U]
    harness.receive_03(U, spec.HEARTBEAT, code=400)
    assert chosen(harness, 1) == [V]
    harness.receive_03(V, spec.HEARTBEAT, code=500)
    assert chosen(harness, 1) == [U]


def test_least_load_hears_what_delphi_workers_tell(make_harness: MakeHarness) -> None:
    codec = LEGACY[Dialect.DELPHI]
    harness = make_harness(balancing="least-load")
    for worker, load in ((U, 1.5), (V, 0.4)):
        harness.receive(worker, *codec.w2b_ready(b"echo"))
        harness.receive(worker, *codec.w2b_heartbeat(b"echo", load))
    harness.sent()
    harness.request(C, 1)
    assert [peer for peer, *_ in harness.sent()] == [V]


@pytest.mark.parametrize("name", STRATEGIES)
def test_worker_with_an_unreadable_load_is_never_chosen(
    make_harness: MakeHarness, name: str
) -> None:
    codec = LEGACY[Dialect.DELPHI]
    harness = make_harness(balancing=name)
    harness.receive(U, *codec.w2b_ready(b"echo"))
    harness.receive(U, *codec.w2b_heartbeat(b"echo", spec.LOAD_UNREADABLE))
    harness.sent()
    harness.request(C, 1)
    assert harness.sent() == []
    harness.receive(U, *codec.w2b_heartbeat(b"echo", 0.1))
    assert [peer for peer, *_ in harness.sent()] == [U]


def test_mean_of_the_loads_is_that_of_the_workers_that_are_there() -> None:
    strategy = LeastLoad()
    workers = fleet(strategy, 3)
    for worker, load in zip(workers, (1.0, 5.0, 0.25), strict=True):
        worker.load = load
        strategy.heard(worker)
    strategy.forget(workers[1])
    unknown = make_worker(b"unknown")
    strategy.enter(unknown, 1.0)
    strategy.put(unknown)
    assert strategy.choose(asks(workers[2])) is unknown
    hold(workers[2], 4)
    strategy.put(workers[2])
    assert strategy.choose(asks()) is workers[2]
    hold(workers[2], 5)
    strategy.put(workers[2])
    hold(unknown, 1)
    strategy.put(unknown)
    assert strategy.choose(asks(unknown)) is workers[2]


# ── random-two ────────────────────────────────────────────────────────────────────────────────────


def test_random_two_takes_the_less_busy_of_two(make_harness: MakeHarness) -> None:
    harness = make_harness(balancing="random-two")
    harness.worker(U, capacity=99)
    harness.worker(V, capacity=99)
    assert Counter(chosen(harness, 10)) == {U: 5, V: 5}


def test_random_two_uses_all_workers_evenly() -> None:
    strategy = strategy_named("random-two")
    fleet(strategy, 100)
    got = Counter(give(strategy, asks()).id for _ in range(10_000))
    assert len(got) == 100
    assert max(got.values()) - min(got.values()) < 10


def test_dice_give_every_number_below_n_and_no_other() -> None:
    dice = RandomSource(b"\x07")
    thrown = Counter(dice(6) for _ in range(6000))
    assert set(thrown) == set(range(6))
    assert max(thrown.values()) < 1150
    again = RandomSource(b"\x07")
    assert Counter(again(6) for _ in range(6000)) == thrown


# ── sticky ────────────────────────────────────────────────────────────────────────────────────────


def keyed(key: Any) -> AcceptedRequest:
    return asks(metadata=metadata.pack({"key": key}))


def homes(strategy: Strategy, count: int) -> dict[bytes, RegisteredWorker | None]:
    keys = [b"key-%d" % n for n in range(count)]
    return {key: strategy.choose(keyed(key)) for key in keys}


def test_sticky_gives_one_key_to_one_worker(make_harness: MakeHarness) -> None:
    harness = make_harness(balancing="sticky")
    for worker in (U, V, W):
        harness.worker(worker, capacity=500)
    harness.sent()
    got: dict[int, set[bytes]] = {}
    for n in range(300):
        packed = metadata.pack({"key": f"user-{n % 30}"})
        client = (A, B, C)[n % 3]
        harness.request(client, n + 1, flags=spec.METADATA, metadata=packed)
        got.setdefault(n % 30, set()).update(peer for peer, _ in harness.dispatched())
    assert all(len(workers) == 1 for workers in got.values())
    assert set.union(*got.values()) == {U, V, W}


def test_sticky_goes_by_the_client_where_there_is_no_key(make_harness: MakeHarness) -> None:
    harness = make_harness(balancing="sticky")
    for worker in (U, V, W):
        harness.worker(worker, capacity=500)
    harness.sent()
    got: dict[bytes, set[bytes]] = {}
    for n in range(60):
        client = b"client-%d" % (n % 20)
        harness.request(client, n + 1)
        got.setdefault(client, set()).update(peer for peer, _ in harness.dispatched())
    assert all(len(workers) == 1 for workers in got.values())
    assert set.union(*got.values()) == {U, V, W}


def test_sticky_tells_clients_behind_one_proxy_apart(make_harness: MakeHarness) -> None:
    from majordomus.protocol import mdp03

    harness = make_harness(balancing="sticky")
    for worker in (U, V, W):
        harness.worker(worker, capacity=500)
    harness.sent()
    for n in range(30):
        header = mdp03.pack(spec.REQUEST, id=1, service=b"echo")
        harness.receive(b"proxy", b"client-%d" % n, header, b"x")
    assert {peer for peer, _ in harness.dispatched()} == {U, V, W}


def test_text_and_the_same_bytes_are_one_key() -> None:
    strategy = Sticky()
    fleet(strategy, 50)
    assert strategy.choose(keyed("größe")) is strategy.choose(keyed("größe".encode()))


def test_only_the_keys_of_a_worker_that_leaves_are_moved() -> None:
    strategy = Sticky()
    workers = fleet(strategy, 20)
    before = homes(strategy, 2000)
    strategy.forget(workers[7])
    after = homes(strategy, 2000)
    moved = {key for key in before if before[key] is not after[key]}
    assert moved == {key for key, worker in before.items() if worker is workers[7]}
    strategy.put(workers[7])
    assert homes(strategy, 2000) == before


def test_only_keys_of_a_new_worker_move_and_they_move_to_it() -> None:
    strategy = Sticky()
    fleet(strategy, 20)
    before = homes(strategy, 2000)
    new = make_worker(b"new")
    strategy.put(new)
    after = homes(strategy, 2000)
    moved = [key for key in before if before[key] is not after[key]]
    assert all(after[key] is new for key in moved)
    assert 40 <= len(moved) <= 200


def test_keys_of_a_full_worker_go_elsewhere_until_it_has_a_slot_again() -> None:
    strategy = Sticky()
    fleet(strategy, 20)
    home = strategy.choose(keyed("x"))
    assert home is not None
    strategy.drop(home)
    second = strategy.choose(keyed("x"))
    assert second is not None
    assert second is not home
    assert strategy.choose(keyed("x")) is second
    strategy.put(home)
    assert strategy.choose(keyed("x")) is home


@pytest.mark.parametrize("count", [3, 10, 100])
def test_no_worker_has_twice_its_share_of_the_keys(count: int) -> None:
    strategy = Sticky()
    fleet(strategy, count)
    got = Counter(worker.id for worker in homes(strategy, 200 * count).values() if worker)
    assert max(got.values()) < 2 * 200
    assert min(got.values()) > 200 / 4


# ── which service, which strategy ─────────────────────────────────────────────────────────────────


def test_service_may_be_balanced_in_its_own_way(make_harness: MakeHarness) -> None:
    harness = make_harness(balancings={"echo": "round-robin"})
    for worker in (U, V):
        harness.worker(worker, b"echo", capacity=9)
        harness.worker(worker, b"time", capacity=9)
    harness.request(C, 99, service=b"time")
    assert chosen(harness, 2) == [U, V]
    strategies = harness.machine.registry.strategies
    assert (strategies.name(b"echo"), strategies.name(b"time")) == (
        "round-robin",
        "least-outstanding",
    )


class Last(Strategy):
    """The worker that came last."""

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        return next(reversed(list(self.willing(request))), None)


class Broken(Last):
    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        raise ZeroDivisionError("no luck")


class Stubborn(Strategy):
    """Always the same one, whatever it holds or has rejected."""

    first: RegisteredWorker | None = None

    def put(self, worker: RegisteredWorker) -> None:
        Stubborn.first = Stubborn.first or worker

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        return self.first


OWN = {"last": Last, "broken": Broken, "stubborn": Stubborn}


def test_strategy_of_ones_own_is_given_by_name(make_harness: MakeHarness) -> None:
    harness = make_harness(strategies=OWN, balancings={"echo": "last"})
    for worker in (U, V, W):
        harness.worker(worker, capacity=2)
    assert chosen(harness, 6) == [W, W, V, V, U, U]
    harness.reject(W, number(1))
    harness.answer(V, number(3))
    assert harness.dispatched() == [(V, number(7))]


def test_strategy_that_raises_is_replaced_and_told_of_once(make_harness: MakeHarness) -> None:
    harness = make_harness(strategies=OWN, balancing="broken")
    for worker in (U, V):
        harness.worker(worker, capacity=9)
    assert chosen(harness, 4) == [U, V, U, V]
    assert [fact for fact in harness.facts if fact[0] == "strategy-failed"] == [
        (
            "strategy-failed",
            {
                "service": b"echo",
                "why": "ZeroDivisionError: no luck",
                "instead": "least-outstanding",
            },
        )
    ]


class Exits(Strategy):
    """Raises in one of its methods what is no Exception."""

    at = ""

    def __init__(self, dice: RandomSource) -> None:
        super().__init__(dice)
        self._raise("made")

    def put(self, worker: RegisteredWorker) -> None:
        self._raise("put")

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        self._raise("choose")
        return Mute()  # type: ignore[return-value]

    def _raise(self, at: str) -> None:
        if at == self.at:
            raise Mute(2)


class Mute(SystemExit):
    """An exception without a text, which cannot be compared or hashed."""

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        raise KeyboardInterrupt


@pytest.mark.parametrize("at", ["made", "put", "choose", ""])
def test_strategy_that_raises_system_exit_costs_no_request(
    make_harness: MakeHarness, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr(Exits, "at", at)
    harness = make_harness(strategies={"exits": Exits}, balancing="exits")
    for worker in (U, V):
        harness.worker(worker, capacity=9)
    assert len(chosen(harness, 4)) == 4
    failed = [fact[1]["why"] for fact in harness.facts if fact[0] == "strategy-failed"]
    assert failed == (["Mute"] if at else [])


def test_strategy_that_names_a_worker_which_may_not_have_it_is_overruled(
    make_harness: MakeHarness,
) -> None:
    Stubborn.first = None
    harness = make_harness(strategies=OWN, balancing="stubborn")
    harness.worker(U, capacity=1)
    harness.worker(V, capacity=1)
    assert chosen(harness, 2) == [U, V]
    harness.worker(W, capacity=1)
    harness.sent()
    harness.reject(U, number(1))
    assert harness.dispatched() == [(W, number(3))]


@pytest.mark.parametrize(
    ("told", "weight"),
    [
        ({"weight": 2}, 2.0),
        ({"weight": 0.5}, 0.5),
        ({"weight": 0}, 0.01),
        ({"weight": -3}, 0.01),
        ({"weight": 1e300}, 100.0),
        ({"weight": True}, 1.0),
        ({"weight": "2"}, 1.0),
        ({"weight": float("nan")}, 1.0),
        ({}, 1.0),
    ],
)
def test_weight_is_a_number_within_bounds_or_one(told: dict[str, Any], weight: float) -> None:
    assert weight_of(metadata.pack(told)) == weight
    assert weight_of(b"") == 1.0


def test_weight_of_ready_counts_and_may_be_told_anew(make_harness: MakeHarness) -> None:
    harness = make_harness()
    for worker, weight in ((U, 3), (V, 1)):
        packed = metadata.pack({"weight": weight})
        harness.receive_03(
            worker, spec.READY, service=b"echo", code=99, flags=spec.METADATA, metadata=packed
        )
    assert Counter(chosen(harness, 40)) == {U: 30, V: 10}
    packed = metadata.pack({"weight": 1})
    harness.receive_03(
        U, spec.READY, service=b"echo", code=99, flags=spec.METADATA, metadata=packed
    )
    assert Counter(chosen(harness, 20)) == {V: 20}
