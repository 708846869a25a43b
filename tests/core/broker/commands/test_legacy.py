"""docs/spec: peers of MDP/0.1, MDP/0.2 in both framings, and Delphi at the broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.protocol import delphi, mdp03, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import House, cancel, final, handle, number, partial

C, D, P, V, W = b"client-c", b"client-d", b"proxy-p", b"worker-v", b"worker-w"
ALL = tuple(LEGACY)
RFC = (Dialect.MDP01, Dialect.MDP02, Dialect.MDP02D)
DELPHI = LEGACY[Dialect.DELPHI]
MakeHouse = Callable[..., House]


def frames(*texts: str) -> list[bytes]:
    """Frames as docs/spec writes vectors: hex, `-` for an empty frame."""
    return [b"" if text == "-" else bytes.fromhex(text) for text in texts]


def is_ready(house: House, worker: bytes, dialect: Dialect, service: bytes = b"echo") -> None:
    house.hear(worker, *LEGACY[dialect].w2b_ready(service))
    house.said()


# byte for byte, not by our codecs


def test_mdp01_conversation_on_the_wire(house: House) -> None:
    house.hear(W, b"", b"MDPW01", b"\x01", b"echo")
    house.hear(C, b"", b"MDPC01", b"echo", b"a", b"b")
    assert house.words() == [(W, b"", b"MDPW01", b"\x02", handle(2), b"", b"a", b"b")]
    house.hear(W, b"", b"MDPW01", b"\x03", handle(2), b"", b"c")
    assert house.words() == [(C, b"", b"MDPC01", b"echo", b"c")]
    house.hear(W, b"", b"MDPW01", b"\x05")
    assert house.machine.registry.workers == {}


def test_mdp02_conversation_on_the_wire(house: House) -> None:
    house.hear(W, b"MDPW02", b"\x01", b"echo")
    house.hear(C, b"MDPC02", b"\x01", b"echo", b"a")
    assert house.words() == [(W, b"MDPW02", b"\x02", handle(2), b"", b"a")]
    house.hear(W, b"MDPW02", b"\x03", handle(2), b"", b"part")
    house.hear(W, b"MDPW02", b"\x04", handle(2), b"", b"end")
    assert house.words() == [
        (C, b"MDPC02", b"\x02", b"echo", b"part"),
        (C, b"MDPC02", b"\x03", b"echo", b"end"),
    ]
    house.hear(W, b"MDPW02", b"\x06")
    assert house.machine.registry.workers == {}


def test_delimited_mdp02_conversation_on_the_wire(house: House) -> None:
    house.hear(W, b"", b"MDPW02", b"\x01", b"echo")
    house.hear(C, b"", b"MDPC02", b"\x02", b"echo", b"a")
    assert house.words() == [(W, b"", b"MDPW02", b"\x02", handle(2), b"", b"a")]
    house.hear(W, b"", b"MDPW02", b"\x03", handle(2), b"", b"part")
    house.hear(W, b"", b"MDPW02", b"\x04", handle(2), b"", b"end")
    assert house.words() == [
        (C, b"", b"MDPC02", b"\x03", b"part"),
        (C, b"", b"MDPC02", b"\x04", b"end"),
    ]


def test_delphi_vectors_of_the_protocol_page(house: House) -> None:
    """READY, its answer to a worker whose id is 00 68 B4 56 7 as text, a CALL and its REPLY."""
    worker = bytes.fromhex("0068b4567a")
    house.hear(worker, *frames("-", "01", "4d7953657276696365", "d39224de"))
    said = [b"", b"\x01", b"0068B4567A"]
    assert house.words() == [(worker, *said, delphi.digest(said))]
    house.hear(C, *frames("-", "05", "4d7953657276696365", "48656c6c6f20576f726c64", "255e0e2a"))
    asked = [b"", b"\x05", house.handles[C], b"", b"Hello World"]
    assert house.words() == [(worker, *asked, delphi.digest(asked))]
    told = [b"", b"\x04", b"MyService", house.handles[C], b"Hi"]
    house.hear(worker, *told, delphi.digest(told))
    assert house.words() == [(C, *frames("-", "05", "4d7953657276696365", "4869", "0f3e7b33"))]
    heartbeat = ("-", "02", "4d7953657276696365",
                 "302e343220302e333120302e323020312f33343520363738390a", "ca8b5550")  # fmt: skip
    house.hear(worker, *frames(*heartbeat))
    assert house.machine.registry.workers[worker].load == 0.42
    house.pass_time(2.6)
    assert house.words() == [(worker, *frames("-", "02", "191f16ee"))]


# errors: silence, or one reply


@pytest.mark.parametrize("dialect", ALL)
def test_failure_is_silence_and_counted(house: House, dialect: Dialect) -> None:
    house.worker(W)
    house.hear(C, *LEGACY[dialect].c2b_request(b"echo", [b"x"]))
    house.said()
    house.answer(W, number(2), b"ValueError", status=500)
    assert house.words() == []
    assert (house.counts.failed, house.counts.unanswered) == (1, 1)


@pytest.mark.parametrize("dialect", ALL)
def test_failure_is_one_reply_where_that_is_set(make_house: MakeHouse, dialect: Dialect) -> None:
    house = make_house(legacy_errors="reply", default_ttl=1.0)
    codec = LEGACY[dialect]
    house.worker(W, capacity=9)
    for _ in range(4):
        house.hear(C, *codec.c2b_request(b"echo", [b"x"]))
    house.said()
    house.answer(W, number(2), b"ValueError", b"more", status=500)
    house.answer(W, number(4), status=418)
    house.part(W, number(6), b"part")
    house.leave(W)
    house.pass_time(1.1)
    parts = [] if dialect in (Dialect.MDP01, Dialect.DELPHI) else [codec.b2c_partial]
    assert house.words() == [
        (C, *codec.b2c_final(b"echo", [b"500", b"ValueError"])),
        (C, *codec.b2c_final(b"echo", [b"418", b""])),
        *((C, *write(b"echo", [b"part"])) for write in parts),
        (C, *codec.b2c_final(b"echo", [b"502", b"worker lost (left) at attempt 1"])),
        (C, *codec.b2c_final(
            b"echo", [b"408", b"'echo' did not answer within 1 s; it was in the queue"])),
    ]  # fmt: skip
    assert house.counts.unanswered == 0


@pytest.mark.parametrize("dialect", ALL)
def test_legacy_client_behind_an_envelope_gets_it_back(
    make_house: MakeHouse, dialect: Dialect
) -> None:
    house = make_house(legacy_errors="reply")
    codec, envelope = LEGACY[dialect], [b"\x01\x02", b"relay"]
    house.worker(W)
    house.said()
    for _ in range(2):
        house.hear(P, *envelope, *codec.c2b_request(b"echo", [b"x"]))
    house.answer(W, number(2), b"y")
    house.answer(W, number(4), b"no", status=500)
    assert [word for word in house.words() if word[0] == P] == [
        (P, *envelope, *codec.b2c_final(b"echo", [b"y"])),
        (P, *envelope, *codec.b2c_final(b"echo", [b"500", b"no"])),
    ]


@pytest.mark.parametrize("dialect", ALL)
def test_worker_behind_an_envelope_gets_disconnect(house: House, dialect: Dialect) -> None:
    codec = LEGACY[dialect]
    house.hear(P, b"relay", *codec.w2b_ready(b"echo"))
    assert house.words() == [(P, b"relay", *codec.b2w_disconnect())]
    assert house.machine.registry.workers == {}
    assert house.counts.dropped == {"worker-behind-envelope": 1}


# clients that know only one reply


@pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.DELPHI])
def test_parts_are_joined_into_the_one_reply(house: House, dialect: Dialect) -> None:
    codec = LEGACY[dialect]
    house.worker(W)
    house.hear(C, *codec.c2b_request(b"echo", [b"x"]))
    house.said()
    house.part(W, number(2), b"a", b"b")
    house.part(W, number(2))
    house.part(W, number(2), b"c")
    assert house.words() == []
    house.answer(W, number(2), b"d")
    assert house.words() == [(C, *codec.b2c_final(b"echo", [b"a", b"b", b"c", b"d"]))]


@pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.DELPHI])
def test_parts_of_what_then_failed_are_not_told(make_house: MakeHouse, dialect: Dialect) -> None:
    house = make_house(legacy_errors="reply")
    codec = LEGACY[dialect]
    house.worker(W)
    house.hear(C, *codec.c2b_request(b"echo", [b"x"]))
    house.said()
    house.part(W, number(2), b"a")
    house.answer(W, number(2), b"no", status=500)
    assert house.words() == [(C, *codec.b2c_final(b"echo", [b"500", b"no"]))]


@pytest.mark.parametrize("dialect", [Dialect.MDP02, Dialect.MDP02D])
def test_clients_of_02_get_the_parts_as_they_come(house: House, dialect: Dialect) -> None:
    codec = LEGACY[dialect]
    house.worker(W)
    house.hear(C, *codec.c2b_request(b"echo", [b"x"]))
    house.said()
    house.part(W, number(2), b"a", b"b")
    house.part(W, number(2))
    house.answer(W, number(2))
    assert house.words() == [
        (C, *codec.b2c_partial(b"echo", [b"a", b"b"])),
        (C, *codec.b2c_partial(b"echo", [b""])),
        (C, *codec.b2c_final(b"echo", [b""])),
    ]


# workers of the RFCs


@pytest.mark.parametrize("dialect", RFC)
def test_rfc_worker_holds_one_request_at_a_time(house: House, dialect: Dialect) -> None:
    codec = LEGACY[dialect]
    is_ready(house, W, dialect)
    house.request(C, 1, b"x")
    house.request(C, 2, b"y")
    assert house.words() == [(W, *codec.b2w_request(handle(1), [b"x"]))]
    house.hear(W, *codec.w2b_final(b"echo", handle(1), [b"a"]))
    assert house.words() == [
        final(C, 1, b"a", worker=W),
        (W, *codec.b2w_request(handle(2), [b"y"])),
    ]


@pytest.mark.parametrize("dialect", RFC)
@pytest.mark.parametrize("service", [b"echo", b"time"])
def test_second_ready_gets_disconnect_and_the_work_is_queued_again(
    house: House, dialect: Dialect, service: bytes
) -> None:
    codec = LEGACY[dialect]
    is_ready(house, W, dialect)
    house.request(C, 1, b"x")
    house.said()
    house.hear(W, *codec.w2b_ready(service))
    assert house.words() == [(W, *codec.b2w_disconnect())]
    assert house.counts.dropped == {"second-ready": 1}
    house.worker(V)
    assert [word[:2] for word in house.words()] == [(V, "WELCOME"), (V, "REQUEST")]


@pytest.mark.parametrize("dialect", ALL)
def test_commands_of_an_unknown_worker_get_disconnect_and_its_disconnect_does_not(
    house: House, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    commands = [
        codec.w2b_heartbeat(b"echo", 0.5),
        codec.w2b_final(b"echo", handle(1), [b"x"]),
    ]
    for command in commands:
        house.hear(W, *command)
        assert house.words() == [(W, *codec.b2w_disconnect())]
    house.hear(W, *codec.w2b_disconnect(b"echo"))
    assert house.words() == []
    assert house.counts.dropped == {"unknown-worker": 2}


@pytest.mark.parametrize("dialect", [Dialect.MDP02, Dialect.MDP02D])
def test_part_of_an_unknown_worker_gets_disconnect(house: House, dialect: Dialect) -> None:
    codec = LEGACY[dialect]
    house.hear(W, *codec.w2b_partial(b"echo", handle(1), [b"x"]))
    assert house.words() == [(W, *codec.b2w_disconnect())]


@pytest.mark.parametrize("dialect", ALL)
@pytest.mark.parametrize("name", [b"mmi.service", b"mmi.anything"])
def test_worker_that_claims_a_name_of_the_management_gets_disconnect(
    house: House, dialect: Dialect, name: bytes
) -> None:
    codec = LEGACY[dialect]
    house.hear(W, *codec.w2b_ready(name))
    assert house.words() == [(W, *codec.b2w_disconnect())]
    assert house.machine.registry.workers == {}
    assert house.counts.dropped == {"reserved-service-name": 1}


@pytest.mark.parametrize("dialect", ALL)
def test_disconnect_of_a_worker_queues_its_work_again(house: House, dialect: Dialect) -> None:
    codec = LEGACY[dialect]
    is_ready(house, W, dialect)
    house.request(C, 1, b"x")
    house.said()
    house.hear(W, *codec.w2b_disconnect(b"echo"))
    assert house.words() == []
    is_ready(house, V, dialect)
    assert house.machine.registry.workers[V].held.keys() == {number(2)}


@pytest.mark.parametrize("dialect", ALL)
def test_rubbish_of_a_known_worker_gets_disconnect_in_its_dialect(
    house: House, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    is_ready(house, W, dialect)
    house.hear(W, b"hello")
    assert house.words() == [(W, *codec.b2w_disconnect())]
    assert house.counts.dropped == {"unrecognised": 1}
    house.hear(W, b"hello")
    assert house.words() == []


@pytest.mark.parametrize("dialect", ALL)
def test_worker_that_changes_its_dialect_is_lost(house: House, dialect: Dialect) -> None:
    codec = LEGACY[dialect]
    is_ready(house, W, dialect)
    other = LEGACY[Dialect.MDP02 if dialect is not Dialect.MDP02 else Dialect.MDP01]
    house.hear(W, *other.w2b_heartbeat(b"echo", None))
    assert house.words() == [(W, *codec.b2w_disconnect())]
    is_ready(house, W, dialect)
    house.worker(W)
    assert house.words() == [(W, *codec.b2w_disconnect())]
    assert house.counts.dropped == {"unknown-worker": 1, "changed-dialect": 1}


def test_parts_of_an_02_worker_reach_an_03_client(house: House) -> None:
    codec = LEGACY[Dialect.MDP02]
    is_ready(house, W, Dialect.MDP02)
    house.request(C, 1)
    house.said()
    house.hear(W, *codec.w2b_partial(b"echo", handle(1), [b"a"]))
    house.hear(W, *codec.w2b_final(b"echo", handle(1), [b"b"]))
    assert house.words() == [partial(C, 1, b"a"), final(C, 1, b"b", worker=W)]


def test_legacy_worker_gets_no_cancel(house: House) -> None:
    is_ready(house, W, Dialect.MDP02)
    house.request(C, 1)
    house.said()
    house.say(C, spec.CANCEL, id=1)
    assert house.words() == [final(C, 1, b"cancelled by the client", status=499)]


# Delphi


def test_delphi_worker_gets_any_number_of_requests_at_once(house: House) -> None:
    is_ready(house, W, Dialect.DELPHI)
    for id in range(1, 101):
        house.request(C, id, b"x")
    assert house.words() == [(W, *DELPHI.b2w_request(handle(n), [b"x"])) for n in range(1, 101)]


def test_delphi_ready_for_the_same_service_is_answered_again(house: House) -> None:
    is_ready(house, W, Dialect.DELPHI)
    house.request(C, 1, b"x")
    house.said()
    house.hear(W, *DELPHI.w2b_ready(b"echo"))
    assert house.words() == [(W, *DELPHI.b2w_ready(W))]
    house.hear(W, *DELPHI.w2b_final(b"echo", handle(1), [b"y"]))
    assert house.words() == [final(C, 1, b"y", worker=W)]


def test_delphi_ready_for_another_service_moves_the_worker(house: House) -> None:
    is_ready(house, W, Dialect.DELPHI)
    house.request(C, 1, b"x")
    house.request(C, 2, b"t", service=b"time")
    house.said()
    house.hear(W, *DELPHI.w2b_ready(b"time"))
    assert house.words() == [
        (W, *DELPHI.b2w_ready(W)),
        (W, *DELPHI.b2w_request(handle(2), [b"t"])),
    ]
    house.hear(W, *DELPHI.w2b_final(b"echo", handle(1), [b"from before"]))
    assert house.words() == []
    is_ready(house, V, Dialect.DELPHI)
    assert house.machine.registry.workers[V].held.keys() == {number(3)}


def test_delphi_worker_that_moves_to_a_reserved_name_is_sent_off(house: House) -> None:
    is_ready(house, W, Dialect.DELPHI)
    house.hear(W, *DELPHI.w2b_ready(b"mmi.x"))
    assert house.words() == [(W, *DELPHI.b2w_disconnect())]
    assert house.machine.registry.workers == {}


def test_delphi_reply_that_carries_its_handle_first_is_the_final_and_later_ones_are_counted(
    house: House,
) -> None:
    is_ready(house, W, Dialect.DELPHI)
    house.request(C, 1, b"x")
    house.said()
    for body in (b"first", b"later", b"later still"):
        house.hear(W, *DELPHI.w2b_final(b"echo", handle(1), [body]))
    assert house.words() == [final(C, 1, b"first", worker=W)]
    assert house.counts.dropped == {"event-without-presence": 2}


def test_reply_of_a_delphi_worker_answers_its_clients_oldest_unanswered_request(
    house: House,
) -> None:
    is_ready(house, W, Dialect.DELPHI)
    for body in (b"1", b"2"):
        house.hear(C, *DELPHI.c2b_request(b"echo", [body]))
    house.hear(D, *DELPHI.c2b_request(b"echo", [b"3"]))
    house.request(D, 7, b"4")
    address_c, address_d = house.handles[C], house.handles[D]
    assert house.words() == [
        (W, *DELPHI.b2w_request(address_c, [b"1"])),
        (W, *DELPHI.b2w_request(address_c, [b"2"])),
        (W, *DELPHI.b2w_request(address_d, [b"3"])),
        (W, *DELPHI.b2w_request(handle(7), [b"4"])),
    ]
    for address, body in (
        (address_d, b"c"),
        (address_c, b"a"),
        (handle(7), b"d"),
        (address_c, b"b"),
    ):
        house.hear(W, *DELPHI.w2b_final(b"echo", address, [body]))
    assert house.words() == [
        (D, *DELPHI.b2c_final(b"echo", [b"c"])),
        (C, *DELPHI.b2c_final(b"echo", [b"a"])),
        final(D, 7, b"d", worker=W),
        (C, *DELPHI.b2c_final(b"echo", [b"b"])),
    ]


def test_delphi_client_at_another_worker_has_a_handle_for_each_dispatch(house: House) -> None:
    """Only a Delphi worker takes the handle for the client; here a second request may overtake."""
    house.hear(V, *LEGACY[Dialect.MDP02].w2b_ready(b"echo"))
    house.hear(W, *LEGACY[Dialect.MDP02].w2b_ready(b"echo"))
    for body in (b"1", b"2"):
        house.hear(C, *DELPHI.c2b_request(b"echo", [body]))
    assert house.words() == [
        (V, *LEGACY[Dialect.MDP02].b2w_request(handle(2), [b"1"])),
        (W, *LEGACY[Dialect.MDP02].b2w_request(handle(4), [b"2"])),
    ]


def test_reply_without_the_delimiter_is_read_as_well(house: House) -> None:
    is_ready(house, W, Dialect.DELPHI)
    house.request(C, 1, b"x")
    house.said()
    told = [b"", b"\x04", b"echo", handle(1), b"y", b"z"]
    house.hear(W, *told, delphi.digest(told))
    assert house.words() == [final(C, 1, b"y", b"z", worker=W)]


def test_message_with_a_wrong_hash_is_dropped_and_nothing_more(house: House) -> None:
    is_ready(house, W, Dialect.DELPHI)
    for message in (DELPHI.c2b_request(b"echo", [b"x"]), DELPHI.w2b_ready(b"time")):
        house.hear(W, *message[:-1], b"\x00\x00\x00\x01")
        house.hear(C, *message[:-1], b"\x00\x00\x00\x00")
    assert house.words() == []
    assert house.counts.dropped == {"wrong-hash": 4}
    assert set(house.machine.registry.workers) == {W}


def test_hash_of_0_is_accepted_where_that_is_set(make_house: MakeHouse) -> None:
    house = make_house(delphi_unverified=True)
    house.worker(W)
    house.said()
    house.hear(C, *DELPHI.c2b_request(b"echo", [b"x"])[:-1], b"\x00\x00\x00\x00")
    house.hear(C, *DELPHI.c2b_request(b"echo", [b"y"])[:-1], b"\x00\x00\x00\x01")
    assert house.words() == [house.given(W, 2, C, b"x")]
    assert house.counts.dropped == {"wrong-hash": 1}


def test_hash_covers_the_frames_behind_an_envelope_alone(house: House) -> None:
    house.worker(W)
    house.said()
    house.hear(P, b"\x01\x00", *DELPHI.c2b_request(b"echo", [b"x"]))
    assert house.words() == [house.given(W, 2, P, b"x")]
    house.answer(W, number(2), b"y")
    assert house.words() == [(P, b"\x01\x00", *DELPHI.b2c_final(b"echo", [b"y"]))]


@pytest.mark.parametrize(
    ("text", "load"),
    [
        (b"0.42 0.31 0.20 1/345 6789\n", 0.42),
        (b"0,7", 0.7),
        (b"3\x00\xff\xfe" + b"\x00" * 1000, 3.0),
        (b"n/a", -1.0),
        (b"-0.5", -1.0),
    ],
)
def test_load_of_a_delphi_worker_is_its_first_token(house: House, text: bytes, load: float) -> None:
    is_ready(house, W, Dialect.DELPHI)
    said = [b"", b"\x02", b"echo", text]
    house.hear(W, *said, delphi.digest(said))
    worker = house.machine.registry.workers[W]
    assert worker.load == load
    house.hear(W, *DELPHI.w2b_heartbeat(b"echo", None))
    assert worker.load == load
    house.request(C, 1, b"x")
    assert len(house.words()) == (load != -1.0)


# one routing id, several dialects


def test_client_is_answered_in_the_dialect_of_each_request(house: House) -> None:
    house.worker(W, capacity=9)
    house.said()
    house.request(C, 1, b"x")
    for dialect in ALL:
        house.hear(C, *LEGACY[dialect].c2b_request(b"echo", [b"x"]))
    given = [word[2]["id"] for word in house.words()]
    for id in given:
        house.answer(W, id, b"y")
    assert house.words() == [
        final(C, 1, b"y", worker=W),
        *((C, *LEGACY[dialect].b2c_final(b"echo", [b"y"])) for dialect in ALL),
    ]


def test_one_connection_may_be_a_legacy_worker_and_a_client(house: House) -> None:
    codec = LEGACY[Dialect.MDP01]
    is_ready(house, W, Dialect.MDP01, b"time")
    house.worker(V)
    house.said()
    house.hear(W, *codec.c2b_request(b"echo", [b"x"]))
    assert house.words() == [house.given(V, 2, W, b"x")]
    house.hear(W, b"hello")
    assert house.words() == [cancel(V, 2), (W, *codec.b2w_disconnect())]


def test_answer_to_another_version_is_one_disconnect_at_a_limited_rate(house: House) -> None:
    for _ in range(5):
        house.hear(C, b"MDP\x04" + bytes(18))
    assert house.said() == [
        (
            C,
            [
                mdp03.pack(
                    spec.DISCONNECT, spec.BROKER_METADATA, metadata=b"\x81\xa8versions\x91\x03"
                )
            ],
        )
    ]
    house.pass_time(0.1)
    house.hear(D, b"MDP\x02")
    assert [peer for peer, _ in house.said()] == [D]
    assert house.counts.dropped == {"unsupported-version": 6}


def test_known_worker_that_speaks_another_version_is_lost(house: House) -> None:
    house.worker(W)
    house.request(C, 1)
    house.worker(V)
    house.said()
    house.hear(C, b"MDP\x04")
    house.hear(W, b"MDP\x04")
    assert [word[:2] for word in house.words()] == [
        (C, "DISCONNECT"),
        (V, "REQUEST"),
        (W, "DISCONNECT"),
    ]
