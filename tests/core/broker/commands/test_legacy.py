"""docs/spec: peers of MDP/0.1, MDP/0.2 in both framings, and Delphi at the broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.protocol import delphi, mdp03, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import BrokerHarness, cancel, final, handle, number, partial

C, D, P, V, W = b"client-c", b"client-d", b"proxy-p", b"worker-v", b"worker-w"
ALL = tuple(LEGACY)
RFC = (Dialect.MDP01, Dialect.MDP02, Dialect.MDP02D)
DELPHI = LEGACY[Dialect.DELPHI]
MakeHarness = Callable[..., BrokerHarness]


def frames(*texts: str) -> list[bytes]:
    """Frames as docs/spec writes vectors: hex, `-` for an empty frame."""
    return [b"" if text == "-" else bytes.fromhex(text) for text in texts]


def is_ready(
    harness: BrokerHarness, worker: bytes, dialect: Dialect, service: bytes = b"echo"
) -> None:
    harness.receive(worker, *LEGACY[dialect].w2b_ready(service))
    harness.sent()


# byte for byte, not by our codecs


def test_mdp01_conversation_on_the_wire(harness: BrokerHarness) -> None:
    harness.receive(W, b"", b"MDPW01", b"\x01", b"echo")
    harness.receive(C, b"", b"MDPC01", b"echo", b"a", b"b")
    assert harness.messages() == [(W, b"", b"MDPW01", b"\x02", handle(2), b"", b"a", b"b")]
    harness.receive(W, b"", b"MDPW01", b"\x03", handle(2), b"", b"c")
    assert harness.messages() == [(C, b"", b"MDPC01", b"echo", b"c")]
    harness.receive(W, b"", b"MDPW01", b"\x05")
    assert harness.machine.registry.workers == {}


def test_mdp02_conversation_on_the_wire(harness: BrokerHarness) -> None:
    harness.receive(W, b"MDPW02", b"\x01", b"echo")
    harness.receive(C, b"MDPC02", b"\x01", b"echo", b"a")
    assert harness.messages() == [(W, b"MDPW02", b"\x02", handle(2), b"", b"a")]
    harness.receive(W, b"MDPW02", b"\x03", handle(2), b"", b"part")
    harness.receive(W, b"MDPW02", b"\x04", handle(2), b"", b"end")
    assert harness.messages() == [
        (C, b"MDPC02", b"\x02", b"echo", b"part"),
        (C, b"MDPC02", b"\x03", b"echo", b"end"),
    ]
    harness.receive(W, b"MDPW02", b"\x06")
    assert harness.machine.registry.workers == {}


def test_delimited_mdp02_conversation_on_the_wire(harness: BrokerHarness) -> None:
    harness.receive(W, b"", b"MDPW02", b"\x01", b"echo")
    harness.receive(C, b"", b"MDPC02", b"\x02", b"echo", b"a")
    assert harness.messages() == [(W, b"", b"MDPW02", b"\x02", handle(2), b"", b"a")]
    harness.receive(W, b"", b"MDPW02", b"\x03", handle(2), b"", b"part")
    harness.receive(W, b"", b"MDPW02", b"\x04", handle(2), b"", b"end")
    assert harness.messages() == [
        (C, b"", b"MDPC02", b"\x03", b"part"),
        (C, b"", b"MDPC02", b"\x04", b"end"),
    ]


def test_delphi_vectors_of_the_protocol_page(harness: BrokerHarness) -> None:
    """READY, its answer to a worker whose id is 00 68 B4 56 7 as text, a CALL and its REPLY."""
    worker = bytes.fromhex("0068b4567a")
    harness.receive(worker, *frames("-", "01", "4d7953657276696365", "d39224de"))
    said = [b"", b"\x01", b"0068B4567A"]
    assert harness.messages() == [(worker, *said, delphi.digest(said))]
    harness.receive(
        C, *frames("-", "05", "4d7953657276696365", "48656c6c6f20576f726c64", "255e0e2a")
    )
    asked = [b"", b"\x05", harness.handles[C], b"", b"Hello World"]
    assert harness.messages() == [(worker, *asked, delphi.digest(asked))]
    told = [b"", b"\x04", b"MyService", harness.handles[C], b"Hi"]
    harness.receive(worker, *told, delphi.digest(told))
    assert harness.messages() == [(C, *frames("-", "05", "4d7953657276696365", "4869", "0f3e7b33"))]
    heartbeat = ("-", "02", "4d7953657276696365",
                 "302e343220302e333120302e323020312f33343520363738390a", "ca8b5550")  # fmt: skip
    harness.receive(worker, *frames(*heartbeat))
    assert harness.machine.registry.workers[worker].load == 0.42
    harness.pass_time(2.6)
    assert harness.messages() == [(worker, *frames("-", "02", "191f16ee"))]


# errors: silence, or one reply


@pytest.mark.parametrize("dialect", ALL)
def test_failure_is_silence_and_counted(harness: BrokerHarness, dialect: Dialect) -> None:
    harness.worker(W)
    harness.receive(C, *LEGACY[dialect].c2b_request(b"echo", [b"x"]))
    harness.sent()
    harness.answer(W, number(2), b"ValueError", status=500)
    assert harness.messages() == []
    assert (harness.counts.failed, harness.counts.unanswered) == (1, 1)


@pytest.mark.parametrize("dialect", ALL)
def test_failure_is_one_reply_where_that_is_set(
    make_harness: MakeHarness, dialect: Dialect
) -> None:
    harness = make_harness(legacy_errors="reply", default_ttl=1.0)
    codec = LEGACY[dialect]
    harness.worker(W, capacity=9)
    for _ in range(4):
        harness.receive(C, *codec.c2b_request(b"echo", [b"x"]))
    harness.sent()
    harness.answer(W, number(2), b"ValueError", b"more", status=500)
    harness.answer(W, number(4), status=418)
    harness.part(W, number(6), b"part")
    harness.leave(W)
    harness.pass_time(1.1)
    parts = [] if dialect in (Dialect.MDP01, Dialect.DELPHI) else [codec.b2c_partial]
    assert harness.messages() == [
        (C, *codec.b2c_final(b"echo", [b"500", b"ValueError"])),
        (C, *codec.b2c_final(b"echo", [b"418", b""])),
        *((C, *write(b"echo", [b"part"])) for write in parts),
        (C, *codec.b2c_final(b"echo", [b"502", b"worker lost (left) at attempt 1"])),
        (C, *codec.b2c_final(
            b"echo", [b"408", b"'echo' did not answer within 1 s; it was in the queue"])),
    ]  # fmt: skip
    assert harness.counts.unanswered == 0


@pytest.mark.parametrize("dialect", ALL)
def test_legacy_client_behind_an_envelope_gets_it_back(
    make_harness: MakeHarness, dialect: Dialect
) -> None:
    harness = make_harness(legacy_errors="reply")
    codec, envelope = LEGACY[dialect], [b"\x01\x02", b"relay"]
    harness.worker(W)
    harness.sent()
    for _ in range(2):
        harness.receive(P, *envelope, *codec.c2b_request(b"echo", [b"x"]))
    harness.answer(W, number(2), b"y")
    harness.answer(W, number(4), b"no", status=500)
    assert [word for word in harness.messages() if word[0] == P] == [
        (P, *envelope, *codec.b2c_final(b"echo", [b"y"])),
        (P, *envelope, *codec.b2c_final(b"echo", [b"500", b"no"])),
    ]


@pytest.mark.parametrize("dialect", ALL)
def test_worker_behind_an_envelope_gets_disconnect(
    harness: BrokerHarness, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    harness.receive(P, b"relay", *codec.w2b_ready(b"echo"))
    assert harness.messages() == [(P, b"relay", *codec.b2w_disconnect())]
    assert harness.machine.registry.workers == {}
    assert harness.counts.dropped == {"worker-behind-envelope": 1}


# clients that know only one reply


@pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.DELPHI])
def test_parts_are_joined_into_the_one_reply(harness: BrokerHarness, dialect: Dialect) -> None:
    codec = LEGACY[dialect]
    harness.worker(W)
    harness.receive(C, *codec.c2b_request(b"echo", [b"x"]))
    harness.sent()
    harness.part(W, number(2), b"a", b"b")
    harness.part(W, number(2))
    harness.part(W, number(2), b"c")
    assert harness.messages() == []
    harness.answer(W, number(2), b"d")
    assert harness.messages() == [(C, *codec.b2c_final(b"echo", [b"a", b"b", b"c", b"d"]))]


@pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.DELPHI])
def test_parts_of_what_then_failed_are_not_told(
    make_harness: MakeHarness, dialect: Dialect
) -> None:
    harness = make_harness(legacy_errors="reply")
    codec = LEGACY[dialect]
    harness.worker(W)
    harness.receive(C, *codec.c2b_request(b"echo", [b"x"]))
    harness.sent()
    harness.part(W, number(2), b"a")
    harness.answer(W, number(2), b"no", status=500)
    assert harness.messages() == [(C, *codec.b2c_final(b"echo", [b"500", b"no"]))]


@pytest.mark.parametrize("dialect", [Dialect.MDP02, Dialect.MDP02D])
def test_clients_of_02_get_the_parts_as_they_come(harness: BrokerHarness, dialect: Dialect) -> None:
    codec = LEGACY[dialect]
    harness.worker(W)
    harness.receive(C, *codec.c2b_request(b"echo", [b"x"]))
    harness.sent()
    harness.part(W, number(2), b"a", b"b")
    harness.part(W, number(2))
    harness.answer(W, number(2))
    assert harness.messages() == [
        (C, *codec.b2c_partial(b"echo", [b"a", b"b"])),
        (C, *codec.b2c_partial(b"echo", [b""])),
        (C, *codec.b2c_final(b"echo", [b""])),
    ]


# workers of the RFCs


@pytest.mark.parametrize("dialect", RFC)
def test_rfc_worker_holds_one_request_at_a_time(harness: BrokerHarness, dialect: Dialect) -> None:
    codec = LEGACY[dialect]
    is_ready(harness, W, dialect)
    harness.request(C, 1, b"x")
    harness.request(C, 2, b"y")
    assert harness.messages() == [(W, *codec.b2w_request(handle(1), [b"x"]))]
    harness.receive(W, *codec.w2b_final(b"echo", handle(1), [b"a"]))
    assert harness.messages() == [
        final(C, 1, b"a", worker=W),
        (W, *codec.b2w_request(handle(2), [b"y"])),
    ]


@pytest.mark.parametrize("dialect", RFC)
@pytest.mark.parametrize("service", [b"echo", b"time"])
def test_second_ready_gets_disconnect_and_the_work_is_queued_again(
    harness: BrokerHarness, dialect: Dialect, service: bytes
) -> None:
    codec = LEGACY[dialect]
    is_ready(harness, W, dialect)
    harness.request(C, 1, b"x")
    harness.sent()
    harness.receive(W, *codec.w2b_ready(service))
    assert harness.messages() == [(W, *codec.b2w_disconnect())]
    assert harness.counts.dropped == {"second-ready": 1}
    harness.worker(V)
    assert [word[:2] for word in harness.messages()] == [(V, "WELCOME"), (V, "REQUEST")]


@pytest.mark.parametrize("dialect", ALL)
def test_commands_of_an_unknown_worker_get_disconnect_and_its_disconnect_does_not(
    harness: BrokerHarness, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    commands = [
        codec.w2b_heartbeat(b"echo", 0.5),
        codec.w2b_final(b"echo", handle(1), [b"x"]),
    ]
    for command in commands:
        harness.receive(W, *command)
        assert harness.messages() == [(W, *codec.b2w_disconnect())]
    harness.receive(W, *codec.w2b_disconnect(b"echo"))
    assert harness.messages() == []
    assert harness.counts.dropped == {"unknown-worker": 2}


@pytest.mark.parametrize("dialect", [Dialect.MDP02, Dialect.MDP02D])
def test_part_of_an_unknown_worker_gets_disconnect(
    harness: BrokerHarness, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    harness.receive(W, *codec.w2b_partial(b"echo", handle(1), [b"x"]))
    assert harness.messages() == [(W, *codec.b2w_disconnect())]


@pytest.mark.parametrize("dialect", ALL)
@pytest.mark.parametrize("name", [b"mmi.service", b"mmi.anything"])
def test_worker_that_claims_a_name_of_the_management_gets_disconnect(
    harness: BrokerHarness, dialect: Dialect, name: bytes
) -> None:
    codec = LEGACY[dialect]
    harness.receive(W, *codec.w2b_ready(name))
    assert harness.messages() == [(W, *codec.b2w_disconnect())]
    assert harness.machine.registry.workers == {}
    assert harness.counts.dropped == {"reserved-service-name": 1}


@pytest.mark.parametrize("dialect", ALL)
def test_disconnect_of_a_worker_queues_its_work_again(
    harness: BrokerHarness, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    is_ready(harness, W, dialect)
    harness.request(C, 1, b"x")
    harness.sent()
    harness.receive(W, *codec.w2b_disconnect(b"echo"))
    assert harness.messages() == []
    is_ready(harness, V, dialect)
    assert harness.machine.registry.workers[V].held.keys() == {number(2)}


@pytest.mark.parametrize("dialect", ALL)
def test_rubbish_of_a_known_worker_gets_disconnect_in_its_dialect(
    harness: BrokerHarness, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    is_ready(harness, W, dialect)
    harness.receive(W, b"hello")
    assert harness.messages() == [(W, *codec.b2w_disconnect())]
    assert harness.counts.dropped == {"unrecognised": 1}
    harness.receive(W, b"hello")
    assert harness.messages() == []


@pytest.mark.parametrize("dialect", ALL)
def test_worker_that_changes_its_dialect_is_lost(harness: BrokerHarness, dialect: Dialect) -> None:
    codec = LEGACY[dialect]
    is_ready(harness, W, dialect)
    other = LEGACY[Dialect.MDP02 if dialect is not Dialect.MDP02 else Dialect.MDP01]
    harness.receive(W, *other.w2b_heartbeat(b"echo", None))
    assert harness.messages() == [(W, *codec.b2w_disconnect())]
    is_ready(harness, W, dialect)
    harness.worker(W)
    assert harness.messages() == [(W, *codec.b2w_disconnect())]
    assert harness.counts.dropped == {"unknown-worker": 1, "changed-dialect": 1}


def test_parts_of_an_02_worker_reach_an_03_client(harness: BrokerHarness) -> None:
    codec = LEGACY[Dialect.MDP02]
    is_ready(harness, W, Dialect.MDP02)
    harness.request(C, 1)
    harness.sent()
    harness.receive(W, *codec.w2b_partial(b"echo", handle(1), [b"a"]))
    harness.receive(W, *codec.w2b_final(b"echo", handle(1), [b"b"]))
    assert harness.messages() == [partial(C, 1, b"a"), final(C, 1, b"b", worker=W)]


def test_legacy_worker_gets_no_cancel(harness: BrokerHarness) -> None:
    is_ready(harness, W, Dialect.MDP02)
    harness.request(C, 1)
    harness.sent()
    harness.receive_03(C, spec.CANCEL, id=1)
    assert harness.messages() == [final(C, 1, b"cancelled by the client", status=499)]


# Delphi


def test_delphi_worker_gets_any_number_of_requests_at_once(harness: BrokerHarness) -> None:
    is_ready(harness, W, Dialect.DELPHI)
    for id in range(1, 101):
        harness.request(C, id, b"x")
    assert harness.messages() == [
        (W, *DELPHI.b2w_request(handle(n), [b"x"])) for n in range(1, 101)
    ]


def test_delphi_ready_for_the_same_service_is_answered_again(harness: BrokerHarness) -> None:
    is_ready(harness, W, Dialect.DELPHI)
    harness.request(C, 1, b"x")
    harness.sent()
    harness.receive(W, *DELPHI.w2b_ready(b"echo"))
    assert harness.messages() == [(W, *DELPHI.b2w_ready(W))]
    harness.receive(W, *DELPHI.w2b_final(b"echo", handle(1), [b"y"]))
    assert harness.messages() == [final(C, 1, b"y", worker=W)]


def test_delphi_ready_for_another_service_moves_the_worker(harness: BrokerHarness) -> None:
    is_ready(harness, W, Dialect.DELPHI)
    harness.request(C, 1, b"x")
    harness.request(C, 2, b"t", service=b"time")
    harness.sent()
    harness.receive(W, *DELPHI.w2b_ready(b"time"))
    assert harness.messages() == [
        (W, *DELPHI.b2w_ready(W)),
        (W, *DELPHI.b2w_request(handle(2), [b"t"])),
    ]
    harness.receive(W, *DELPHI.w2b_final(b"echo", handle(1), [b"from before"]))
    assert harness.messages() == []
    is_ready(harness, V, Dialect.DELPHI)
    assert harness.machine.registry.workers[V].held.keys() == {number(3)}


def test_delphi_worker_that_moves_to_a_reserved_name_is_sent_off(harness: BrokerHarness) -> None:
    is_ready(harness, W, Dialect.DELPHI)
    harness.receive(W, *DELPHI.w2b_ready(b"mmi.x"))
    assert harness.messages() == [(W, *DELPHI.b2w_disconnect())]
    assert harness.machine.registry.workers == {}


def test_delphi_reply_that_carries_its_handle_first_is_the_final_and_later_ones_are_counted(
    harness: BrokerHarness,
) -> None:
    is_ready(harness, W, Dialect.DELPHI)
    harness.request(C, 1, b"x")
    harness.sent()
    for body in (b"first", b"later", b"later still"):
        harness.receive(W, *DELPHI.w2b_final(b"echo", handle(1), [body]))
    assert harness.messages() == [final(C, 1, b"first", worker=W)]
    assert harness.counts.dropped == {"event-without-presence": 2}


def test_reply_of_a_delphi_worker_answers_its_clients_oldest_unanswered_request(
    harness: BrokerHarness,
) -> None:
    is_ready(harness, W, Dialect.DELPHI)
    for body in (b"1", b"2"):
        harness.receive(C, *DELPHI.c2b_request(b"echo", [body]))
    harness.receive(D, *DELPHI.c2b_request(b"echo", [b"3"]))
    harness.request(D, 7, b"4")
    address_c, address_d = harness.handles[C], harness.handles[D]
    assert harness.messages() == [
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
        harness.receive(W, *DELPHI.w2b_final(b"echo", address, [body]))
    assert harness.messages() == [
        (D, *DELPHI.b2c_final(b"echo", [b"c"])),
        (C, *DELPHI.b2c_final(b"echo", [b"a"])),
        final(D, 7, b"d", worker=W),
        (C, *DELPHI.b2c_final(b"echo", [b"b"])),
    ]


def test_delphi_client_at_another_worker_has_a_handle_for_each_dispatch(
    harness: BrokerHarness,
) -> None:
    """Only a Delphi worker takes the handle for the client; here a second request may overtake."""
    harness.receive(V, *LEGACY[Dialect.MDP02].w2b_ready(b"echo"))
    harness.receive(W, *LEGACY[Dialect.MDP02].w2b_ready(b"echo"))
    for body in (b"1", b"2"):
        harness.receive(C, *DELPHI.c2b_request(b"echo", [body]))
    assert harness.messages() == [
        (V, *LEGACY[Dialect.MDP02].b2w_request(handle(2), [b"1"])),
        (W, *LEGACY[Dialect.MDP02].b2w_request(handle(4), [b"2"])),
    ]


def test_reply_without_the_delimiter_is_read_as_well(harness: BrokerHarness) -> None:
    is_ready(harness, W, Dialect.DELPHI)
    harness.request(C, 1, b"x")
    harness.sent()
    told = [b"", b"\x04", b"echo", handle(1), b"y", b"z"]
    harness.receive(W, *told, delphi.digest(told))
    assert harness.messages() == [final(C, 1, b"y", b"z", worker=W)]


def test_message_with_a_wrong_hash_is_dropped_and_nothing_more(harness: BrokerHarness) -> None:
    is_ready(harness, W, Dialect.DELPHI)
    for message in (DELPHI.c2b_request(b"echo", [b"x"]), DELPHI.w2b_ready(b"time")):
        harness.receive(W, *message[:-1], b"\x00\x00\x00\x01")
        harness.receive(C, *message[:-1], b"\x00\x00\x00\x00")
    assert harness.messages() == []
    assert harness.counts.dropped == {"wrong-hash": 4}
    assert set(harness.machine.registry.workers) == {W}


def test_hash_of_0_is_accepted_where_that_is_set(make_harness: MakeHarness) -> None:
    harness = make_harness(delphi_unverified=True)
    harness.worker(W)
    harness.sent()
    harness.receive(C, *DELPHI.c2b_request(b"echo", [b"x"])[:-1], b"\x00\x00\x00\x00")
    harness.receive(C, *DELPHI.c2b_request(b"echo", [b"y"])[:-1], b"\x00\x00\x00\x01")
    assert harness.messages() == [harness.request_to(W, 2, C, b"x")]
    assert harness.counts.dropped == {"wrong-hash": 1}


def test_hash_covers_the_frames_behind_an_envelope_alone(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    harness.receive(P, b"\x01\x00", *DELPHI.c2b_request(b"echo", [b"x"]))
    assert harness.messages() == [harness.request_to(W, 2, P, b"x")]
    harness.answer(W, number(2), b"y")
    assert harness.messages() == [(P, b"\x01\x00", *DELPHI.b2c_final(b"echo", [b"y"]))]


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
def test_load_of_a_delphi_worker_is_its_first_token(
    harness: BrokerHarness, text: bytes, load: float
) -> None:
    is_ready(harness, W, Dialect.DELPHI)
    said = [b"", b"\x02", b"echo", text]
    harness.receive(W, *said, delphi.digest(said))
    worker = harness.machine.registry.workers[W]
    assert worker.load == load
    harness.receive(W, *DELPHI.w2b_heartbeat(b"echo", None))
    assert worker.load == load
    harness.request(C, 1, b"x")
    assert len(harness.messages()) == (load != -1.0)


# one routing id, several dialects


def test_client_is_answered_in_the_dialect_of_each_request(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=9)
    harness.sent()
    harness.request(C, 1, b"x")
    for dialect in ALL:
        harness.receive(C, *LEGACY[dialect].c2b_request(b"echo", [b"x"]))
    given = [word[2]["id"] for word in harness.messages()]
    for id in given:
        harness.answer(W, id, b"y")
    assert harness.messages() == [
        final(C, 1, b"y", worker=W),
        *((C, *LEGACY[dialect].b2c_final(b"echo", [b"y"])) for dialect in ALL),
    ]


def test_one_connection_may_be_a_legacy_worker_and_a_client(harness: BrokerHarness) -> None:
    codec = LEGACY[Dialect.MDP01]
    is_ready(harness, W, Dialect.MDP01, b"time")
    harness.worker(V)
    harness.sent()
    harness.receive(W, *codec.c2b_request(b"echo", [b"x"]))
    assert harness.messages() == [harness.request_to(V, 2, W, b"x")]
    harness.receive(W, b"hello")
    assert harness.messages() == [cancel(V, 2), (W, *codec.b2w_disconnect())]


def test_answer_to_another_version_is_one_disconnect_at_a_limited_rate(
    harness: BrokerHarness,
) -> None:
    for _ in range(5):
        harness.receive(C, b"MDP\x04" + bytes(18))
    assert harness.sent() == [
        (
            C,
            [
                mdp03.pack(
                    spec.DISCONNECT, spec.BROKER_METADATA, metadata=b"\x81\xa8versions\x91\x03"
                )
            ],
        )
    ]
    harness.pass_time(0.1)
    harness.receive(D, b"MDP\x02")
    assert [peer for peer, _ in harness.sent()] == [D]
    assert harness.counts.dropped == {"unsupported-version": 6}


def test_known_worker_that_speaks_another_version_is_lost(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.worker(V)
    harness.sent()
    harness.receive(C, b"MDP\x04")
    harness.receive(W, b"MDP\x04")
    assert [word[:2] for word in harness.messages()] == [
        (C, "DISCONNECT"),
        (V, "REQUEST"),
        (W, "DISCONNECT"),
    ]
