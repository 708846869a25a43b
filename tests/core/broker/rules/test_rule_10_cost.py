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
from tests.core.broker_harness import House, number

C, W = b"client-c", b"worker-w"
FEW, MANY = 20, 2000
MakeHouse = Callable[..., House]


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


def many_workers(house: House, n: int) -> None:
    for i in range(n):
        house.worker(b"w%06d" % i)


def many_busy_workers(house: House, n: int) -> None:
    many_workers(house, n)
    for i in range(n):
        house.request(b"c%06d" % i, 1)


def many_services(house: House, n: int) -> None:
    for i in range(n):
        house.worker(b"w%06d" % i, b"s%06d" % i)


def many_waiting(house: House, n: int) -> None:
    for i in range(n):
        house.request(b"c%06d" % i, 1)


def one_loaded_and_one_small_worker(house: House, n: int) -> None:
    """The levels between an empty worker and one that holds n requests are empty."""
    house.worker(b"large", capacity=65535)
    for i in range(n):
        house.request(b"c%06d" % i, 1)
    house.worker(W)
    house.request(C, 1)


def many_that_declined(house: House, n: int) -> None:
    """W has declined n requests, which wait for V."""
    house.worker(b"worker-v")
    house.request(C, 1_000_000)
    house.worker(W)
    for i in range(n):
        house.request(C, i + 1)
        given = [w for w in house.words() if w[:2] == (W, "REQUEST")]
        house.reject(W, given[-1][2]["id"])


def ask(house: House) -> object:
    return house.request(C, 5_000_000, flags=spec.FAIL_FAST)


def expire_one(house: House) -> object:
    house.request(C, 5_000_000, service=b"nobody", ttl=100)
    return house.pass_time(0.2)


def answer_and_ask(house: House) -> object:
    """W has a slot again; it gets the next request, and the loaded worker the one after that."""
    house.answer(W, max(house.machine.registry.workers[W].held))
    return ask(house), house.request(C, 5_000_001)


def ask_and_reject(house: House) -> object:
    return ask(house), house.reject(W, max(house.machine.registry.workers[W].held))


CASES = {
    "a heartbeat": (many_workers, lambda house: house.heartbeat(b"w000007")),
    "a dispatch": (many_workers, ask),
    "an answer": (many_busy_workers, lambda house: house.answer(b"w000007", number(8))),
    "a request that waits": (many_waiting, lambda house: house.request(C, 1)),
    "a cancel": (many_waiting, lambda house: house.say(b"c000007", spec.CANCEL, id=1)),
    "a slot for those that wait": (many_waiting, lambda house: house.worker(W)),
    "an expiry": (many_services, expire_one),
    "a refusal": (many_services, ask),
    "a dispatch beside an empty worker": (one_loaded_and_one_small_worker, answer_and_ask),
    "a reject beside what was declined": (many_that_declined, ask_and_reject),
}


@pytest.mark.skipif(RULES == "compiled", reason="counts lines of Python")
@pytest.mark.parametrize("what", CASES)
def test_work_does_not_grow_with_the_number_of_peers(make_house: MakeHouse, what: str) -> None:
    prepare, act = CASES[what]
    work = {}
    for n in (FEW, MANY):
        house = make_house(max_services=MANY + 10)
        prepare(house, n)
        house.turn()
        work[n] = lines_of(lambda house=house: act(house))
    assert work[FEW] > 10
    assert work[MANY] <= work[FEW] * 1.5 + 20


def test_client_without_presence_is_forgotten_ten_minutes_after_its_last_message(
    house: House,
) -> None:
    house.request(C, 1, ttl=1000)
    house.pass_time(300)
    house.say(C, spec.CANCEL, id=9)
    house.pass_time(599)
    assert set(house.machine.registry.peers) == {C}
    house.pass_time(2)
    assert set(house.machine.registry.peers) == set()


def test_client_that_waits_for_an_answer_is_not_forgotten(make_house: MakeHouse) -> None:
    house = make_house(client_idle=10.0)
    house.request(C, 1, ttl=100_000)
    house.pass_time(99)
    assert set(house.machine.registry.peers) == {C}
    house.pass_time(20)
    assert set(house.machine.registry.peers) == set()


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_idle_legacy_client_is_forgotten(make_house: MakeHouse, dialect: Dialect) -> None:
    house = make_house(client_idle=10.0, default_ttl=1.0)
    house.hear(C, *LEGACY[dialect].c2b_request(b"echo", [b"x"]))
    house.pass_time(25)
    assert set(house.machine.registry.peers) == set()
    assert house.words() == []


def test_client_that_is_forgotten_is_met_anew(make_house: MakeHouse) -> None:
    house = make_house(client_idle=10.0)
    house.request(C, 1, ttl=1000)
    house.pass_time(30)
    house.said()
    house.worker(W)
    house.request(C, 2, b"x")
    assert house.words()[1:] == [house.given(W, 1, C, b"x")]


def test_request_that_ended_leaves_nothing_behind(house: House) -> None:
    house.worker(W, capacity=100)
    for id in range(1, 101):
        house.request(C, id, b"x", ttl=3_000_000)
        house.answer(W, number(id))
    registry = house.machine.registry
    assert (len(registry.requests), registry.open, registry.queued) == (0, 0, 0)
    assert registry.peers[C].open == {}
    assert registry.workers[W].held == {}


def test_service_that_nobody_serves_or_wants_is_forgotten(house: House) -> None:
    house.request(C, 1, service=b"a", ttl=100)
    house.worker(W, b"b")
    house.request(C, 2, service=b"c", address=b"nobody")
    house.request(C, 3, service=b"d", flags=spec.FAIL_FAST)
    house.leave(W)
    assert set(house.machine.registry.services) == {b"a"}
    house.pass_time(0.2)
    assert set(house.machine.registry.services) == set()


def test_timers_do_not_pile_up_with_traffic(house: House) -> None:
    house.worker(W)
    for _ in range(100):
        house.heartbeat(W)
    assert len(house.machine.registry.timers) == 1
