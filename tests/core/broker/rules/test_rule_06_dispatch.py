"""Rule 6: dispatch happens after every change that could allow it. A slot comes back by the
worker's FINAL or REJECT or its loss, not by CANCEL or expiry."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.protocol import metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import BrokerHarness, cancel, final, handle, number, welcome

C, D, V, W = b"client-c", b"client-d", b"worker-v", b"worker-w"
DELPHI = LEGACY[Dialect.DELPHI]
MakeHarness = Callable[..., BrokerHarness]


def test_request_that_comes_to_a_free_worker_is_dispatched(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    harness.request(C, 1, b"x")
    assert harness.messages() == [harness.request_to(W, 1, C, b"x")]


def test_worker_gets_as_many_requests_as_its_capacity(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=2)
    harness.sent()
    for id in (1, 2, 3):
        harness.request(C, id)
    assert harness.messages() == [harness.request_to(W, 1, C), harness.request_to(W, 2, C)]


def test_request_that_waits_is_dispatched_when_a_slot_comes_back_by_final(
    harness: BrokerHarness,
) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.request(C, 2)
    harness.sent()
    harness.answer(W, number(1))
    assert harness.messages() == [final(C, 1, worker=W), harness.request_to(W, 2, C)]


def test_request_that_waits_is_dispatched_when_a_slot_comes_back_by_reject(
    harness: BrokerHarness,
) -> None:
    harness.worker(V)
    harness.worker(W)
    for id in (1, 2, 3):
        harness.request(C, id)
    harness.sent()
    harness.reject(V, number(1))
    assert harness.messages() == [harness.request_to(V, 3, C)]


def test_request_that_waits_is_dispatched_when_a_worker_joins(harness: BrokerHarness) -> None:
    harness.request(C, 1, b"x")
    harness.worker(W)
    assert harness.messages() == [welcome(W), harness.request_to(W, 1, C, b"x")]


def test_request_that_waits_is_dispatched_when_a_worker_adds_its_service(
    harness: BrokerHarness,
) -> None:
    harness.worker(W, b"time")
    harness.sent()
    harness.request(C, 1)
    harness.worker(W)
    assert harness.messages() == [harness.request_to(W, 1, C)]


def test_request_that_waits_is_dispatched_when_capacity_grows(harness: BrokerHarness) -> None:
    harness.worker(W)
    for id in (1, 2, 3):
        harness.request(C, id)
    harness.sent()
    harness.receive_03(W, spec.CAPACITY, code=2)
    assert harness.messages() == [harness.request_to(W, 2, C)]
    harness.worker(W, capacity=3)
    assert harness.messages() == [harness.request_to(W, 3, C)]


def test_worker_that_takes_less_gets_nothing_until_it_holds_less(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=3)
    for id in (1, 2, 3, 4):
        harness.request(C, id)
    harness.receive_03(W, spec.CAPACITY, code=1)
    harness.sent()
    harness.answer(W, number(1))
    harness.answer(W, number(2))
    assert [word[1] for word in harness.messages()] == ["FINAL", "FINAL"]
    harness.answer(W, number(3))
    assert harness.messages() == [final(C, 3, worker=W), harness.request_to(W, 4, C)]


def test_ready_for_one_more_service_with_less_capacity_takes_nothing_beyond_it(
    harness: BrokerHarness,
) -> None:
    harness.worker(W, b"time", capacity=3)
    harness.request(C, 1, service=b"time")
    harness.request(D, 1)
    harness.sent()
    harness.worker(W, b"echo", capacity=1)
    assert harness.messages() == []
    harness.answer(W, number(1))
    assert harness.messages() == [final(C, 1, worker=W), harness.request_to(W, 2, D)]


def test_draining_worker_gets_nothing_new_and_finishes_what_it_has(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=2)
    harness.request(C, 1)
    harness.sent()
    harness.receive_03(W, spec.CAPACITY, code=0)
    harness.request(C, 2)
    harness.answer(W, number(1))
    assert harness.messages() == [final(C, 1, worker=W)]
    harness.receive_03(W, spec.CAPACITY, code=2)
    assert harness.messages() == [harness.request_to(W, 2, C)]


def test_ready_ends_the_draining_of_a_worker(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.receive_03(W, spec.CAPACITY, code=0)
    harness.request(C, 1)
    harness.sent()
    harness.worker(W)
    assert harness.messages() == [harness.request_to(W, 1, C)]


def test_slot_does_not_come_back_by_cancel(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.request(C, 2)
    harness.sent()
    harness.receive_03(C, spec.CANCEL, id=1)
    assert harness.messages() == [cancel(W, 1), final(C, 1, b"cancelled by the client", status=499)]
    harness.answer(W, number(1), status=499)
    assert harness.messages() == [harness.request_to(W, 2, C)]


def test_slot_does_not_come_back_by_expiry(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1, ttl=100)
    harness.request(C, 2)
    harness.sent()
    harness.pass_time(0.2)
    assert [word[1] for word in harness.messages()] == ["CANCEL", "FINAL"]
    harness.answer(W, number(1), b"late")
    assert harness.messages() == [harness.request_to(W, 2, C, ttl=59_800)]


@pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.MDP02, Dialect.MDP02D])
def test_slot_of_a_legacy_worker_does_not_come_back_by_expiry(
    harness: BrokerHarness, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    harness.receive(W, *codec.w2b_ready(b"echo"))
    harness.request(C, 1, b"x", ttl=100)
    harness.request(C, 2, b"y")
    harness.sent()
    harness.pass_time(0.2)
    text = b"'echo' did not answer within 0.1 s; it was at a worker"
    assert harness.messages() == [final(C, 1, text, status=408)]
    harness.receive(W, *codec.w2b_final(b"echo", handle(1), [b"late"]))
    assert harness.messages() == [(W, *codec.b2w_request(handle(2), [b"y"]))]


def test_requests_of_a_lost_worker_take_the_free_slots_of_another(harness: BrokerHarness) -> None:
    harness.worker(V, capacity=2)
    harness.request(C, 1)
    harness.request(C, 2)
    harness.worker(W, capacity=2)
    harness.sent()
    harness.leave(V)
    second = {"flags": spec.BROKER_METADATA, "metadata": metadata.pack({"attempt": 2})}
    assert harness.messages() == [
        harness.request_to(W, 3, C, **second),
        harness.request_to(W, 4, C, **second),
    ]


def test_delphi_worker_whose_load_is_unreadable_is_never_chosen_until_it_is_readable(
    harness: BrokerHarness,
) -> None:
    harness.receive(W, *DELPHI.w2b_ready(b"echo"))
    harness.receive(W, *DELPHI.w2b_heartbeat(b"echo", -1.0))
    harness.request(C, 1, b"x")
    harness.request(C, 2, b"y", address=W)
    assert harness.messages()[1:] == []
    harness.receive(W, *DELPHI.w2b_heartbeat(b"echo", None))
    assert harness.messages() == []
    harness.receive(W, *DELPHI.w2b_heartbeat(b"echo", 0.5))
    assert harness.messages() == [
        (W, *DELPHI.b2w_request(handle(1), [b"y"])),
        (W, *DELPHI.b2w_request(handle(2), [b"x"])),
    ]


def test_delphi_worker_that_never_answers_is_not_stuck_when_it_is_full(
    make_harness: MakeHarness,
) -> None:
    """It need not answer (docs/spec/delphi.md), and gets any number: what has ended makes room."""
    harness = make_harness(delphi_capacity=2)
    harness.receive(W, *DELPHI.w2b_ready(b"echo"))
    for id in (1, 2, 3):
        harness.request(C, id, b"%d" % id, ttl=id * 1000, flags=spec.ONE_WAY)
    harness.sent()
    harness.pass_time(1.5)
    assert harness.messages() == [(W, *DELPHI.b2w_request(handle(3), [b"3"]))]
    harness.receive(W, *DELPHI.w2b_final(b"echo", handle(1), [b"late"]))
    assert harness.counts.dropped == {"never-answered": 1, "unasked-reply": 1}
    harness.receive(W, *DELPHI.w2b_final(b"echo", handle(2), [b"in time"]))
    assert (harness.counts.answered, harness.counts.expired) == (1, 1)


def test_delphi_worker_remembers_what_expired_while_there_is_room(harness: BrokerHarness) -> None:
    """Its late answer to an expired request of a Delphi client is not taken for the next one's."""
    harness.receive(W, *DELPHI.w2b_ready(b"echo"))
    harness.receive(C, *DELPHI.c2b_request(b"echo", [b"1"]))
    for _ in range(15):
        harness.pass_time(4)
        harness.receive(W, *DELPHI.w2b_heartbeat(b"echo", None))
    harness.pass_time(1)
    assert harness.counts.expired == 1
    harness.receive(C, *DELPHI.c2b_request(b"echo", [b"2"]))
    harness.sent()
    address = harness.handles[C]
    harness.receive(W, *DELPHI.w2b_final(b"echo", address, [b"answer to 1"]))
    assert harness.messages() == []
    harness.receive(W, *DELPHI.w2b_final(b"echo", address, [b"answer to 2"]))
    assert harness.messages() == [(C, *DELPHI.b2c_final(b"echo", [b"answer to 2"]))]


def test_suspect_worker_gets_nothing(harness: BrokerHarness) -> None:
    harness.worker(V, capacity=2)
    harness.unreachable.add(V)
    harness.request(C, 1)
    harness.request(C, 2)
    assert harness.messages()[1:] == []
    harness.worker(W, capacity=2)
    assert harness.messages() == [
        welcome(W),
        harness.request_to(W, 2, C),
        harness.request_to(W, 3, C),
    ]
