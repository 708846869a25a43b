"""The worker's session in MDP/0.3: registration, jobs, heartbeats, draining."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from majordomus.core.worker.session import TOO_SLOW, Cancel, Disconnected, Dispatch
from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, metadata, spec
from tests.core.session_harness import Word, WorkerScript

BIT = spec.BROKER_ID_BIT
DISCONNECT: Word = ("DISCONNECT", {})
HEARTBEAT: Word = ("HEARTBEAT", {"code": spec.LOAD_UNKNOWN})


def ready(service: bytes = b"echo", capacity: int = 1) -> Word:
    return ("READY", {"service": service, "code": capacity})


def final(number: int, *body: bytes, status: int = 200) -> Word:
    return ("FINAL", {"id": BIT + number, "code": status}, *body)


@pytest.fixture
def script() -> WorkerScript:
    """A worker that a broker knows."""
    return registered()


def registered(**settings: Any) -> WorkerScript:
    script = WorkerScript(**settings)
    script.connect()
    script.welcome()
    script.out()
    return script


# ── registration ──────────────────────────────────────────────────────────────────────────────────


def test_worker_sends_ready_for_each_service_once_it_is_connected() -> None:
    script = WorkerScript(services=(b"echo", b"time"), capacity=8)
    script.turn()
    assert script.out() == ([], [], [])
    script.connect()
    assert script.out() == ([ready(b"echo", 8), ready(b"time", 8)], [], [])
    assert not script.session.ready


def test_worker_is_ready_when_the_broker_has_welcomed_it() -> None:
    script = WorkerScript()
    script.connect()
    facts = metadata.pack({"broker": "harness"})
    script.welcome(flags=spec.BROKER_METADATA, metadata=facts)
    session = script.session
    assert (session.ready, session.worker_id, session.welcome) == (
        True,
        b"me",
        {"broker": "harness"},
    )


def test_service_added_later_is_registered_at_once_and_after_every_reconnect(
    script: WorkerScript,
) -> None:
    script.session.add_service(b"time", script.now)
    script.turn()
    assert script.said() == [ready(b"time")]
    script.cut()
    script.pass_time(1.0)
    script.connect()
    assert script.out() == ([ready(b"echo"), ready(b"time")], [], [0])


def test_worker_without_a_service_waits_for_one_without_being_judged() -> None:
    script = WorkerScript(services=())
    script.connect()
    script.pass_time(100.0)
    assert script.out() == ([], [], [])
    script.session.add_service(b"time", script.now)
    script.turn()
    assert script.out() == ([ready(b"time")], [], [])
    script.pass_time(2.5)
    assert script.said() == [HEARTBEAT]


@pytest.mark.parametrize("capacity", [0, -1, 65536])
def test_capacity_that_cannot_be_announced_is_our_own_fault(capacity: int) -> None:
    with pytest.raises(LocalProtocolError, match="bad-capacity"):
        WorkerScript(capacity=capacity)


def test_worker_registers_anew_after_a_random_and_growing_delay() -> None:
    script = WorkerScript(reconnect_first=0.5, reconnect_most=2.0)
    waits = []
    for _ in range(5):
        script.connect()
        before = script.now
        script.cut()
        while not script.renewals:
            script.pass_time(script.session.next_deadline() - script.now)
        waits.append(script.now - before)
        script.renewals.clear()
    assert waits == pytest.approx([0.25, 0.5, 1.0, 1.0, 1.0])
    assert script.said() == [ready()] * 5


def test_connection_that_lasted_makes_the_next_delay_short_again() -> None:
    script = WorkerScript(reconnect_first=0.5, reconnect_most=2.0)
    for _ in range(4):
        script.connect()
        script.cut()
        script.pass_time(1.0)
    script.connect()
    script.pass_time(2.0)
    script.cut()
    assert script.session.next_deadline() - script.now == pytest.approx(0.25)


def test_socket_that_does_not_connect_is_changed_for_another() -> None:
    script = WorkerScript(connect_timeout=4.0)
    script.turn()
    script.pass_time(8.5)
    assert script.out() == ([], [], [0, 0])


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────────


def test_dispatch_carries_all_fields_of_the_request(script: WorkerScript) -> None:
    script.request(7, b"a", b"", ttl=1500, flags=spec.ONCE)
    (job,) = script.events()
    assert job == Dispatch(
        job.id, b"echo", [b"a", b""], b"client", script.now + 1.5, b"", b"", spec.ONCE
    )
    assert script.session.held == 1


def test_job_without_a_deadline_has_infinite_time(script: WorkerScript) -> None:
    script.request(7, ttl=0)
    (job,) = script.events()
    assert job.deadline == inf


def test_job_parts_the_map_of_the_broker_from_that_of_the_sender(script: WorkerScript) -> None:
    ours, theirs = metadata.pack({"attempt": 2}), metadata.pack({"attempt": 99})
    script.request(1, flags=spec.METADATA | spec.BROKER_METADATA, metadata=ours + theirs)
    script.request(2, flags=spec.METADATA, metadata=theirs)
    script.request(3, flags=spec.BROKER_METADATA, metadata=ours)
    assert [(job.broker_metadata, job.metadata) for job in script.events()] == [
        (ours, theirs),
        (b"", theirs),
        (ours, b""),
    ]


def test_job_is_answered_with_one_final(script: WorkerScript) -> None:
    script.request(7, b"x")
    job = script.job()
    assert script.final(job, b"y", b"")
    assert script.out() == ([final(7, b"y", b"")], [], [])
    assert not script.final(job, b"again")
    assert not script.partial(job, b"again")
    assert not script.reject(job)
    assert script.out() == ([], [], [])
    assert script.session.held == 0


def test_jobs_are_answered_in_any_order(script: WorkerScript) -> None:
    for number in (1, 2, 3):
        script.request(number)
    first, second, third = (job.id for job in script.events())
    for job in (third, first, second):
        script.final(job)
    assert script.said() == [final(3), final(1), final(2)]


def test_parts_go_out_before_the_final(script: WorkerScript) -> None:
    script.request(7)
    job = script.job()
    assert script.partial(job, b"1")
    assert script.partial(job, b"2", b"2")
    assert script.final(job, b"end")
    assert script.said() == [
        ("PARTIAL", {"id": BIT + 7}, b"1"),
        ("PARTIAL", {"id": BIT + 7}, b"2", b"2"),
        final(7, b"end"),
    ]


def test_job_that_is_declined_is_rejected(script: WorkerScript) -> None:
    script.request(7)
    job = script.job()
    assert script.reject(job)
    assert script.out() == ([("REJECT", {"id": BIT + 7})], [], [])
    assert not script.final(job)
    assert script.session.held == 0


def test_job_that_has_sent_a_part_cannot_be_declined(script: WorkerScript) -> None:
    script.request(7)
    job = script.job()
    script.partial(job, b"1")
    with pytest.raises(LocalProtocolError, match="reject in STREAMING"):
        script.reject(job)
    assert script.final(job)


@pytest.mark.parametrize("status", [0, -1, 65536])
def test_job_is_still_held_after_an_answer_with_a_status_that_is_none(
    script: WorkerScript, status: int
) -> None:
    script.request(7)
    job = script.job()
    with pytest.raises(LocalProtocolError, match="bad-status"):
        script.final(job, status=status)
    assert script.final(job, b"sorry", status=500)
    assert script.said() == [final(7, b"sorry", status=500)]


def test_cancelled_job_still_gets_its_one_final_but_no_more_parts(script: WorkerScript) -> None:
    script.request(7)
    job = script.job()
    script.partial(job, b"1")
    script.said()
    script.say(spec.CANCEL, id=BIT + 7)
    script.say(spec.CANCEL, id=BIT + 7)
    assert script.out() == ([], [Cancel(job)], [])
    assert script.partial(job, b"2")
    assert script.final(job, status=499)
    assert script.said() == [final(7, status=499)]


def test_cancelled_job_may_be_declined(script: WorkerScript) -> None:
    script.request(7)
    job = script.job()
    script.say(spec.CANCEL, id=BIT + 7)
    assert script.reject(job)
    assert script.said() == [("REJECT", {"id": BIT + 7})]


def test_cancel_that_crosses_the_final_is_counted(script: WorkerScript) -> None:
    script.request(7)
    script.final(script.job())
    script.said()
    script.say(spec.CANCEL, id=BIT + 7)
    assert script.out() == ([], [], [])
    assert script.session.late == 1


# ── requests that cannot become jobs ──────────────────────────────────────────────────────────────


def test_request_for_an_unknown_service_is_rejected(script: WorkerScript) -> None:
    script.request(7, service=b"other")
    assert script.out() == ([("REJECT", {"id": BIT + 7})], [], [])
    assert script.session.invalid == {"unknown-service": 1}


def test_request_whose_id_is_open_is_dropped(script: WorkerScript) -> None:
    script.request(7, b"first")
    script.request(7, b"second")
    assert [job.frames for job in script.events()] == [[b"first"]]
    assert script.session.invalid == {"resend": 1}


def test_request_with_an_id_that_no_broker_makes_is_refused(script: WorkerScript) -> None:
    script.request(7 - BIT)
    assert script.out() == (
        [("FINAL", {"id": 7, "code": 400}, b"bit 63 of a broker's id is set")],
        [],
        [],
    )


def test_request_without_an_id_is_counted(script: WorkerScript) -> None:
    script.request(-BIT)
    assert script.out() == ([], [], [])
    assert script.session.invalid == {"no-id": 1}


@pytest.mark.parametrize("flags", [spec.CRITICAL, spec.CRITICAL | spec.MORE])
def test_request_that_asks_for_what_we_do_not_know_is_answered_501(
    script: WorkerScript, flags: int
) -> None:
    script.request(7, flags=flags)
    assert script.out() == ([final(7, b"not implemented: a flag", status=501)], [], [])


def test_request_with_rubbish_for_metadata_is_answered_400(script: WorkerScript) -> None:
    script.request(7, flags=spec.METADATA, metadata=b"\xc1")
    ((command, fields, _),), events, _ = script.out()
    assert (command, fields, events) == ("FINAL", {"id": BIT + 7, "code": 400}, [])
    assert script.session.invalid == {"bad-metadata": 1}


@pytest.mark.parametrize("command", [99, 17, 0, 255])
def test_unknown_command_with_an_id_is_answered_501(script: WorkerScript, command: int) -> None:
    script.say(command, id=7)
    script.say(command)
    text = b"not implemented: command %d" % command
    assert script.out() == ([("FINAL", {"id": 7, "code": 501}, text)], [], [])
    assert script.session.invalid == {"unknown-command": 2}


def test_unknown_command_for_a_held_job_ends_it(script: WorkerScript) -> None:
    script.request(7)
    job = script.job()
    script.say(99, id=BIT + 7)
    assert script.out() == (
        [final(7, b"not implemented: command 99", status=501)],
        [Cancel(job)],
        [],
    )
    assert not script.final(job)
    assert script.out() == ([], [], [])


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "empty"),
        ([b""], "truncated-header"),
        ([b"", b"MDPW01", b"\x04"], "truncated-header"),
        ([mdp03.pack(spec.READY)], "wrong-direction"),
        ([mdp03.pack(spec.HELLO)], "wrong-direction"),
        ([mdp03.pack(spec.SUBSCRIBE)], "wrong-direction"),
        ([mdp03.pack(spec.DISCONNECT, spec.CRITICAL)], "critical-flag"),
    ],
)
def test_message_that_makes_no_sense_is_counted_and_nothing_else(
    script: WorkerScript, frames: list[bytes], reason: str
) -> None:
    script.hear(*frames)
    assert script.out() == ([], [], [])
    assert script.session.invalid == {reason: 1}


# ── the loss of the broker ────────────────────────────────────────────────────────────────────────


def by_monitor(script: WorkerScript) -> None:
    script.cut()


def by_disconnect(script: WorkerScript) -> None:
    script.say(spec.DISCONNECT)


@pytest.mark.parametrize("lose", [by_monitor, by_disconnect])
def test_jobs_are_cancelled_with_the_connection_that_they_came_over(lose: Any) -> None:
    script = registered()
    for number in (1, 2):
        script.request(number)
    jobs = [job.id for job in script.events()]
    script.say(spec.CANCEL, id=BIT + 1)
    lose(script)
    script.pass_time(1.0)
    assert script.out() == ([], [Cancel(jobs[0]), Cancel(jobs[1])], [0])
    assert (script.session.ready, script.session.held) == (False, 0)


def test_answer_of_an_older_connection_is_not_sent_on_a_newer_one(script: WorkerScript) -> None:
    script.request(7, b"old")
    old = script.job()
    script.cut()
    script.pass_time(1.0)
    script.connect()
    script.welcome()
    script.out()
    script.request(7, b"new")
    new = script.job()
    assert new != old
    assert not script.final(old, b"old")
    assert not script.partial(old, b"old")
    assert script.final(new, b"new")
    assert script.said() == [final(7, b"new")]


def test_answer_that_has_not_left_is_gone_with_its_connection(script: WorkerScript) -> None:
    script.request(7)
    job = script.job()
    script.full = True
    script.final(job)
    script.cut()
    script.full = False
    script.pass_time(1.0)
    script.connect()
    assert script.out() == ([ready()], [], [0])


def test_silent_broker_is_lost_after_interval_times_liveness(script: WorkerScript) -> None:
    script.request(7)
    job = script.job()
    script.pass_time(7.4)
    assert script.out() == ([HEARTBEAT] * 2, [], [])
    script.pass_time(0.1)
    assert script.out() == ([DISCONNECT], [Cancel(job)], [])
    script.pass_time(0.1)
    assert script.out() == ([], [], [0])
    script.connect()
    assert script.out() == ([ready()], [], [])


def test_broker_that_sends_any_message_is_not_silent(script: WorkerScript) -> None:
    for number in range(20):
        script.pass_time(7.0)
        script.request(number)
    assert script.renewals == []


def test_welcome_sets_interval_and_liveness() -> None:
    script = WorkerScript()
    script.connect()
    facts = metadata.pack({"liveness": 2})
    script.welcome(1000, flags=spec.METADATA, metadata=facts)
    script.said()
    script.pass_time(1.5)
    assert script.out() == ([HEARTBEAT], [], [])
    script.pass_time(0.5)
    assert script.out() == ([DISCONNECT], [], [])


def test_worker_heartbeats_every_interval_whatever_else_it_sent(script: WorkerScript) -> None:
    said = []
    for number in range(40):
        script.request(number)
        script.final(script.job())
        script.pass_time(0.25)
    said = [word for word in script.said() if word[0] == "HEARTBEAT"]
    assert said == [HEARTBEAT] * 4


@pytest.mark.parametrize(
    ("load", "code"),
    [(None, 0xFFFF), (0.0, 0), (0.42, 42), (3.0, 300), (1e9, 0xFFFE), (-1.0, 0xFFFF)],
)
def test_heartbeat_carries_the_load(script: WorkerScript, load: float | None, code: int) -> None:
    script.session.set_load(load, script.now)
    script.pass_time(2.5)
    assert script.said() == [("HEARTBEAT", {"code": code} if code else {})]


def test_session_that_was_paused_listens_before_it_judges(script: WorkerScript) -> None:
    script.request(7)
    job = script.job()
    script.pause(100.0)
    assert script.out() == ([HEARTBEAT], [], [])
    script.say(spec.HEARTBEAT)
    script.pass_time(7.0)
    assert script.renewals == []
    assert script.final(job)


def test_broker_that_stays_silent_after_our_pause_is_lost_after_one_more_interval(
    script: WorkerScript,
) -> None:
    script.pause(100.0)
    script.said()
    script.pass_time(2.4)
    assert script.said() == []
    script.pass_time(0.1)
    assert script.said() == [DISCONNECT]


# ── capacity, draining, the end ───────────────────────────────────────────────────────────────────


def test_new_capacity_is_announced_now_and_with_every_later_registration(
    script: WorkerScript,
) -> None:
    script.session.set_capacity(5, script.now)
    script.turn()
    assert script.said() == [("CAPACITY", {"code": 5})]
    script.cut()
    script.pass_time(1.0)
    script.connect()
    assert script.said() == [ready(capacity=5)]


def test_worker_that_drains_finishes_what_it_has(script: WorkerScript) -> None:
    script.request(7)
    job = script.job()
    script.drain()
    script.session.drain(script.now)
    assert script.out() == ([("CAPACITY", {})], [], [])
    script.pass_time(1.0)
    assert not script.session.drained
    script.final(job)
    assert script.said() == [final(7)]
    assert script.session.drained


def test_worker_is_not_drained_before_its_answers_have_left(script: WorkerScript) -> None:
    script.request(7)
    job = script.job()
    script.drain()
    script.pass_time(1.0)
    script.session.final(job, 200, [], script.now)
    assert not script.session.drained
    script.full = True
    script.turn()
    assert not script.session.drained
    script.full = False
    script.pass_time(0.1)
    assert script.session.drained


def test_worker_that_drains_still_serves_what_the_broker_sent_before_it_knew(
    script: WorkerScript,
) -> None:
    script.drain()
    assert not script.session.drained
    script.pass_time(0.05)
    script.request(7)
    job = script.job()
    script.pass_time(1.0)
    assert not script.session.drained
    script.final(job)
    assert script.session.drained


def test_idle_worker_is_drained_when_nothing_can_be_on_its_way(script: WorkerScript) -> None:
    script.drain()
    script.pass_time(0.09)
    assert not script.session.drained
    script.pass_time(0.02)
    assert script.session.drained


def test_worker_that_drains_and_loses_its_broker_does_not_register_anew(
    script: WorkerScript,
) -> None:
    script.request(7)
    script.drain()
    script.cut()
    assert script.session.drained
    script.pass_time(1.0)
    script.connect()
    script.pass_time(100.0)
    assert [word[0] for word in script.said()] == ["CAPACITY"]


def test_worker_that_drains_can_be_called_back(script: WorkerScript) -> None:
    script.session.set_capacity(0, script.now)
    script.pass_time(1.0)
    assert script.session.drained
    script.session.set_capacity(3, script.now)
    script.turn()
    assert not script.session.drained
    assert script.said() == [("CAPACITY", {}), ("CAPACITY", {"code": 3})]


def test_service_that_comes_while_its_worker_drains_is_registered_when_that_is_called_back(
    script: WorkerScript,
) -> None:
    script.session.set_capacity(0, script.now)
    script.session.add_service(b"time", script.now)
    script.turn()
    assert script.said() == [("CAPACITY", {})]
    script.session.set_capacity(3, script.now)
    script.turn()
    assert script.said() == [("CAPACITY", {"code": 3}), ready(b"time", capacity=3)]
    script.session.set_capacity(4, script.now)
    script.turn()
    assert script.said() == [("CAPACITY", {"code": 4})]


def test_worker_called_back_after_it_lost_its_broker_registers(script: WorkerScript) -> None:
    script.drain()
    script.cut()
    script.pass_time(1.0)
    script.connect()
    script.out()
    script.session.set_capacity(2, script.now)
    script.turn()
    assert script.said() == [ready(capacity=2)]


def test_worker_of_a_draining_broker_goes_on(script: WorkerScript) -> None:
    script.request(7)
    job = script.job()
    script.say(spec.CAPACITY)
    assert script.session.broker_drains
    assert script.final(job)
    assert script.out() == ([final(7)], [], [])


def test_worker_that_closes_cancels_its_dispatches_and_sends_disconnect(
    script: WorkerScript,
) -> None:
    script.request(7)
    job = script.job()
    script.close()
    script.close()
    assert script.out() == ([DISCONNECT], [Cancel(job)], [])
    assert not script.final(job)
    script.cut()
    script.connect()
    script.request(8)
    script.pass_time(1000.0)
    assert script.out() == ([], [], [])
    assert script.session.next_deadline() == inf


def test_answer_given_just_before_close_still_leaves(script: WorkerScript) -> None:
    script.request(7)
    script.session.final(script.job(), 200, [b"y"], script.now)
    script.close()
    assert script.out() == ([final(7, b"y"), DISCONNECT], [], [])


# ── a full socket ─────────────────────────────────────────────────────────────────────────────────


def test_answers_that_the_socket_refuses_are_tried_again_in_order(script: WorkerScript) -> None:
    for number in range(6):
        script.request(number)
    jobs = [job.id for job in script.events()]
    script.room = 2
    for job in jobs[:4]:
        script.session.final(job, 200, [], script.now)
    script.turn()
    script.room = 99
    for job in jobs[4:]:
        script.final(job)
    assert script.said() == [final(0), final(1)]
    script.pass_time(0.005)
    assert script.said() == [final(2), final(3), final(4), final(5)]
    script.request(9)
    script.pass_time(0.001)
    script.final(script.job())
    assert script.said() == [final(9)]


def test_stream_that_the_broker_does_not_read_ends_with_429(script: WorkerScript) -> None:
    script.request(7)
    job = script.job()
    script.say(spec.CREDIT, id=BIT + 7, code=2000)
    script.events()
    script.full = True
    parts = 0
    while script.partial(job, b"%d" % parts):
        parts += 1
    assert script.events() == [Cancel(job)]
    assert (parts, script.session.held) == (1000, 0)
    script.full = False
    script.pass_time(1.0)
    said = script.said()
    assert [word[2] for word in said[:-1]] == [b"%d" % n for n in range(1000)]
    assert said[-1] == final(7, TOO_SLOW, status=429)


def test_finals_are_held_however_many_wait(script: WorkerScript) -> None:
    for number in range(1500):
        script.request(number)
    script.full = True
    for job in script.events():
        assert script.session.final(job.id, 200, [], script.now)
    script.turn()
    script.full = False
    script.pass_time(1.0)
    assert script.said() == [final(number) for number in range(1500)]


def test_heartbeats_do_not_pile_up_at_a_full_socket(script: WorkerScript) -> None:
    script.full = True
    for _ in range(20):
        script.pass_time(5.0)
        script.say(spec.HEARTBEAT)
    script.full = False
    script.pass_time(0.2)
    assert len(script.said()) <= 1


# ── why the broker parts ──────────────────────────────────────────────────────────────────────────


def test_reason_of_a_disconnect_is_told(script: WorkerScript) -> None:
    field = metadata.pack({"status": 403, "reason": "'wes' may not serve 'echo'"})
    script.say(spec.DISCONNECT, flags=spec.BROKER_METADATA, metadata=field)
    assert script.events() == [Disconnected(403, "'wes' may not serve 'echo'")]


@pytest.mark.parametrize(
    "values",
    [{}, {"versions": [3]}, {"status": "403", "reason": "x"}, {"status": 403, "reason": 5}],
)
def test_disconnect_without_a_reason_reports_none(
    script: WorkerScript, values: dict[str, Any]
) -> None:
    script.say(spec.DISCONNECT, flags=spec.BROKER_METADATA, metadata=metadata.pack(values))
    assert script.events() == []


# ── the sizes that WELCOME announces ──────────────────────────────────────────────────────────────


@pytest.fixture
def limited() -> WorkerScript:
    """A worker whose broker takes bodies of 10 bytes and parts of 5; it has one dispatch."""
    script = WorkerScript()
    script.connect()
    field = metadata.pack({"max_message": 10, "max_part": 5})
    script.welcome(flags=spec.BROKER_METADATA, metadata=field)
    script.out()
    script.request(7, b"x")
    return script


def test_answer_that_is_larger_than_the_broker_takes_becomes_a_413(limited: WorkerScript) -> None:
    assert limited.final(limited.job(), bytes(11))
    assert limited.said() == [final(7, b"11 bytes; the broker takes at most 10", status=413)]
    limited.request(8, b"x")
    assert limited.final(limited.job(), bytes(10))
    assert limited.said() == [final(8, bytes(10))]


def test_part_that_is_larger_than_the_broker_takes_ends_the_dispatch_with_413(
    limited: WorkerScript,
) -> None:
    job = limited.job()
    assert limited.partial(job, bytes(5))
    limited.said()
    assert not limited.partial(job, bytes(6))
    assert limited.said() == [final(7, b"6 bytes; the broker takes at most 5", status=413)]
    assert limited.events() == [Cancel(job)]


def test_event_that_is_larger_than_the_broker_takes_is_lost_here(limited: WorkerScript) -> None:
    assert not limited.session.publish(b"news", [bytes(11)], limited.now)
    assert not limited.session.push(b"client", [bytes(11)], limited.now)
    assert limited.session.publish(b"news", [bytes(10)], limited.now)


# ── metadata of replies ───────────────────────────────────────────────────────────────────────────

PAGE = metadata.pack({"type": "text/csv", "next": 7})


def test_part_and_final_carry_their_metadata(script: WorkerScript) -> None:
    script.request(1)
    job = script.job()
    assert script.session.partial(job, [b"a"], script.now, PAGE)
    assert script.session.final_with(job, 200, [b"b"], PAGE, script.now)
    script.turn()
    with_metadata = {"flags": spec.METADATA, "metadata": PAGE}
    assert script.said() == [
        ("PARTIAL", {"id": BIT + 1, **with_metadata}, b"a"),
        ("FINAL", {"id": BIT + 1, "code": 200, **with_metadata}, b"b"),
    ]
    assert script.session.held == 0
    assert not script.session.final_with(job, 200, [b"b"], PAGE, script.now)


@pytest.mark.parametrize(
    ("status", "field"), [(0, PAGE), (65_536, PAGE), (200, b"x" * (spec.MAX_METADATA + 1))]
)
def test_final_whose_status_or_metadata_cannot_be_sent_leaves_the_dispatch_held(
    script: WorkerScript, status: int, field: bytes
) -> None:
    script.request(1)
    job = script.job()
    with pytest.raises(LocalProtocolError):
        script.session.final_with(job, status, [], field, script.now)
    assert script.session.held == 1
    assert script.final(job)


def test_final_that_is_too_large_for_its_broker_is_a_413_without_its_metadata() -> None:
    script = WorkerScript()
    script.connect()
    limits = metadata.pack({"max_message": 3})
    script.welcome(flags=spec.METADATA, metadata=limits)
    script.out()
    script.request(1)
    job = script.job()
    assert script.session.final_with(job, 200, [b"long"], PAGE, script.now)
    script.turn()
    ((name, fields, _),) = script.said()
    assert (name, fields) == ("FINAL", {"id": BIT + 1, "code": 413})


# ── messages that are larger than the worker takes ────────────────────────────────────────────────


def test_request_that_is_larger_than_the_worker_takes_is_answered_with_413() -> None:
    script = WorkerScript(max_received=70_000)
    script.connect()
    script.welcome()
    script.out()
    text = b"larger than the 70000 bytes that this side takes from its broker"
    id = spec.BROKER_ID_BIT + 1
    head = mdp03.pack(spec.REQUEST, id=id, service=b"echo", address=b"client")
    assert script.session.receive_cut([head, b""], script.now)
    script.turn()
    assert script.out() == ([("FINAL", {"code": 413, "id": id}, text)], [], [])
    assert script.session.held == 0


def test_part_that_is_larger_than_the_worker_takes_ends_its_dispatch() -> None:
    script = WorkerScript(max_received=70_000)
    script.connect()
    script.welcome()
    script.request(1, flags=spec.MORE)
    script.out()
    id = spec.BROKER_ID_BIT + 1
    assert script.session.receive_cut([mdp03.pack(spec.PARTIAL, id=id), b""], script.now)
    script.turn()
    (said,), (event,), _ = script.out()
    assert said[:2] == ("FINAL", {"code": 413, "id": id})
    assert isinstance(event, Cancel)
    assert script.session.held == 0
