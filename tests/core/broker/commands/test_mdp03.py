"""What MDP/0.3 peers say to the broker and hear from it, command by command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import (
    BrokerHarness,
    cancel,
    disconnect,
    final,
    number,
    partial,
    read_03,
    welcome,
)

C, D, P, V, W = b"client-c", b"client-d", b"proxy-p", b"worker-v", b"worker-w"
MakeHarness = Callable[..., BrokerHarness]


def enveloped(command: int, *body: bytes, **fields: Any) -> list[bytes]:
    return [b"\x00req", b"", mdp03.pack(command, **fields), *body]


# the vectors of docs/spec/mdp-0.3.md


def test_call_of_the_vectors_on_the_wire(harness: BrokerHarness) -> None:
    worker = b"\x0a\x01"
    harness.receive(worker, bytes.fromhex("4d44500301000008000000000000000000000000046563686f00"))
    harness.sent()
    ask = bytes.fromhex("4d44500302000000000000000000000100001388046563686f00")
    harness.receive(C, ask, b"x")
    (said,) = harness.sent()
    header = bytes.fromhex("4d44500302000000800000000000000100001388046563686f10")
    assert said == (worker, [header + harness.handles[C], b"x"])
    harness.receive(worker, bytes.fromhex("4d445003040000c88000000000000001000000000000"), b"y")
    told = bytes.fromhex("4d445003040000c800000000000000010000000000020a01")
    assert harness.sent() == [(C, [told, b"y"])]


# READY, WELCOME


def test_first_ready_is_answered_with_welcome_and_later_ones_are_not(
    harness: BrokerHarness,
) -> None:
    harness.worker(W, b"echo")
    assert harness.messages() == [welcome(W)]
    harness.worker(W, b"time")
    harness.worker(W, b"echo", capacity=3)
    assert harness.messages() == []
    worker = harness.machine.registry.workers[W]
    assert (worker.capacity, list(worker.services)) == (3, [b"echo", b"time"])


def test_ready_for_a_known_service_updates_its_metadata(harness: BrokerHarness) -> None:
    for version in ("1", "2"):
        field = metadata.pack({"version": version})
        harness.receive_03(W, spec.READY, flags=1, code=1, service=b"echo", metadata=field)
    assert harness.machine.registry.workers[W].metadata == {b"echo": field}


def test_one_worker_serves_several_services_within_one_capacity(harness: BrokerHarness) -> None:
    harness.worker(W, b"echo")
    harness.worker(W, b"time")
    harness.sent()
    harness.request(C, 1, service=b"time")
    harness.request(C, 2, service=b"echo")
    assert harness.messages() == [harness.request_to(W, 1, C, service=b"time")]
    harness.answer(W, number(1))
    assert harness.messages() == [final(C, 1, worker=W), harness.request_to(W, 2, C)]


@pytest.mark.parametrize(
    ("name", "reason", "told"),
    [
        (b"", "bad-service-name", (400, "a service needs a name", "")),
        (b"\xff", "bad-service-name", (400, "the name of a service must be UTF-8", "\ufffd")),
        (
            b"mmi.service",
            "reserved-service-name",
            (403, "'mmi.service' is reserved: no worker may serve it", "mmi.service"),
        ),
    ],
)
def test_ready_for_a_name_that_cannot_be_served_gets_disconnect(
    harness: BrokerHarness, name: bytes, reason: str, told: tuple[int, str, str]
) -> None:
    harness.worker(V)
    harness.sent()
    for worker in (V, W):
        harness.worker(worker, name)
        harness.pass_time(1.01)  # a repeated refusal is delayed
        assert harness.messages() == [disconnect(worker, *told)]
    assert harness.counts.dropped == {reason: 2}
    assert harness.machine.registry.workers == {}


def test_ready_without_capacity_is_malformed(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=0)
    assert harness.messages() == []
    harness.worker(W)
    harness.sent()
    harness.worker(W, capacity=0)
    assert harness.messages() == [disconnect(W)]
    assert harness.counts.dropped == {"no-capacity": 2}


@pytest.mark.parametrize("command", [spec.READY, spec.HELLO])
def test_malformed_metadata_outside_a_request_are_dropped(
    harness: BrokerHarness, command: int
) -> None:
    harness.receive_03(W, command, flags=1, metadata=b"\xc1",
                       code=1 if command == spec.READY else 0,
                       service=b"echo" if command == spec.READY else b"")  # fmt: skip
    assert harness.messages() == []
    assert harness.counts.dropped == {"bad-metadata": 1}


# HELLO


def test_every_hello_is_answered_with_welcome(harness: BrokerHarness) -> None:
    for _ in range(2):
        harness.receive_03(C, spec.HELLO, flags=1, metadata=metadata.pack({"token": "t0"}))
    assert harness.messages() == [welcome(C, 30_000)] * 2
    assert [fact for fact, _ in harness.facts] == ["client-present"]


def test_hello_of_a_worker_is_answered_with_the_workers_interval(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    harness.receive_03(W, spec.HELLO)
    assert harness.messages() == [welcome(W, 2500)]


def test_client_that_was_of_an_older_dialect_is_told_in_03_when_it_is_lost(
    harness: BrokerHarness,
) -> None:
    harness.receive(C, *LEGACY[Dialect.MDP01].c2b_request(b"mmi.service", [b"x"]))
    harness.receive_03(C, spec.HELLO)
    harness.pass_time(61)
    harness.sent()
    harness.pass_time(30)
    assert harness.messages() == [disconnect(C)]


# REQUEST


def test_resend_of_an_open_request_is_dropped_and_counted(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=2)
    harness.request(C, 1, b"x")
    harness.sent()
    harness.request(C, 1, b"x")
    assert harness.messages() == []
    assert harness.counts.dropped == {"resend": 1}
    harness.answer(W, number(1), b"y")
    assert harness.messages() == [final(C, 1, b"y", worker=W)]


def test_ids_need_not_grow_and_a_resend_of_any_open_one_is_dropped(
    harness: BrokerHarness,
) -> None:
    harness.worker(W, capacity=4)
    for id in (7, 3, 7, 3, 5):
        harness.request(C, id, b"x")
    assert harness.counts.dropped == {"resend": 2}
    assert set(harness.machine.registry.peers[C].open) == {7, 3, 5}
    harness.answer(W, number(1), b"y")
    harness.request(C, 7, b"again")  # it is open no more
    assert set(harness.machine.registry.peers[C].open) == {3, 5, 7}


def test_id_with_bit_63_is_the_brokers(harness: BrokerHarness) -> None:
    harness.request(C, number(1))
    text = b"bit 63 of an id is reserved for the broker"
    assert harness.messages() == [final(C, number(1), text, status=400)]


def test_request_with_the_largest_id_is_served(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, spec.BROKER_ID_BIT - 1)
    harness.sent()
    harness.answer(W, number(1))
    assert harness.messages() == [final(C, spec.BROKER_ID_BIT - 1, worker=W)]


def test_request_without_an_id_is_dropped_unless_it_is_one_way(harness: BrokerHarness) -> None:
    harness.request(C, 0)
    assert harness.messages() == []
    assert harness.counts.dropped == {"no-id": 1}


def test_flags_and_metadata_of_the_sender_are_passed_on_unchanged(harness: BrokerHarness) -> None:
    """The map in another order and encoding than ours would be: 32-bit map, 32-bit float."""
    harness.worker(W)
    harness.sent()
    field = b"\xdf\x00\x00\x00\x02\xa4type\xa1x\xa1f\xca\x3f\x80\x00\x00"
    flags = spec.METADATA | spec.ONCE
    harness.request(C, 1, b"x", flags=flags | spec.FAIL_FAST, metadata=field)
    assert harness.messages() == [harness.request_to(W, 1, C, b"x", flags=flags, metadata=field)]


def test_metadata_of_an_answer_are_passed_on_and_its_other_flags_are_not(
    harness: BrokerHarness,
) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.sent()
    field = metadata.pack({"type": "x"})
    flags = spec.METADATA | spec.MORE | spec.ONCE
    harness.part(W, number(1), b"a", flags=flags, metadata=field)
    harness.receive_03(W, spec.FINAL, b"b", id=number(1), code=200, flags=flags, metadata=field)
    told = {"flags": spec.METADATA, "metadata": field}
    assert harness.messages() == [partial(C, 1, b"a", **told), final(C, 1, b"b", worker=W, **told)]


@pytest.mark.parametrize("command", [spec.PARTIAL, spec.FINAL])
def test_malformed_metadata_of_an_answer_cost_the_worker_its_registration(
    harness: BrokerHarness, command: int
) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.sent()
    harness.receive_03(W, command, id=number(1), code=200, flags=1, metadata=b"\xc1")
    assert harness.messages() == [disconnect(W)]
    assert (harness.counts.retried, harness.machine.registry.queued) == (1, 1)


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
    harness: BrokerHarness, where: str
) -> None:
    field, rest = TOKENS[where]
    harness.worker(W)
    harness.sent()
    harness.request(C, 1, flags=spec.METADATA, metadata=field)
    extra = {"flags": spec.METADATA, "metadata": rest} if rest else {}
    assert harness.messages() == [harness.request_to(W, 1, C, **extra)]


def test_metadata_that_would_be_longer_if_they_were_written_anew_lose_their_token(
    harness: BrokerHarness,
) -> None:
    """Four-byte floats would become eight-byte ones, and the map more than 4 KiB."""
    floats = b"\xa1f\xdc\x03\x00" + b"\xca\x3f\x80\x00\x00" * 768
    harness.worker(W)
    harness.sent()
    harness.request(C, 1, flags=spec.METADATA, metadata=b"\x82" + floats + b"\xa5token\xa1t")
    extra = {"flags": spec.METADATA, "metadata": b"\x81" + floats}
    assert harness.messages() == [harness.request_to(W, 1, C, **extra)]


def test_second_attempt_is_told_in_the_brokers_map_before_the_senders(
    harness: BrokerHarness,
) -> None:
    field = metadata.pack({"type": "x"})
    harness.worker(V)
    harness.request(C, 1, b"x", flags=spec.METADATA, metadata=field)
    harness.sent()
    harness.leave(V)
    harness.worker(W)
    flags = spec.METADATA | spec.BROKER_METADATA
    both = metadata.pack({"attempt": 2}) + field
    assert harness.messages() == [
        welcome(W),
        harness.request_to(W, 2, C, b"x", flags=flags, metadata=both),
    ]


def test_handle_is_the_same_for_all_requests_of_a_client_and_no_one_elses(
    harness: BrokerHarness,
) -> None:
    harness.worker(W, capacity=9)
    harness.sent()
    for client, id in ((C, 1), (C, 2), (D, 1)):
        harness.request(client, id)
    addresses = [word[2]["address"] for word in harness.messages()]
    assert addresses == [harness.handles[C], harness.handles[C], harness.handles[D]]
    assert harness.handles[C] != harness.handles[D]


def test_one_connection_may_be_client_and_worker_at_once(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    harness.request(W, 1, b"to myself")
    assert harness.messages() == [harness.request_to(W, 1, W, b"to myself")]
    harness.answer(W, number(1), b"from myself")
    assert harness.messages() == [final(W, 1, b"from myself", worker=W)]


# DISCONNECT, CAPACITY


def test_disconnect_is_not_answered(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.receive_03(C, spec.HELLO)
    harness.sent()
    for peer in (W, C, D):
        harness.leave(peer)
    assert harness.messages() == []
    assert (harness.machine.registry.peers, harness.counts.dropped) == ({}, {})


def test_broker_that_drains_tells_all_who_have_a_word_for_it(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.receive(V, *LEGACY[Dialect.MDP01].w2b_ready(b"echo"))
    harness.receive_03(C, spec.HELLO)
    harness.request(D, 1)
    harness.sent()
    harness.machine.drain(harness.now)
    assert not harness.machine.drained
    harness.turn()
    capacity = ("CAPACITY", {}, [])
    assert harness.messages() == [(W, *capacity), (C, *capacity)]


def test_newcomers_are_told_that_the_broker_drains(harness: BrokerHarness) -> None:
    harness.machine.drain(harness.now)
    harness.worker(W)
    harness.receive_03(C, spec.HELLO)
    capacity = ("CAPACITY", {}, [])
    assert harness.messages() == [welcome(W), (W, *capacity), welcome(C, 30_000), (C, *capacity)]


def test_open_conversations_go_on_while_the_broker_drains(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1, b"x")
    harness.request(C, 2, b"y")
    harness.machine.drain(harness.now)
    harness.turn()
    harness.sent()
    harness.answer(W, number(1))
    harness.answer(W, number(2))
    assert [word[1] for word in harness.messages()] == ["FINAL", "REQUEST", "FINAL"]
    assert harness.machine.drained


def test_close_disconnects_workers_and_present_clients_each_in_its_dialect(
    harness: BrokerHarness,
) -> None:
    harness.worker(W)
    harness.receive(V, *LEGACY[Dialect.MDP01].w2b_ready(b"echo"))
    harness.receive_03(C, spec.HELLO)
    harness.request(D, 1, service=b"mmi.service")
    harness.sent()
    harness.machine.close(harness.now)
    harness.turn()
    assert harness.messages() == [
        disconnect(W),
        (V, *LEGACY[Dialect.MDP01].b2w_disconnect()),
        disconnect(C),
    ]


# what is unknown, or not there yet


@pytest.mark.parametrize("command", [0, 17, 99, 255])
def test_unknown_command_is_answered_501_if_it_has_an_id_and_counted(
    harness: BrokerHarness, command: int
) -> None:
    harness.receive_03(C, command, id=5)
    harness.receive_03(C, command)
    text = b"not implemented: command %d" % command
    assert harness.messages() == [final(C, 5, text, status=501)]
    assert harness.counts.dropped == {"unknown-command": 2}


def test_welcome_is_not_for_a_broker(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    for peer in (C, W):
        harness.receive_03(peer, spec.WELCOME, id=5)
    assert harness.messages() == [disconnect(W)]
    assert harness.counts.dropped == {"wrong-direction": 2}


FORGED = [c for c in spec.COMMAND_NAMES if c not in (spec.REQUEST, spec.WELCOME)]


@pytest.mark.parametrize("command", FORGED)
def test_broker_metadata_of_a_peer_are_a_forgery_in_any_command(
    harness: BrokerHarness, command: int
) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.sent()
    forged = {"flags": spec.BROKER_METADATA, "metadata": metadata.pack({"user": "root"})}
    fields = {"code": 1, "service": b"echo", **forged}
    harness.receive_03(D, command, **fields)
    assert harness.messages() == []
    harness.receive_03(W, command, id=number(1), **fields)
    assert harness.messages() == [disconnect(W)]
    assert harness.counts.dropped == {"forged-metadata": 2}


CRITICAL = [c for c in (*spec.COMMAND_NAMES, 99) if c != spec.REQUEST]


@pytest.mark.parametrize("command", CRITICAL)
def test_critical_flag_is_answered_501_and_nothing_else_happens(
    harness: BrokerHarness, command: int
) -> None:
    """ "Whoever does not know what it means answers 501." """
    fields = {"flags": spec.CRITICAL, "code": 1, "service": b"echo"}
    harness.receive_03(D, command, id=5, **fields)
    harness.receive_03(D, command, **fields)
    text = b"not implemented: a flag that this broker does not know"
    assert harness.messages() == [final(D, 5, text, status=501)]
    assert harness.counts.dropped == {"critical-flag": 2}
    assert set(harness.machine.registry.workers) == set()


@pytest.mark.parametrize("command", [spec.FINAL, spec.PARTIAL, spec.REJECT])
def test_reply_that_nobody_understands_fails_its_request(
    harness: BrokerHarness, command: int
) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.request(C, 2)
    harness.sent()
    harness.receive_03(W, command, b"?", id=number(1), code=200, flags=spec.CRITICAL)
    text = b"not implemented: a flag that this broker does not know"
    next_one = [harness.request_to(W, 2, C)] if command != spec.PARTIAL else []
    assert harness.messages() == [cancel(W, 1), final(C, 1, text, status=501), *next_one]


@pytest.mark.parametrize("command", [spec.CANCEL, 99])
def test_command_that_is_not_understood_ends_the_conversation_that_it_names(
    harness: BrokerHarness, command: int
) -> None:
    harness.request(C, 1)
    harness.receive_03(C, command, id=1, flags=spec.CRITICAL)
    text = b"not implemented: a flag that this broker does not know"
    assert harness.messages() == [final(C, 1, text, status=501)]
    assert harness.machine.drained


def test_fields_that_a_command_does_not_use_are_ignored(harness: BrokerHarness) -> None:
    used_by_none = {"ttl": 77, "address": b"abc"}
    harness.receive_03(W, spec.READY, service=b"echo", code=1, id=9, **used_by_none)
    harness.receive_03(W, spec.HEARTBEAT, code=7, id=9, service=b"time", **used_by_none)
    harness.request(C, 1, b"x", code=404)
    harness.receive_03(W, spec.FINAL, b"y", id=number(1), code=200, service=b"time", **used_by_none)
    assert harness.messages() == [
        welcome(W),
        harness.request_to(W, 1, C, b"x"),
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
        ([mdp03.pack(spec.HEARTBEAT)[:-1]], "truncated-header"),
        ([mdp03.pack(spec.HEARTBEAT) + b"\x00"], "trailing-bytes"),
        ([mdp03.pack(spec.HEARTBEAT, spec.METADATA, metadata=b"m")[:-1]], "no-metadata"),
        ([b"x", b"MDP\x03\x05"], "truncated-header"),
        ([b"", b"MDPW01", b"\x09"], "unexpected-command"),
        ([b"x" * 256, b"", b"MDPC01", b"echo"], "unrecognised"),
    ],
)
def test_rubbish_is_counted_by_reason_and_costs_a_worker_its_registration(
    harness: BrokerHarness, frames: list[bytes], reason: str
) -> None:
    harness.receive(C, *frames)
    assert harness.messages() == []
    assert harness.machine.registry.peers == {}
    harness.worker(W)
    harness.sent()
    harness.receive(W, *frames)
    assert harness.messages() == [disconnect(W)]
    assert harness.counts.dropped == {reason: 2}


def test_rubbish_cannot_flood_the_observers(harness: BrokerHarness) -> None:
    for _ in range(1000):
        harness.receive(C, b"hello")
    assert [data["times"] for _, data in harness.facts] == [2**n for n in range(10)]


# envelopes


def test_request_behind_an_envelope_is_answered_behind_it(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    harness.receive(P, *enveloped(spec.REQUEST, b"x", id=1, service=b"echo"))
    assert harness.messages() == [harness.request_to(W, 1, P, b"x")]
    harness.part(W, number(1), b"a")
    harness.answer(W, number(1), b"b")
    said = harness.sent()
    assert [(peer, frames[:2]) for peer, frames in said] == [(P, [b"\x00req", b""])] * 2
    assert [read_03(frames[2:]) for _, frames in said] == [
        partial(P, 1, b"a")[1:],
        final(P, 1, b"b", worker=W)[1:],
    ]


def test_clients_behind_one_routing_id_may_have_the_same_ids(harness: BrokerHarness) -> None:
    harness.worker(W, capacity=2)
    harness.sent()
    for envelope in (b"a", b"b"):
        harness.receive(P, envelope, mdp03.pack(spec.REQUEST, id=1, service=b"echo"), envelope)
    harness.receive(P, b"a", mdp03.pack(spec.CANCEL, id=1))
    harness.answer(W, number(2), b"to b")
    words = harness.sent()
    assert [(peer, frames[0]) for peer, frames in words] == [
        (W, words[0][1][0]),
        (W, words[1][1][0]),
        (W, mdp03.pack(spec.CANCEL, id=number(1))),
        (P, b"a"),
        (P, b"b"),
    ]
    assert harness.counts.dropped == {}


def test_refusal_goes_behind_the_envelope_of_what_is_refused(harness: BrokerHarness) -> None:
    harness.receive(P, *enveloped(spec.REQUEST, id=1, service=b"echo", flags=spec.FAIL_FAST))
    ((peer, frames),) = harness.sent()
    assert (peer, frames[:2], read_03(frames[2:])[1]) == (
        P,
        [b"\x00req", b""],
        {"code": 503, "id": 1},
    )


@pytest.mark.parametrize("command", [spec.HELLO, spec.SUBSCRIBE, spec.UNSUBSCRIBE, spec.EVENT])
def test_presence_behind_an_envelope_is_answered_501(harness: BrokerHarness, command: int) -> None:
    harness.receive(P, *enveloped(command, id=4))
    ((peer, frames),) = harness.sent()
    assert (peer, frames[:2], read_03(frames[2:])[1]) == (
        P,
        [b"\x00req", b""],
        {"code": 501, "id": 4},
    )
    assert harness.counts.dropped == {"behind-envelope": 1}


@pytest.mark.parametrize(
    "command", [spec.READY, spec.HEARTBEAT, spec.DISCONNECT, spec.CAPACITY, spec.REJECT]
)
def test_worker_behind_an_envelope_gets_disconnect_behind_it(
    harness: BrokerHarness, command: int
) -> None:
    harness.receive(P, *enveloped(command, code=1, service=b"echo"))
    ((peer, frames),) = harness.sent()
    assert (peer, frames[:2], read_03(frames[2:])) == (
        P,
        [b"\x00req", b""],
        ("DISCONNECT", {}, []),
    )
    assert harness.counts.dropped == {"worker-behind-envelope": 1}


def test_longest_envelope_is_served(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    envelope = [b"%d" % n * 100 for n in range(8)]
    harness.receive(P, *envelope, b"", mdp03.pack(spec.REQUEST, id=1, service=b"echo"))
    harness.answer(W, number(1), b"y")
    assert harness.sent()[1] == (
        P,
        [*envelope, b"", mdp03.pack(spec.FINAL, code=200, id=1, address=W), b"y"],
    )
