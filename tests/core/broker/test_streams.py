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
from tests.core import dialects
from tests.core.broker_harness import House, Word, cancel, final, number, partial
from tests.core.hook_harness import LATER, ScriptedHooks

C, D, W, V = b"client-c", b"client-d", b"worker-w", b"worker-v"
LEGACY = [d for d in Dialect if d is not Dialect.MDP03]
OVERDRAWN = b"the client sent more parts than it had been given credit for"


def credit(peer: bytes, id: int, parts: int) -> Word:
    return (peer, "CREDIT", {"id": id, "code": parts}, [])


def to_worker(n: int, *body: Frame, worker: bytes = W) -> Word:
    return (worker, "PARTIAL", {"id": number(n)}, list(body))


def end_to_worker(n: int, *body: Frame, worker: bytes = W) -> Word:
    return (worker, "FINAL", {"id": number(n), "code": 200}, list(body))


def opened(house: House, *body: Frame) -> None:
    """C's stream 1 is at W as dispatch 1."""
    house.worker(W)
    house.request(C, 1, *body, flags=spec.MORE)
    house.said()


# ── worker → client ───────────────────────────────────────────────────────────────────────────────


def test_worker_that_sends_a_part_without_credit_ends_the_conversation_with_429(
    house: House,
) -> None:
    house.worker(W)
    house.request(C, 1)
    house.said()
    for _ in range(16):
        house.part(W, number(1), b"p")
    assert house.words() == [partial(C, 1, b"p")] * 16
    house.part(W, number(1), b"one too many")
    text = b"the worker sent more parts than the client had given credit for"
    assert house.words() == [cancel(W, 1), final(C, 1, text, status=429)]
    house.answer(W, number(1), status=499)
    assert (house.words(), house.counts.failed) == ([], 1)


def test_credit_of_a_client_is_told_to_the_worker_and_counts(house: House) -> None:
    house.worker(W)
    house.request(C, 1)
    house.said()
    house.say(C, spec.CREDIT, id=1, code=2)
    assert house.words() == [credit(W, number(1), 2)]
    for _ in range(18):
        house.part(W, number(1), b"p")
    assert house.words() == [partial(C, 1, b"p")] * 18
    house.part(W, number(1), b"p")
    assert house.finals()[0][2] == 429


def test_credit_that_comes_before_the_request_has_a_worker_reaches_the_worker_with_it(
    house: House,
) -> None:
    house.request(C, 1)
    house.say(C, spec.CREDIT, id=1, code=5)
    house.say(C, spec.CREDIT, id=1, code=6)
    house.worker(W)
    assert house.words()[1:] == [house.given(W, 1, C), credit(W, number(1), 11)]


def test_worker_that_gets_a_request_anew_gets_the_same_credit(house: House) -> None:
    house.worker(W)
    house.request(C, 1)
    house.say(C, spec.CREDIT, id=1, code=4)
    house.said()
    house.worker(V)
    house.leave(W)
    words = house.words()
    assert (words[1][:2], words[2]) == ((V, "REQUEST"), credit(V, number(2), 4))


def test_credit_is_held_up_to_its_most_and_what_is_beyond_is_not_told(house: House) -> None:
    house.worker(W)
    house.request(C, 1)
    house.said()
    for _ in range(3):
        house.say(C, spec.CREDIT, id=1, code=0xFFFF)
    assert house.words() == [credit(W, number(1), 0xFFFF - 16)]
    assert house.counts.dropped == {"idle-credit": 2}


@pytest.mark.parametrize("client", LEGACY)
def test_broker_gives_credit_for_a_client_that_has_no_word_for_it(
    house: House, client: Dialect
) -> None:
    house.worker(W)
    house.hear(C, *dialects.ask(client, b"echo", [b"x"]))
    house.said()
    granted = 0
    for part in range(100):
        assert part < 16 + granted
        house.part(W, number(2), b"%d" % part)
        words = house.said()
        granted += sum(mdp03.parse(f[0])[2] for peer, f in words if peer == W)
    house.answer(W, number(2))
    assert house.counts.answered == 1


def test_broker_gives_credit_for_a_one_way_request_whose_parts_it_drops(house: House) -> None:
    house.worker(W)
    house.request(C, 1, flags=spec.ONE_WAY)
    house.said()
    for _ in range(16):
        house.part(W, number(1), b"p")
    assert house.words() == [credit(W, number(1), 8)] * 2


def test_older_worker_may_be_ahead_of_the_credit_by_what_an_outbox_holds(
    make_house: Callable[..., House],
) -> None:
    house = make_house(max_outbox=10)
    house.hear(W, *dialects.ready(Dialect.MDP02, b"echo"))
    house.request(C, 1)
    house.said()
    address = number(1).to_bytes(8, "big")
    for _ in range(26):
        house.hear(W, *dialects.part(Dialect.MDP02, address, [b"p"], number(1)))
    assert house.words() == [partial(C, 1, b"p")] * 26
    house.hear(W, *dialects.part(Dialect.MDP02, address, [b"p"], number(1)))
    assert house.finals()[0][2] == 429


# ── client → worker ───────────────────────────────────────────────────────────────────────────────


def test_parts_and_the_end_of_a_client_reach_its_worker_in_order(house: House) -> None:
    house.worker(W)
    house.said()
    house.request(C, 1, b"hello", flags=spec.MORE)
    assert house.words() == [house.given(W, 1, C, b"hello", flags=spec.MORE)]
    house.part(C, 1, b"a", b"b")
    house.part(C, 1)
    house.answer(C, 1, b"end")
    assert house.words() == [to_worker(1, b"a", b"b"), to_worker(1), end_to_worker(1, b"end")]
    house.part(W, number(1), b"x")
    house.answer(W, number(1), b"y")
    assert house.words() == [partial(C, 1, b"x"), final(C, 1, b"y", worker=W)]


def test_behind_an_envelope_streams_go_both_ways(house: House) -> None:
    house.worker(W)
    house.said()
    head = mdp03.pack(spec.REQUEST, spec.MORE, id=1, service=b"echo")
    house.hear(C, b"e", b"", head)
    house.hear(C, b"e", b"", mdp03.pack(spec.PARTIAL, id=1), b"a")
    house.part(C, 1, b"not of this envelope")
    house.say(W, spec.CREDIT, id=number(1), code=3)
    house.part(W, number(1), b"p")
    house.hear(C, b"e", b"", mdp03.pack(spec.CREDIT, id=1, code=2))
    house.hear(C, b"e", b"", mdp03.pack(spec.FINAL, id=1, code=200))
    assert house.said()[1:] == [
        (W, [mdp03.pack(spec.PARTIAL, id=number(1)), b"a"]),
        (C, [b"e", b"", mdp03.pack(spec.CREDIT, id=1, code=3)]),
        (C, [b"e", b"", mdp03.pack(spec.PARTIAL, id=1), b"p"]),
        (W, [mdp03.pack(spec.CREDIT, id=number(1), code=2)]),
        (W, [mdp03.pack(spec.FINAL, id=number(1), code=200)]),
    ]
    assert house.counts.dropped == {"late-part": 1}


def test_client_that_sends_a_part_without_credit_ends_the_conversation_with_429(
    house: House,
) -> None:
    opened(house)
    for _ in range(16):
        house.part(C, 1, b"p")
    assert house.words() == [to_worker(1, b"p")] * 16
    house.part(C, 1, b"one too many")
    assert house.words() == [cancel(W, 1), final(C, 1, OVERDRAWN, status=429)]


def test_credit_of_a_worker_is_told_to_the_client_and_counts(house: House) -> None:
    opened(house)
    house.say(W, spec.CREDIT, id=number(1), code=2)
    assert house.words() == [credit(C, 1, 2)]
    for _ in range(18):
        house.part(C, 1)
    assert len(house.words()) == 18
    house.part(C, 1)
    assert house.finals()[0][2] == 429


def test_parts_wait_with_their_request_and_follow_it(house: House) -> None:
    house.request(C, 1, b"x", flags=spec.MORE)
    house.part(C, 1, b"a")
    house.part(C, 1, b"b")
    house.answer(C, 1)
    house.check()
    registry = house.machine.registry
    assert (registry.queued, registry.queued_bytes) == (1, 1 + 2 * (PART_COST + 1) + PART_COST)
    house.worker(W)
    assert house.words()[1:] == [
        house.given(W, 1, C, b"x", flags=spec.MORE),
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
    make_house: Callable[..., House], limit: str, text: bytes
) -> None:
    house = make_house(**{limit: 1100})
    house.request(C, 1, flags=spec.MORE)
    house.part(C, 1, b"x" * 500)
    assert house.words() == []
    house.part(C, 1, b"x" * 500)
    assert house.words() == [final(C, 1, text, status=429)]


def test_stream_of_which_no_part_has_passed_is_tried_again(house: House) -> None:
    opened(house, b"x")
    house.worker(V)
    house.said()
    house.say(W, spec.CREDIT, id=number(1), code=4)
    house.leave(W)
    told = metadata.pack({"attempt": 2})
    flags = spec.MORE | spec.BROKER_METADATA
    assert house.words() == [
        credit(C, 1, 4),
        house.given(V, 2, C, b"x", flags=flags, metadata=told),
    ]
    for part in range(20):
        house.part(C, 1, b"%d" % part)
    # V has given no credit yet: what the client may send, for W had said so, waits here.
    assert house.words() == [to_worker(2, b"%d" % n, worker=V) for n in range(16)]
    house.say(V, spec.CREDIT, id=number(2), code=5)
    late = [to_worker(2, b"%d" % n, worker=V) for n in range(16, 20)]
    assert house.words() == [*late, credit(C, 1, 1)]


@pytest.mark.parametrize("how", ["leave", "reject"])
def test_stream_of_which_a_part_has_passed_is_not_tried_again(house: House, how: str) -> None:
    opened(house)
    house.worker(V)
    house.part(C, 1, b"a")
    house.said()
    if how == "leave":
        house.leave(W)
        text = b"worker lost (left) at attempt 1"
    else:
        house.reject(W, number(1))
        text = b"the worker declined after parts had passed"
    assert house.words() == [final(C, 1, text, status=502)]


def test_end_of_a_stream_without_parts_is_told_to_the_next_worker_as_well(house: House) -> None:
    opened(house)
    house.worker(V)
    house.answer(C, 1, b"end")
    house.said()
    house.reject(W, number(1))
    assert house.words()[1:] == [end_to_worker(2, b"end", worker=V)]


def test_what_comes_late_is_dropped_and_counted_and_never_answered(house: House) -> None:
    opened(house)
    house.answer(C, 1)
    house.said()
    house.part(C, 1, b"after the end")
    house.answer(C, 1)
    house.say(W, spec.CREDIT, id=number(1), code=5)
    house.answer(W, number(1))
    assert house.words() == [final(C, 1, worker=W)]
    house.part(C, 1)
    house.answer(C, 1)
    house.say(C, spec.CREDIT, id=1, code=5)
    house.say(W, spec.CREDIT, id=number(1), code=5)
    house.say(D, spec.CREDIT, id=7, code=5)
    house.say(D, spec.CREDIT, id=number(7), code=5)
    assert house.words() == []
    assert house.counts.dropped == {"late-part": 4, "late-credit": 5}


def test_part_of_a_request_that_is_no_stream_is_dropped(house: House) -> None:
    house.worker(W)
    house.request(C, 1)
    house.said()
    house.part(C, 1)
    house.say(W, spec.CREDIT, id=number(1), code=5)
    assert house.words() == []
    assert house.counts.dropped == {"late-part": 1, "late-credit": 1}


def test_stream_of_a_client_cannot_be_one_way(house: House) -> None:
    house.worker(W)
    house.said()
    house.request(C, 1, flags=spec.MORE | spec.ONE_WAY)
    assert (house.words(), house.counts.unanswered) == ([], 1)


def test_part_that_is_too_large_or_malformed_ends_the_conversation(
    make_house: Callable[..., House],
) -> None:
    house = make_house(max_message=10)
    house.worker(W, capacity=2)
    house.request(C, 1, flags=spec.MORE)
    house.request(C, 2, flags=spec.MORE)
    house.said()
    house.part(C, 1, b"x" * 11)
    house.part(C, 2, flags=spec.METADATA, metadata=b"\xc1")
    words = house.words()
    assert [word[2]["code"] for word in words if word[1] == "FINAL"] == [413, 400]
    assert [word[:2] for word in words if word[1] != "FINAL"] == [(W, "CANCEL"), (W, "CANCEL")]


def test_deadline_ends_a_stream_and_its_parts(house: House) -> None:
    house.worker(W)
    house.request(C, 1, flags=spec.MORE, ttl=1000)
    house.part(C, 1)
    house.said()
    house.pass_time(1.1)
    assert [word[:2] for word in house.words()] == [(W, "CANCEL"), (C, "FINAL")]
    house.part(C, 1)
    assert house.words() == []


# ── older workers ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("worker", LEGACY)
def test_older_worker_gets_a_stream_as_one_request_when_it_is_complete(
    house: House, worker: Dialect
) -> None:
    house.hear(W, *dialects.ready(worker, b"echo"))
    house.said()
    house.request(C, 1, b"head", flags=spec.MORE)
    granted = 16
    for part in range(40):
        assert part < granted
        house.part(C, 1, b"%d" % part)
        granted += sum(word[2]["code"] for word in house.words())
    house.answer(C, 1, b"end")
    body = [b"head", *(b"%d" % n for n in range(40)), b"end"]
    address = number(1).to_bytes(8, "big")
    asked = dialects.asked(worker, address, body, number(1), b"echo", house.handles[C])
    assert house.said() == [(W, asked)]
    house.hear(W, *dialects.end(worker, b"echo", address, [b"done"], number(1)))
    assert house.finals() == [(C, 1, 200, [b"done"])]


@pytest.mark.parametrize("worker", LEGACY)
def test_stream_that_ends_before_its_older_worker_heard_of_it_leaves_its_slot(
    house: House, worker: Dialect
) -> None:
    house.hear(W, *dialects.ready(worker, b"echo"))
    house.request(C, 1, flags=spec.MORE)
    house.request(D, 2, b"next")
    house.said()
    house.say(C, spec.CANCEL, id=1)
    said = house.said()
    assert house.counts.cancelled == 1
    held = house.machine.registry.workers[W].held
    assert [request.peer.id for request in held.values()] == [D]
    assert [peer for peer, _ in said].count(C) == 1


def test_stream_that_waits_at_an_older_worker_goes_to_another_when_that_is_lost(
    house: House,
) -> None:
    house.hear(W, *dialects.ready(Dialect.MDP02, b"echo"))
    house.request(C, 1, b"x", flags=spec.MORE | spec.ONCE)
    house.part(C, 1, b"a")
    house.worker(V)
    house.said()
    house.hear(W, *CODECS[Dialect.MDP02].w2b_disconnect(b"echo"))
    assert house.words() == [
        house.given(V, 2, C, b"x", flags=spec.MORE | spec.ONCE),
        to_worker(2, b"a", worker=V),
    ]


def test_stream_that_is_too_large_for_one_request_ends_with_413(
    make_house: Callable[..., House],
) -> None:
    house = make_house(max_frames=3)
    house.hear(W, *dialects.ready(Dialect.MDP02, b"echo"))
    house.said()
    house.request(C, 1, b"x", flags=spec.MORE)
    for _ in range(3):
        house.part(C, 1, b"a")
    text = b"the joined parts are too large for one request"
    assert house.words() == [final(C, 1, text, status=413)]
    assert not house.machine.registry.workers[W].held


# ── sockets that take nothing ─────────────────────────────────────────────────────────────────────


def test_worker_that_does_not_read_ends_the_stream_and_is_not_lost_for_it(
    make_house: Callable[..., House],
) -> None:
    house = make_house(max_outbox=2)
    opened(house)
    house.full.add(W)
    for _ in range(3):
        house.part(C, 1, b"a")
    house.pass_time(0.001)
    text = b"the worker reads more slowly than the client sends"
    assert house.words() == [final(C, 1, text, status=429)]
    assert W in house.machine.registry.workers


# ── hooks, and the broker's own calls ─────────────────────────────────────────────────────────────


def granted(words: list[Word], n: int, worker: bytes = W) -> int:
    """Parts that `worker` was given credit for."""
    mine = [word for word in words if word[:2] == (worker, "CREDIT")]
    assert all(word[2]["id"] == number(n) for word in mine)
    return sum(word[2]["code"] for word in mine)


def test_part_that_a_hook_drops_costs_no_credit(house: House) -> None:
    ScriptedHooks(house, on_part=Discard())
    house.worker(W)
    house.request(C, 1)
    house.said()
    for _ in range(40):
        house.part(W, number(1), b"p")
    assert house.words() == [credit(W, number(1), 1)] * 40
    house.answer(W, number(1))
    assert house.words() == [final(C, 1, worker=W)]


def test_own_call_of_the_broker_takes_any_number_of_parts(house: House) -> None:
    answers: list[tuple[int, list[Frame]]] = []
    house.worker(W)
    house.machine.call(b"echo", [], 0.0, house.now, lambda *answer: answers.append(answer))
    house.turn()
    ((_, id),) = house.dispatched()
    left = 16
    for _ in range(100):
        assert left
        house.part(W, id, b"p")
        left += granted(house.words(), id - number(0)) - 1
    house.answer(W, id)
    assert answers == [(200, [b"p"] * 100)]


def test_parts_that_come_while_a_hook_thinks_follow_their_request(house: House) -> None:
    hooks = ScriptedHooks(house, on_request=LATER)
    house.worker(W)
    house.said()
    house.request(C, 1, b"x", flags=spec.MORE)
    house.part(C, 1, b"a")
    house.answer(C, 1)
    assert house.words() == []
    house.check()
    house.machine.resume(hooks.seen[0][0], FORWARD, house.now)
    house.turn()
    words = house.words()
    assert [word[:2] for word in words] == [(W, "REQUEST"), (W, "PARTIAL"), (W, "FINAL")]
    assert [word[3] for word in words] == [[b"x"], [b"a"], []]


def test_stream_whose_answer_a_hook_looks_at_takes_nothing_more(house: House) -> None:
    hooks = ScriptedHooks(house, on_reply=LATER)
    opened(house)
    house.answer(W, number(1), b"done")
    house.check()
    house.part(C, 1, b"late")
    house.answer(C, 1)
    house.say(C, spec.CREDIT, id=1, code=3)
    house.check()
    assert house.words() == []
    assert house.counts.dropped == {"late-part": 2, "late-credit": 1}
    house.machine.resume(hooks.seen[0][0], FORWARD, house.now)
    house.turn()
    assert house.words() == [final(C, 1, b"done", worker=W)]
