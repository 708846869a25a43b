"""Streams at the broker: credit in both directions, the client's parts, and what waits of them
(docs/spec/mdp-0.3.md, section 14)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.core.broker.hooks.actions import FORWARD, Discard
from majordomus.core.broker.streams import PART_COST
from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.codecs import LEGACY as CODECS
from majordomus.protocol.spec import Dialect, Frame
from tests import headers
from tests.core import dialects
from tests.core.broker_harness import BrokerHarness, Message, cancel, final, number, partial
from tests.core.hook_harness import LATER, ScriptedHooks

C, D, W, V = b"client-c", b"client-d", b"worker-w", b"worker-v"
LEGACY = [d for d in Dialect if d is not Dialect.MDP03]
OVERDRAWN = b"the client sent more parts than it had been given credit for"


def credit(peer: bytes, id: int, parts: int) -> Message:
    return (peer, "CREDIT", {"id": id, "code": parts}, [])


def to_worker(n: int, *body: Frame, worker: bytes = W) -> Message:
    return (worker, "PARTIAL", {"id": number(n)}, list(body))


def end_to_worker(n: int, *body: Frame, worker: bytes = W) -> Message:
    return (worker, "FINAL", {"id": number(n), "code": 200}, list(body))


def opened(harness: BrokerHarness, *body: Frame) -> None:
    """C's stream 1 is at W as dispatch 1."""
    harness.worker(W)
    harness.request(C, 1, *body, flags=spec.MORE)
    harness.sent()


# ── worker → client ───────────────────────────────────────────────────────────────────────────────


def test_worker_that_sends_a_part_without_credit_ends_the_conversation_with_429(
    harness: BrokerHarness,
) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.sent()
    for _ in range(16):
        harness.part(W, number(1), b"p")
    assert harness.messages() == [partial(C, 1, b"p")] * 16
    harness.part(W, number(1), b"one too many")
    text = b"the worker sent more parts than the client had given credit for"
    assert harness.messages() == [cancel(W, 1), final(C, 1, text, status=429)]
    harness.answer(W, number(1), status=499)
    assert (harness.messages(), harness.counts.failed) == ([], 1)


def test_credit_of_a_client_is_told_to_the_worker_and_counts(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.sent()
    harness.receive_03(C, spec.CREDIT, id=1, code=2)
    assert harness.messages() == [credit(W, number(1), 2)]
    for _ in range(18):
        harness.part(W, number(1), b"p")
    assert harness.messages() == [partial(C, 1, b"p")] * 18
    harness.part(W, number(1), b"p")
    assert harness.finals()[0][2] == 429


def test_credit_that_comes_before_the_request_has_a_worker_reaches_the_worker_with_it(
    harness: BrokerHarness,
) -> None:
    harness.request(C, 1)
    harness.receive_03(C, spec.CREDIT, id=1, code=5)
    harness.receive_03(C, spec.CREDIT, id=1, code=6)
    harness.worker(W)
    assert harness.messages()[1:] == [harness.request_to(W, 1, C), credit(W, number(1), 11)]


def test_worker_that_gets_a_request_anew_gets_the_same_credit(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.receive_03(C, spec.CREDIT, id=1, code=4)
    harness.sent()
    harness.worker(V)
    harness.leave(W)
    words = harness.messages()
    assert (words[1][:2], words[2]) == ((V, "REQUEST"), credit(V, number(2), 4))


def test_credit_is_held_up_to_its_most_and_what_is_beyond_is_not_told(
    harness: BrokerHarness,
) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.sent()
    for _ in range(3):
        harness.receive_03(C, spec.CREDIT, id=1, code=0xFFFF)
    assert harness.messages() == [credit(W, number(1), 0xFFFF - 16)]
    assert harness.counts.dropped == {"idle-credit": 2}


@pytest.mark.parametrize("client", LEGACY)
def test_broker_gives_credit_for_a_client_that_has_no_word_for_it(
    harness: BrokerHarness, client: Dialect
) -> None:
    harness.worker(W)
    harness.receive(C, *dialects.ask(client, b"echo", [b"x"]))
    harness.sent()
    granted = 0
    for part in range(100):
        assert part < 16 + granted
        harness.part(W, number(2), b"%d" % part)
        words = harness.sent()
        granted += sum(headers.parse(f[0])[2] for peer, f in words if peer == W)
    harness.answer(W, number(2))
    assert harness.counts.answered == 1


def test_broker_gives_credit_for_a_one_way_request_whose_parts_it_drops(
    harness: BrokerHarness,
) -> None:
    harness.worker(W)
    harness.request(C, 1, flags=spec.ONE_WAY)
    harness.sent()
    for _ in range(16):
        harness.part(W, number(1), b"p")
    assert harness.messages() == [credit(W, number(1), 8)] * 2


def test_older_worker_may_be_ahead_of_the_credit_by_what_an_outbox_holds(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    harness = make_harness(max_outbox=10)
    harness.receive(W, *dialects.ready(Dialect.MDP02, b"echo"))
    harness.request(C, 1)
    harness.sent()
    address = number(1).to_bytes(8, "big")
    for _ in range(26):
        harness.receive(W, *dialects.part(Dialect.MDP02, address, [b"p"], number(1)))
    assert harness.messages() == [partial(C, 1, b"p")] * 26
    harness.receive(W, *dialects.part(Dialect.MDP02, address, [b"p"], number(1)))
    assert harness.finals()[0][2] == 429


# ── client → worker ───────────────────────────────────────────────────────────────────────────────


def test_parts_and_the_end_of_a_client_reach_its_worker_in_order(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    harness.request(C, 1, b"hello", flags=spec.MORE)
    assert harness.messages() == [harness.request_to(W, 1, C, b"hello", flags=spec.MORE)]
    harness.part(C, 1, b"a", b"b")
    harness.part(C, 1)
    harness.answer(C, 1, b"end")
    assert harness.messages() == [to_worker(1, b"a", b"b"), to_worker(1), end_to_worker(1, b"end")]
    harness.part(W, number(1), b"x")
    harness.answer(W, number(1), b"y")
    assert harness.messages() == [partial(C, 1, b"x"), final(C, 1, b"y", worker=W)]


def test_behind_an_envelope_streams_go_both_ways(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    head = mdp03.pack(spec.REQUEST, spec.MORE, id=1, service=b"echo")
    harness.receive(C, b"e", b"", head)
    harness.receive(C, b"e", b"", mdp03.pack(spec.PARTIAL, id=1), b"a")
    harness.part(C, 1, b"not of this envelope")
    harness.receive_03(W, spec.CREDIT, id=number(1), code=3)
    harness.part(W, number(1), b"p")
    harness.receive(C, b"e", b"", mdp03.pack(spec.CREDIT, id=1, code=2))
    harness.receive(C, b"e", b"", mdp03.pack(spec.FINAL, id=1, code=200))
    assert harness.sent()[1:] == [
        (W, [mdp03.pack(spec.PARTIAL, id=number(1)), b"a"]),
        (C, [b"e", b"", mdp03.pack(spec.CREDIT, id=1, code=3)]),
        (C, [b"e", b"", mdp03.pack(spec.PARTIAL, id=1), b"p"]),
        (W, [mdp03.pack(spec.CREDIT, id=number(1), code=2)]),
        (W, [mdp03.pack(spec.FINAL, id=number(1), code=200)]),
    ]
    assert harness.counts.dropped == {"late-part": 1}


def test_client_that_sends_a_part_without_credit_ends_the_conversation_with_429(
    harness: BrokerHarness,
) -> None:
    opened(harness)
    for _ in range(16):
        harness.part(C, 1, b"p")
    assert harness.messages() == [to_worker(1, b"p")] * 16
    harness.part(C, 1, b"one too many")
    assert harness.messages() == [cancel(W, 1), final(C, 1, OVERDRAWN, status=429)]


def test_credit_of_a_worker_is_told_to_the_client_and_counts(harness: BrokerHarness) -> None:
    opened(harness)
    harness.receive_03(W, spec.CREDIT, id=number(1), code=2)
    assert harness.messages() == [credit(C, 1, 2)]
    for _ in range(18):
        harness.part(C, 1)
    assert len(harness.messages()) == 18
    harness.part(C, 1)
    assert harness.finals()[0][2] == 429


def test_parts_wait_with_their_request_and_follow_it(harness: BrokerHarness) -> None:
    harness.request(C, 1, b"x", flags=spec.MORE)
    harness.part(C, 1, b"a")
    harness.part(C, 1, b"b")
    harness.answer(C, 1)
    harness.check()
    registry = harness.machine.registry
    assert (registry.queued, registry.queued_bytes) == (1, 1 + 2 * (PART_COST + 1) + PART_COST)
    harness.worker(W)
    assert harness.messages()[1:] == [
        harness.request_to(W, 1, C, b"x", flags=spec.MORE),
        to_worker(1, b"a"),
        to_worker(1, b"b"),
        end_to_worker(1),
    ]
    assert registry.queued_bytes == 0


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ("max_service_queue_bytes", b"1128 bytes wait for service 'echo' already"),
        ("max_client_queue_bytes", b"1128 bytes of this client wait already"),
        ("max_queue_bytes", b"1128 bytes wait at this broker already"),
    ],
)
def test_parts_that_wait_count_toward_the_limits(
    make_harness: Callable[..., BrokerHarness], limit: str, text: bytes
) -> None:
    harness = make_harness(**{limit: 1100})
    harness.request(C, 1, flags=spec.MORE)
    harness.part(C, 1, b"x" * 500)
    assert harness.messages() == []
    harness.part(C, 1, b"x" * 500)
    assert harness.messages() == [final(C, 1, text, status=429)]


def test_stream_of_which_no_part_has_passed_is_tried_again(harness: BrokerHarness) -> None:
    opened(harness, b"x")
    harness.worker(V)
    harness.sent()
    harness.receive_03(W, spec.CREDIT, id=number(1), code=4)
    harness.leave(W)
    told = metadata.pack({"attempt": 2})
    flags = spec.MORE | spec.BROKER_METADATA
    assert harness.messages() == [
        credit(C, 1, 4),
        harness.request_to(V, 2, C, b"x", flags=flags, metadata=told),
    ]
    for part in range(20):
        harness.part(C, 1, b"%d" % part)
    # V has given no credit yet: what the client may send, for W had said so, waits here.
    assert harness.messages() == [to_worker(2, b"%d" % n, worker=V) for n in range(16)]
    harness.receive_03(V, spec.CREDIT, id=number(2), code=5)
    late = [to_worker(2, b"%d" % n, worker=V) for n in range(16, 20)]
    assert harness.messages() == [*late, credit(C, 1, 1)]


@pytest.mark.parametrize("how", ["leave", "reject"])
def test_stream_of_which_a_part_has_passed_is_not_tried_again(
    harness: BrokerHarness, how: str
) -> None:
    opened(harness)
    harness.worker(V)
    harness.part(C, 1, b"a")
    harness.sent()
    if how == "leave":
        harness.leave(W)
        text = b"worker lost (left) at attempt 1"
    else:
        harness.reject(W, number(1))
        text = b"the worker declined after parts had passed"
    assert harness.messages() == [final(C, 1, text, status=502)]


def test_end_of_a_stream_without_parts_is_told_to_the_next_worker_as_well(
    harness: BrokerHarness,
) -> None:
    opened(harness)
    harness.worker(V)
    harness.answer(C, 1, b"end")
    harness.sent()
    harness.reject(W, number(1))
    assert harness.messages()[1:] == [end_to_worker(2, b"end", worker=V)]


def test_what_comes_late_is_dropped_and_counted_and_never_answered(harness: BrokerHarness) -> None:
    opened(harness)
    harness.answer(C, 1)
    harness.sent()
    harness.part(C, 1, b"after the end")
    harness.answer(C, 1)
    harness.receive_03(W, spec.CREDIT, id=number(1), code=5)
    harness.answer(W, number(1))
    assert harness.messages() == [final(C, 1, worker=W)]
    harness.part(C, 1)
    harness.answer(C, 1)
    harness.receive_03(C, spec.CREDIT, id=1, code=5)
    harness.receive_03(W, spec.CREDIT, id=number(1), code=5)
    harness.receive_03(D, spec.CREDIT, id=7, code=5)
    harness.receive_03(D, spec.CREDIT, id=number(7), code=5)
    assert harness.messages() == []
    assert harness.counts.dropped == {"late-part": 4, "late-credit": 5}


def test_part_of_a_request_that_is_no_stream_is_dropped(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1)
    harness.sent()
    harness.part(C, 1)
    harness.receive_03(W, spec.CREDIT, id=number(1), code=5)
    assert harness.messages() == []
    assert harness.counts.dropped == {"late-part": 1, "late-credit": 1}


def test_stream_of_a_client_cannot_be_one_way(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    harness.request(C, 1, flags=spec.MORE | spec.ONE_WAY)
    assert (harness.messages(), harness.counts.unanswered) == ([], 1)


def test_part_that_is_too_large_or_malformed_ends_the_conversation(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    harness = make_harness(max_message=10)
    harness.worker(W, capacity=2)
    harness.request(C, 1, flags=spec.MORE)
    harness.request(C, 2, flags=spec.MORE)
    harness.sent()
    harness.part(C, 1, b"x" * 11)
    harness.part(C, 2, flags=spec.METADATA, metadata=b"\xc1")
    words = harness.messages()
    assert [word[2]["code"] for word in words if word[1] == "FINAL"] == [413, 400]
    assert [word[:2] for word in words if word[1] != "FINAL"] == [(W, "CANCEL"), (W, "CANCEL")]


def test_deadline_ends_a_stream_and_its_parts(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1, flags=spec.MORE, ttl=1000)
    harness.part(C, 1)
    harness.sent()
    harness.pass_time(1.1)
    assert [word[:2] for word in harness.messages()] == [(W, "CANCEL"), (C, "FINAL")]
    harness.part(C, 1)
    assert harness.messages() == []


# ── older workers ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("worker", LEGACY)
def test_older_worker_gets_a_stream_as_one_request_when_it_is_complete(
    harness: BrokerHarness, worker: Dialect
) -> None:
    harness.receive(W, *dialects.ready(worker, b"echo"))
    harness.sent()
    harness.request(C, 1, b"head", flags=spec.MORE)
    granted = 16
    for part in range(40):
        assert part < granted
        harness.part(C, 1, b"%d" % part)
        granted += sum(word[2]["code"] for word in harness.messages())
    harness.answer(C, 1, b"end")
    body = [b"head", *(b"%d" % n for n in range(40)), b"end"]
    address = number(1).to_bytes(8, "big")
    asked = dialects.asked(worker, address, body, number(1), b"echo", harness.handles[C])
    assert harness.sent() == [(W, asked)]
    harness.receive(W, *dialects.end(worker, b"echo", address, [b"done"], number(1)))
    assert harness.finals() == [(C, 1, 200, [b"done"])]


@pytest.mark.parametrize("worker", LEGACY)
def test_stream_that_ends_before_its_older_worker_heard_of_it_leaves_its_slot(
    harness: BrokerHarness, worker: Dialect
) -> None:
    harness.receive(W, *dialects.ready(worker, b"echo"))
    harness.request(C, 1, flags=spec.MORE)
    harness.request(D, 2, b"next")
    harness.sent()
    harness.receive_03(C, spec.CANCEL, id=1)
    said = harness.sent()
    assert harness.counts.cancelled == 1
    held = harness.machine.registry.workers[W].held
    assert [request.peer.id for request in held.values()] == [D]
    assert [peer for peer, _ in said].count(C) == 1


def test_stream_that_waits_at_an_older_worker_goes_to_another_when_that_is_lost(
    harness: BrokerHarness,
) -> None:
    harness.receive(W, *dialects.ready(Dialect.MDP02, b"echo"))
    harness.request(C, 1, b"x", flags=spec.MORE | spec.ONCE)
    harness.part(C, 1, b"a")
    harness.worker(V)
    harness.sent()
    harness.receive(W, *CODECS[Dialect.MDP02].w2b_disconnect(b"echo"))
    assert harness.messages() == [
        harness.request_to(V, 2, C, b"x", flags=spec.MORE | spec.ONCE),
        to_worker(2, b"a", worker=V),
    ]


def test_stream_that_is_too_large_for_one_request_ends_with_413(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    harness = make_harness(max_frames=3)
    harness.receive(W, *dialects.ready(Dialect.MDP02, b"echo"))
    harness.sent()
    harness.request(C, 1, b"x", flags=spec.MORE)
    for _ in range(3):
        harness.part(C, 1, b"a")
    text = b"the joined parts are too large for one request"
    assert harness.messages() == [final(C, 1, text, status=413)]
    assert not harness.machine.registry.workers[W].held


# ── sockets that take nothing ─────────────────────────────────────────────────────────────────────


def test_worker_that_does_not_read_ends_the_stream_and_is_not_lost_for_it(
    make_harness: Callable[..., BrokerHarness],
) -> None:
    harness = make_harness(max_outbox=2)
    opened(harness)
    harness.full.add(W)
    for _ in range(3):
        harness.part(C, 1, b"a")
    harness.pass_time(0.001)
    text = b"the worker reads more slowly than the client sends"
    assert harness.messages() == [final(C, 1, text, status=429)]
    assert W in harness.machine.registry.workers


# ── hooks, and the broker's own calls ─────────────────────────────────────────────────────────────


def granted(words: list[Message], n: int, worker: bytes = W) -> int:
    """Parts that `worker` was given credit for."""
    mine = [word for word in words if word[:2] == (worker, "CREDIT")]
    assert all(word[2]["id"] == number(n) for word in mine)
    return sum(word[2]["code"] for word in mine)


def test_part_that_a_hook_drops_costs_no_credit(harness: BrokerHarness) -> None:
    ScriptedHooks(harness, on_part=Discard())
    harness.worker(W)
    harness.request(C, 1)
    harness.sent()
    for _ in range(40):
        harness.part(W, number(1), b"p")
    assert harness.messages() == [credit(W, number(1), 1)] * 40
    harness.answer(W, number(1))
    assert harness.messages() == [final(C, 1, worker=W)]


def test_own_call_of_the_broker_takes_any_number_of_parts(harness: BrokerHarness) -> None:
    answers: list[tuple[int, list[Frame]]] = []
    harness.worker(W)
    harness.machine.call(b"echo", [], 0.0, harness.now, lambda *answer: answers.append(answer))
    harness.turn()
    ((_, id),) = harness.dispatched()
    left = 16
    for _ in range(100):
        assert left
        harness.part(W, id, b"p")
        left += granted(harness.messages(), id - number(0)) - 1
    harness.answer(W, id)
    assert answers == [(200, [b"p"] * 100)]


def test_parts_that_come_while_a_hook_thinks_follow_their_request(harness: BrokerHarness) -> None:
    hooks = ScriptedHooks(harness, on_request=LATER)
    harness.worker(W)
    harness.sent()
    harness.request(C, 1, b"x", flags=spec.MORE)
    harness.part(C, 1, b"a")
    harness.answer(C, 1)
    assert harness.messages() == []
    harness.check()
    harness.machine.resume(hooks.seen[0][0], FORWARD, harness.now)
    harness.turn()
    words = harness.messages()
    assert [word[:2] for word in words] == [(W, "REQUEST"), (W, "PARTIAL"), (W, "FINAL")]
    assert [word[3] for word in words] == [[b"x"], [b"a"], []]


def test_stream_whose_answer_a_hook_looks_at_takes_nothing_more(harness: BrokerHarness) -> None:
    hooks = ScriptedHooks(harness, on_reply=LATER)
    opened(harness)
    harness.answer(W, number(1), b"done")
    harness.check()
    harness.part(C, 1, b"late")
    harness.answer(C, 1)
    harness.receive_03(C, spec.CREDIT, id=1, code=3)
    harness.check()
    assert harness.messages() == []
    assert harness.counts.dropped == {"late-part": 2, "late-credit": 1}
    harness.machine.resume(hooks.seen[0][0], FORWARD, harness.now)
    harness.turn()
    assert harness.messages() == [final(C, 1, b"done", worker=W)]
