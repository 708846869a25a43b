"""The client's session: calls, answers, deadlines, what is sent again (docs/spec/mdp-0.3.md)."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from majordomus.core.client.calls import FinalWithMetadata
from majordomus.core.client.session import (
    BY_CALLER,
    NO_ANSWER,
    NO_BROKER,
    NOT_UNDERSTOOD,
    TOO_MANY,
    Final,
    Lost,
    Part,
)
from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, metadata, spec
from tests.core.session_harness import FIRST_REST, ClientScript, Word


@pytest.fixture
def script() -> ClientScript:
    """A connected client without presence."""
    script = ClientScript()
    script.connect()
    return script


def request(id: int, *body: bytes, ttl: int = 5000, **fields: Any) -> Word:
    return ("REQUEST", {"id": id, "ttl": ttl, "service": b"echo", **fields}, *body)


# ── calls and answers ─────────────────────────────────────────────────────────────────────────────


def test_call_is_sent_at_once_and_ends_with_its_answer(script: ClientScript) -> None:
    call = script.call(b"hello", b"")
    assert script.out() == ([request(1, b"hello", b"")], [], [])
    script.final(1, b"hi", b"", address=b"worker")
    assert script.out() == ([], [Final(call, 200, [b"hi", b""], b"worker")], [])
    assert script.session.open_calls == 0


def test_calls_in_flight_are_answered_in_any_order(script: ClientScript) -> None:
    calls = [script.call(b"%d" % n) for n in range(3)]
    assert script.said() == [request(n + 1, b"%d" % n) for n in range(3)]
    for id in (2, 3, 1):
        script.final(id, b"%d" % id)
    assert script.events() == [Final(calls[id - 1], 200, [b"%d" % id], b"") for id in (2, 3, 1)]


PAGE = metadata.pack({"type": "text/csv", "next": 7})


def test_metadata_of_a_final_and_of_a_part_reach_the_caller_with_them(script: ClientScript) -> None:
    call = script.call()
    script.say(spec.PARTIAL, b"a", id=1, flags=spec.METADATA, metadata=PAGE)
    script.say(spec.PARTIAL, b"b", id=1)
    script.final(1, b"c", address=b"worker", flags=spec.METADATA, metadata=PAGE)
    assert script.events() == [
        Part(call, [b"a"], PAGE),
        Part(call, [b"b"]),
        FinalWithMetadata(call, 200, [b"c"], b"worker", PAGE),
    ]
    assert Final(call, 200, [b"c"], b"worker") != FinalWithMetadata(call, 200, [b"c"], b"w", PAGE)
    assert script.session.open_calls == 0


def test_metadata_of_a_final_after_which_the_call_is_sent_again_are_of_no_use(
    script: ClientScript,
) -> None:
    call = script.call()
    script.final(1, b"full", status=429, flags=spec.METADATA, metadata=PAGE)
    assert script.events() == []
    script.pass_time(FIRST_REST)
    script.final(2, b"x", flags=spec.METADATA, metadata=PAGE)
    assert script.events() == [FinalWithMetadata(call, 200, [b"x"], b"", PAGE)]


@pytest.mark.parametrize("broken", [b"\xc1", b"\x93\x01\x02\x03", PAGE + b"\x00"])
def test_answer_with_malformed_metadata_is_taken_without_them(
    script: ClientScript, broken: bytes
) -> None:
    """No other answer will come: a call that waited for one would wait until its deadline."""
    call = script.call()
    script.say(spec.PARTIAL, b"a", id=1, flags=spec.METADATA, metadata=broken)
    script.final(1, b"b", flags=spec.METADATA, metadata=broken)
    assert script.events() == [Part(call, [b"a"]), Final(call, 200, [b"b"], b"")]
    assert script.session.invalid == {"bad-metadata": 2}


def test_call_without_body_is_a_header_alone(script: ClientScript) -> None:
    call = script.call()
    script.final(1)
    assert script.out() == ([request(1)], [Final(call, 200, [], b"")], [])


def test_parts_come_one_by_one_before_the_final(script: ClientScript) -> None:
    call = script.call()
    script.say(spec.PARTIAL, b"1", id=1)
    script.say(spec.PARTIAL, b"2", b"2", id=1)
    script.final(1, b"end")
    assert script.events() == [
        Part(call, [b"1"]),
        Part(call, [b"2", b"2"]),
        Final(call, 200, [b"end"], b""),
    ]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 499, 500, 501, 502, 7])
def test_refusal_that_time_does_not_heal_is_delivered_as_it_is(
    script: ClientScript, status: int
) -> None:
    call = script.call()
    script.said()
    script.final(1, b"a sentence", status=status)
    assert script.out() == ([], [Final(call, status, [b"a sentence"], b"")], [])


def test_call_carries_flags_chosen_worker_and_metadata(script: ClientScript) -> None:
    field = metadata.pack({"type": "text"})
    script.call(b"x", flags=spec.ONCE | spec.FAIL_FAST, to=b"w1", metadata=field)
    flags = spec.ONCE | spec.FAIL_FAST | spec.METADATA
    assert script.said() == [request(1, b"x", flags=flags, address=b"w1", metadata=field)]


def test_call_with_options_leaves_nothing_behind_for_the_next_one(script: ClientScript) -> None:
    script.call(to=b"w1")
    script.call(flags=spec.ONCE)
    script.call()
    assert script.said() == [request(1, address=b"w1"), request(2, flags=spec.ONCE), request(3)]


@pytest.mark.parametrize("ttl", [inf, 1e9])
def test_ttl_above_the_maximum_is_sent_as_the_maximum(script: ClientScript, ttl: float) -> None:
    script.call(ttl=ttl)
    assert script.said() == [request(1, ttl=0xFFFFFFFF)]


def test_time_of_less_than_a_millisecond_is_sent_as_one(script: ClientScript) -> None:
    script.call(ttl=0.0004)
    assert script.said() == [request(1, ttl=1)]


@pytest.mark.parametrize(
    "options",
    [
        {"service": b""},
        {"service": b"x" * 256},
        {"service": b"\xff"},
        {"flags": spec.MORE | spec.ONE_WAY},
        {"flags": spec.CRITICAL},
        {"flags": spec.METADATA},
        {"to": b"x" * 256},
        {"metadata": b"x" * 5000},
        {"ttl": nan},
        {"ttl": -inf},
    ],
)
def test_call_that_may_not_be_sent_is_our_own_fault(
    script: ClientScript, options: dict[str, Any]
) -> None:
    with pytest.raises(LocalProtocolError):
        script.call(**options)
    assert script.out() == ([], [], [])
    assert script.session.open_calls == 0


def test_call_beyond_the_most_open_ones_ends_at_once() -> None:
    script = ClientScript(max_calls=1)
    script.connect()
    script.call()
    second = script.call()
    assert script.out() == ([request(1)], [Final(second, 429, [TOO_MANY], b"")], [])
    script.final(1)
    script.call()
    assert script.said() == [request(3)]


# ── one-way ───────────────────────────────────────────────────────────────────────────────────────


def test_one_way_message_has_an_id_of_its_own_and_no_outcome(script: ClientScript) -> None:
    script.call(b"log", flags=spec.ONE_WAY)
    script.call(b"ask")
    assert script.out() == ([request(1, b"log", flags=spec.ONE_WAY), request(2, b"ask")], [], [])
    assert script.session.open_calls == 1


def test_one_way_message_waits_for_the_connection_as_calls_do() -> None:
    script = ClientScript()
    one_way = script.call(b"log", flags=spec.ONE_WAY)
    assert (script.session.open_calls, script.session.has_left(one_way)) == (1, False)
    script.connect()
    assert script.out() == ([request(1, b"log", flags=spec.ONE_WAY)], [], [])
    assert (script.session.open_calls, script.session.has_left(one_way)) == (0, True)


def test_one_way_message_that_never_leaves_is_counted() -> None:
    script = ClientScript()
    script.call(ttl=1.0, flags=spec.ONE_WAY)
    script.pass_time(1.0)
    assert script.out() == ([], [], [])
    assert (script.session.open_calls, script.session.dropped) == (0, 1)


# ── deadlines ─────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_sent_before_the_connection_and_then_in_order() -> None:
    script = ClientScript()
    for n in range(3):
        script.call(b"%d" % n)
    script.pass_time(2.0)
    assert script.out() == ([], [], [])
    script.connect()
    assert script.said() == [request(n + 1, b"%d" % n, ttl=3000) for n in range(3)]


def test_call_that_finds_no_broker_ends_at_its_deadline() -> None:
    script = ClientScript()
    call = script.call(ttl=2.0)
    script.pass_time(1.99)
    assert script.out() == ([], [], [])
    script.pass_time(0.01)
    assert script.out() == ([], [Final(call, 408, [NO_BROKER], b"")], [])
    script.connect()
    assert script.out() == ([], [], [])


def test_broker_gets_a_grace_to_answer_after_the_deadline(script: ClientScript) -> None:
    call = script.call(ttl=1.0)
    script.pass_time(1.05)
    script.final(1, b"no worker came", status=408)
    assert script.events() == [Final(call, 408, [b"no worker came"], b"")]


def test_call_ends_by_itself_when_the_grace_has_passed(script: ClientScript) -> None:
    call = script.call(ttl=1.0)
    script.said()
    script.pass_time(1.09)
    assert script.out() == ([], [], [])
    script.pass_time(0.02)
    assert script.out() == ([], [Final(call, 408, [NO_ANSWER], b"")], [])
    script.final(1, b"late")
    assert script.out() == ([], [], [])
    assert script.session.late == 1


def test_call_whose_time_is_over_before_it_begins_is_not_sent(script: ClientScript) -> None:
    call = script.call(ttl=0.0)
    assert script.out() == ([], [Final(call, 408, [NO_ANSWER], b"")], [])


def test_stream_that_does_not_end_ends_at_its_deadline(script: ClientScript) -> None:
    call = script.call(ttl=1.0)
    script.said()
    script.say(spec.PARTIAL, b"1", id=1)
    script.pass_time(2.0)
    assert script.out() == (
        [],
        [Part(call, [b"1"]), Final(call, 408, [NO_ANSWER], b"")],
        [],
    )


def test_timers_of_calls_that_ended_are_not_held_for_their_deadlines(
    script: ClientScript,
) -> None:
    for n in range(10_000):
        script.session.call(b"echo", [], script.now, ttl=3600.0)
        script.session.take_effects()
        script.final(n + 1)
        script.events()
    assert script.session.open_calls == 0
    assert len(script.session._calls.timers) <= 300


# ── cancel ────────────────────────────────────────────────────────────────────────────────────────


def test_cancelled_call_ends_at_once_and_the_broker_is_told(script: ClientScript) -> None:
    call = script.call()
    script.said()
    script.cancel(call)
    assert script.out() == ([("CANCEL", {"id": 1})], [Final(call, 499, [BY_CALLER], b"")], [])
    script.final(1, b"cancelled", status=499)
    script.cancel(call)
    assert script.out() == ([], [], [])
    assert script.session.late == 1


def test_call_cancelled_before_it_was_sent_is_never_sent() -> None:
    script = ClientScript()
    call = script.call()
    script.cancel(call)
    script.connect()
    assert script.out() == ([], [Final(call, 499, [BY_CALLER], b"")], [])


def test_call_sent_anew_is_cancelled_under_its_new_id(script: ClientScript) -> None:
    call = script.call()
    script.final(1, status=503)
    script.pass_time(FIRST_REST)
    script.said()
    script.cancel(call)
    assert script.out() == ([("CANCEL", {"id": 2})], [Final(call, 499, [BY_CALLER], b"")], [])


def test_call_cancelled_while_it_rests_is_not_sent_again(script: ClientScript) -> None:
    call = script.call()
    script.said()
    script.final(1, status=503)
    script.cancel(call)
    script.pass_time(10.0)
    assert script.out() == ([], [Final(call, 499, [BY_CALLER], b"")], [])


# ── 429 and 503 ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [429, 503])
def test_call_is_sent_again_with_a_new_id_after_429_and_503(
    script: ClientScript, status: int
) -> None:
    call = script.call(b"x")
    script.said()
    script.final(1, b"not now", status=status)
    script.pass_time(FIRST_REST / 2)
    assert script.out() == ([], [], [])
    script.pass_time(FIRST_REST / 2)
    assert script.out() == ([request(2, b"x", ttl=4968)], [], [])
    script.final(1, b"old")
    script.final(2, b"new")
    assert script.out() == ([], [Final(call, 200, [b"new"], b"")], [])
    assert script.session.late == 1


def test_delays_between_tries_grow_up_to_their_most() -> None:
    script = ClientScript(retry_first=0.5, retry_most=2.0)
    script.connect()
    script.call(ttl=100.0)
    times = []
    for id in range(1, 7):
        before = script.now
        while not script.said():
            script.pass_time(script.session.next_deadline() - script.now)
        times.append(script.now - before)
        script.final(id, status=503)
    assert times == pytest.approx([0, 0.25, 0.5, 1.0, 1.0, 1.0])


def test_delays_are_random_so_that_many_do_not_come_together() -> None:
    chances = iter([0.0, 0.5, 0.999])
    script = ClientScript()
    script.session._rng = lambda: next(chances)
    script.connect()
    for id in (1, 2, 3):
        script.call()
        script.final(id, status=503)
    dues = []
    while script.session.next_deadline() < script.now + 1:
        dues.append(script.session.next_deadline() - script.now)
        script.now += dues[-1]
        script.turn()
    assert dues[:3] == pytest.approx([0.03125, 0.015625, 0.01559375])


def test_last_refusal_is_delivered_when_no_time_is_left_for_another_try(
    script: ClientScript,
) -> None:
    call = script.call(ttl=0.06)
    script.final(1, b"first", status=503)
    script.pass_time(FIRST_REST)
    script.said()
    script.final(2, b"second", status=503)
    assert script.out() == ([], [Final(call, 503, [b"second"], b"")], [])


def test_last_refusal_is_delivered_when_the_broker_goes_while_the_call_rests(
    script: ClientScript,
) -> None:
    call = script.call(ttl=1.0)
    script.final(1, b"draining", status=503)
    script.said()
    script.cut()
    script.pass_time(2.0)
    assert script.out() == ([], [Final(call, 503, [b"draining"], b"")], [0])


def test_503_ends_a_fail_fast_call(script: ClientScript) -> None:
    call = script.call(flags=spec.FAIL_FAST)
    script.said()
    script.final(1, b"nobody", status=503)
    assert script.out() == ([], [Final(call, 503, [b"nobody"], b"")], [])


def test_429_is_tried_again_even_for_a_fail_fast_call(script: ClientScript) -> None:
    script.call(flags=spec.FAIL_FAST)
    script.final(1, status=429)
    script.pass_time(FIRST_REST)
    assert script.out() == (
        [request(1, flags=spec.FAIL_FAST), request(2, ttl=4968, flags=spec.FAIL_FAST)],
        [],
        [],
    )


def test_call_that_is_once_is_sent_again_after_503_for_nothing_has_run(
    script: ClientScript,
) -> None:
    script.call(flags=spec.ONCE)
    script.said()
    script.final(1, status=503)
    script.pass_time(FIRST_REST)
    assert script.out() == ([request(2, ttl=4968, flags=spec.ONCE)], [], [])


def test_stream_that_ends_with_503_after_a_part_is_not_begun_anew(script: ClientScript) -> None:
    call = script.call()
    script.said()
    script.say(spec.PARTIAL, b"1", id=1)
    script.final(1, b"no", status=503)
    assert script.out() == ([], [Part(call, [b"1"]), Final(call, 503, [b"no"], b"")], [])


@pytest.mark.parametrize("status", [429, 503])
def test_call_that_must_not_restart_is_sent_once(script: ClientScript, status: int) -> None:
    call = script.call(restart=False)
    script.said()
    script.final(1, b"no", status=status)
    assert script.out() == ([], [Final(call, status, [b"no"], b"")], [])


# ── messages that make no sense ───────────────────────────────────────────────────────────────────


def test_answers_to_calls_that_are_not_open_are_counted(script: ClientScript) -> None:
    script.final(7)
    script.say(spec.PARTIAL, b"x", id=7)
    script.final(0)
    script.final(spec.BROKER_ID_BIT)
    assert script.out() == ([], [], [])
    assert script.session.late == 4


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "empty"),
        ([b""], "truncated-header"),
        ([b"MDP\x03\x04"], "truncated-header"),
        ([mdp03.pack(spec.HEARTBEAT).replace(spec.MDP03_MAGIC, b"MDP\x04")], "wrong-header"),
        ([b"", b"MDPC01", b"echo", b"x"], "truncated-header"),
        ([mdp03.pack(spec.FINAL) + b"rest"], "trailing-bytes"),
        ([mdp03.pack(spec.REQUEST)], "wrong-direction"),
        ([mdp03.pack(spec.WELCOME)], "wrong-direction"),
        ([mdp03.pack(spec.SUBSCRIBE)], "wrong-direction"),
        ([mdp03.pack(99)], "unknown-command"),
        ([mdp03.pack(spec.HEARTBEAT, spec.CRITICAL)], "critical-flag"),
    ],
)
def test_message_that_makes_no_sense_is_counted_and_nothing_else(
    script: ClientScript, frames: list[bytes], reason: str
) -> None:
    script.call()
    script.said()
    script.hear(*frames)
    assert script.out() == ([], [], [])
    assert script.session.invalid == {reason: 1}
    assert script.session.open_calls == 1


def test_unknown_command_with_an_id_is_answered_not_implemented(script: ClientScript) -> None:
    script.say(99, id=5)
    assert script.out() == (
        [("FINAL", {"code": 501, "id": 5}, b"not implemented: command 99")],
        [],
        [],
    )
    assert script.session.invalid == {"unknown-command": 1}


def test_answer_with_a_critical_flag_ends_the_call_as_not_implemented(
    script: ClientScript,
) -> None:
    call = script.call()
    script.said()
    script.final(1, b"x", flags=spec.CRITICAL)
    assert script.out() == ([], [Final(call, 501, [NOT_UNDERSTOOD], b"")], [])


def test_part_with_a_critical_flag_ends_the_call_and_the_broker_is_told(
    script: ClientScript,
) -> None:
    call = script.call()
    script.said()
    script.say(spec.PARTIAL, b"x", id=1, flags=spec.CRITICAL)
    assert script.out() == (
        [("CANCEL", {"id": 1})],
        [Final(call, 501, [NOT_UNDERSTOOD], b"")],
        [],
    )


# ── the end ───────────────────────────────────────────────────────────────────────────────────────


def test_close_cancels_what_is_open_wherever_it_is(script: ClientScript) -> None:
    resting, flying = script.call(), script.call()
    script.final(1, status=503)
    script.said()
    script.close()
    assert script.out() == (
        [("CANCEL", {"id": 2})],
        [Final(resting, 499, [BY_CALLER], b""), Final(flying, 499, [BY_CALLER], b"")],
        [],
    )
    assert (script.session.open_calls, script.session.next_deadline()) == (0, inf)


def test_one_way_message_asked_for_just_before_close_still_leaves(script: ClientScript) -> None:
    script.session.call(b"echo", [b"log"], script.now, ttl=1.0, flags=spec.ONE_WAY)
    script.close()
    assert script.out() == ([request(1, b"log", ttl=1000, flags=spec.ONE_WAY)], [], [])


def test_closed_session_takes_no_calls_and_minds_nothing(script: ClientScript) -> None:
    script.close()
    script.close()
    with pytest.raises(LocalProtocolError, match="closed"):
        script.call()
    script.final(1)
    script.cut()
    script.connect()
    script.say(spec.DISCONNECT)
    script.pass_time(1000.0)
    assert script.out() == ([], [], [])


def test_call_lost_with_its_broker_is_lost_once(script: ClientScript) -> None:
    call = script.call(flags=spec.ONCE)
    script.cut()
    script.final(1)
    script.pass_time(100.0)
    assert script.events() == [Lost(call)]
