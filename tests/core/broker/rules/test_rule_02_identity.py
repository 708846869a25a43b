"""Rule 2: a worker answers only what it was given and has not yet answered. Anything else is
refused, counted, and never reaches a client."""

from __future__ import annotations

import pytest

from majordomus.protocol import mdp03, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import BrokerHarness, disconnect, final, handle, number

C, D, V, W = b"client-c", b"client-d", b"worker-v", b"worker-w"
RFC_DIALECTS = (Dialect.MDP01, Dialect.MDP02, Dialect.MDP02D)


def two_workers_with_a_request_each(harness: BrokerHarness) -> None:
    harness.worker(V)
    harness.worker(W)
    harness.request(C, 1, b"for v")
    harness.request(C, 2, b"for w")
    harness.sent()


@pytest.mark.parametrize("command", [spec.FINAL, spec.PARTIAL, spec.REJECT])
def test_reply_to_what_another_worker_holds_is_refused(
    harness: BrokerHarness, command: int
) -> None:
    two_workers_with_a_request_each(harness)
    harness.receive_03(W, command, b"stolen", id=number(1), code=200)
    assert harness.messages() == []
    assert harness.counts.dropped == {"unasked-reply": 1}
    harness.answer(V, number(1), b"own")
    assert harness.messages() == [final(C, 1, b"own", worker=V)]


@pytest.mark.parametrize("command", [spec.FINAL, spec.PARTIAL, spec.REJECT])
def test_reply_to_a_guessed_number_is_refused(harness: BrokerHarness, command: int) -> None:
    two_workers_with_a_request_each(harness)
    harness.receive_03(W, command, b"guess", id=number(3))
    assert harness.messages() == []
    assert harness.counts.dropped == {"unasked-reply": 1}


def test_part_after_the_final_is_refused(harness: BrokerHarness) -> None:
    two_workers_with_a_request_each(harness)
    harness.answer(W, number(2), b"end")
    harness.part(W, number(2), b"more")
    assert harness.messages() == [final(C, 2, b"end", worker=W)]
    assert harness.counts.dropped == {"unasked-reply": 1}


@pytest.mark.parametrize("command", [spec.FINAL, spec.PARTIAL])
def test_reply_with_an_id_that_no_broker_makes_is_dropped(
    harness: BrokerHarness, command: int
) -> None:
    two_workers_with_a_request_each(harness)
    harness.receive_03(W, command, b"x", id=2, code=200)
    assert harness.messages() == []
    assert harness.counts.dropped == {"late-part": 1}


@pytest.mark.parametrize("command", [spec.FINAL, spec.PARTIAL, spec.REJECT])
def test_reply_of_a_stranger_gets_disconnect(harness: BrokerHarness, command: int) -> None:
    two_workers_with_a_request_each(harness)
    harness.receive_03(D, command, b"x", id=number(1))
    assert harness.messages() == [disconnect(D)]
    assert harness.counts.dropped == {"unknown-worker": 1}
    assert D not in harness.machine.registry.peers


def test_worker_that_was_lost_cannot_answer_what_it_had(harness: BrokerHarness) -> None:
    two_workers_with_a_request_each(harness)
    harness.leave(V)
    harness.answer(V, number(1), b"too late")
    assert harness.messages() == [disconnect(V)]
    assert harness.counts.answered == 0


def test_worker_that_registered_anew_cannot_answer_what_it_had_before(
    harness: BrokerHarness,
) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.leave(W)
    harness.worker(W)
    harness.sent()
    harness.answer(W, number(1), b"old dispatch")
    assert harness.messages() == []
    assert harness.counts.dropped == {"unasked-reply": 1}
    harness.answer(W, number(2), b"new dispatch")
    assert harness.messages() == [final(C, 1, b"new dispatch", worker=W)]


@pytest.mark.parametrize("dialect", RFC_DIALECTS)
def test_reply_with_a_wrong_handle_is_refused(harness: BrokerHarness, dialect: Dialect) -> None:
    codec = LEGACY[dialect]
    harness.receive(W, *codec.w2b_ready(b"echo"))
    harness.request(C, 1, b"x")
    harness.sent()
    harness.receive(W, *codec.w2b_final(b"echo", handle(9), [b"guess"]))
    harness.receive(W, *codec.w2b_final(b"echo", C, [b"routing id"]))
    assert harness.messages() == []
    assert harness.counts.dropped == {"unasked-reply": 2}
    harness.receive(W, *codec.w2b_final(b"echo", handle(1), [b"y"]))
    assert harness.messages() == [final(C, 1, b"y", worker=W)]


def test_reply_behind_an_envelope_is_no_workers(harness: BrokerHarness) -> None:
    two_workers_with_a_request_each(harness)
    harness.receive(V, b"\x01", mdp03.pack(spec.FINAL, code=200, id=number(1)))
    assert harness.messages() == [(V, b"\x01", mdp03.pack(spec.DISCONNECT))]
    assert harness.counts.dropped == {"unknown-worker": 1}
    harness.answer(V, number(1), b"own")
    assert harness.messages() == [final(C, 1, b"own", worker=V)]


def test_delphi_handle_of_another_worker_is_refused(harness: BrokerHarness) -> None:
    codec = LEGACY[Dialect.DELPHI]
    harness.receive(V, *codec.w2b_ready(b"echo"))
    harness.receive(W, *codec.w2b_ready(b"echo"))
    harness.request(C, 1, b"x")
    harness.sent()
    harness.receive(W, *codec.w2b_final(b"echo", handle(1), [b"stolen"]))
    assert harness.messages() == []
    assert harness.counts.dropped == {"unasked-reply": 1}
    harness.receive(V, *codec.w2b_final(b"echo", handle(1), [b"own"]))
    assert harness.messages() == [final(C, 1, b"own", worker=V)]
