"""Rule 10: work per heartbeat, dispatch and expiry does not grow with the number of peers, and what
nobody needs any more is forgotten.

Work is counted in executed lines of the package, so these tests measure no time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from majordomus.core.broker.state.registry import RULES
from majordomus.protocol import spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import BrokerHarness, number

C, W = b"client-c", b"worker-w"
FEW, MANY = 20, 2000
MakeHarness = Callable[..., BrokerHarness]


def lines_of(action: Callable[[], object]) -> int:
    """How many lines of this package `action` executes, jumps back included."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if "majordomus" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def many_workers(harness: BrokerHarness, n: int) -> None:
    for i in range(n):
        harness.worker(b"w%06d" % i)


def many_busy_workers(harness: BrokerHarness, n: int) -> None:
    many_workers(harness, n)
    for i in range(n):
        harness.request(b"c%06d" % i, 1)


def many_services(harness: BrokerHarness, n: int) -> None:
    for i in range(n):
        harness.worker(b"w%06d" % i, b"s%06d" % i)


def many_waiting(harness: BrokerHarness, n: int) -> None:
    for i in range(n):
        harness.request(b"c%06d" % i, 1)


def one_loaded_and_one_small_worker(harness: BrokerHarness, n: int) -> None:
    """The levels between an empty worker and one that holds n requests are empty."""
    harness.worker(b"large", capacity=65535)
    for i in range(n):
        harness.request(b"c%06d" % i, 1)
    harness.worker(W)
    harness.request(C, 1)


def many_that_declined(harness: BrokerHarness, n: int) -> None:
    """W has declined n requests, which wait for V."""
    harness.worker(b"worker-v")
    harness.request(C, 1_000_000)
    harness.worker(W)
    for i in range(n):
        harness.request(C, i + 1)
        given = [w for w in harness.messages() if w[:2] == (W, "REQUEST")]
        harness.reject(W, given[-1][2]["id"])


def ask(harness: BrokerHarness) -> object:
    return harness.request(C, 5_000_000, flags=spec.FAIL_FAST)


def expire_one(harness: BrokerHarness) -> object:
    harness.request(C, 5_000_000, service=b"nobody", ttl=100)
    return harness.pass_time(0.2)


def answer_and_ask(harness: BrokerHarness) -> object:
    """W has a slot again; it gets the next request, and the loaded worker the one after that."""
    harness.answer(W, max(harness.machine.registry.workers[W].held))
    return ask(harness), harness.request(C, 5_000_001)


def ask_and_reject(harness: BrokerHarness) -> object:
    return ask(harness), harness.reject(W, max(harness.machine.registry.workers[W].held))


CASES = {
    "a heartbeat": (many_workers, lambda harness: harness.heartbeat(b"w000007")),
    "a dispatch": (many_workers, ask),
    "an answer": (many_busy_workers, lambda harness: harness.answer(b"w000007", number(8))),
    "a request that waits": (many_waiting, lambda harness: harness.request(C, 1)),
    "a cancel": (many_waiting, lambda harness: harness.receive_03(b"c000007", spec.CANCEL, id=1)),
    "a slot for those that wait": (many_waiting, lambda harness: harness.worker(W)),
    "an expiry": (many_services, expire_one),
    "a refusal": (many_services, ask),
    "a dispatch beside an empty worker": (one_loaded_and_one_small_worker, answer_and_ask),
    "a reject beside what was declined": (many_that_declined, ask_and_reject),
}


@pytest.mark.skipif(RULES == "compiled", reason="counts lines of Python")
@pytest.mark.parametrize("what", CASES)
def test_work_does_not_grow_with_the_number_of_peers(make_harness: MakeHarness, what: str) -> None:
    prepare, act = CASES[what]
    work = {}
    for n in (FEW, MANY):
        harness = make_harness(max_services=MANY + 10)
        prepare(harness, n)
        harness.turn()
        work[n] = lines_of(lambda harness=harness: act(harness))
    assert work[FEW] > 10
    assert work[MANY] <= work[FEW] * 1.5 + 20


def test_client_without_presence_is_forgotten_ten_minutes_after_its_last_message(
    harness: BrokerHarness,
) -> None:
    harness.request(C, 1, ttl=1000)
    harness.pass_time(300)
    harness.receive_03(C, spec.CANCEL, id=9)
    harness.pass_time(599)
    assert set(harness.machine.registry.peers) == {C}
    harness.pass_time(2)
    assert set(harness.machine.registry.peers) == set()


def test_client_that_waits_for_an_answer_is_not_forgotten(make_harness: MakeHarness) -> None:
    harness = make_harness(client_idle=10.0)
    harness.request(C, 1, ttl=100_000)
    harness.pass_time(99)
    assert set(harness.machine.registry.peers) == {C}
    harness.pass_time(20)
    assert set(harness.machine.registry.peers) == set()


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_idle_legacy_client_is_forgotten(make_harness: MakeHarness, dialect: Dialect) -> None:
    harness = make_harness(client_idle=10.0, default_ttl=1.0)
    harness.receive(C, *LEGACY[dialect].c2b_request(b"echo", [b"x"]))
    harness.pass_time(25)
    assert set(harness.machine.registry.peers) == set()
    assert harness.messages() == []


def test_client_that_is_forgotten_is_met_anew(make_harness: MakeHarness) -> None:
    harness = make_harness(client_idle=10.0)
    harness.request(C, 1, ttl=1000)
    harness.pass_time(30)
    harness.sent()
    harness.worker(W)
    harness.request(C, 2, b"x")
    assert harness.messages()[1:] == [harness.request_to(W, 1, C, b"x")]


def test_request_that_ended_leaves_nothing_behind(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=100)
    for id in range(1, 101):
        harness.request(C, id, b"x", ttl=3_000_000)
        harness.answer(W, number(id))
    registry = harness.machine.registry
    assert (len(registry.requests), registry.open, registry.queued) == (0, 0, 0)
    assert registry.peers[C].open == {}
    assert registry.workers[W].held == {}


def test_service_that_nobody_serves_or_wants_is_forgotten(harness: BrokerHarness) -> None:
    harness.request(C, 1, service=b"a", ttl=100)
    harness.worker(W, b"b")
    harness.request(C, 2, service=b"c", address=b"nobody")
    harness.request(C, 3, service=b"d", flags=spec.FAIL_FAST)
    harness.leave(W)
    assert set(harness.machine.registry.services) == {b"a"}
    harness.pass_time(0.2)
    assert set(harness.machine.registry.services) == set()


def test_timers_do_not_pile_up_with_traffic(harness: BrokerHarness) -> None:
    harness.worker(W)
    for _ in range(100):
        harness.heartbeat(W)
    assert len(harness.machine.registry.timers) == 1
