"""EVENT, SUBSCRIBE, UNSUBSCRIBE and sessions: who hears what, at most once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from majordomus.core.broker.state.access_rules import AccessRules, Rule
from majordomus.core.broker.state.registry import RULES
from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect, Frame
from tests.core.broker.rules.test_rule_10_cost import lines_of
from tests.core.broker_harness import BrokerHarness, Message, final, handle, number, welcome

B, C, D, V, W = b"client-b", b"client-c", b"client-d", b"worker-v", b"worker-w"
DELPHI = LEGACY[Dialect.DELPHI]
S, T = b"session-s-16byte", b"session-t-16byte"
UNKNOWN = b"\xee" * 16
MakeHarness = Callable[..., BrokerHarness]


def event(peer: bytes, *body: Frame, topic: bytes = b"", **fields: Any) -> Message:
    """The word for EVENT."""
    named = {"service": topic} if topic else {}
    return (peer, "EVENT", {**named, **fields}, list(body))


def hello(harness: BrokerHarness, peer: bytes, session: bytes = b"", **fields: Any) -> None:
    """`peer` opens presence."""
    if session:
        packed = metadata.pack({"session": session})
        fields = {"flags": spec.METADATA, "metadata": packed, **fields}
    harness.receive_03(peer, spec.HELLO, **fields)


def subscribe(harness: BrokerHarness, peer: bytes, *patterns: bytes) -> None:
    for pattern in patterns:
        harness.receive_03(peer, spec.SUBSCRIBE, service=pattern)


def publish(harness: BrokerHarness, peer: bytes, topic: bytes, *body: Frame, **fields: Any) -> None:
    harness.receive_03(peer, spec.EVENT, *body, service=topic, **fields)


def push(harness: BrokerHarness, peer: bytes, address: bytes, *body: Frame, **fields: Any) -> None:
    harness.receive_03(peer, spec.EVENT, *body, address=address, **fields)


@pytest.fixture
def present(harness: BrokerHarness) -> BrokerHarness:
    """C and D have presence, W serves echo and has answered C."""
    harness.worker(W)
    for peer in (C, D):
        hello(harness, peer)
    harness.request(C, 1)
    harness.answer(W, number(1))
    harness.sent()
    return harness


# push


def test_worker_pushes_to_the_client_of_a_handle_long_after_its_answer(
    present: BrokerHarness,
) -> None:
    for _ in range(120):
        present.pass_time(30)
        present.heartbeat(C, D)
        present.worker(W)
    present.sent()
    push(present, W, present.handles[C], b"much", b"later")
    assert present.messages() == [event(C, b"much", b"later")]
    assert (present.counts.pushed, present.counts.delivered) == (1, 1)


def test_push_to_an_unknown_handle_is_answered_404_where_an_id_asks_for_it(
    present: BrokerHarness,
) -> None:
    push(present, W, UNKNOWN, b"x")
    assert present.messages() == []
    push(present, W, UNKNOWN, b"x", id=7)
    text = f"the client of handle {UNKNOWN.hex()} is not known".encode()
    assert present.messages() == [final(W, 7, text, status=404)]
    assert (present.counts.pushed, present.counts.undelivered) == (2, 2)


def test_client_without_presence_gets_no_event(present: BrokerHarness) -> None:
    present.request(B, 1)
    present.answer(W, number(2))
    subscribe(present, B, b"news")
    present.sent()
    push(present, W, present.handles[B], b"x", id=7)
    publish(present, W, b"news", b"x")
    text = f"the client of handle {present.handles[B].hex()} has no presence".encode()
    assert present.messages() == [final(W, 7, text, status=404)]
    hello(present, B)
    present.sent()
    push(present, W, present.handles[B], b"x")
    publish(present, W, b"news", b"y")
    assert present.messages() == [event(B, b"x"), event(B, b"y", topic=b"news")]


def test_push_is_not_answered_with_the_id_of_an_open_call(present: BrokerHarness) -> None:
    """The FINAL would be taken for the call's own."""
    present.request(D, 9)
    present.sent()
    push(present, D, UNKNOWN, b"x", id=9)
    push(present, W, UNKNOWN, b"x", id=number(2))
    subscribe(present, D, b"a..b")
    present.receive_03(D, spec.SUBSCRIBE, service=b"a..b", id=9)
    assert present.messages() == []
    assert present.counts.dropped["event-refused"] == 4


def test_handle_is_forgotten_with_its_client(present: BrokerHarness) -> None:
    present.leave(C)
    push(present, W, present.handles[C], b"x", id=7)
    ((_, _, fields, _),) = present.messages()
    assert fields == {"code": 404, "id": 7}
    assert present.machine.events.handles.keys() == {
        present.handles[D], present.machine.registry.peers[W].handle
    }  # fmt: skip


def test_handles_are_sixteen_bytes_that_come_from_the_source_of_ids(harness: BrokerHarness) -> None:
    hello(harness, C)
    hello(harness, D)
    assert len(harness.handles[C]) == len(harness.handles[D]) == 16
    assert harness.handles[C] != harness.handles[D]


def test_metadata_of_an_event_pass_and_its_token_does_not(present: BrokerHarness) -> None:
    packed = metadata.pack({"type": "text/plain"})
    fields = {"flags": spec.METADATA | spec.ONCE, "metadata": packed}
    push(present, W, present.handles[C], b"x", **fields)
    assert present.messages() == [event(C, b"x", flags=spec.METADATA, metadata=packed)]
    both = metadata.pack({"token": "secret", "type": "text/plain"})
    push(present, W, present.handles[C], b"x", flags=spec.METADATA, metadata=both)
    push(present, W, present.handles[C], flags=spec.METADATA, metadata=metadata.pack({"token": ""}))
    assert present.messages() == [
        event(C, b"x", flags=spec.METADATA, metadata=packed),
        event(C),
    ]


def test_event_with_malformed_metadata_reaches_nobody(present: BrokerHarness) -> None:
    push(present, D, present.handles[C], b"x", flags=spec.METADATA, metadata=b"\x93\x01\x02\x03")
    assert present.messages() == []
    assert present.counts.dropped == {"bad-metadata": 1}


def test_event_larger_than_a_message_may_be_is_answered_413(make_harness: MakeHarness) -> None:
    harness = make_harness(max_message=10)
    hello(harness, C)
    harness.sent()
    push(harness, D, harness.handles[C], b"x" * 11, id=3)
    assert harness.messages() == [final(D, 3, b"the event is larger than allowed", status=413)]


# topics


def test_subscriber_hears_what_is_published_and_nothing_else(present: BrokerHarness) -> None:
    subscribe(present, C, b"prices.*")
    subscribe(present, D, b"prices.>")
    assert present.messages() == []
    publish(present, W, b"prices.eur", b"1.08")
    assert present.messages() == [
        event(D, b"1.08", topic=b"prices.eur"),
        event(C, b"1.08", topic=b"prices.eur"),
    ]
    publish(present, B, b"prices.eur.usd", b"x")
    publish(present, B, b"price", b"x")
    assert present.messages() == [event(D, b"x", topic=b"prices.eur.usd")]
    assert (present.counts.published, present.counts.delivered) == (3, 3)


def test_event_reaches_each_subscriber_once_whatever_number_of_its_patterns_agree(
    present: BrokerHarness,
) -> None:
    subscribe(present, C, b"a.b", b"a.*", b">")
    publish(present, D, b"a.b", b"x")
    assert present.messages() == [event(C, b"x", topic=b"a.b")]


def test_publisher_that_subscribed_hears_itself(present: BrokerHarness) -> None:
    subscribe(present, C, b"a")
    publish(present, C, b"a", b"x")
    assert present.messages() == [event(C, b"x", topic=b"a")]


def test_unsubscribed_peer_hears_no_more_and_leaves_nothing_behind(present: BrokerHarness) -> None:
    subscribe(present, C, b"a.*", b"b")
    for pattern in (b"a.*", b"b", b"b", b"never"):
        present.receive_03(C, spec.UNSUBSCRIBE, service=pattern, id=4)
    publish(present, D, b"a.b", b"x")
    assert present.messages() == []
    assert (len(present.machine.events.topics), present.machine.events.topics.nodes) == (0, 0)
    assert present.machine.registry.peers[C].subscriber is None


def test_worker_may_subscribe_and_hears_without_a_hello(present: BrokerHarness) -> None:
    subscribe(present, W, b"config.>")
    publish(present, C, b"config.log.level", b"debug")
    assert present.messages() == [event(W, b"debug", topic=b"config.log.level")]


def test_subscriptions_of_a_peer_without_a_session_end_with_its_connection(
    present: BrokerHarness,
) -> None:
    subscribe(present, C, b"a.b.c")
    present.lose_connection(C)
    assert (len(present.machine.events.topics), present.machine.events.topics.nodes) == (0, 0)


@pytest.mark.parametrize("command", [spec.SUBSCRIBE, spec.UNSUBSCRIBE])
def test_wrong_pattern_is_answered_400_where_an_id_asks_for_it(
    harness: BrokerHarness, command: int
) -> None:
    harness.receive_03(C, command, service=b"a.>.b")
    assert harness.messages() == []
    harness.receive_03(C, command, service=b"a.>.b", id=5)
    text = b"'>' stands for the rest: it is the last token of a pattern"
    assert harness.messages() == [final(C, 5, text, status=400)]
    assert harness.counts.dropped == {"event-refused": 2}


def test_topic_that_is_none_is_answered_400(harness: BrokerHarness) -> None:
    publish(harness, C, b"a.*", b"x", id=5)
    publish(harness, C, b"", b"x", id=6)
    assert harness.messages() == [
        final(C, 5, b"an event has one topic: '*' and '>' are for patterns", status=400),
        final(C, 6, b"a topic needs a name", status=400),
    ]
    assert harness.counts.published == 0


def test_one_subscription_too_many_is_answered_429(make_harness: MakeHarness) -> None:
    harness = make_harness(max_client_topics=2, max_topics=3)
    subscribe(harness, C, b"a", b"b", b"b")
    harness.receive_03(C, spec.SUBSCRIBE, service=b"c", id=3)
    subscribe(harness, D, b"a")
    harness.receive_03(D, spec.SUBSCRIBE, service=b"b", id=4)
    assert harness.messages() == [
        final(C, 3, b"this client has 2 subscriptions already", status=429),
        final(D, 4, b"this broker has 3 subscriptions already", status=429),
    ]
    harness.receive_03(C, spec.UNSUBSCRIBE, service=b"a")
    harness.receive_03(D, spec.SUBSCRIBE, service=b"b", id=5)
    assert harness.messages() == []


def test_cost_of_an_event_does_not_grow_with_the_number_of_other_subscribers(
    make_harness: MakeHarness,
) -> None:
    work = {}
    for others in (20, 2000):
        harness = make_harness()
        hello(harness, C)
        subscribe(harness, C, b"prices.eur")
        for i in range(others):
            hello(harness, b"c%06d" % i)
            subscribe(harness, b"c%06d" % i, b"prices.s%06d" % i)
        harness.sent()
        work[others] = lines_of(lambda harness=harness: publish(harness, D, b"prices.eur", b"x"))
        assert harness.messages() == [event(C, b"x", topic=b"prices.eur")]
    assert work[2000] <= work[20] * 1.5 + 20


@pytest.mark.skipif(RULES == "compiled", reason="looks at lines of Python")
def test_request_executes_no_line_that_is_about_events(present: BrokerHarness) -> None:
    """Others' subscriptions and sessions cost a request nothing."""
    hello(present, B, S)
    subscribe(present, B, b"a.*")
    executed: set[str] = set()

    def trace(frame: FrameType, what: str, _: Any) -> Any:
        executed.add(Path(frame.f_code.co_filename).name)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        present.request(C, 2, b"x")
        present.answer(W, number(2), b"y")
    finally:
        sys.settrace(before)
    assert "dispatch.py" in executed
    assert not executed & {"events.py", "event_commands.py", "topics.py", "listeners.py"}


# a subscriber that reads too slowly


def test_events_beyond_the_outbox_are_dropped_and_counted_and_answers_are_not(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(max_outbox=3)
    harness.worker(W)
    hello(harness, C)
    subscribe(harness, C, b"a")
    harness.sent()
    harness.full.add(C)
    for n in range(10):
        publish(harness, D, b"a", b"%d" % n)
    harness.request(C, 1)
    harness.answer(W, number(1), b"answer")
    harness.full.clear()
    harness.pass_time(1)
    heard = [word for word in harness.messages() if word[0] == C]
    assert heard == [
        *(event(C, b"%d" % n, topic=b"a") for n in range(3)),
        final(C, 1, b"answer", worker=W),
    ]
    assert (harness.counts.delivered, harness.counts.undelivered) == (3, 7)
    assert harness.machine.registry.peers[C].state.name == "PRESENT"


def test_events_refused_in_one_batch_keep_to_the_bound_of_the_outbox(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(max_outbox=3)
    hello(harness, C)
    subscribe(harness, C, b"a")
    harness.sent()
    harness.full.add(C)
    one = [mdp03.pack(spec.EVENT, service=b"a"), b"x"]
    harness.receive_all(*[(D, list(one)) for _ in range(10)])
    assert (harness.counts.delivered, harness.counts.undelivered) == (3, 7)
    assert len(harness.machine.registry.peers[C].outbox.messages) == 3  # type: ignore[union-attr]


def test_client_that_is_gone_is_forgotten_when_an_event_finds_no_connection(
    present: BrokerHarness,
) -> None:
    present.unreachable.add(C)
    push(present, W, present.handles[C], b"x")
    present.turn()
    assert C not in present.machine.registry.peers


# sessions


def test_session_keeps_handle_and_subscriptions_through_a_reconnect(harness: BrokerHarness) -> None:
    harness.worker(W)
    hello(harness, C, S)
    subscribe(harness, C, b"prices.*")
    harness.request(C, 1)
    before = harness.handles[C]
    harness.answer(W, number(1))
    harness.sent()
    harness.lose_connection(C)
    harness.pass_time(5)
    publish(harness, W, b"prices.eur", b"missed")
    push(harness, W, before, b"missed", id=5)
    assert [word for word in harness.messages() if word[1] != "HEARTBEAT"] == []
    assert harness.counts.undelivered == 2
    hello(harness, D, S)
    assert harness.handles[D] == before
    publish(harness, W, b"prices.eur", b"1.08")
    push(harness, W, before, b"pushed")
    assert harness.messages() == [
        welcome(D, 30_000),
        event(D, b"1.08", topic=b"prices.eur"),
        event(D, b"pushed"),
    ]
    harness.request(D, 1)
    assert harness.messages() == [harness.request_to(W, 2, D)]


def test_session_ends_a_minute_after_its_connection(harness: BrokerHarness) -> None:
    hello(harness, C, S)
    subscribe(harness, C, b"a.b")
    before = harness.handles[C]
    harness.leave(C)
    harness.pass_time(59.9)
    assert len(harness.machine.events.topics) == 1
    harness.pass_time(0.2)
    machine = harness.machine
    assert (machine.events.sessions, machine.events.away) == ({}, {})
    assert (len(machine.events.topics), machine.events.topics.nodes) == (0, 0)
    hello(harness, D, S)
    assert harness.handles[D] != before


def test_session_that_has_ended_does_not_come_back_before_the_clock_was_looked_at(
    harness: BrokerHarness,
) -> None:
    hello(harness, C, S)
    subscribe(harness, C, b"a.b")
    before = harness.handles[C]
    harness.leave(C)
    harness.now += 60.1
    hello(harness, D, S)
    assert (harness.handles[D] != before, len(harness.machine.events.topics)) == (True, 0)


def test_time_that_sessions_wait_is_a_setting(make_harness: MakeHarness) -> None:
    harness = make_harness(session_ttl=5.0)
    hello(harness, C, S)
    harness.leave(C)
    harness.pass_time(4.9)
    assert len(harness.machine.events.away) == 1
    harness.pass_time(0.2)
    assert harness.machine.events.away == {}


def test_session_of_another_user_is_another_session(harness: BrokerHarness) -> None:
    for peer, user in ((C, "ann"), (D, "bob"), (B, "ann")):
        harness.machine.identify(peer, user, (), harness.now)
    hello(harness, C, S)
    subscribe(harness, C, b"a")
    harness.leave(C)
    hello(harness, D, S)
    assert harness.handles[D] != harness.handles[C]
    hello(harness, B, S)
    assert harness.handles[B] == harness.handles[C]
    harness.sent()
    publish(harness, W, b"a", b"x")
    assert harness.messages() == [event(B, b"x", topic=b"a")]


def test_session_of_a_user_that_is_revoked_ends_at_once(harness: BrokerHarness) -> None:
    harness.machine.identify(C, "ann", (), harness.now)
    hello(harness, C, S)
    subscribe(harness, C, b"a")
    harness.machine.revoke(C, harness.now)
    assert (harness.machine.events.sessions, len(harness.machine.events.topics)) == ({}, 0)


def test_connection_that_returns_before_its_end_was_noticed_takes_the_session(
    harness: BrokerHarness,
) -> None:
    harness.worker(W)
    hello(harness, C, S)
    subscribe(harness, C, b"a")
    before = harness.handles[C]
    hello(harness, D, S)
    harness.sent()
    push(harness, W, before, b"x")
    publish(harness, W, b"a", b"y")
    assert harness.messages() == [event(D, b"x"), event(D, b"y", topic=b"a")]
    harness.leave(C)
    push(harness, W, before, b"x")
    assert harness.messages() == [event(D, b"x")]


def test_two_connections_may_take_a_session_from_each_other_for_ever(
    harness: BrokerHarness,
) -> None:
    for peer in (C, D, C, D, B, C):
        hello(harness, peer, S)
        hello(harness, D, T)
        harness.check()
    for peer in (B, C, D):
        harness.leave(peer)
    harness.pass_time(61)
    events = harness.machine.events
    assert (events.handles, events.sessions, events.away) == ({}, {}, {})


def test_what_was_subscribed_before_hello_joins_the_session_that_was_kept(
    harness: BrokerHarness,
) -> None:
    hello(harness, C, S)
    subscribe(harness, C, b"a", b"b")
    harness.leave(C)
    subscribe(harness, D, b"b", b"c")
    hello(harness, D, S)
    listener = harness.machine.registry.peers[D].subscriber
    assert listener is not None
    assert set(listener.patterns) == {b"a", b"b", b"c"}
    assert len(harness.machine.events.topics) == 3


def test_requests_before_hello_can_still_be_pushed_to(harness: BrokerHarness) -> None:
    """A sync client calls first and takes on presence later."""
    hello(harness, C, S)
    harness.leave(C)
    harness.worker(W)
    harness.request(D, 1)
    early = harness.handles[D]
    hello(harness, D, S)
    assert harness.handles[D] != early
    harness.sent()
    push(harness, W, early, b"x")
    push(harness, W, harness.handles[D], b"y")
    assert harness.messages() == [event(D, b"x"), event(D, b"y")]


def test_hello_with_another_session_leaves_nothing_of_the_first(harness: BrokerHarness) -> None:
    hello(harness, C, S)
    subscribe(harness, C, b"a")
    hello(harness, C, T)
    assert set(harness.machine.events.sessions) == {("", T)}
    assert len(harness.machine.events.topics) == 1


@pytest.mark.parametrize("session", [b"short", "sixteen letters!", 5, b"x" * 17])
def test_session_that_is_none_is_answered_400(harness: BrokerHarness, session: object) -> None:
    packed = metadata.pack({"session": session})
    harness.receive_03(C, spec.HELLO, flags=spec.METADATA, metadata=packed, id=2)
    assert harness.messages() == [final(C, 2, b"a session must be 16 bytes", status=400)]
    assert harness.machine.events.sessions == {}


def test_more_sessions_than_allowed_are_not_kept(make_harness: MakeHarness) -> None:
    harness = make_harness(max_sessions=1)
    hello(harness, C, S)
    subscribe(harness, D, b"a")
    hello(harness, D, T)
    assert harness.messages() == [welcome(C, 30_000), welcome(D, 30_000)]
    assert set(harness.machine.events.sessions) == {("", S)}
    assert harness.counts.dropped == {"too-many-sessions": 1}


# Delphi


def is_ready(harness: BrokerHarness, peer: bytes, service: bytes = b"echo") -> None:
    harness.receive(peer, *DELPHI.w2b_ready(service))
    harness.sent()


def test_later_reply_of_a_delphi_worker_is_an_event_for_a_client_with_presence(
    harness: BrokerHarness,
) -> None:
    is_ready(harness, W)
    hello(harness, C)
    harness.request(C, 1)
    harness.sent()
    for body in (b"first", b"later", b"later still"):
        harness.receive(W, *DELPHI.w2b_final(b"echo", handle(1), [body]))
    assert harness.messages() == [
        final(C, 1, b"first", worker=W),
        event(C, b"later"),
        event(C, b"later still"),
    ]


def test_later_reply_of_a_delphi_worker_reaches_a_delphi_client_in_its_own_dialect(
    harness: BrokerHarness,
) -> None:
    is_ready(harness, W)
    harness.receive(C, *DELPHI.c2b_request(b"echo", [b"x"]))
    harness.sent()
    for body in (b"first", b"later"):
        harness.receive(W, *DELPHI.w2b_final(b"echo", harness.handles[C], [body]))
    assert harness.messages() == [
        (C, *DELPHI.b2c_final(b"echo", [b"first"])),
        (C, *DELPHI.b2c_final(b"echo", [b"later"])),
    ]
    assert (harness.counts.pushed, harness.counts.delivered) == (1, 1)


def test_delphi_handle_of_another_worker_is_refused(harness: BrokerHarness) -> None:
    is_ready(harness, W)
    is_ready(harness, V, b"time")
    hello(harness, C)
    harness.request(C, 1)
    harness.sent()
    harness.receive(W, *DELPHI.w2b_final(b"echo", handle(1), [b"first"]))
    harness.sent()
    harness.receive(V, *DELPHI.w2b_final(b"time", handle(1), [b"forged"]))
    assert harness.messages() == []
    assert harness.counts.dropped == {"unasked-reply": 1}


def test_delphi_handle_survives_the_clients_session_and_the_workers_move(
    harness: BrokerHarness,
) -> None:
    is_ready(harness, W)
    hello(harness, C, S)
    harness.request(C, 1)
    harness.receive(W, *DELPHI.w2b_final(b"echo", handle(1), [b"first"]))
    harness.leave(C)
    is_ready(harness, W, b"other")
    hello(harness, D, S)
    harness.sent()
    harness.receive(W, *DELPHI.w2b_final(b"other", handle(1), [b"later"]))
    assert harness.messages() == [event(D, b"later")]


def test_oldest_answered_handles_are_forgotten_beyond_the_bound(make_harness: MakeHarness) -> None:
    harness = make_harness(max_answered=2)
    is_ready(harness, W)
    hello(harness, C)
    for n in (1, 2, 3):
        harness.request(C, n)
        harness.receive(W, *DELPHI.w2b_final(b"echo", handle(n), [b"first"]))
    harness.sent()
    for n in (1, 2, 3):
        harness.receive(W, *DELPHI.w2b_final(b"echo", handle(n), [b"%d" % n]))
    assert harness.messages() == [event(C, b"2"), event(C, b"3")]
    assert harness.counts.dropped == {"unasked-reply": 1}


# the broker itself


def test_machine_pushes_and_publishes_by_itself(present: BrokerHarness) -> None:
    subscribe(present, C, b"a.*")
    subscribe(present, D, b"a.*")
    machine = present.machine
    assert machine.push(present.handles[C], [b"x"], present.now) is True
    assert machine.push(UNKNOWN, [b"x"], present.now) is False
    assert machine.publish(b"a.b", [b"y"], present.now) == 2
    assert machine.publish(b"b", [b"y"], present.now) == 0
    present.turn()
    assert present.messages() == [
        event(C, b"x"),
        event(C, b"y", topic=b"a.b"),
        event(D, b"y", topic=b"a.b"),
    ]
    with pytest.raises(LocalProtocolError, match="are for patterns"):
        machine.publish(b"a.*", [b"y"], present.now)


def test_counts_of_events_are_told_by_mmi(present: BrokerHarness) -> None:
    subscribe(present, C, b"a")
    publish(present, D, b"a", b"x")
    push(present, D, UNKNOWN, b"x")
    present.sent()
    present.request(D, 5, service=b"mmi.stats")
    stats = present.messages()[0][3][1].decode()
    for told in ('"pushed":1', '"published":1', '"delivered":1', '"undelivered":1'):
        assert told in stats
    present.request(D, 6, service=b"mmi.broker")
    assert '"subscriptions":1' in present.messages()[0][3][1].decode()


def test_events_of_a_client_are_signs_of_life(harness: BrokerHarness) -> None:
    hello(harness, C)
    for _ in range(20):
        harness.pass_time(20)
        push(harness, C, UNKNOWN, b"x")
    assert set(harness.machine.registry.peers) == {C}


# rights and tenants


def with_rules(
    harness: BrokerHarness, *rules: Rule, tenants: dict[str, str] | None = None
) -> BrokerHarness:
    harness.machine.set_rights(AccessRules(rules, tenants), harness.now)
    return harness


def test_rules_say_who_may_publish_and_subscribe(harness: BrokerHarness) -> None:
    rule = Rule(True, frozenset(("publish", "subscribe")), users=("ann",), names=("prices.*",))
    with_rules(harness, rule)
    harness.machine.identify(C, "ann", (), harness.now)
    harness.machine.identify(D, "eve", (), harness.now)
    for peer in (C, D):
        hello(harness, peer)
    harness.sent()
    harness.receive_03(C, spec.SUBSCRIBE, service=b"prices.>", id=1)
    harness.receive_03(C, spec.SUBSCRIBE, service=b">", id=2)
    harness.receive_03(D, spec.SUBSCRIBE, service=b"prices.>", id=3)
    publish(harness, D, b"prices.eur", b"forged", id=4)
    publish(harness, B, b"prices.eur", b"forged", id=5)
    publish(harness, C, b"prices.eur", b"1.08", id=6)
    unknown = b"authenticate first: anonymous peers may not publish 'prices.eur'"
    assert harness.messages() == [
        final(C, 2, b"'ann' may not subscribe '>'", status=403),
        final(D, 3, b"'eve' may not subscribe 'prices.>'", status=403),
        final(D, 4, b"'eve' may not publish 'prices.eur'", status=403),
        final(B, 5, unknown, status=401),
        event(C, b"1.08", topic=b"prices.eur"),
    ]


def test_rule_that_changes_ends_the_subscriptions_that_stood_on_it(harness: BrokerHarness) -> None:
    everything = frozenset(("publish", "subscribe"))
    with_rules(harness, Rule(True, everything))
    hello(harness, C, S)
    subscribe(harness, C, b"a.b", b"b.c")
    with_rules(harness, Rule(True, everything), Rule(False, everything, names=("a.*",)))
    assert [pattern for pattern, _ in harness.machine.events.topics.pairs()] == [b"b.c"]
    harness.leave(C)
    with_rules(harness, Rule(True, everything, names=("a.*",)))
    hello(harness, D, S)
    assert list(harness.machine.events.topics.pairs()) == []


@pytest.mark.parametrize("prefix", ["acme.", "acme"])
def test_tenant_hears_its_own_topics_by_its_own_names(harness: BrokerHarness, prefix: str) -> None:
    tenants = {"acme": prefix, "umbrella": "u."}
    with_rules(harness, Rule(True, frozenset(("publish", "subscribe"))), tenants=tenants)
    for peer, group in ((C, "acme"), (D, "umbrella"), (V, "acme")):
        harness.machine.identify(peer, peer.decode(), (group,), harness.now)
    for peer in (B, C, D):
        hello(harness, peer)
        subscribe(harness, peer, b">")
    harness.sent()
    publish(harness, V, b"prices.eur", b"x")
    assert harness.messages() == [
        event(B, b"x", topic=b"acme.prices.eur"),
        event(C, b"x", topic=b"prices.eur"),
    ]
    harness.receive_03(C, spec.UNSUBSCRIBE, service=b">")
    publish(harness, V, b"prices.eur", b"x")
    assert harness.messages() == [event(B, b"x", topic=b"acme.prices.eur")]


def test_topic_that_is_too_long_with_its_tenants_prefix_is_answered_400(
    harness: BrokerHarness,
) -> None:
    with_rules(harness, Rule(True, frozenset(("publish",))), tenants={"acme": "acme."})
    harness.machine.identify(C, "ann", ("acme",), harness.now)
    publish(harness, C, b"x" * 251, b"x", id=5)
    assert harness.messages() == [final(C, 5, b"a topic has at most 255 bytes", status=400)]
