"""Rule 2: a worker answers only what it was given and has not yet answered. Anything else is
refused, counted, and never reaches a client."""

from __future__ import annotations

import pytest

from majordomus.protocol import spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import House, disconnect, final, handle, number

C, D, V, W = b"client-c", b"client-d", b"worker-v", b"worker-w"
RFC_DIALECTS = (Dialect.MDP01, Dialect.MDP02, Dialect.MDP02D)


def two_workers_with_a_request_each(house: House) -> None:
    house.worker(V)
    house.worker(W)
    house.request(C, 1, b"for v")
    house.request(C, 2, b"for w")
    house.said()


@pytest.mark.parametrize("command", [spec.FINAL, spec.PARTIAL, spec.REJECT])
def test_reply_to_what_another_worker_holds_is_refused(house: House, command: int) -> None:
    two_workers_with_a_request_each(house)
    house.say(W, command, b"stolen", id=number(1), code=200)
    assert house.words() == []
    assert house.counts.dropped == {"unasked-reply": 1}
    house.answer(V, number(1), b"own")
    assert house.words() == [final(C, 1, b"own", worker=V)]


@pytest.mark.parametrize("command", [spec.FINAL, spec.PARTIAL, spec.REJECT])
def test_reply_to_a_guessed_number_is_refused(house: House, command: int) -> None:
    two_workers_with_a_request_each(house)
    house.say(W, command, b"guess", id=number(3))
    assert house.words() == []
    assert house.counts.dropped == {"unasked-reply": 1}


def test_part_after_the_final_is_refused(house: House) -> None:
    two_workers_with_a_request_each(house)
    house.answer(W, number(2), b"end")
    house.part(W, number(2), b"more")
    assert house.words() == [final(C, 2, b"end", worker=W)]
    assert house.counts.dropped == {"unasked-reply": 1}


@pytest.mark.parametrize("command", [spec.FINAL, spec.PARTIAL])
def test_reply_with_an_id_that_no_broker_makes_is_dropped(house: House, command: int) -> None:
    two_workers_with_a_request_each(house)
    house.say(W, command, b"x", id=2, code=200)
    assert house.words() == []
    assert house.counts.dropped == {"late-part": 1}


@pytest.mark.parametrize("command", [spec.FINAL, spec.PARTIAL, spec.REJECT])
def test_reply_of_a_stranger_gets_disconnect(house: House, command: int) -> None:
    two_workers_with_a_request_each(house)
    house.say(D, command, b"x", id=number(1))
    assert house.words() == [disconnect(D)]
    assert house.counts.dropped == {"unknown-worker": 1}
    assert D not in house.machine.registry.peers


def test_worker_that_was_lost_cannot_answer_what_it_had(house: House) -> None:
    two_workers_with_a_request_each(house)
    house.leave(V)
    house.answer(V, number(1), b"too late")
    assert house.words() == [disconnect(V)]
    assert house.counts.answered == 0


def test_worker_that_registered_anew_cannot_answer_what_it_had_before(house: House) -> None:
    house.worker(W)
    house.request(C, 1)
    house.leave(W)
    house.worker(W)
    house.said()
    house.answer(W, number(1), b"old dispatch")
    assert house.words() == []
    assert house.counts.dropped == {"unasked-reply": 1}
    house.answer(W, number(2), b"new dispatch")
    assert house.words() == [final(C, 1, b"new dispatch", worker=W)]


@pytest.mark.parametrize("dialect", RFC_DIALECTS)
def test_reply_with_a_wrong_handle_is_refused(house: House, dialect: Dialect) -> None:
    codec = LEGACY[dialect]
    house.hear(W, *codec.w2b_ready(b"echo"))
    house.request(C, 1, b"x")
    house.said()
    house.hear(W, *codec.w2b_final(b"echo", handle(9), [b"guess"]))
    house.hear(W, *codec.w2b_final(b"echo", C, [b"routing id"]))
    assert house.words() == []
    assert house.counts.dropped == {"unasked-reply": 2}
    house.hear(W, *codec.w2b_final(b"echo", handle(1), [b"y"]))
    assert house.words() == [final(C, 1, b"y", worker=W)]


def test_reply_behind_an_envelope_is_no_workers(house: House) -> None:
    two_workers_with_a_request_each(house)
    house.hear(V, b"\x01", b"MDP\x03\x04\x00\x00\xc8" + number(1).to_bytes(8, "big") + bytes(6))
    assert house.words() == [(V, b"\x01", b"MDP\x03\x06" + bytes(17))]
    assert house.counts.dropped == {"unknown-worker": 1}
    house.answer(V, number(1), b"own")
    assert house.words() == [final(C, 1, b"own", worker=V)]


def test_delphi_handle_of_another_worker_is_refused(house: House) -> None:
    codec = LEGACY[Dialect.DELPHI]
    house.hear(V, *codec.w2b_ready(b"echo"))
    house.hear(W, *codec.w2b_ready(b"echo"))
    house.request(C, 1, b"x")
    house.said()
    house.hear(W, *codec.w2b_final(b"echo", handle(1), [b"stolen"]))
    assert house.words() == []
    assert house.counts.dropped == {"unasked-reply": 1}
    house.hear(V, *codec.w2b_final(b"echo", handle(1), [b"own"]))
    assert house.words() == [final(C, 1, b"own", worker=V)]
