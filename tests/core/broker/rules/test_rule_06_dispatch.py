"""Rule 6: dispatch happens after every change that could allow it. A slot comes back by the
worker's FINAL or REJECT or its loss, not by CANCEL or expiry."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.protocol import metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import House, cancel, final, handle, number, welcome

C, D, V, W = b"client-c", b"client-d", b"worker-v", b"worker-w"
DELPHI = LEGACY[Dialect.DELPHI]
MakeHouse = Callable[..., House]


def test_request_that_comes_to_a_free_worker_is_dispatched(house: House) -> None:
    house.worker(W)
    house.said()
    house.request(C, 1, b"x")
    assert house.words() == [house.given(W, 1, C, b"x")]


def test_worker_gets_as_many_requests_as_its_capacity(house: House) -> None:
    house.worker(W, capacity=2)
    house.said()
    for id in (1, 2, 3):
        house.request(C, id)
    assert house.words() == [house.given(W, 1, C), house.given(W, 2, C)]


def test_request_that_waits_is_dispatched_when_a_slot_comes_back_by_final(house: House) -> None:
    house.worker(W)
    house.request(C, 1)
    house.request(C, 2)
    house.said()
    house.answer(W, number(1))
    assert house.words() == [final(C, 1, worker=W), house.given(W, 2, C)]


def test_request_that_waits_is_dispatched_when_a_slot_comes_back_by_reject(house: House) -> None:
    house.worker(V)
    house.worker(W)
    for id in (1, 2, 3):
        house.request(C, id)
    house.said()
    house.reject(V, number(1))
    assert house.words() == [house.given(V, 3, C)]


def test_request_that_waits_is_dispatched_when_a_worker_joins(house: House) -> None:
    house.request(C, 1, b"x")
    house.worker(W)
    assert house.words() == [welcome(W), house.given(W, 1, C, b"x")]


def test_request_that_waits_is_dispatched_when_a_worker_adds_its_service(house: House) -> None:
    house.worker(W, b"time")
    house.said()
    house.request(C, 1)
    house.worker(W)
    assert house.words() == [house.given(W, 1, C)]


def test_request_that_waits_is_dispatched_when_capacity_grows(house: House) -> None:
    house.worker(W)
    for id in (1, 2, 3):
        house.request(C, id)
    house.said()
    house.say(W, spec.CAPACITY, code=2)
    assert house.words() == [house.given(W, 2, C)]
    house.worker(W, capacity=3)
    assert house.words() == [house.given(W, 3, C)]


def test_worker_that_takes_less_gets_nothing_until_it_holds_less(house: House) -> None:
    house.worker(W, capacity=3)
    for id in (1, 2, 3, 4):
        house.request(C, id)
    house.say(W, spec.CAPACITY, code=1)
    house.said()
    house.answer(W, number(1))
    house.answer(W, number(2))
    assert [word[1] for word in house.words()] == ["FINAL", "FINAL"]
    house.answer(W, number(3))
    assert house.words() == [final(C, 3, worker=W), house.given(W, 4, C)]


def test_ready_for_one_more_service_with_less_capacity_takes_nothing_beyond_it(
    house: House,
) -> None:
    house.worker(W, b"time", capacity=3)
    house.request(C, 1, service=b"time")
    house.request(D, 1)
    house.said()
    house.worker(W, b"echo", capacity=1)
    assert house.words() == []
    house.answer(W, number(1))
    assert house.words() == [final(C, 1, worker=W), house.given(W, 2, D)]


def test_draining_worker_gets_nothing_new_and_finishes_what_it_has(house: House) -> None:
    house.worker(W, capacity=2)
    house.request(C, 1)
    house.said()
    house.say(W, spec.CAPACITY, code=0)
    house.request(C, 2)
    house.answer(W, number(1))
    assert house.words() == [final(C, 1, worker=W)]
    house.say(W, spec.CAPACITY, code=2)
    assert house.words() == [house.given(W, 2, C)]


def test_ready_ends_the_draining_of_a_worker(house: House) -> None:
    house.worker(W)
    house.say(W, spec.CAPACITY, code=0)
    house.request(C, 1)
    house.said()
    house.worker(W)
    assert house.words() == [house.given(W, 1, C)]


def test_slot_does_not_come_back_by_cancel(house: House) -> None:
    house.worker(W)
    house.request(C, 1)
    house.request(C, 2)
    house.said()
    house.say(C, spec.CANCEL, id=1)
    assert house.words() == [cancel(W, 1), final(C, 1, b"cancelled by the client", status=499)]
    house.answer(W, number(1), status=499)
    assert house.words() == [house.given(W, 2, C)]


def test_slot_does_not_come_back_by_expiry(house: House) -> None:
    house.worker(W)
    house.request(C, 1, ttl=100)
    house.request(C, 2)
    house.said()
    house.pass_time(0.2)
    assert [word[1] for word in house.words()] == ["CANCEL", "FINAL"]
    house.answer(W, number(1), b"late")
    assert house.words() == [house.given(W, 2, C, ttl=59_800)]


@pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.MDP02, Dialect.MDP02D])
def test_slot_of_a_legacy_worker_does_not_come_back_by_expiry(
    house: House, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    house.hear(W, *codec.w2b_ready(b"echo"))
    house.request(C, 1, b"x", ttl=100)
    house.request(C, 2, b"y")
    house.said()
    house.pass_time(0.2)
    text = b"'echo' did not answer within 0.1 s; it was at a worker"
    assert house.words() == [final(C, 1, text, status=408)]
    house.hear(W, *codec.w2b_final(b"echo", handle(1), [b"late"]))
    assert house.words() == [(W, *codec.b2w_request(handle(2), [b"y"]))]


def test_requests_of_a_lost_worker_take_the_free_slots_of_another(house: House) -> None:
    house.worker(V, capacity=2)
    house.request(C, 1)
    house.request(C, 2)
    house.worker(W, capacity=2)
    house.said()
    house.leave(V)
    second = {"flags": spec.BROKER_METADATA, "metadata": metadata.pack({"attempt": 2})}
    assert house.words() == [house.given(W, 3, C, **second), house.given(W, 4, C, **second)]


def test_delphi_worker_whose_load_is_unreadable_is_never_chosen_until_it_is_readable(
    house: House,
) -> None:
    house.hear(W, *DELPHI.w2b_ready(b"echo"))
    house.hear(W, *DELPHI.w2b_heartbeat(b"echo", -1.0))
    house.request(C, 1, b"x")
    house.request(C, 2, b"y", address=W)
    assert house.words()[1:] == []
    house.hear(W, *DELPHI.w2b_heartbeat(b"echo", None))
    assert house.words() == []
    house.hear(W, *DELPHI.w2b_heartbeat(b"echo", 0.5))
    assert house.words() == [
        (W, *DELPHI.b2w_request(handle(1), [b"y"])),
        (W, *DELPHI.b2w_request(handle(2), [b"x"])),
    ]


def test_delphi_worker_that_never_answers_is_not_stuck_when_it_is_full(
    make_house: MakeHouse,
) -> None:
    """It need not answer (docs/spec/delphi.md), and gets any number: what has ended makes room."""
    house = make_house(delphi_capacity=2)
    house.hear(W, *DELPHI.w2b_ready(b"echo"))
    for id in (1, 2, 3):
        house.request(C, id, b"%d" % id, ttl=id * 1000, flags=spec.ONE_WAY)
    house.said()
    house.pass_time(1.5)
    assert house.words() == [(W, *DELPHI.b2w_request(handle(3), [b"3"]))]
    house.hear(W, *DELPHI.w2b_final(b"echo", handle(1), [b"late"]))
    assert house.counts.dropped == {"never-answered": 1, "unasked-reply": 1}
    house.hear(W, *DELPHI.w2b_final(b"echo", handle(2), [b"in time"]))
    assert (house.counts.answered, house.counts.expired) == (1, 1)


def test_delphi_worker_remembers_what_expired_while_there_is_room(house: House) -> None:
    """Its late answer to an expired request of a Delphi client is not taken for the next one's."""
    house.hear(W, *DELPHI.w2b_ready(b"echo"))
    house.hear(C, *DELPHI.c2b_request(b"echo", [b"1"]))
    for _ in range(15):
        house.pass_time(4)
        house.hear(W, *DELPHI.w2b_heartbeat(b"echo", None))
    house.pass_time(1)
    assert house.counts.expired == 1
    house.hear(C, *DELPHI.c2b_request(b"echo", [b"2"]))
    house.said()
    address = house.handles[C]
    house.hear(W, *DELPHI.w2b_final(b"echo", address, [b"answer to 1"]))
    assert house.words() == []
    house.hear(W, *DELPHI.w2b_final(b"echo", address, [b"answer to 2"]))
    assert house.words() == [(C, *DELPHI.b2c_final(b"echo", [b"answer to 2"]))]


def test_suspect_worker_gets_nothing(house: House) -> None:
    house.worker(V, capacity=2)
    house.unreachable.add(V)
    house.request(C, 1)
    house.request(C, 2)
    assert house.words()[1:] == []
    house.worker(W, capacity=2)
    assert house.words() == [welcome(W), house.given(W, 2, C), house.given(W, 3, C)]
