"""Rule 9: sends that the socket refuses come back. Gone: a worker is suspect, and lost when the
socket is empty; a client is forgotten. Full: messages wait in a bounded outbox, in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.protocol import mdp03, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import (
    House,
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
MakeHouse = Callable[..., House]


def stream(house: House) -> None:
    """C's request is at W, which may send parts."""
    house.worker(W, capacity=9)
    house.request(C, 1)
    house.said()


# gone


def test_worker_that_is_gone_is_lost_only_when_its_last_replies_were_heard(house: House) -> None:
    """The order of events: a send finds no connection, the answer is read, the socket is empty."""
    house.worker(W, capacity=2)
    house.request(C, 1)
    house.said()
    house.unreachable.add(W)
    house.request(D, 1, b"d")
    house.machine.receive(W, [mdp03.pack(spec.FINAL, id=number(1), code=200), b"last"], house.now)
    house.turn()
    assert house.words() == [final(C, 1, b"last", worker=W)]
    house.worker(V)
    assert house.words() == [welcome(V), house.given(V, 3, D, b"d")]
    assert house.counts.retried == 1


def test_suspect_worker_is_not_judged_while_the_socket_is_not_empty(house: House) -> None:
    house.worker(W)
    house.unreachable.add(W)
    house.request(C, 1)
    house.machine.tick(house.now)
    assert house.machine.registry.workers[W].state.name == "SUSPECT"
    house.turn()
    assert house.machine.registry.workers == {}


def test_loop_is_told_not_to_wait_before_it_judges(house: House) -> None:
    house.worker(W)
    assert house.machine.next_deadline() > house.now
    house.unreachable.add(W)
    house.request(C, 1)
    assert house.machine.next_deadline() == 0
    house.turn()
    assert house.machine.next_deadline() > house.now


def test_client_that_is_gone_is_forgotten_and_its_requests_are_cancelled(house: House) -> None:
    house.worker(W, capacity=2)
    house.request(C, 1)
    house.request(C, 2)
    house.request(D, 1)
    house.said()
    house.unreachable.add(C)
    house.answer(W, number(1))
    assert house.words() == [house.given(W, 3, D)]
    assert house.machine.next_deadline() == 0
    house.turn()
    assert house.words() == [cancel(W, 2)]
    assert C not in house.machine.registry.peers


def test_client_that_speaks_after_it_was_gone_is_met_anew(house: House) -> None:
    stream(house)
    house.unreachable.add(C)
    house.answer(W, number(1))
    house.unreachable.clear()
    house.request(C, 2, b"again")
    assert house.words() == [house.given(W, 2, C, b"again")]


def test_cancels_that_a_gone_client_causes_go_behind_what_the_worker_could_not_take(
    house: House,
) -> None:
    """One batch: an answer to C, which is gone, and C's other request to W, which is full. The
    CANCEL must not pass the REQUEST that it cancels."""
    house.worker(V)
    house.request(C, 1)
    house.worker(W)
    house.said()
    house.unreachable.add(C)
    house.full.add(W)
    answer = [mdp03.pack(spec.FINAL, id=number(1), code=200)]
    ask = [mdp03.pack(spec.REQUEST, id=2, service=b"echo")]
    house.hear_at_once((V, answer), (C, ask), (D, ask))
    house.turn()
    house.full.clear()
    house.pass_time(0.2)
    assert house.words() == [house.given(V, 3, D), house.given(W, 2, C), cancel(W, 2)]


def test_refusal_for_a_peer_that_is_not_known_is_counted(house: House) -> None:
    house.unreachable.add(C)
    house.say(C, spec.HEARTBEAT)
    assert house.words() == []
    assert house.counts.dropped == {"unknown-worker": 1, "unsendable": 1}


# the monitor saw a connection end


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_legacy_worker_whose_connection_ended_is_probed_and_lost(
    house: House, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    house.hear(V, *codec.w2b_ready(b"echo"))
    house.request(C, 1, b"x")
    house.worker(W)
    house.said()
    house.lose_connection(V)
    assert [word[:2] for word in house.words()] == [(W, "REQUEST")]


def test_worker_whose_socket_was_full_is_probed_at_once_too(house: House) -> None:
    house.worker(V)
    house.full.add(V)
    house.request(C, 1, b"x")
    house.worker(W)
    house.said()
    house.lose_connection(V)
    assert house.words() == [house.given(W, 2, C, b"x")]


def test_worker_that_is_still_there_survives_the_probe(house: House) -> None:
    """Descriptors are used again: the end of one may be told of a peer that has another by now."""
    house.worker(W)
    house.said()
    house.machine.connection_ended(W, house.now)
    house.turn()
    house.turn()
    assert house.words() == [heartbeat(W)]
    assert set(house.machine.registry.workers) == {W}


def test_clients_of_mdp03_are_probed_too(house: House) -> None:
    house.say(C, spec.HELLO)
    house.request(D, 1)
    house.said()
    for client in (C, D):
        house.lose_connection(client)
    assert house.words() == []
    assert set(house.machine.registry.peers) == set()
    assert house.counts.cancelled == 1


@pytest.mark.parametrize("dialect", list(LEGACY))
def test_legacy_client_whose_connection_ended_is_forgotten_unless_it_speaks(
    house: House, dialect: Dialect
) -> None:
    ask = LEGACY[dialect].c2b_request(b"echo", [b"x"])
    for client in (C, D):
        house.hear(client, *ask)
    house.pass_time(1)
    house.machine.connection_ended(C, house.now)
    house.machine.connection_ended(D, house.now)
    assert house.machine.next_deadline() == 0
    house.now += 0.001
    house.hear(D, *ask)
    assert set(house.machine.registry.peers) == {D}
    assert house.counts.cancelled == 1
    assert house.words() == []


def test_end_of_an_unknown_connection_is_nothing(house: House) -> None:
    house.machine.connection_ended(C, house.now)
    house.turn()
    assert house.words() == []


# full


def test_messages_to_a_full_peer_wait_and_leave_in_their_order(house: House) -> None:
    stream(house)
    house.full.add(C)
    house.part(W, number(1), b"1")
    house.part(W, number(1), b"2")
    house.answer(W, number(1), b"3")
    assert house.words() == []
    house.full.clear()
    house.pass_time(0.006)
    house.pass_time(0.1)
    assert house.words() == [
        partial(C, 1, b"1"),
        partial(C, 1, b"2"),
        final(C, 1, b"3", worker=W),
    ]


def test_socket_that_takes_some_gets_the_rest_later_in_order(house: House) -> None:
    stream(house)
    house.room[C] = 2
    ask = [(W, [mdp03.pack(spec.PARTIAL, id=number(1)), b"%d" % n]) for n in range(5)]
    house.hear_at_once(*ask)
    assert house.words() == [partial(C, 1, b"0"), partial(C, 1, b"1")]
    house.room[C] = 1
    house.pass_time(0.02)
    assert house.words() == [partial(C, 1, b"2")]
    house.room[C] = 9
    house.pass_time(0.2)
    assert house.words() == [partial(C, 1, b"3"), partial(C, 1, b"4")]


def test_full_peer_is_tried_again_after_5_10_20_and_at_most_100_ms(house: House) -> None:
    stream(house)
    house.full.add(C)
    house.answer(W, number(1))
    start, tries = house.now, []
    send = house._send

    def note() -> None:
        if any(peer == C for peer, _ in house.machine.outgoing.sends):
            tries.append(house.now - start)
        send()

    house._send = note  # type: ignore[method-assign]
    house.pass_time(0.7)
    gaps = [later - earlier for earlier, later in zip([0, *tries], tries, strict=False)]
    delays = [0.005, 0.01, 0.02, 0.04, 0.08, 0.1, 0.1, 0.1, 0.1]
    late = [gap - delay for gap, delay in zip(gaps, delays, strict=False)]
    assert len(late) == len(delays)
    assert all(0 <= each <= 1 / 128 for each in late)


def test_message_from_a_full_peer_is_a_reason_to_try_at_once(house: House) -> None:
    stream(house)
    house.full.add(C)
    house.answer(W, number(1), b"y")
    house.full.clear()
    house.say(C, spec.CANCEL, id=9)
    assert house.words() == [final(C, 1, b"y", worker=W)]


def test_answer_to_the_message_that_made_room_goes_behind_what_waited(house: House) -> None:
    stream(house)
    house.full.add(C)
    house.answer(W, number(1), b"y")
    house.full.clear()
    house.request(C, 2, service=b"mmi.service")
    assert house.words() == [final(C, 1, b"y", worker=W), final(C, 2, b"400")]


def test_heartbeats_do_not_fill_an_outbox(make_house: MakeHouse) -> None:
    house = make_house(max_outbox=1)
    house.worker(W)
    house.said()
    house.full.add(W)
    for _ in range(20):
        house.pass_time(2.4)
        house.heartbeat(W)
    house.full.clear()
    house.pass_time(2.6)
    assert house.words() == [heartbeat(W)]


@pytest.mark.parametrize(
    "bound",
    [{"max_outbox": 2}, {"max_outbox_bytes": 2 * 122}, {"max_outboxes_bytes": 2 * 122}],
    ids=["messages", "bytes", "bytes in all"],
)
def test_stream_that_its_client_does_not_read_ends_with_429(
    make_house: MakeHouse, bound: dict[str, int]
) -> None:
    """A part is a header of 22 bytes and 100 of body."""
    house = make_house(**bound)
    stream(house)
    house.full.add(C)
    for n in range(4):
        house.part(W, number(1), b"%0100d" % n)
    house.answer(W, number(1), b"late")
    assert house.words() == [cancel(W, 1)]
    house.full.clear()
    house.pass_time(0.2)
    assert house.words() == [
        partial(C, 1, b"%0100d" % 0),
        partial(C, 1, b"%0100d" % 1),
        final(C, 1, SLOW, status=429),
    ]
    assert house.counts.dropped == {"outbox-full": 1}


def test_stream_whose_end_was_refused_with_its_parts_does_not_end_as_if_it_were_whole(
    make_house: MakeHouse,
) -> None:
    """Parts and FINAL were sent in one batch, and the socket refused all of them: the request has
    ended already when a part finds no room."""
    house = make_house(max_outbox=2)
    stream(house)
    house.full.add(C)
    parts = [[mdp03.pack(spec.PARTIAL, id=number(1)), b"%d" % n] for n in range(4)]
    end = [mdp03.pack(spec.FINAL, id=number(1), code=200), b"end"]
    house.hear_at_once(*((W, frames) for frames in [*parts, end]))
    house.full.clear()
    house.pass_time(0.2)
    assert house.words() == [
        partial(C, 1, b"0"),
        partial(C, 1, b"1"),
        final(C, 1, SLOW, status=429),
    ]


def test_part_that_found_no_room_ends_its_stream_before_the_final_is_heard(
    make_house: MakeHouse,
) -> None:
    """The same batch of receives brings the part that finds no room, and the FINAL."""
    house = make_house(max_outbox=1)
    stream(house)
    house.full.add(C)
    house.part(W, number(1), b"0")
    house.hear_at_once(
        (W, [mdp03.pack(spec.PARTIAL, id=number(1)), b"1"]),
        (W, [mdp03.pack(spec.FINAL, id=number(1), code=200), b"end"]),
    )
    assert house.words() == [cancel(W, 1)]
    house.full.clear()
    house.pass_time(0.2)
    assert house.words() == [partial(C, 1, b"0"), final(C, 1, SLOW, status=429)]


def test_stream_behind_an_envelope_that_is_not_read_ends_with_429(make_house: MakeHouse) -> None:
    house = make_house(max_outbox=1)
    house.worker(W)
    house.hear(C, b"envelope", mdp03.pack(spec.REQUEST, id=1, service=b"echo"))
    house.said()
    house.full.add(C)
    house.part(W, number(1), b"0")
    house.part(W, number(1), b"1")
    house.turn()
    assert house.words() == [cancel(W, 1)]
    house.full.clear()
    house.pass_time(0.2)
    assert house.said() == [
        (C, [b"envelope", mdp03.pack(spec.PARTIAL, id=1), b"0"]),
        (C, [b"envelope", mdp03.pack(spec.FINAL, code=429, id=1), SLOW]),
    ]


def test_one_streams_end_leaves_the_clients_other_answers_alone(make_house: MakeHouse) -> None:
    house = make_house(max_outbox=2)
    stream(house)
    house.request(C, 2)
    house.said()
    house.full.add(C)
    for n in range(3):
        house.part(W, number(1), b"%d" % n)
    house.answer(W, number(2), b"other")
    house.full.clear()
    house.pass_time(0.2)
    assert house.words() == [
        cancel(W, 1),
        partial(C, 1, b"0"),
        partial(C, 1, b"1"),
        final(C, 1, SLOW, status=429),
        final(C, 2, b"other", worker=W),
    ]


def test_client_whose_answers_find_no_room_is_lost(make_house: MakeHouse) -> None:
    house = make_house(max_outbox=1)
    house.worker(W, capacity=9)
    for id in range(1, 6):
        house.request(C, id)
    house.said()
    house.full.add(C)
    for n in (1, 2, 3):
        house.answer(W, number(n), b"y")
    house.turn()
    assert house.words() == [cancel(W, 4), cancel(W, 5)]
    assert C not in house.machine.registry.peers
    assert house.counts.dropped == {"outbox-full": 1}


@pytest.mark.parametrize("dialect", [Dialect.MDP02, Dialect.MDP02D])
def test_legacy_client_that_does_not_read_its_stream_is_lost(
    make_house: MakeHouse, dialect: Dialect
) -> None:
    """It has no word for 429, and a stream with a gap must not end as if it were whole."""
    house = make_house(max_outbox=1)
    house.worker(W)
    house.hear(C, *LEGACY[dialect].c2b_request(b"echo", [b"x"]))
    house.said()
    house.full.add(C)
    for n in range(3):
        house.part(W, number(2), b"%d" % n)
    house.turn()
    assert house.words() == [cancel(W, 2)]
    assert C not in house.machine.registry.peers


def test_worker_whose_requests_find_no_room_is_lost(make_house: MakeHouse) -> None:
    house = make_house(max_outbox=1)
    house.worker(W, capacity=9)
    house.said()
    house.full.add(W)
    for id in (1, 2, 3):
        house.request(C, id)
    house.worker(V, capacity=9)
    given = [word for word in house.words() if word[1] == "REQUEST"]
    assert sorted(word[2]["id"] for word in given) == [number(4), number(5), number(6)]
    assert W not in house.machine.registry.workers


@pytest.mark.parametrize("body", [b"MDP\x03", b"MDP\x03\x05", b"MDPC02", b"", b"\x01"])
@pytest.mark.parametrize("dialect", list(LEGACY))
def test_body_that_looks_like_a_header_waits_like_any_other(
    house: House, dialect: Dialect, body: bytes
) -> None:
    """What the broker reads in its own refused message must not be taken from a body frame."""
    codec = LEGACY[dialect]
    house.hear(V, *codec.w2b_ready(b"echo"))
    house.said()
    house.full |= {V, C}
    house.hear(C, *codec.c2b_request(b"echo", [body]))
    (address,) = house.machine.registry.workers[V].handles
    house.hear(V, *codec.w2b_final(b"echo", address, [body]))
    house.full.clear()
    house.pass_time(0.2)
    assert house.words() == [
        (V, *codec.b2w_request(address, [body])),
        (C, *codec.b2c_final(b"echo", [body])),
    ]


@pytest.mark.parametrize("dialect", [Dialect.MDP02, Dialect.MDP02D])
def test_body_that_looks_like_a_header_is_not_read_when_the_worker_is_gone(
    house: House, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    house.hear(V, *codec.w2b_ready(b"echo"))
    house.said()
    house.unreachable.add(V)
    house.request(C, 1, b"MDP\x03")
    house.turn()
    house.worker(W)
    assert house.words() == [welcome(W), house.given(W, 2, C, b"MDP\x03")]


def test_disconnect_after_rubbish_goes_behind_what_waits(house: House) -> None:
    house.request(C, 1)
    house.full.add(C)
    house.say(C, spec.CANCEL, id=1)
    house.full.clear()
    house.hear(C, b"MDP\x04")
    assert house.words() == []
    house.pass_time(0.2)
    assert [word[1] for word in house.words()] == ["FINAL", "DISCONNECT"]


def test_outbox_of_a_forgotten_peer_is_forgotten(house: House) -> None:
    stream(house)
    house.full.add(C)
    house.answer(W, number(1))
    house.leave(C)
    house.full.clear()
    house.pass_time(1)
    assert [word for word in house.words() if word[0] == C] == []


def test_disconnect_is_the_last_thing_that_a_worker_hears(house: House) -> None:
    """W has a request open at itself; its loss cancels it, and the CANCEL comes first."""
    house.worker(W)
    house.request(W, 1)
    house.said()
    house.hear(W, b"MDP\x03\x05", b"truncated")
    assert house.words() == [cancel(W, 1), disconnect(W)]


def test_legacy_handle_of_the_same_dispatch(house: House) -> None:
    """What the tests call `handle(n)` is what a legacy worker gets as the address."""
    codec = LEGACY[Dialect.MDP01]
    house.hear(W, *codec.w2b_ready(b"echo"))
    house.request(C, 1, b"x")
    assert house.words() == [(W, *codec.b2w_request(handle(1), [b"x"]))]
