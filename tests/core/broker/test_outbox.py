"""Rule 9: sends that the socket has refused. Gone: a worker is suspect, and lost when the socket is
empty; a client is forgotten. Full: messages wait in a bounded outbox, in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.protocol import mdp03, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import (
    BrokerHarness,
    cancel,
    disconnect,
    final,
    handle,
    heartbeat,
    number,
    partial,
    welcome,
)

B, C, D, V, W = b"client-b", b"client-c", b"client-d", b"worker-v", b"worker-w"
SLOW = b"the client reads more slowly than the worker sends"
MakeHarness = Callable[..., BrokerHarness]


def stream(harness: BrokerHarness) -> None:
    """C's request is at W, which may send parts."""
    harness.worker(W, capacity=9)
    harness.request(C, 1)
    harness.sent()


# gone


def test_worker_that_is_gone_is_lost_only_when_its_last_replies_were_received(
    harness: BrokerHarness,
) -> None:
    """The order of events: a send finds no connection, the answer is read, the socket is empty."""
    harness.worker(W, capacity=2)
    harness.request(C, 1)
    harness.sent()
    harness.unreachable.add(W)
    harness.request(D, 1, b"d")
    harness.machine.receive(
        W, [mdp03.pack(spec.FINAL, id=number(1), code=200), b"last"], harness.now
    )
    harness.turn()
    assert harness.messages() == [final(C, 1, b"last", worker=W)]
    harness.worker(V)
    assert harness.messages() == [welcome(V), harness.request_to(V, 3, D, b"d")]
    assert harness.counts.retried == 1


def test_suspect_worker_is_not_lost_while_the_socket_is_not_empty(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.unreachable.add(W)
    harness.request(C, 1)
    harness.machine.tick(harness.now)
    assert harness.machine.registry.workers[W].state.name == "SUSPECT"
    harness.turn()
    assert harness.machine.registry.workers == {}


def test_next_deadline_is_zero_while_a_worker_is_suspect(harness: BrokerHarness) -> None:
    harness.worker(W)
    assert harness.machine.next_deadline() > harness.now
    harness.unreachable.add(W)
    harness.request(C, 1)
    assert harness.machine.next_deadline() == 0
    harness.turn()
    assert harness.machine.next_deadline() > harness.now


def test_client_that_is_gone_is_forgotten_and_its_requests_are_cancelled(
    harness: BrokerHarness,
) -> None:
    harness.worker(W, capacity=2)
    harness.request(C, 1)
    harness.request(C, 2)
    harness.request(D, 1)
    harness.sent()
    harness.unreachable.add(C)
    harness.answer(W, number(1))
    assert harness.messages() == [harness.request_to(W, 3, D)]
    assert harness.machine.next_deadline() == 0
    harness.turn()
    assert harness.messages() == [cancel(W, 2)]
    assert C not in harness.machine.registry.peers


def test_client_that_sends_after_its_loss_is_a_new_peer(harness: BrokerHarness) -> None:
    stream(harness)
    harness.unreachable.add(C)
    harness.answer(W, number(1))
    harness.unreachable.clear()
    harness.request(C, 2, b"again")
    assert harness.messages() == [harness.request_to(W, 2, C, b"again")]


def test_request_of_a_gone_client_that_the_worker_could_not_take_does_not_leave(
    harness: BrokerHarness,
) -> None:
    """One batch: an answer to C, which is gone, and C's other request to W, which is full. Nothing
    of what was cancelled leaves: the REQUEST has not left, and W's slot is free again."""
    harness.worker(V)
    harness.request(C, 1)
    harness.worker(W)
    harness.sent()
    harness.unreachable.add(C)
    harness.full.add(W)
    answer = [mdp03.pack(spec.FINAL, id=number(1), code=200)]
    ask = [mdp03.pack(spec.REQUEST, id=2, service=b"echo")]
    harness.receive_all((V, answer), (C, ask), (D, ask))
    harness.turn()
    assert harness.machine.registry.workers[W].holding == 0
    harness.full.clear()
    harness.pass_time(0.2)
    assert harness.messages() == [harness.request_to(V, 3, D)]


def test_refusal_for_a_peer_that_is_not_known_is_counted(harness: BrokerHarness) -> None:
    harness.unreachable.add(C)
    harness.receive_03(C, spec.HEARTBEAT)
    assert harness.messages() == []
    assert harness.counts.dropped == {"unknown-worker": 1, "unsendable": 1}


# the monitor reports the end of a connection


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_legacy_worker_whose_connection_ended_is_probed_and_lost(
    harness: BrokerHarness, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    harness.receive(V, *codec.w2b_ready(b"echo"))
    harness.request(C, 1, b"x")
    harness.worker(W)
    harness.sent()
    harness.lose_connection(V)
    assert [word[:2] for word in harness.messages()] == [(W, "REQUEST")]


def test_worker_whose_socket_was_full_is_probed_at_once_too(harness: BrokerHarness) -> None:
    harness.worker(V)
    harness.full.add(V)
    harness.request(C, 1, b"x")
    harness.worker(W)
    harness.sent()
    harness.lose_connection(V)
    assert harness.messages() == [harness.request_to(W, 2, C, b"x")]


def test_worker_that_is_still_there_survives_the_probe(harness: BrokerHarness) -> None:
    """Descriptors are reused: an end may be reported for a peer that has another connection now."""
    harness.worker(W)
    harness.sent()
    harness.machine.connection_ended(W, harness.now)
    harness.turn()
    harness.turn()
    assert harness.messages() == [heartbeat(W)]
    assert set(harness.machine.registry.workers) == {W}


def test_clients_of_mdp03_are_probed_too(harness: BrokerHarness) -> None:
    harness.receive_03(C, spec.HELLO)
    harness.request(D, 1)
    harness.sent()
    for client in (C, D):
        harness.lose_connection(client)
    assert harness.messages() == []
    assert set(harness.machine.registry.peers) == set()
    assert harness.counts.cancelled == 1


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_legacy_client_whose_connection_ended_is_forgotten_unless_it_sends(
    harness: BrokerHarness, dialect: Dialect
) -> None:
    ask = LEGACY[dialect].c2b_request(b"echo", [b"x"])
    for client in (C, D):
        harness.receive(client, *ask)
    harness.pass_time(1)
    harness.machine.connection_ended(C, harness.now)
    harness.machine.connection_ended(D, harness.now)
    assert harness.machine.next_deadline() == 0
    harness.now += 0.001
    harness.receive(D, *ask)
    assert set(harness.machine.registry.peers) == {D}
    assert harness.counts.cancelled == 1
    assert harness.messages() == []


def test_end_of_an_unknown_connection_changes_nothing(harness: BrokerHarness) -> None:
    harness.machine.connection_ended(C, harness.now)
    harness.turn()
    assert harness.messages() == []


# full


def test_messages_to_a_full_peer_wait_and_leave_in_their_order(harness: BrokerHarness) -> None:
    stream(harness)
    harness.full.add(C)
    harness.part(W, number(1), b"1")
    harness.part(W, number(1), b"2")
    harness.answer(W, number(1), b"3")
    assert harness.messages() == []
    harness.full.clear()
    harness.pass_time(0.006)
    harness.pass_time(0.1)
    assert harness.messages() == [
        partial(C, 1, b"1"),
        partial(C, 1, b"2"),
        final(C, 1, b"3", worker=W),
    ]


def test_socket_that_takes_some_gets_the_rest_later_in_order(harness: BrokerHarness) -> None:
    stream(harness)
    harness.room[C] = 2
    ask = [(W, [mdp03.pack(spec.PARTIAL, id=number(1)), b"%d" % n]) for n in range(5)]
    harness.receive_all(*ask)
    assert harness.messages() == [partial(C, 1, b"0"), partial(C, 1, b"1")]
    harness.room[C] = 1
    harness.pass_time(0.02)
    assert harness.messages() == [partial(C, 1, b"2")]
    harness.room[C] = 9
    harness.pass_time(0.2)
    assert harness.messages() == [partial(C, 1, b"3"), partial(C, 1, b"4")]


def test_full_peer_is_tried_again_after_5_10_20_and_at_most_100_ms(harness: BrokerHarness) -> None:
    stream(harness)
    harness.full.add(C)
    harness.answer(W, number(1))
    start, tries = harness.now, []
    send = harness._send

    def note() -> None:
        if any(peer == C for peer, *_ in harness.machine.outgoing.sends):
            tries.append(harness.now - start)
        send()

    harness._send = note  # type: ignore[method-assign]
    harness.pass_time(0.7)
    gaps = [later - earlier for earlier, later in zip([0, *tries], tries, strict=False)]
    delays = [0.005, 0.01, 0.02, 0.04, 0.08, 0.1, 0.1, 0.1, 0.1]
    late = [gap - delay for gap, delay in zip(gaps, delays, strict=False)]
    assert len(late) == len(delays)
    assert all(0 <= each <= 1 / 128 for each in late)


def test_message_from_a_full_peer_is_a_reason_to_try_at_once(harness: BrokerHarness) -> None:
    stream(harness)
    harness.full.add(C)
    harness.answer(W, number(1), b"y")
    harness.full.clear()
    harness.receive_03(C, spec.CANCEL, id=9)
    assert harness.messages() == [final(C, 1, b"y", worker=W)]


def test_answer_is_sent_after_the_messages_in_the_outbox(
    harness: BrokerHarness,
) -> None:
    stream(harness)
    harness.full.add(C)
    harness.answer(W, number(1), b"y")
    harness.full.clear()
    harness.request(C, 2, service=b"mmi.service")
    assert harness.messages() == [final(C, 1, b"y", worker=W), final(C, 2, b"400")]


def test_heartbeats_do_not_fill_an_outbox(make_harness: MakeHarness) -> None:
    harness = make_harness(max_outbox=1)
    harness.worker(W)
    harness.sent()
    harness.full.add(W)
    for _ in range(20):
        harness.pass_time(2.4)
        harness.heartbeat(W)
    harness.full.clear()
    harness.pass_time(2.6)
    assert harness.messages() == [heartbeat(W)]


PART_BYTES = len(mdp03.pack(spec.PARTIAL, id=1)) + 100
"""A part of the stream below: its header, and a body of 100 bytes."""


@pytest.mark.parametrize(
    "bound",
    [
        {"max_outbox": 2},
        {"max_outbox_bytes": 2 * PART_BYTES},
        {"max_outboxes_bytes": 2 * PART_BYTES},
    ],
    ids=["messages", "bytes", "bytes in all"],
)
def test_stream_that_its_client_does_not_read_ends_with_429(
    make_harness: MakeHarness, bound: dict[str, int]
) -> None:
    harness = make_harness(**bound)
    stream(harness)
    harness.full.add(C)
    for n in range(4):
        harness.part(W, number(1), b"%0100d" % n)
    harness.answer(W, number(1), b"late")
    assert harness.messages() == [cancel(W, 1)]
    harness.full.clear()
    harness.pass_time(0.2)
    assert harness.messages() == [
        partial(C, 1, b"%0100d" % 0),
        partial(C, 1, b"%0100d" % 1),
        final(C, 1, SLOW, status=429),
    ]
    assert harness.counts.dropped == {"outbox-full": 1}


def test_stream_whose_end_was_refused_with_its_parts_does_not_end_as_if_it_were_whole(
    make_harness: MakeHarness,
) -> None:
    """Parts and FINAL were sent in one batch, and the socket refused all of them: the request has
    ended already when a part finds no room."""
    harness = make_harness(max_outbox=2)
    stream(harness)
    harness.full.add(C)
    parts = [[mdp03.pack(spec.PARTIAL, id=number(1)), b"%d" % n] for n in range(4)]
    end = [mdp03.pack(spec.FINAL, id=number(1), code=200), b"end"]
    harness.receive_all(*((W, frames) for frames in [*parts, end]))
    harness.full.clear()
    harness.pass_time(0.2)
    assert harness.messages() == [
        partial(C, 1, b"0"),
        partial(C, 1, b"1"),
        final(C, 1, SLOW, status=429),
    ]


def test_part_without_space_ends_its_stream_before_the_final_is_handled(
    make_harness: MakeHarness,
) -> None:
    """One batch has the part without space in the outbox, and the FINAL."""
    harness = make_harness(max_outbox=1)
    stream(harness)
    harness.full.add(C)
    harness.part(W, number(1), b"0")
    harness.receive_all(
        (W, [mdp03.pack(spec.PARTIAL, id=number(1)), b"1"]),
        (W, [mdp03.pack(spec.FINAL, id=number(1), code=200), b"end"]),
    )
    assert harness.messages() == [cancel(W, 1)]
    harness.full.clear()
    harness.pass_time(0.2)
    assert harness.messages() == [partial(C, 1, b"0"), final(C, 1, SLOW, status=429)]


def test_stream_behind_an_envelope_that_is_not_read_ends_with_429(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(max_outbox=1)
    harness.worker(W)
    harness.receive(C, b"envelope", mdp03.pack(spec.REQUEST, id=1, service=b"echo"))
    harness.sent()
    harness.full.add(C)
    harness.part(W, number(1), b"0")
    harness.part(W, number(1), b"1")
    harness.turn()
    assert harness.messages() == [cancel(W, 1)]
    harness.full.clear()
    harness.pass_time(0.2)
    assert harness.sent() == [
        (C, [b"envelope", mdp03.pack(spec.PARTIAL, id=1), b"0"]),
        (C, [b"envelope", mdp03.pack(spec.FINAL, code=429, id=1), SLOW]),
    ]


def test_one_streams_end_leaves_the_clients_other_answers_alone(make_harness: MakeHarness) -> None:
    harness = make_harness(max_outbox=2)
    stream(harness)
    harness.request(C, 2)
    harness.sent()
    harness.full.add(C)
    for n in range(3):
        harness.part(W, number(1), b"%d" % n)
    harness.answer(W, number(2), b"other")
    harness.full.clear()
    harness.pass_time(0.2)
    assert harness.messages() == [
        cancel(W, 1),
        partial(C, 1, b"0"),
        partial(C, 1, b"1"),
        final(C, 1, SLOW, status=429),
        final(C, 2, b"other", worker=W),
    ]


def test_client_whose_outbox_has_no_space_for_an_answer_is_lost(make_harness: MakeHarness) -> None:
    harness = make_harness(max_outbox=1)
    harness.worker(W, capacity=9)
    for id in range(1, 6):
        harness.request(C, id)
    harness.sent()
    harness.full.add(C)
    for n in (1, 2, 3):
        harness.answer(W, number(n), b"y")
    harness.turn()
    assert harness.messages() == [cancel(W, 4), cancel(W, 5)]
    assert C not in harness.machine.registry.peers
    assert harness.counts.dropped == {"outbox-full": 1}


@pytest.mark.parametrize("dialect", [Dialect.MDP02, Dialect.MDP02D])
def test_legacy_client_that_does_not_read_its_stream_is_lost(
    make_harness: MakeHarness, dialect: Dialect
) -> None:
    """Its dialect has no 429, and a stream with a gap must not end as if it were complete."""
    harness = make_harness(max_outbox=1)
    harness.worker(W)
    harness.receive(C, *LEGACY[dialect].c2b_request(b"echo", [b"x"]))
    harness.sent()
    harness.full.add(C)
    for n in range(3):
        harness.part(W, number(2), b"%d" % n)
    harness.turn()
    assert harness.messages() == [cancel(W, 2)]
    assert C not in harness.machine.registry.peers


def test_worker_whose_outbox_has_no_space_for_a_request_is_lost(make_harness: MakeHarness) -> None:
    harness = make_harness(max_outbox=1)
    harness.worker(W, capacity=9)
    harness.sent()
    harness.full.add(W)
    for id in (1, 2, 3):
        harness.request(C, id)
    harness.worker(V, capacity=9)
    given = [word for word in harness.messages() if word[1] == "REQUEST"]
    assert sorted(word[2]["id"] for word in given) == [number(4), number(5), number(6)]
    assert W not in harness.machine.registry.workers


@pytest.mark.parametrize("body", [b"MDP\x03", b"MDP\x03\x05", b"MDPC02", b"", b"\x01"])
@pytest.mark.parametrize("dialect", list(LEGACY))
def test_body_that_looks_like_a_header_waits_like_any_other(
    harness: BrokerHarness, dialect: Dialect, body: bytes
) -> None:
    """The broker must not take a body frame of its own refused message for a header."""
    codec = LEGACY[dialect]
    harness.receive(V, *codec.w2b_ready(b"echo"))
    harness.sent()
    harness.full.add(V)
    harness.receive(C, *codec.c2b_request(b"echo", [body]))
    (address,) = harness.machine.registry.workers[V].handles
    harness.full.clear()
    harness.pass_time(0.2)
    assert harness.messages() == [(V, *codec.b2w_request(address, [body]))]
    harness.full.add(C)
    harness.receive(V, *codec.w2b_final(b"echo", address, [body]))
    harness.full.clear()
    harness.pass_time(0.2)
    assert harness.messages() == [(C, *codec.b2c_final(b"echo", [body]))]


@pytest.mark.parametrize("dialect", [Dialect.MDP02, Dialect.MDP02D])
def test_body_that_looks_like_a_header_is_not_read_when_the_worker_is_gone(
    harness: BrokerHarness, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    harness.receive(V, *codec.w2b_ready(b"echo"))
    harness.sent()
    harness.unreachable.add(V)
    harness.request(C, 1, b"MDP\x03")
    harness.turn()
    harness.worker(W)
    assert harness.messages() == [welcome(W), harness.request_to(W, 2, C, b"MDP\x03")]


def test_disconnect_after_an_invalid_message_is_sent_after_the_outbox(
    harness: BrokerHarness,
) -> None:
    harness.request(C, 1)
    harness.full.add(C)
    harness.receive_03(C, spec.CANCEL, id=1)
    harness.full.clear()
    harness.receive(C, b"MDP\x04")
    assert harness.messages() == []
    harness.pass_time(0.2)
    assert [word[1] for word in harness.messages()] == ["FINAL", "DISCONNECT"]


def test_outbox_of_a_forgotten_peer_is_forgotten(harness: BrokerHarness) -> None:
    stream(harness)
    harness.full.add(C)
    harness.answer(W, number(1))
    harness.leave(C)
    harness.full.clear()
    harness.pass_time(1)
    assert [word for word in harness.messages() if word[0] == C] == []


def test_disconnect_is_the_last_message_to_a_worker(harness: BrokerHarness) -> None:
    """W has a request open at itself; its loss cancels it, and the CANCEL comes first."""
    harness.worker(W)
    harness.request(W, 1)
    harness.sent()
    harness.receive(W, b"MDP\x03\x05", b"truncated")
    assert harness.messages() == [cancel(W, 1), disconnect(W)]


def test_legacy_handle_of_the_same_dispatch(harness: BrokerHarness) -> None:
    """`handle(n)` of the harness is the address that a legacy worker gets."""
    codec = LEGACY[Dialect.MDP01]
    harness.receive(W, *codec.w2b_ready(b"echo"))
    harness.request(C, 1, b"x")
    assert harness.messages() == [(W, *codec.b2w_request(handle(1), [b"x"]))]
