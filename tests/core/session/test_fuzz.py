"""Both sessions under any bytes and any order of events: nothing is raised, and what is promised
holds."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from majordomus.core.client.calls import Calls
from majordomus.core.client.session import (
    CallCredit,
    ClientSession,
    ClientSettings,
    EventReceived,
    Final,
    Lost,
    Part,
    SubscriptionRefused,
)
from majordomus.core.session.events import MOST_EXPECTED
from majordomus.core.session.transitions import CallState
from majordomus.core.worker.session import Cancel, Dispatch, WorkerSession, WorkerSettings
from majordomus.errors import LocalProtocolError, RemoteProtocolError
from majordomus.protocol import mdp03, metadata, octets, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect, Frame
from tests import headers

BIT = spec.BROKER_ID_BIT
EXAMPLES = settings(max_examples=150, deadline=None)
DIALECTS = pytest.mark.parametrize("dialect", list(Dialect))

# ── what a broker may say ─────────────────────────────────────────────────────────────────────────

bodies = st.lists(st.binary(max_size=4), max_size=3)
COMMANDS = [2, 3, 3, 4, 4, 4, 5, 6, 7, 9, 10, 15]
wire_ids = st.one_of(st.integers(0, 6), st.integers(0, 6).map(lambda n: BIT + n))
fields = st.sampled_from(
    [
        b"",
        metadata.pack({}),
        metadata.pack({"liveness": 2}),
        metadata.pack({"liveness": -1, "brokers": []}),
        b"\xc1",
        b"\x81\xa1a",
    ]
)


@st.composite
def any_header(draw: st.DrawFn) -> Frame:
    """A header that can be parsed, whatever it means."""
    field = draw(fields)
    flags = draw(st.sampled_from([0, 0, 0, 0x02, 0x04, 0x08, 0x10, 0x20, 0x80]))
    if field:
        flags |= draw(st.sampled_from([spec.METADATA, spec.BROKER_METADATA, 0x41]))
    return mdp03.pack(
        draw(
            st.one_of(
                st.sampled_from([2, 3, 3, 4, 4, 4, 5, 6, 7, 9, 10, 11, 11, 15]), st.integers(0, 255)
            )
        ),
        flags,
        draw(st.sampled_from([0, 200, 200, 408, 429, 503, 500, 65535])),
        draw(wire_ids),
        draw(st.sampled_from([0, 1, 50, 1000, 30_000])),
        draw(st.sampled_from([b"", b"echo", b"time"])),
        draw(st.sampled_from([b"", b"w1"])),
        field,
    )


def legacy_messages(dialect: Dialect) -> st.SearchStrategy[list[Frame]]:
    """What a broker of `dialect` says to clients and workers."""
    codec = LEGACY[dialect]
    services, addresses = st.sampled_from([b"echo", b"time"]), st.sampled_from([b"a", b"b"])
    kinds = [
        st.builds(codec.b2c_final, services, bodies),
        st.builds(codec.b2w_request, addresses, bodies),
        st.builds(codec.b2w_heartbeat),
        st.builds(codec.b2w_disconnect),
    ]
    if dialect in (Dialect.MDP02, Dialect.MDP02D):
        kinds.append(st.builds(codec.b2c_partial, services, bodies))
    if dialect is Dialect.DELPHI:
        kinds.append(st.builds(codec.b2w_ready, addresses))
    return st.one_of(kinds)


def messages(dialect: Dialect) -> st.SearchStrategy[list[Frame]]:
    rubbish = st.lists(st.binary(max_size=30), max_size=4)
    own = st.builds(lambda head, body: [head, *body], any_header(), bodies)
    if dialect is not Dialect.MDP03:
        own = st.one_of(legacy_messages(dialect), own)

    def damage(frames: list[Frame], at: int, with_: int) -> list[Frame]:
        if not frames:
            return frames
        at %= len(frames)
        return [*frames[:at], frames[at][:with_], *frames[at + 1 :]]

    damaged = st.builds(damage, own, st.integers(0, 9), st.integers(0, 25))
    return st.one_of(own, own, own, damaged, rubbish)


def shared_steps(dialect: Dialect) -> list[st.SearchStrategy[tuple[Any, ...]]]:
    """What happens to any session."""
    return [
        st.tuples(st.just("connected")),
        st.tuples(st.just("lost")),
        st.tuples(st.just("receive"), messages(dialect)),
        st.tuples(st.just("receive"), messages(dialect)),
        st.tuples(st.just("room"), st.sampled_from([0, 1, 3, 10**6, 10**6])),
        st.tuples(st.just("time"), st.sampled_from([0.0, 0.01, 0.1, 1.0, 3.0, 40.0])),
        st.tuples(st.just("turn")),
        st.tuples(st.just("turn")),
        st.tuples(st.just("events"), st.sampled_from(EVENTS), st.sampled_from([b"a", b"a.b"])),
    ]


EVENTS = ["subscribe", "unsubscribe", "publish", "push"]


def speak_of_events(session: Any, what: str, name: bytes, now: float) -> None:
    """Something about events, where the dialect knows them and the session can say it."""
    with contextlib.suppress(LocalProtocolError):
        if what in ("subscribe", "unsubscribe"):
            getattr(session, what)(name, now)
        elif isinstance(session, WorkerSession):
            getattr(session, what)(name, [b"news"], now)
        elif what == "publish":
            session.publish(name, [b"news"], now, ttl=1.0)


def check_events(session: Any) -> None:
    """What is remembered of events stays within its bounds."""
    assert len(session.events._expected) <= MOST_EXPECTED
    assert set(session.events.patterns) <= {b"a", b"a.b"}


class Shell:
    """Drives a session step by step and remembers all that came out."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.now = 1000.0
        self.room = 10**6
        self.sent: list[list[list[Frame]]] = [[]]
        """What left, connection by connection."""
        self.events: list[Any] = []

    def step(self, what: str, *arguments: Any) -> None:
        if what == "turn":
            self.turn()
        elif what == "time":
            self.now += arguments[0]
        elif what == "room":
            self.room = arguments[0]
        elif what == "receive":
            self.session.receive(list(arguments[0]), self.now)
        elif what == "events":
            speak_of_events(self.session, *arguments, self.now)
            check_events(self.session)
        else:
            getattr(self.session, what)(*arguments, self.now)

    def turn(self) -> None:
        session = self.session
        if session.next_deadline() <= self.now:
            session.tick(self.now)
        sends, tags, events, renew = session.take_effects()
        self.events.extend(events)
        for frames, tag in list(zip(sends, tags, strict=True)):
            if self.room > 0:
                self.room -= 1
                self.sent[-1].append(frames)
            else:
                session.refused(frames, tag, self.now)
        if renew:
            self.sent.append([])
        assert session.next_deadline() > self.now or self.settles()

    def settles(self) -> bool:
        """However much is due now, it is done after some turns."""
        for _ in range(100):
            self.session.tick(self.now)
            sends, _, events, renew = self.session.take_effects()
            self.events.extend(events)
            self.sent[-1].extend(sends)
            if renew:
                self.sent.append([])
            if self.session.next_deadline() > self.now:
                return True
        return False


# ── the client ────────────────────────────────────────────────────────────────────────────────────

flag_sets = st.sampled_from(
    [0, 0, spec.ONCE, spec.ONE_WAY, spec.FAIL_FAST, spec.ONCE | 0x08, spec.MORE, spec.MORE]
)
ttls = st.sampled_from([0.0, 0.001, 0.05, 1.0, 60.0, inf])


PICK = st.integers(0, 12)


def speak(session: ClientSession, what: str, call: int) -> None:
    """Something about the streams of `call`, which may have none."""
    if what == "part" and session.streams.room(call):
        session.streams.part(call, [b"p"])
    elif what == "end":
        session.streams.finish(call, [])
    elif what == "read":
        session.streams.was_read(call, 9)


def client_steps(dialect: Dialect) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    call = st.tuples(st.just("call"), flag_sets, ttls, st.booleans())
    own = [
        call,
        call,
        st.tuples(st.just("cancel"), st.integers(0, 12)),
        st.tuples(st.just("set_presence")),
        st.tuples(st.just("stream"), st.sampled_from(["part", "part", "end", "read"]), PICK),
    ]
    return st.lists(st.one_of(own + shared_steps(dialect)), max_size=40)


def check_client(session: ClientSession) -> None:
    """Every open call is in flight or in exactly one place, and time will look at it."""
    calls = session._calls
    places = Counter([*calls.refused, *calls.waiting, *calls.resting])
    check_timers(calls)
    for number, call in calls.open.items():
        assert places.pop(number, 0) == (0 if call.wire else 1)
        assert call.state is not CallState.ENDED
        if call.wire:
            assert calls.by_wire(call.wire) is call
        if call.deadline < inf:
            assert call.timer_at <= call.deadline + session.settings.grace
            assert call.timer_place >= 0 or (call.timer_at, number) in calls.timers._heap
    assert not places
    assert {call.wire for call in calls.open.values()} >= set(calls.aliases)
    assert calls.current is None or calls.current.number in calls.open


def check_timers(calls: Calls) -> None:
    """The row has open calls alone, each at its place, by time; the first entry is one."""
    timers = calls.timers
    row = list(enumerate(timers._row, timers._passed))
    assert all(call is None for _, call in row[: timers._first])
    assert not row or timers._row[timers._first] is not None
    found = [(place, call) for place, call in row if call is not None]
    assert all(call.timer_place == place for place, call in found)
    assert all(calls.open.get(call.number) is call for _, call in found)
    times = [call.timer_at for _, call in found]
    assert times == sorted(times)
    assert sum(call.timer_place >= 0 for call in calls.open.values()) == len(found)


def check_order(connection: list[list[Frame]]) -> None:
    """Of each id: its REQUEST first, at most one FINAL, and no part behind it."""
    open_, ended = set(), set()
    for frames in connection:
        if not octets.is_mdp03(frames[0]):
            continue
        command, flags, _, id, *_ = headers.parse(frames[0])
        if command == spec.REQUEST and flags & spec.MORE:
            open_.add(id)
        elif command in (spec.PARTIAL, spec.FINAL) and not id & BIT and id in open_:
            assert id not in ended
            if command == spec.FINAL:
                ended.add(id)
        elif command == spec.PARTIAL:
            raise AssertionError(f"a part of {id} before its REQUEST")


def is_mdp03(frames: list[Frame], command: int) -> bool:
    return octets.is_mdp03(frames[0]) and octets.command_of(frames[0]) == command


@DIALECTS
@given(data=st.data())
@EXAMPLES
def test_every_call_gets_exactly_one_final_or_lost_whatever_happens(
    dialect: Dialect, data: st.DataObject
) -> None:
    chosen = ClientSettings(
        dialect=dialect,
        endpoints=data.draw(st.integers(1, 3)),
        presence=data.draw(st.booleans()),
        max_calls=data.draw(st.sampled_from([3, 1000])),
        interval=5.0,
    )
    shell = Shell(ClientSession(chosen, random.Random(1).randbytes, random.Random(2).random))
    asked: dict[int, int] = {}
    for what, *arguments in data.draw(client_steps(dialect)):
        if what == "call":
            flags, ttl, restart = arguments
            if dialect is not Dialect.MDP03:
                flags &= ~spec.MORE
            number = shell.session.call(
                b"echo", [b"x"], shell.now, ttl=ttl, flags=flags, restart=restart
            )
            asked[number] = flags
        elif what == "stream":
            speak(shell.session, *arguments)
        else:
            shell.step(what, *arguments)
        check_client(shell.session)
    shell.turn()
    shell.session.close(shell.now)
    shell.turn()
    ends = Counter(event.call for event in shell.events if isinstance(event, Final | Lost))
    assert ends == {number: 1 for number, flags in asked.items() if not flags & spec.ONE_WAY}
    over: set[int] = set()
    for event in shell.events:
        if isinstance(event, EventReceived | SubscriptionRefused):
            assert dialect is Dialect.MDP03
            continue
        assert isinstance(event, Part | CallCredit | Final | Lost)
        assert event.call not in over
        if isinstance(event, Final | Lost):
            over.add(event.call)
    for connection in shell.sent:
        ids = [headers.parse(frames[0]).id for frames in connection if is_mdp03(frames, 2)]
        assert len(ids) == len(set(ids))
        check_order(connection)
    assert shell.session.open_calls == 0
    assert shell.session.next_deadline() == inf
    with pytest.raises(LocalProtocolError):
        shell.session.call(b"echo", [], shell.now, ttl=1.0)


# ── the worker ────────────────────────────────────────────────────────────────────────────────────


def worker_steps(dialect: Dialect) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    answer = st.tuples(
        st.just("answer"),
        st.sampled_from(["final", "final", "partial", "reject", "read"]),
        st.integers(0),
    )
    own = [
        answer,
        answer,
        st.tuples(st.just("drain")),
        st.tuples(st.just("set_capacity"), st.integers(0, 3)),
        st.tuples(st.just("set_load"), st.sampled_from([None, 0.5, -1.0, inf])),
    ]
    return st.lists(st.one_of(own + shared_steps(dialect)), max_size=40)


class Answers:
    """Answers jobs, and holds the session to what it returns."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.jobs: list[int] = []
        self.begun: set[int] = set()
        self.over: set[int] = set()
        """Answered, or told that no answer is wanted, and no longer held."""

    def collect(self) -> None:
        events = self.shell.events
        self.jobs = [event.id for event in events if isinstance(event, Dispatch)]

    def give(self, how: str, which: int) -> None:
        self.collect()
        if not self.jobs:
            return
        job = self.jobs[which % len(self.jobs)]
        session, now = self.shell.session, self.shell.now
        if how == "partial":
            if session.room(job) and session.partial(job, [b"p"], now):
                assert job not in self.over
                self.begun.add(job)
            return
        if how == "read":
            session.was_read(job, 9)
            return
        if how == "reject" and job in self.begun:
            return
        if how == "final":
            taken = session.final(job, 200, [b"x"], now)
        else:
            taken = session.reject(job, now)
        if taken:
            assert job not in self.over
            self.over.add(job)
        assert not session.final(job, 200, [b"x"], now)


def answers_on(connection: list[list[Frame]], dialect: Dialect) -> list[Any]:
    """What was answered on one connection: ids in MDP/0.3, addresses elsewhere."""
    found: list[Any] = []
    for frames in connection:
        if dialect is Dialect.MDP03:
            header = headers.parse(frames[0])
            if header.command in (spec.FINAL, spec.REJECT):
                found.append(header.id)
            continue
        try:
            command = LEGACY[dialect].read_broker(frames)
        except RemoteProtocolError as error:
            raise AssertionError(f"a worker said {frames}") from error
        if command.number == spec.FINAL:
            found.append(command.address)
    return found


@DIALECTS
@given(data=st.data())
@EXAMPLES
def test_every_job_is_answered_at_most_once_and_on_its_own_connection_whatever_happens(
    dialect: Dialect, data: st.DataObject
) -> None:
    chosen = WorkerSettings(dialect=dialect, services=(b"echo",), capacity=2)
    shell = Shell(WorkerSession(chosen, random.Random(1).randbytes, random.Random(2).random))
    answers = Answers(shell)
    asked: list[list[Any]] = [[]]
    for what, *arguments in data.draw(worker_steps(dialect)):
        if what == "answer":
            answers.give(*arguments)
        else:
            if what == "receive":
                asked[-1].append(arguments[0])
            shell.step(what, *arguments)
        while len(asked) < len(shell.sent):
            asked.append([])
    shell.room = 10**6
    shell.turn()
    held = set(shell.session._dispatches)
    shell.session.close(shell.now)
    shell.turn()
    answers.collect()
    assert len(answers.jobs) == len(set(answers.jobs))
    cancelled = Counter(event.id for event in shell.events if isinstance(event, Cancel))
    assert all(count == 1 for count in cancelled.values())
    assert set(cancelled) <= set(answers.jobs)
    assert set(answers.jobs) == answers.over | set(cancelled) | held
    assert held <= set(cancelled)
    total = sum(len(answers_on(connection, dialect)) for connection in shell.sent)
    refusals = sum(shell.session.invalid.values())
    assert total <= len(answers.over) + refusals
    for connection in shell.sent:
        assert len(answers_on(connection, dialect)) <= len(answers.jobs) + refusals
    assert (shell.session.held, shell.session.next_deadline()) == (0, inf)
