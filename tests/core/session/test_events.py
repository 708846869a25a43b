"""Events in the two sessions: subscriptions on every connection, what is heard, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from majordomus.core.client.session import EventReceived
from majordomus.errors import LocalProtocolError
from majordomus.protocol import metadata, spec
from majordomus.protocol.spec import Dialect
from tests.core.client.test_connection import HELLO, connected, request
from tests.core.network_harness import World, hold
from tests.core.session_harness import LEGACY_DIALECTS, ClientScript, Word, WorkerScript


def subscribe(id: int, pattern: bytes) -> Word:
    return ("SUBSCRIBE", {"id": id, "service": pattern})


def unsubscribe(id: int, pattern: bytes) -> Word:
    return ("UNSUBSCRIBE", {"id": id, "service": pattern})


# ── the client ────────────────────────────────────────────────────────────────────────────────────


def test_client_that_subscribes_sends_hello_on_every_connection() -> None:
    script = connected()
    script.session.subscribe(b"prices.*", script.now)
    script.turn()
    assert script.said() == [HELLO, subscribe(1, b"prices.*")]
    script.session.subscribe(b"news", script.now)
    script.turn()
    assert script.said() == [subscribe(2, b"news")]
    script.cut()
    script.connect()
    assert script.said() == [HELLO, subscribe(3, b"prices.*"), subscribe(4, b"news")]


def test_client_subscribes_before_what_it_asks_on_the_same_connection() -> None:
    script = ClientScript()
    call = script.call(b"x")
    script.session.subscribe(b"a", script.now)
    script.connect()
    words = script.said()
    assert [word[0] for word in words] == ["HELLO", "SUBSCRIBE", "REQUEST"]
    assert words[2][1]["id"] == call


def test_client_that_unsubscribed_without_a_connection_sends_it_to_a_kept_session() -> None:
    script = connected(presence=True)
    script.session.subscribe(b"a", script.now)
    script.turn()
    script.cut()
    script.session.unsubscribe(b"a", script.now)
    script.session.unsubscribe(b"never", script.now)
    script.said()
    script.connect()
    assert script.said() == [HELLO, unsubscribe(2, b"a")]
    script.cut()
    script.pass_time(1.0)
    script.said()
    script.connect()
    assert script.said() == [HELLO]


def test_events_are_handed_on_with_topic_frames_and_the_senders_metadata() -> None:
    script = connected(presence=True)
    packed = metadata.pack({"type": "text/plain"})
    script.say(spec.EVENT, b"a", b"b", service=b"prices.eur")
    script.say(spec.EVENT, b"pushed", flags=spec.METADATA, metadata=packed)
    both = metadata.pack({"user": "ann"}) + packed
    script.say(spec.EVENT, flags=spec.METADATA | spec.BROKER_METADATA, metadata=both)
    assert script.events() == [
        EventReceived(b"prices.eur", [b"a", b"b"], b""),
        EventReceived(b"", [b"pushed"], packed),
        EventReceived(b"", [], packed),
    ]


def test_event_that_cannot_be_understood_is_counted() -> None:
    script = connected(presence=True)
    script.say(spec.EVENT, b"a", flags=spec.METADATA, metadata=b"\x01")
    script.say(spec.EVENT, b"a", flags=spec.CRITICAL)
    assert script.events() == []
    assert script.session.invalid == {"bad-metadata": 1, "critical-flag": 1}


def test_refused_subscription_is_told_and_not_tried_again() -> None:
    script = connected(presence=True)
    script.session.subscribe(b"secret", script.now)
    script.turn()
    script.final(1, b"no", status=403)
    script.final(1, b"no", status=403)
    assert [one[:4] for one in script.events()] == [("subscribe", b"secret", 403, [b"no"])]
    assert script.session.late == 1
    script.said()
    script.cut()
    script.connect()
    assert script.said() == [HELLO, unsubscribe(2, b"secret")]


def test_what_is_published_leaves_with_the_first_connection_and_only_once() -> None:
    script = ClientScript()
    packed = metadata.pack({"a": 1})
    number = script.session.publish(b"a.b", [b"x"], script.now, ttl=5.0, metadata=packed)
    assert not script.session.has_left(number)
    script.connect()
    fields = {"id": 1, "flags": spec.METADATA, "service": b"a.b", "metadata": packed}
    assert script.said() == [("EVENT", fields, b"x")]
    assert script.session.has_left(number)
    script.cut()
    script.connect()
    assert script.said() == []
    script.final(number, b"no", status=403)
    assert [one[:4] for one in script.events()] == [("publish", b"a.b", 403, [b"no"])]


def test_what_is_published_does_not_outlive_its_time() -> None:
    script = ClientScript()
    number = script.session.publish(b"a.b", [b"x"], script.now, ttl=1.0)
    script.pass_time(2.0)
    script.connect()
    assert script.said() == []
    assert script.session.has_left(number)
    assert script.session.dropped == 1


def test_event_that_the_socket_refuses_leaves_behind_what_was_refused_before() -> None:
    script = connected()
    script.full = True
    script.call(b"1")
    script.session.publish(b"a", [b"2"], script.now, ttl=5.0)
    script.turn()
    script.full = False
    script.pass_time(0.2)
    assert script.said() == [
        request(1, b"1", ttl=4994),
        ("EVENT", {"id": 2, "service": b"a"}, b"2"),
    ]


@pytest.mark.parametrize("name", [b"", b"a..b", b"a.>.b", b"x" * 256])
def test_pattern_that_is_none_raises(name: bytes) -> None:
    client, worker = connected(), WorkerScript(services=(b"echo",))
    for session in (client.session, worker.session):
        with pytest.raises(LocalProtocolError, match="bad-topic"):
            session.subscribe(name, client.now)


@pytest.mark.parametrize("dialect", LEGACY_DIALECTS)
def test_older_dialects_have_no_events(dialect: Dialect) -> None:
    client = ClientScript(dialect=dialect).session
    worker = WorkerScript(dialect=dialect, services=(b"echo",)).session
    acts: list[Any] = [
        lambda: client.subscribe(b"a", 0.0),
        lambda: client.publish(b"a", [], 0.0, ttl=1.0),
        lambda: worker.subscribe(b"a", 0.0),
        lambda: worker.publish(b"a", [], 0.0),
        lambda: worker.push(b"a", [], 0.0),
    ]
    for act in acts:
        with pytest.raises(LocalProtocolError, match="not-in-dialect"):
            act()


# ── the worker ────────────────────────────────────────────────────────────────────────────────────


def serving() -> WorkerScript:
    script = WorkerScript(services=(b"echo",))
    script.connect()
    script.welcome()
    script.out()
    return script


def test_worker_pushes_and_publishes_under_ids_of_its_own() -> None:
    script = serving()
    packed = metadata.pack({"a": 1})
    assert script.session.push(b"handle", [b"x"], script.now) is True
    assert script.session.publish(b"a.b", [b"y"], script.now, packed) is True
    script.turn()
    fields = {"id": 2, "flags": spec.METADATA, "service": b"a.b", "metadata": packed}
    assert script.said() == [
        ("EVENT", {"id": 1, "address": b"handle"}, b"x"),
        ("EVENT", fields, b"y"),
    ]


def test_worker_without_a_connection_loses_its_events_and_reports_it() -> None:
    script = serving()
    script.cut()
    assert script.session.push(b"handle", [b"x"], script.now) is False
    assert script.session.publish(b"a", [b"x"], script.now) is False
    script.pass_time(1.0)
    script.connect()
    assert [word[0] for word in script.said()] == ["READY"]


def test_refused_push_of_a_worker_is_reported_with_its_handle() -> None:
    script = serving()
    script.session.push(b"handle", [b"x"], script.now)
    script.say(spec.FINAL, b"gone", id=1, code=404)
    script.say(spec.FINAL, b"gone", id=1, code=404)
    assert [one[:4] for one in script.events()] == [("push", b"handle", 404, [b"gone"])]
    assert script.session.late == 1


def test_worker_subscribes_behind_its_ready_on_every_connection() -> None:
    script = WorkerScript(services=(b"echo",))
    script.session.subscribe(b"config.>", script.now)
    script.connect()
    assert [word[0] for word in script.said()] == ["READY", "SUBSCRIBE"]
    script.say(spec.EVENT, b"debug", service=b"config.log")
    assert script.events() == [EventReceived(b"config.log", [b"debug"], b"")]
    script.session.unsubscribe(b"config.>", script.now)
    script.turn()
    assert script.said() == [unsubscribe(2, b"config.>")]


# ── joined with a broker ──────────────────────────────────────────────────────────────────────────


def heard(end: Any) -> list[EventReceived]:
    return [event for event in end.events if isinstance(event, EventReceived)]


def test_worker_pushes_to_a_client_that_has_reconnected_meanwhile() -> None:
    world = World()
    worker = world.worker(hold)
    client = world.client(presence=True)
    world.run()
    client.call(b"x")
    world.run()
    (job,) = worker.held
    worker.final(job, b"accepted")
    world.run()
    client.cut()
    world.run(5.0)
    worker.session.push(job.client, [b"done"], world.now)
    world.run()
    assert heard(client) == [EventReceived(b"", [b"done"], b"")]


def test_subscriptions_hold_at_a_broker_that_was_killed_and_started_again() -> None:
    world = World()
    worker = world.worker()
    client = world.client(presence=True)
    client.session.subscribe(b"prices.>", world.now)
    world.run()
    world.desks[0].kill()
    world.run(1.0)
    world.desks[0].restart()
    world.run(20.0)
    assert worker.session.publish(b"prices.eur", [b"1.08"], world.now)
    world.run()
    assert heard(client) == [EventReceived(b"prices.eur", [b"1.08"], b"")]


def test_event_on_a_connection_that_breaks_is_lost_and_not_repeated() -> None:
    world = World()
    publisher, client = world.client(), world.client(presence=True)
    client.session.subscribe(b"a", world.now)
    world.run()
    publisher.session.publish(b"a", [b"1"], world.now, ttl=5.0)
    publisher.turn()
    publisher.cut(losing=True)
    world.run(5.0)
    publisher.session.publish(b"a", [b"2"], world.now, ttl=5.0)
    world.run(1.0)
    assert heard(client) == [EventReceived(b"a", [b"2"], b"")]
