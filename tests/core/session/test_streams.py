"""Streams at the two sessions: what leaves when, and what credit is given for it
(docs/spec/mdp-0.3.md, section 14)."""

from __future__ import annotations

from typing import Any

import pytest

from majordomus.core.client.session import UNREAD, CallCredit, Final, Lost, Part
from majordomus.core.worker.session import Cancel, DispatchCredit, Incoming
from majordomus.core.worker.streams import NO_CREDIT
from majordomus.errors import LocalProtocolError
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect
from tests.core.network_harness import World, hold
from tests.core.session_harness import ClientScript, Word, WorkerScript

BIT = spec.BROKER_ID_BIT
MORE = {"flags": spec.MORE}
END: Word = ("FINAL", {"id": 1, "code": 200})


def part(*body: bytes, id: int = 1) -> Word:
    return ("PARTIAL", {"id": id}, *body)


def credit(parts: int, id: int = 1) -> Word:
    return ("CREDIT", {"id": id, "code": parts})


def request(id: int = 1, flags: int = spec.MORE) -> Word:
    return ("REQUEST", {"flags": flags, "id": id, "ttl": 5000, "service": b"echo"})


class Streaming(ClientScript):
    """A client with one stream open."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.connect()
        self.stream = self.call(flags=spec.MORE)

    def send(self, *body: bytes) -> None:
        self.session.streams.part(self.stream, list(body))
        self.turn()

    def finish(self, *body: bytes) -> None:
        self.session.streams.finish(self.stream, list(body))
        self.turn()

    def read(self, parts: int) -> None:
        self.session.streams.was_read(self.stream, parts)
        self.turn()

    @property
    def streaming_room(self) -> int:
        return self.session.streams.room(self.stream)


@pytest.fixture
def client() -> Streaming:
    script = Streaming()
    script.out()
    return script


@pytest.fixture
def worker() -> WorkerScript:
    script = WorkerScript()
    script.connect()
    script.welcome()
    script.out()
    return script


# ── the client sends ──────────────────────────────────────────────────────────────────────────────


def test_parts_follow_their_request_and_the_end_follows_them() -> None:
    script = Streaming()
    script.send(b"a", b"b")
    script.send()
    script.finish(b"c")
    script.pass_time(0.0)
    assert script.out() == ([request(), part(b"a", b"b"), part(), (*END, b"c")], [], [])
    assert script.streaming_room == 0


def test_sixteen_parts_leave_and_more_as_credit_comes(client: Streaming) -> None:
    client.turn()
    for _ in range(16):
        client.send(b"p")
    assert (client.said(), client.streaming_room) == ([part(b"p")] * 16, 0)
    with pytest.raises(LocalProtocolError, match="no-credit"):
        client.send(b"q")
    client.say(spec.CREDIT, id=1, code=2)
    assert (client.events(), client.streaming_room) == ([CallCredit(1)], 2)
    client.send(b"q")
    assert client.said() == [part(b"q")]


def test_parts_given_before_there_is_a_connection_wait_for_their_request() -> None:
    script = ClientScript()
    call = script.call(flags=spec.MORE)
    for _ in range(16):
        script.session.streams.part(call, [b"p"])
    assert script.session.streams.room(call) == 0
    script.session.streams.finish(call, [])
    script.connect()
    script.pass_time(0.0)
    said = script.said()
    assert said[0][0] == "REQUEST"
    assert said[1:] == [part(b"p")] * 16 + [END]


def test_parts_wait_when_the_socket_refuses_their_request() -> None:
    script = ClientScript()
    script.connect()
    script.full = True
    call = script.call(flags=spec.MORE)
    script.session.streams.part(call, [b"p"])
    script.pass_time(0.02)
    script.full = False
    script.pass_time(1.0)
    assert [word[0] for word in script.said()] == ["REQUEST", "PARTIAL"]


def test_stream_of_which_a_part_has_left_is_lost_with_its_broker(client: Streaming) -> None:
    client.turn()
    client.send(b"p")
    client.cut()
    assert client.events() == [Lost(1)]
    assert client.streaming_room == 0


def test_stream_of_which_no_part_has_left_is_sent_again_with_its_end(client: Streaming) -> None:
    client.turn()
    client.finish(b"all")
    client.said()
    client.cut()
    client.pass_time(1.0)
    client.connect()
    client.pass_time(0.0)
    words = client.said()
    assert [word[0] for word in words] == ["REQUEST", "FINAL"]
    assert words[0][1]["id"] == words[1][1]["id"] != 1


def test_stream_that_is_sent_again_begins_with_its_first_credit(client: Streaming) -> None:
    client.turn()
    client.say(spec.CREDIT, id=1, code=8)
    assert client.streaming_room == 24
    client.cut()
    client.pass_time(1.0)
    client.connect()
    client.pass_time(0.0)
    assert client.streaming_room == 16


@pytest.mark.parametrize(("sent", "again"), [(0, True), (1, False)])
def test_refused_stream_is_tried_again_unless_a_part_has_left(
    client: Streaming, sent: int, again: bool
) -> None:
    client.turn()
    for _ in range(sent):
        client.send(b"p")
    client.final(1, b"full", status=429)
    ended = [] if again else [Final(1, 429, [b"full"], b"")]
    assert client.events() == ended


def test_credit_that_is_of_no_use_is_counted(client: Streaming) -> None:
    client.finish()
    client.say(spec.CREDIT, id=1, code=5)
    client.say(spec.CREDIT, id=9, code=5)
    assert (client.events(), client.session.late) == ([], 2)


def test_stream_without_an_answer_and_one_in_an_older_dialect_are_refused() -> None:
    script = ClientScript()
    with pytest.raises(LocalProtocolError):
        script.call(flags=spec.MORE | spec.ONE_WAY)
    old = ClientScript(dialect=Dialect.MDP02)
    with pytest.raises(LocalProtocolError):
        old.call(flags=spec.MORE)


# ── the client reads ──────────────────────────────────────────────────────────────────────────────


def test_credit_is_given_for_what_was_read_when_that_is_half_of_what_was_granted(
    client: Streaming,
) -> None:
    for _ in range(10):
        client.say(spec.PARTIAL, b"p", id=1)
    assert client.out() == ([], [Part(1, [b"p"])] * 10, [])
    client.read(7)
    assert client.said() == []
    client.read(1)
    assert client.said() == [credit(8)]
    client.read(2)
    assert client.said() == []


def test_answer_with_too_many_unread_parts_ends() -> None:
    script = Streaming(max_unread=20)
    script.out()
    for _ in range(21):
        script.say(spec.PARTIAL, id=1)
    assert script.events()[20:] == [Part(1, []), Final(1, 429, [UNREAD], b"")]
    assert script.said() == [("CANCEL", {"id": 1})]


# ── the worker ────────────────────────────────────────────────────────────────────────────────────


def test_worker_sends_sixteen_parts_and_more_as_credit_comes(worker: WorkerScript) -> None:
    worker.request(7)
    job = worker.job()
    for _ in range(16):
        assert worker.session.room(job)
        worker.partial(job, b"p")
    assert len(worker.said()) == 16
    assert worker.session.room(job) == 0
    with pytest.raises(LocalProtocolError, match="no-credit"):
        worker.partial(job, b"p")
    worker.say(spec.CREDIT, id=BIT + 7, code=3)
    assert (worker.events(), worker.session.room(job)) == ([DispatchCredit(job)], 3)
    worker.final(job)
    assert worker.session.room(job) == 16
    worker.say(spec.CREDIT, id=BIT + 7, code=3)
    assert (worker.events(), worker.session.late) == ([], 1)


def test_worker_may_send_parts_of_a_cancelled_dispatch(worker: WorkerScript) -> None:
    worker.request(7)
    job = worker.job()
    for _ in range(16):
        worker.partial(job)
    worker.said()
    worker.say(spec.CANCEL, id=BIT + 7)
    assert worker.session.room(job) == 16
    assert worker.partial(job)
    assert worker.said() == []


def test_worker_receives_the_clients_parts_and_grants_credit_for_those_read(
    worker: WorkerScript,
) -> None:
    worker.request(7, **MORE)
    job = worker.job()
    for n in range(9):
        worker.say(spec.PARTIAL, b"%d" % n, id=BIT + 7)
    assert worker.events() == [Incoming(job, [b"%d" % n], False) for n in range(9)]
    assert not worker.session.was_read(job, 7)
    assert worker.session.was_read(job, 2)
    worker.turn()
    assert worker.said() == [credit(9, BIT + 7)]
    worker.say(spec.FINAL, b"end", id=BIT + 7, code=200)
    assert worker.events() == [Incoming(job, [b"end"], True)]
    worker.say(spec.PARTIAL, b"late", id=BIT + 7)
    assert (worker.events(), worker.session.late) == ([], 1)
    assert not worker.session.was_read(job, 20)


def test_part_beyond_the_credit_ends_the_job_with_429(worker: WorkerScript) -> None:
    worker.request(7, **MORE)
    job = worker.job()
    for _ in range(16):
        worker.say(spec.PARTIAL, id=BIT + 7)
    worker.events()
    worker.say(spec.PARTIAL, id=BIT + 7)
    final = ("FINAL", {"id": BIT + 7, "code": 429}, NO_CREDIT)
    assert worker.out() == ([final], [Cancel(job)], [])


def test_part_of_a_request_that_is_no_stream_is_counted(worker: WorkerScript) -> None:
    worker.request(7)
    worker.out()
    worker.say(spec.PARTIAL, id=BIT + 7)
    assert (worker.out(), worker.session.late) == (([], [], []), 1)


# ── joined ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dialect", list(Dialect))
def test_five_hundred_parts_go_each_way_with_a_worker_of_any_dialect(dialect: Dialect) -> None:
    world = World(max_frames=2000)
    server = world.worker(hold, dialect=dialect)
    caller = world.client()
    call = caller.call(b"head", flags=spec.MORE)
    world.run()
    streams = caller.session.streams
    for n in range(500):
        assert streams.room(call)
        streams.part(call, [b"%d" % n])
        world.run()
        incoming = [event for event in server.events if isinstance(event, Incoming)]
        if incoming and n % 8 == 0:
            server.session.was_read(incoming[0].id, 8)
            world.run()
    streams.finish(call, [])
    world.run()
    numbers = [b"%d" % n for n in range(500)]
    if dialect is Dialect.MDP03:
        assert server.begun[0].frames == [b"head"]
        assert [f for e in server.events if isinstance(e, Incoming) for f in e.frames] == numbers
    else:
        assert server.begun[0].frames == [b"head", *numbers]
    job = server.begun[0]
    for n in range(500):
        assert server.session.room(job.id)
        server.partial(job, b"%d" % n)
        world.run()
        if n % 8 == 7:
            streams.was_read(call, 8)
            world.run()
    server.final(job)
    world.run()
    answer = [frame for frames in caller.parts.get(call, []) for frame in frames]
    status, last = caller.answer(call)
    assert (status, answer + [frame for frame in last if frame]) == (200, numbers)
