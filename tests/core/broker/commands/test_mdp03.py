"""What MDP/0.3 peers say to the broker and hear from it, command by command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import (
    House,
    cancel,
    disconnect,
    final,
    number,
    partial,
    read_03,
    welcome,
)

C, D, P, V, W = b"client-c", b"client-d", b"proxy-p", b"worker-v", b"worker-w"
MakeHouse = Callable[..., House]


def enveloped(command: int, *body: bytes, **fields: Any) -> list[bytes]:
    return [b"\x00req", b"", mdp03.pack(command, **fields), *body]


# the vectors of docs/spec/mdp-0.3.md


def test_call_of_the_vectors_on_the_wire(house: House) -> None:
    worker = b"\x0a\x01"
    house.hear(worker, bytes.fromhex("4d44500301000008000000000000000000000000046563686f00"))
    house.said()
    ask = bytes.fromhex("4d44500302000000000000000000000100001388046563686f00")
    house.hear(C, ask, b"x")
    (said,) = house.said()
    header = bytes.fromhex("4d44500302000000800000000000000100001388046563686f10")
    assert said == (worker, [header + house.handles[C], b"x"])
    house.hear(worker, bytes.fromhex("4d445003040000c88000000000000001000000000000"), b"y")
    told = bytes.fromhex("4d445003040000c800000000000000010000000000020a01")
    assert house.said() == [(C, [told, b"y"])]


# READY, WELCOME


def test_first_ready_is_answered_with_welcome_and_later_ones_are_not(house: House) -> None:
    house.worker(W, b"echo")
    assert house.words() == [welcome(W)]
    house.worker(W, b"time")
    house.worker(W, b"echo", capacity=3)
    assert house.words() == []
    worker = house.machine.registry.workers[W]
    assert (worker.capacity, list(worker.services)) == (3, [b"echo", b"time"])


def test_ready_for_a_known_service_updates_its_metadata(house: House) -> None:
    for version in ("1", "2"):
        field = metadata.pack({"version": version})
        house.say(W, spec.READY, flags=1, code=1, service=b"echo", metadata=field)
    assert house.machine.registry.workers[W].metadata == {b"echo": field}


def test_one_worker_serves_several_services_within_one_capacity(house: House) -> None:
    house.worker(W, b"echo")
    house.worker(W, b"time")
    house.said()
    house.request(C, 1, service=b"time")
    house.request(C, 2, service=b"echo")
    assert house.words() == [house.given(W, 1, C, service=b"time")]
    house.answer(W, number(1))
    assert house.words() == [final(C, 1, worker=W), house.given(W, 2, C)]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"", "bad-service-name"),
        (b"\xff", "bad-service-name"),
        (b"mmi.service", "reserved-service-name"),
    ],
)
def test_ready_for_a_name_that_cannot_be_served_gets_disconnect(
    house: House, name: bytes, reason: str
) -> None:
    house.worker(V)
    house.said()
    for worker in (V, W):
        house.worker(worker, name)
        assert house.words() == [disconnect(worker)]
    assert house.counts.dropped == {reason: 2}
    assert house.machine.registry.workers == {}


def test_ready_without_capacity_is_malformed(house: House) -> None:
    house.worker(W, capacity=0)
    assert house.words() == []
    house.worker(W)
    house.said()
    house.worker(W, capacity=0)
    assert house.words() == [disconnect(W)]
    assert house.counts.dropped == {"no-capacity": 2}


@pytest.mark.parametrize("command", [spec.READY, spec.HELLO])
def test_malformed_metadata_outside_a_request_are_dropped(house: House, command: int) -> None:
    house.say(W, command, flags=1, code=1 if command == spec.READY else 0, metadata=b"\xc1",
              service=b"echo" if command == spec.READY else b"")  # fmt: skip
    assert house.words() == []
    assert house.counts.dropped == {"bad-metadata": 1}


# HELLO


def test_every_hello_is_answered_with_welcome(house: House) -> None:
    for _ in range(2):
        house.say(C, spec.HELLO, flags=1, metadata=metadata.pack({"token": "t0"}))
    assert house.words() == [welcome(C, 30_000)] * 2
    assert [fact for fact, _ in house.facts] == ["client-present"]


def test_hello_of_a_worker_is_answered_with_the_workers_interval(house: House) -> None:
    house.worker(W)
    house.said()
    house.say(W, spec.HELLO)
    assert house.words() == [welcome(W, 2500)]


def test_client_that_was_of_an_older_dialect_is_told_in_03_when_it_is_lost(house: House) -> None:
    house.hear(C, *LEGACY[Dialect.MDP01].c2b_request(b"mmi.service", [b"x"]))
    house.say(C, spec.HELLO)
    house.pass_time(61)
    house.said()
    house.pass_time(30)
    assert house.words() == [disconnect(C)]


# REQUEST


def test_resend_of_an_open_request_is_dropped_and_counted(house: House) -> None:
    house.worker(W, capacity=2)
    house.request(C, 1, b"x")
    house.said()
    house.request(C, 1, b"x")
    assert house.words() == []
    assert house.counts.dropped == {"resend": 1}
    house.answer(W, number(1), b"y")
    assert house.words() == [final(C, 1, b"y", worker=W)]


def test_id_with_bit_63_is_the_brokers(house: House) -> None:
    house.request(C, number(1))
    text = b"bit 63 of an id is the broker's"
    assert house.words() == [final(C, number(1), text, status=400)]


def test_request_with_the_largest_id_is_served(house: House) -> None:
    house.worker(W)
    house.request(C, spec.BROKER_ID_BIT - 1)
    house.said()
    house.answer(W, number(1))
    assert house.words() == [final(C, spec.BROKER_ID_BIT - 1, worker=W)]


def test_request_without_an_id_is_dropped_unless_it_is_one_way(house: House) -> None:
    house.request(C, 0)
    assert house.words() == []
    assert house.counts.dropped == {"no-id": 1}


def test_flags_and_metadata_of_the_sender_are_passed_on_unchanged(house: House) -> None:
    """The map in another order and encoding than ours would be: 32-bit map, 32-bit float."""
    house.worker(W)
    house.said()
    field = b"\xdf\x00\x00\x00\x02\xa4type\xa1x\xa1f\xca\x3f\x80\x00\x00"
    flags = spec.METADATA | spec.ONCE
    house.request(C, 1, b"x", flags=flags | spec.FAIL_FAST, metadata=field)
    assert house.words() == [house.given(W, 1, C, b"x", flags=flags, metadata=field)]


def test_metadata_of_an_answer_are_passed_on_and_its_other_flags_are_not(house: House) -> None:
    house.worker(W)
    house.request(C, 1)
    house.said()
    field = metadata.pack({"type": "x"})
    flags = spec.METADATA | spec.MORE | spec.ONCE
    house.part(W, number(1), b"a", flags=flags, metadata=field)
    house.say(W, spec.FINAL, b"b", id=number(1), code=200, flags=flags, metadata=field)
    told = {"flags": spec.METADATA, "metadata": field}
    assert house.words() == [partial(C, 1, b"a", **told), final(C, 1, b"b", worker=W, **told)]


@pytest.mark.parametrize("command", [spec.PARTIAL, spec.FINAL])
def test_malformed_metadata_of_an_answer_cost_the_worker_its_registration(
    house: House, command: int
) -> None:
    house.worker(W)
    house.request(C, 1)
    house.said()
    house.say(W, command, id=number(1), code=200, flags=1, metadata=b"\xc1")
    assert house.words() == [disconnect(W)]
    assert (house.counts.retried, house.machine.registry.queued) == (1, 1)


TOKENS = {
    "alone": (b"\x81\xa5token\xa1t", b""),
    "first": (b"\x82\xa5token\xa1t\xa4type\xa1x", b"\x81\xa4type\xa1x"),
    "last": (b"\x82\xa4type\xa1x\xa5token\xa1t", b"\x81\xa4type\xa1x"),
    "of sixteen": (
        b"\xde\x00\x10" + b"".join(b"\xa1%c\x01" % n for n in range(97, 112)) + b"\xa5token\xc0",
        b"\x8f" + b"".join(b"\xa1%c\x01" % n for n in range(97, 112)),
    ),
    "written at length": (b"\xdf\x00\x00\x00\x02\xd9\x05token\xc4\x01t\xa1a\xcd\x00\x01",
                          b"\x81\xa1a\xcd\x00\x01"),
}  # fmt: skip


@pytest.mark.parametrize("where", TOKENS)
def test_token_is_taken_out_of_a_request_and_the_rest_stays_byte_for_byte(
    house: House, where: str
) -> None:
    field, rest = TOKENS[where]
    house.worker(W)
    house.said()
    house.request(C, 1, flags=spec.METADATA, metadata=field)
    extra = {"flags": spec.METADATA, "metadata": rest} if rest else {}
    assert house.words() == [house.given(W, 1, C, **extra)]


def test_metadata_that_would_be_longer_if_they_were_written_anew_lose_their_token(
    house: House,
) -> None:
    """Four-byte floats would become eight-byte ones, and the map more than 4 KiB."""
    floats = b"\xa1f\xdc\x03\x00" + b"\xca\x3f\x80\x00\x00" * 768
    house.worker(W)
    house.said()
    house.request(C, 1, flags=spec.METADATA, metadata=b"\x82" + floats + b"\xa5token\xa1t")
    extra = {"flags": spec.METADATA, "metadata": b"\x81" + floats}
    assert house.words() == [house.given(W, 1, C, **extra)]


def test_second_attempt_is_told_in_the_brokers_map_before_the_senders(house: House) -> None:
    field = metadata.pack({"type": "x"})
    house.worker(V)
    house.request(C, 1, b"x", flags=spec.METADATA, metadata=field)
    house.said()
    house.leave(V)
    house.worker(W)
    flags = spec.METADATA | spec.BROKER_METADATA
    both = metadata.pack({"attempt": 2}) + field
    assert house.words() == [welcome(W), house.given(W, 2, C, b"x", flags=flags, metadata=both)]


def test_handle_is_the_same_for_all_requests_of_a_client_and_no_one_elses(house: House) -> None:
    house.worker(W, capacity=9)
    house.said()
    for client, id in ((C, 1), (C, 2), (D, 1)):
        house.request(client, id)
    addresses = [word[2]["address"] for word in house.words()]
    assert addresses == [house.handles[C], house.handles[C], house.handles[D]]
    assert house.handles[C] != house.handles[D]


def test_one_connection_may_be_client_and_worker_at_once(house: House) -> None:
    house.worker(W)
    house.said()
    house.request(W, 1, b"to myself")
    assert house.words() == [house.given(W, 1, W, b"to myself")]
    house.answer(W, number(1), b"from myself")
    assert house.words() == [final(W, 1, b"from myself", worker=W)]


# DISCONNECT, CAPACITY


def test_disconnect_is_not_answered(house: House) -> None:
    house.worker(W)
    house.say(C, spec.HELLO)
    house.said()
    for peer in (W, C, D):
        house.leave(peer)
    assert house.words() == []
    assert (house.machine.registry.peers, house.counts.dropped) == ({}, {})


def test_broker_that_drains_tells_all_who_have_a_word_for_it(house: House) -> None:
    house.worker(W)
    house.hear(V, *LEGACY[Dialect.MDP01].w2b_ready(b"echo"))
    house.say(C, spec.HELLO)
    house.request(D, 1)
    house.said()
    house.machine.drain(house.now)
    assert not house.machine.drained
    house.turn()
    capacity = ("CAPACITY", {}, [])
    assert house.words() == [(W, *capacity), (C, *capacity)]


def test_newcomers_are_told_that_the_broker_drains(house: House) -> None:
    house.machine.drain(house.now)
    house.worker(W)
    house.say(C, spec.HELLO)
    capacity = ("CAPACITY", {}, [])
    assert house.words() == [welcome(W), (W, *capacity), welcome(C, 30_000), (C, *capacity)]


def test_open_conversations_go_on_while_the_broker_drains(house: House) -> None:
    house.worker(W)
    house.request(C, 1, b"x")
    house.request(C, 2, b"y")
    house.machine.drain(house.now)
    house.turn()
    house.said()
    house.answer(W, number(1))
    house.answer(W, number(2))
    assert [word[1] for word in house.words()] == ["FINAL", "REQUEST", "FINAL"]
    assert house.machine.drained


def test_close_disconnects_workers_and_present_clients_each_in_its_dialect(house: House) -> None:
    house.worker(W)
    house.hear(V, *LEGACY[Dialect.MDP01].w2b_ready(b"echo"))
    house.say(C, spec.HELLO)
    house.request(D, 1, service=b"mmi.service")
    house.said()
    house.machine.close(house.now)
    house.turn()
    assert house.words() == [
        disconnect(W),
        (V, *LEGACY[Dialect.MDP01].b2w_disconnect()),
        disconnect(C),
    ]


# what is unknown, or not there yet


@pytest.mark.parametrize("command", [0, 16, 99, 255])
def test_unknown_command_is_answered_501_if_it_has_an_id_and_counted(
    house: House, command: int
) -> None:
    house.say(C, command, id=5)
    house.say(C, command)
    text = b"not implemented: command %d" % command
    assert house.words() == [final(C, 5, text, status=501)]
    assert house.counts.dropped == {"unknown-command": 2}


def test_welcome_is_not_for_a_broker(house: House) -> None:
    house.worker(W)
    house.said()
    for peer in (C, W):
        house.say(peer, spec.WELCOME, id=5)
    assert house.words() == [disconnect(W)]
    assert house.counts.dropped == {"wrong-direction": 2}


FORGED = [c for c in spec.COMMAND_NAMES if c not in (spec.REQUEST, spec.WELCOME)]


@pytest.mark.parametrize("command", FORGED)
def test_broker_metadata_of_a_peer_are_a_forgery_in_any_command(house: House, command: int) -> None:
    house.worker(W)
    house.request(C, 1)
    house.said()
    forged = {"flags": spec.BROKER_METADATA, "metadata": metadata.pack({"user": "root"})}
    fields = {"code": 1, "service": b"echo", **forged}
    house.say(D, command, **fields)
    assert house.words() == []
    house.say(W, command, id=number(1), **fields)
    assert house.words() == [disconnect(W)]
    assert house.counts.dropped == {"forged-metadata": 2}


CRITICAL = [c for c in (*spec.COMMAND_NAMES, 99) if c != spec.REQUEST]


@pytest.mark.parametrize("command", CRITICAL)
def test_critical_flag_is_answered_501_and_nothing_else_happens(house: House, command: int) -> None:
    """ "Whoever does not know what it means answers 501." """
    fields = {"flags": spec.CRITICAL, "code": 1, "service": b"echo"}
    house.say(D, command, id=5, **fields)
    house.say(D, command, **fields)
    text = b"not implemented: a flag that this broker does not know"
    assert house.words() == [final(D, 5, text, status=501)]
    assert house.counts.dropped == {"critical-flag": 2}
    assert set(house.machine.registry.workers) == set()


@pytest.mark.parametrize("command", [spec.FINAL, spec.PARTIAL, spec.REJECT])
def test_reply_that_nobody_understands_fails_its_request(house: House, command: int) -> None:
    house.worker(W)
    house.request(C, 1)
    house.request(C, 2)
    house.said()
    house.say(W, command, b"?", id=number(1), code=200, flags=spec.CRITICAL)
    text = b"not implemented: a flag that this broker does not know"
    next_one = [house.given(W, 2, C)] if command != spec.PARTIAL else []
    assert house.words() == [cancel(W, 1), final(C, 1, text, status=501), *next_one]


@pytest.mark.parametrize("command", [spec.CANCEL, 99])
def test_command_that_is_not_understood_ends_the_conversation_that_it_names(
    house: House, command: int
) -> None:
    house.request(C, 1)
    house.say(C, command, id=1, flags=spec.CRITICAL)
    text = b"not implemented: a flag that this broker does not know"
    assert house.words() == [final(C, 1, text, status=501)]
    assert house.machine.drained


def test_fields_that_a_command_does_not_use_are_ignored(house: House) -> None:
    used_by_none = {"ttl": 77, "address": b"abc"}
    house.say(W, spec.READY, service=b"echo", code=1, id=9, **used_by_none)
    house.say(W, spec.HEARTBEAT, code=7, id=9, service=b"time", **used_by_none)
    house.request(C, 1, b"x", code=404)
    house.say(W, spec.FINAL, b"y", id=number(1), code=200, service=b"time", **used_by_none)
    assert house.words() == [
        welcome(W),
        house.given(W, 1, C, b"x"),
        final(C, 1, b"y", worker=W),
    ]


# rubbish


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "empty"),
        ([b""], "unrecognised"),
        ([b"hello"], "unrecognised"),
        ([b"MDP\x03"], "truncated-header"),
        ([b"MDP\x03\x05" + bytes(16)], "truncated-header"),
        ([b"MDP\x03\x05" + bytes(18)], "trailing-bytes"),
        ([b"MDP\x03\x05\x01" + bytes(16)], "no-metadata"),
        ([b"x", b"MDP\x03\x05"], "truncated-header"),
        ([b"", b"MDPW01", b"\x09"], "unexpected-command"),
        ([b"x" * 256, b"", b"MDPC01", b"echo"], "unrecognised"),
    ],
)
def test_rubbish_is_counted_by_reason_and_costs_a_worker_its_registration(
    house: House, frames: list[bytes], reason: str
) -> None:
    house.hear(C, *frames)
    assert house.words() == []
    assert house.machine.registry.peers == {}
    house.worker(W)
    house.said()
    house.hear(W, *frames)
    assert house.words() == [disconnect(W)]
    assert house.counts.dropped == {reason: 2}


def test_rubbish_cannot_flood_the_observers(house: House) -> None:
    for _ in range(1000):
        house.hear(C, b"hello")
    assert [data["times"] for _, data in house.facts] == [2**n for n in range(10)]


# envelopes


def test_request_behind_an_envelope_is_answered_behind_it(house: House) -> None:
    house.worker(W)
    house.said()
    house.hear(P, *enveloped(spec.REQUEST, b"x", id=1, service=b"echo"))
    assert house.words() == [house.given(W, 1, P, b"x")]
    house.part(W, number(1), b"a")
    house.answer(W, number(1), b"b")
    said = house.said()
    assert [(peer, frames[:2]) for peer, frames in said] == [(P, [b"\x00req", b""])] * 2
    assert [read_03(frames[2:]) for _, frames in said] == [
        partial(P, 1, b"a")[1:],
        final(P, 1, b"b", worker=W)[1:],
    ]


def test_clients_behind_one_routing_id_may_have_the_same_ids(house: House) -> None:
    house.worker(W, capacity=2)
    house.said()
    for envelope in (b"a", b"b"):
        house.hear(P, envelope, mdp03.pack(spec.REQUEST, id=1, service=b"echo"), envelope)
    house.hear(P, b"a", mdp03.pack(spec.CANCEL, id=1))
    house.answer(W, number(2), b"to b")
    words = house.said()
    assert [(peer, frames[0]) for peer, frames in words] == [
        (W, words[0][1][0]),
        (W, words[1][1][0]),
        (W, mdp03.pack(spec.CANCEL, id=number(1))),
        (P, b"a"),
        (P, b"b"),
    ]
    assert house.counts.dropped == {}


def test_refusal_goes_behind_the_envelope_of_what_is_refused(house: House) -> None:
    house.hear(P, *enveloped(spec.REQUEST, id=1, service=b"echo", flags=spec.FAIL_FAST))
    ((peer, frames),) = house.said()
    assert (peer, frames[:2], read_03(frames[2:])[1]) == (
        P,
        [b"\x00req", b""],
        {"code": 503, "id": 1},
    )


@pytest.mark.parametrize("command", [spec.HELLO, spec.SUBSCRIBE, spec.UNSUBSCRIBE, spec.EVENT])
def test_presence_behind_an_envelope_is_answered_501(house: House, command: int) -> None:
    house.hear(P, *enveloped(command, id=4))
    ((peer, frames),) = house.said()
    assert (peer, frames[:2], read_03(frames[2:])[1]) == (
        P,
        [b"\x00req", b""],
        {"code": 501, "id": 4},
    )
    assert house.counts.dropped == {"behind-envelope": 1}


@pytest.mark.parametrize(
    "command", [spec.READY, spec.HEARTBEAT, spec.DISCONNECT, spec.CAPACITY, spec.REJECT]
)
def test_worker_behind_an_envelope_gets_disconnect_behind_it(house: House, command: int) -> None:
    house.hear(P, *enveloped(command, code=1, service=b"echo"))
    ((peer, frames),) = house.said()
    assert (peer, frames[:2], read_03(frames[2:])) == (
        P,
        [b"\x00req", b""],
        ("DISCONNECT", {}, []),
    )
    assert house.counts.dropped == {"worker-behind-envelope": 1}


def test_longest_envelope_is_served(house: House) -> None:
    house.worker(W)
    house.said()
    envelope = [b"%d" % n * 100 for n in range(8)]
    house.hear(P, *envelope, b"", mdp03.pack(spec.REQUEST, id=1, service=b"echo"))
    house.answer(W, number(1), b"y")
    assert house.said()[1] == (
        P,
        [*envelope, b"", mdp03.pack(spec.FINAL, code=200, id=1, address=W), b"y"],
    )
