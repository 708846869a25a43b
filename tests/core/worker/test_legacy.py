"""The worker's session in MDP/0.1, MDP/0.2, delimited 0.2 and Delphi (docs/spec/mdp-0.2.md, §3)."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from majordomus.core.worker.session import DECLINED, Cancel, Dispatch
from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.session_harness import LEGACY_DIALECTS, Word, WorkerScript

ALL = pytest.mark.parametrize("dialect", LEGACY_DIALECTS)
RFC = pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.MDP02, Dialect.MDP02D])
STREAMING = pytest.mark.parametrize("dialect", [Dialect.MDP02, Dialect.MDP02D])
JOINING = pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.DELPHI])
DELPHI = LEGACY[Dialect.DELPHI]


def registered(dialect: Dialect, **settings: Any) -> WorkerScript:
    """A worker that its broker knows."""
    script = WorkerScript(dialect=dialect, **settings)
    script.connect()
    if dialect is Dialect.DELPHI:
        script.hear(*DELPHI.b2w_ready(b"\x00\x01"))
    script.out()
    return script


def ask(script: WorkerScript, dialect: Dialect, *body: bytes, address: bytes = b"a1") -> None:
    """The broker says REQUEST."""
    script.hear(*LEGACY[dialect].b2w_request(address, list(body)))


def beat(script: WorkerScript, dialect: Dialect) -> None:
    """The broker says HEARTBEAT."""
    script.hear(*LEGACY[dialect].b2w_heartbeat())


def ready(dialect: Dialect) -> Word:
    return tuple(LEGACY[dialect].w2b_ready(b"echo"))


def final(dialect: Dialect, *body: bytes, address: bytes = b"a1") -> Word:
    return tuple(LEGACY[dialect].w2b_final(b"echo", address, list(body)))


def heartbeat(dialect: Dialect, load: float | None = None) -> Word:
    return tuple(LEGACY[dialect].w2b_heartbeat(b"echo", load))


def disconnect(dialect: Dialect) -> Word:
    return tuple(LEGACY[dialect].w2b_disconnect(b"echo"))


# ── registration ──────────────────────────────────────────────────────────────────────────────────


@RFC
def test_legacy_worker_is_ready_by_having_said_so(dialect: Dialect) -> None:
    script = WorkerScript(dialect=dialect)
    assert not script.session.ready
    script.connect()
    assert script.out() == ([ready(dialect)], [], [])
    assert script.session.ready


def test_delphi_worker_is_ready_when_the_broker_has_answered() -> None:
    script = WorkerScript(dialect=Dialect.DELPHI)
    script.connect()
    assert script.out() == ([ready(Dialect.DELPHI)], [], [])
    assert not script.session.ready
    script.hear(*DELPHI.b2w_ready(b"\x00\x6b"))
    assert (script.session.ready, script.session.worker_id) == (True, b"006B")


@ALL
@pytest.mark.parametrize("services", [(), (b"a", b"b")])
def test_legacy_worker_serves_exactly_one_service(
    dialect: Dialect, services: tuple[bytes, ...]
) -> None:
    with pytest.raises(LocalProtocolError, match="one-service"):
        WorkerScript(dialect=dialect, services=services)


@ALL
def test_legacy_worker_cannot_add_a_service(dialect: Dialect) -> None:
    script = registered(dialect)
    with pytest.raises(LocalProtocolError, match="one-service"):
        script.session.add_service(b"time", script.now)


@ALL
def test_legacy_worker_announces_no_capacity(dialect: Dialect) -> None:
    script = registered(dialect, capacity=8)
    script.session.set_capacity(4, script.now)
    script.turn()
    assert script.out() == ([], [], [])


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────────


@ALL
@pytest.mark.parametrize("body", [(), (b"x",), (b"x", b"", b"z")])
def test_legacy_worker_answers_a_job_under_its_address(
    dialect: Dialect, body: tuple[bytes, ...]
) -> None:
    script = registered(dialect)
    ask(script, dialect, *body)
    (job,) = script.events()
    assert job == Dispatch(job.id, b"echo", list(body) or [b""], b"a1", inf, b"", b"", 0)
    assert script.final(job.id, *body)
    assert not script.final(job.id, *body)
    assert script.out() == ([final(dialect, *body)], [], [])


@STREAMING
def test_legacy_worker_sends_parts_and_then_the_final(dialect: Dialect) -> None:
    script = registered(dialect)
    ask(script, dialect)
    job = script.job()
    script.partial(job, b"1")
    script.partial(job, b"2", b"2")
    script.final(job, b"end")
    codec = LEGACY[dialect]
    assert script.said() == [
        tuple(codec.w2b_partial(b"echo", b"a1", [b"1"])),
        tuple(codec.w2b_partial(b"echo", b"a1", [b"2", b"2"])),
        final(dialect, b"end"),
    ]


@JOINING
def test_worker_joins_parts_into_one_reply_where_the_dialect_has_no_parts(
    dialect: Dialect,
) -> None:
    script = registered(dialect)
    ask(script, dialect)
    job = script.job()
    assert script.partial(job, b"1")
    assert script.partial(job, b"2", b"2")
    assert script.said() == []
    script.final(job)
    assert script.said() == [final(dialect, b"1", b"2", b"2")]


@ALL
def test_failure_is_told_by_status_and_sentence_for_the_dialect_has_no_status(
    dialect: Dialect,
) -> None:
    script = registered(dialect)
    for body in ((b"ValueError: no", b"more"), ()):
        ask(script, dialect)
        script.final(script.job(), *body, status=500)
    assert script.said() == [
        final(dialect, b"500", b"ValueError: no"),
        final(dialect, b"500", b""),
    ]


@JOINING
def test_failure_takes_the_place_of_the_parts_that_were_joined(dialect: Dialect) -> None:
    script = registered(dialect)
    ask(script, dialect)
    job = script.job()
    script.partial(job, b"1")
    script.final(job, b"broke", status=500)
    assert script.said() == [final(dialect, b"500", b"broke")]


@ALL
def test_job_declined_in_a_dialect_without_reject_is_answered_503(dialect: Dialect) -> None:
    script = registered(dialect)
    ask(script, dialect)
    assert script.reject(script.job())
    assert script.out() == ([final(dialect, b"503", DECLINED)], [], [])


def test_delphi_worker_holds_any_number_of_jobs_also_of_one_client() -> None:
    script = registered(Dialect.DELPHI)
    for n in range(3):
        ask(script, Dialect.DELPHI, b"%d" % n, address=b"same")
    jobs = [job.id for job in script.events()]
    assert (len(set(jobs)), script.session.held) == (3, 3)
    for n, job in enumerate(jobs):
        script.final(job, b"r%d" % n)
    assert script.said() == [final(Dialect.DELPHI, b"r%d" % n, address=b"same") for n in range(3)]


@ALL
@pytest.mark.parametrize(
    "frames", [[], [b""], [b"", b""], [b"rubbish"], [mdp03.pack(spec.REQUEST)]]
)
def test_legacy_worker_counts_what_is_not_in_its_dialect(
    dialect: Dialect, frames: list[bytes]
) -> None:
    script = registered(dialect)
    script.hear(*frames)
    assert script.out() == ([], [], [])
    assert sum(script.session.invalid.values()) == 1


# ── heartbeats, and the loss of the broker ────────────────────────────────────────────────────────


@ALL
def test_legacy_worker_heartbeats_every_interval_whatever_else_it_sent(dialect: Dialect) -> None:
    script = registered(dialect)
    for _ in range(10):
        script.pass_time(1.0)
        ask(script, dialect)
        script.final(script.job())
    said = script.said()
    assert [word for word in said if word != final(dialect, b"")] == [heartbeat(dialect)] * 4
    assert len(said) == 14


@pytest.mark.parametrize("interval", [30.0, 2.5])
def test_delphi_worker_heartbeats_every_2500_ms_whatever_its_settings(interval: float) -> None:
    script = registered(Dialect.DELPHI, interval=interval)
    script.session.set_load(0.42, script.now)
    script.pass_time(5.0)
    assert script.said() == [heartbeat(Dialect.DELPHI, 0.42)] * 2


@ALL
def test_idle_legacy_worker_loses_a_silent_broker_and_registers_anew(dialect: Dialect) -> None:
    script = registered(dialect)
    script.pass_time(7.5)
    assert script.out() == ([heartbeat(dialect)] * 2 + [disconnect(dialect)], [], [])
    script.pass_time(0.1)
    script.connect()
    assert script.out() == ([ready(dialect)], [], [0])


@ALL
def test_legacy_broker_that_heartbeats_is_not_lost(dialect: Dialect) -> None:
    script = registered(dialect)
    for _ in range(20):
        script.pass_time(7.0)
        beat(script, dialect)
    assert script.renewals == []


@RFC
def test_busy_worker_does_not_judge_a_broker_that_beats_only_to_idle_ones(
    dialect: Dialect,
) -> None:
    script = registered(dialect)
    ask(script, dialect)
    job = script.job()
    script.pass_time(60.0)
    assert script.out() == ([heartbeat(dialect)] * 24, [], [])
    assert script.final(job, b"done")
    script.pass_time(7.4)
    assert script.out() == ([final(dialect, b"done")] + [heartbeat(dialect)] * 2, [], [])
    script.pass_time(0.1)
    assert script.said() == [heartbeat(dialect), disconnect(dialect)][1:]


def test_busy_delphi_worker_loses_a_silent_broker_with_its_jobs() -> None:
    script = registered(Dialect.DELPHI)
    ask(script, Dialect.DELPHI)
    job = script.job()
    script.pass_time(7.5)
    assert script.events() == [Cancel(job)]


@ALL
@pytest.mark.parametrize("by", ["monitor", "disconnect"])
def test_legacy_job_is_cancelled_with_its_connection(dialect: Dialect, by: str) -> None:
    script = registered(dialect)
    ask(script, dialect)
    job = script.job()
    if by == "monitor":
        script.cut()
    else:
        script.hear(*LEGACY[dialect].b2w_disconnect())
    assert not script.session.ready
    script.pass_time(1.0)
    script.connect()
    assert not script.final(job, b"late")
    assert script.out() == ([ready(dialect)], [Cancel(job)], [0])


# ── draining, the end ─────────────────────────────────────────────────────────────────────────────


@RFC
def test_idle_legacy_worker_that_drains_leaves_at_once(dialect: Dialect) -> None:
    script = registered(dialect)
    script.drain()
    assert script.session.drained
    script.pass_time(100.0)
    script.close()
    assert script.out() == ([disconnect(dialect)], [], [])


@RFC
def test_busy_legacy_worker_that_drains_leaves_with_its_answer(dialect: Dialect) -> None:
    script = registered(dialect)
    ask(script, dialect)
    job = script.job()
    script.drain()
    assert (script.session.drained, script.said()) == (False, [])
    script.final(job, b"y")
    assert script.session.drained
    assert script.out() == ([final(dialect, b"y"), disconnect(dialect)], [], [])


@RFC
def test_last_answer_of_a_draining_worker_leaves_also_when_the_socket_is_full(
    dialect: Dialect,
) -> None:
    script = registered(dialect)
    ask(script, dialect)
    job = script.job()
    script.drain()
    script.full = True
    script.final(job, b"y")
    assert not script.session.drained
    script.full = False
    script.pass_time(0.1)
    assert script.out() == ([final(dialect, b"y"), disconnect(dialect)], [], [])
    assert script.session.drained


@RFC
def test_request_that_crosses_the_goodbye_of_a_worker_is_left_to_others(dialect: Dialect) -> None:
    script = registered(dialect)
    script.drain()
    ask(script, dialect)
    assert script.out() == ([disconnect(dialect)], [], [])
    assert (script.session.late, script.session.held) == (1, 0)


def test_delphi_worker_that_drains_declares_itself_unfit_before_it_leaves() -> None:
    script = registered(Dialect.DELPHI)
    script.drain()
    assert script.said() == [heartbeat(Dialect.DELPHI, -1.0)]
    script.pass_time(0.05)
    ask(script, Dialect.DELPHI)
    job = script.job()
    script.pass_time(3.0)
    assert script.said() == [heartbeat(Dialect.DELPHI, -1.0)]
    assert not script.session.drained
    script.final(job, b"y")
    assert script.session.drained
    assert script.said() == [final(Dialect.DELPHI, b"y"), disconnect(Dialect.DELPHI)]


def test_idle_delphi_worker_that_drains_leaves_when_nothing_can_be_on_its_way() -> None:
    script = registered(Dialect.DELPHI)
    script.drain()
    script.pass_time(1.0)
    assert script.session.drained
    assert script.said() == [heartbeat(Dialect.DELPHI, -1.0), disconnect(Dialect.DELPHI)]


@ALL
def test_legacy_worker_without_a_connection_is_drained_at_once(dialect: Dialect) -> None:
    script = WorkerScript(dialect=dialect)
    script.drain()
    script.connect()
    script.pass_time(100.0)
    assert script.session.drained
    assert script.out() == ([], [], [])


@ALL
def test_legacy_worker_that_drains_and_loses_its_broker_does_not_come_back(
    dialect: Dialect,
) -> None:
    script = registered(dialect)
    ask(script, dialect)
    job = script.job()
    script.drain()
    script.said()
    script.cut()
    script.pass_time(100.0)
    assert script.session.drained
    assert script.out() == ([], [Cancel(job)], [])


@ALL
def test_legacy_worker_that_has_left_does_not_mind_the_end_of_its_connection(
    dialect: Dialect,
) -> None:
    script = registered(dialect)
    script.drain()
    script.pass_time(1.0)
    script.said()
    script.cut()
    script.pass_time(100.0)
    assert script.out() == ([], [], [])
    assert script.session.drained


@ALL
def test_legacy_worker_that_closes_sends_disconnect(dialect: Dialect) -> None:
    script = registered(dialect)
    ask(script, dialect)
    job = script.job()
    script.close()
    assert script.out() == ([disconnect(dialect)], [Cancel(job)], [])
    assert not script.final(job)


@STREAMING
def test_legacy_stream_that_the_broker_does_not_read_ends_with_429(dialect: Dialect) -> None:
    script = registered(dialect)
    ask(script, dialect)
    job = script.job()
    script.full = True
    while script.partial(job, b"x"):
        pass
    script.full = False
    script.pass_time(1.0)
    said = script.said()
    assert len(said) == 1001
    assert said[-1][-2:] == (b"429", b"the broker reads more slowly than the worker sends")
    assert script.events() == [Cancel(job)]
