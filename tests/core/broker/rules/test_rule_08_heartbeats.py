"""Rule 8: any traffic is a heartbeat (but to Delphi workers only HEARTBEAT is one), and peers that
were silent because the broker paused are heard before they are judged. docs/spec/mdp-0.2.md to
§4."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.protocol import spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import (
    BrokerHarness,
    disconnect,
    final,
    handle,
    heartbeat,
    number,
    welcome,
)

C, V, W = b"client-c", b"worker-v", b"worker-w"
DELPHI = LEGACY[Dialect.DELPHI]
RFC_DIALECTS = (Dialect.MDP01, Dialect.MDP02, Dialect.MDP02D)
MakeHarness = Callable[..., BrokerHarness]


def lost(harness: BrokerHarness) -> list[tuple[object, object]]:
    """(peer, why) of every worker and present client that was lost."""
    return [
        (data.get("worker", data.get("peer")), data["why"])
        for fact, data in harness.facts
        if fact in ("worker-lost", "client-lost")
    ]


# Workers of MDP/0.3


def test_silent_worker_is_lost_after_three_intervals_and_told(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    harness.pass_time(7.49)
    assert harness.messages() == [heartbeat(W), heartbeat(W)]
    harness.pass_time(0.02)
    assert harness.messages() == [disconnect(W)]
    assert lost(harness) == [(W, "expired")]


def test_worker_that_heartbeats_stays(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    for _ in range(8):
        harness.pass_time(2.5)
        harness.heartbeat(W)
    assert set(map(str, harness.messages())) == {str(heartbeat(W))}
    assert lost(harness) == []


@pytest.mark.parametrize(
    "command", [spec.FINAL, spec.PARTIAL, spec.REJECT, spec.CAPACITY, spec.READY, spec.REQUEST]
)
def test_any_message_of_a_worker_is_a_heartbeat(harness: BrokerHarness, command: int) -> None:
    harness.worker(W)
    for _ in range(4):
        harness.pass_time(5)
        harness.receive_03(W, command, id=number(9) if command != spec.REQUEST else 1, code=1,
                  service=b"echo")  # fmt: skip
    assert lost(harness) == []


def test_worker_gets_a_heartbeat_only_when_nothing_else_was_sent_for_an_interval(
    harness: BrokerHarness,
) -> None:
    harness.worker(W, capacity=9)
    harness.sent()
    harness.pass_time(2)
    harness.request(C, 1)
    harness.heartbeat(W)
    harness.pass_time(2.4)
    assert [word[1] for word in harness.messages()] == ["REQUEST"]
    harness.pass_time(0.2)
    assert harness.messages() == [heartbeat(W)]


def test_heartbeat_is_never_answered(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.sent()
    harness.heartbeat(W, W, W)
    assert harness.messages() == []


def test_load_of_a_heartbeat_is_kept_and_0xffff_is_unknown(harness: BrokerHarness) -> None:
    harness.worker(W)
    worker = harness.machine.registry.workers[W]
    harness.receive_03(W, spec.HEARTBEAT, code=42)
    assert worker.load == 0.42
    harness.receive_03(W, spec.HEARTBEAT, code=spec.LOAD_UNKNOWN)
    assert worker.load is None


def test_interval_and_liveness_are_settings(make_harness: MakeHarness) -> None:
    harness = make_harness(worker_interval=1.0, liveness=2)
    harness.worker(W)
    assert harness.messages() == [welcome(W, 1000, liveness=2)]
    harness.pass_time(2.1)
    assert harness.messages() == [heartbeat(W), disconnect(W)]


# Clients


def test_client_with_presence_gets_heartbeats_and_is_lost_when_it_is_silent(
    harness: BrokerHarness,
) -> None:
    harness.receive_03(C, spec.HELLO)
    assert harness.messages() == [welcome(C, 30_000)]
    harness.pass_time(89)
    assert harness.messages() == [heartbeat(C), heartbeat(C)]
    harness.pass_time(1.1)
    assert harness.messages() == [disconnect(C)]
    assert lost(harness) == [(C, "expired")]


def test_heartbeat_of_a_client_with_presence_keeps_it(harness: BrokerHarness) -> None:
    harness.receive_03(C, spec.HELLO)
    for _ in range(8):
        harness.pass_time(30)
        harness.heartbeat(C)
    assert lost(harness) == []
    assert harness.counts.dropped == {}


def test_open_requests_of_a_client_that_falls_silent_are_cancelled(harness: BrokerHarness) -> None:
    harness.receive_03(C, spec.HELLO)
    harness.request(C, 1, ttl=600_000)
    harness.sent()
    harness.pass_time(91)
    assert harness.messages() == [heartbeat(C), heartbeat(C), disconnect(C)]
    assert harness.counts.cancelled == 1


def test_client_without_presence_gets_no_heartbeats(harness: BrokerHarness) -> None:
    harness.request(C, 1, ttl=300_000)
    harness.pass_time(250)
    assert harness.messages() == []


@pytest.mark.parametrize("command", [spec.HEARTBEAT, spec.CAPACITY])
def test_heartbeat_or_capacity_of_a_stranger_gets_disconnect(
    harness: BrokerHarness, command: int
) -> None:
    harness.receive_03(C, command, code=1)
    assert harness.messages() == [disconnect(C)]
    assert harness.counts.dropped == {"unknown-worker": 1}


def test_peer_that_is_worker_and_client_has_the_workers_interval(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.receive_03(W, spec.HELLO)
    assert harness.messages() == [welcome(W), welcome(W)]
    harness.pass_time(7.6)
    assert harness.messages() == [heartbeat(W), heartbeat(W), disconnect(W)]


# Workers of the older dialects


@pytest.mark.parametrize("dialect", RFC_DIALECTS)
def test_idle_legacy_worker_is_lost_after_three_silent_intervals(
    harness: BrokerHarness, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    harness.receive(W, *codec.w2b_ready(b"echo"))
    assert harness.messages() == []
    harness.pass_time(7.49)
    assert harness.messages() == [(W, *codec.b2w_heartbeat())] * 2
    harness.pass_time(0.1)
    assert harness.messages() == [(W, *codec.b2w_disconnect())]


@pytest.mark.parametrize("dialect", RFC_DIALECTS)
def test_busy_legacy_worker_may_be_silent_until_its_busy_timeout(
    make_harness: MakeHarness, dialect: Dialect
) -> None:
    harness = make_harness(busy_timeout=60.0)
    codec = LEGACY[dialect]
    harness.receive(W, *codec.w2b_ready(b"echo"))
    harness.request(C, 1, b"x", ttl=300_000)
    harness.sent()
    harness.pass_time(59)
    assert harness.messages() == [(W, *codec.b2w_heartbeat())] * 23
    harness.pass_time(1.1)
    assert harness.messages() == [(W, *codec.b2w_disconnect())]
    harness.worker(V)
    assert [word[1] for word in harness.messages()] == ["WELCOME", "REQUEST"]


def test_busy_timeout_can_be_set_for_a_service(make_harness: MakeHarness) -> None:
    harness = make_harness(busy_timeout=20.0, busy_timeouts={"render": 50.0})
    codec = LEGACY[Dialect.MDP01]
    for worker, service in ((V, b"echo"), (W, b"render")):
        harness.receive(worker, *codec.w2b_ready(service))
        harness.request(C, len(harness.facts), service=service, ttl=300_000)
    harness.pass_time(21)
    assert lost(harness) == [(V, "expired")]
    harness.pass_time(30)
    assert lost(harness) == [(V, "expired"), (W, "expired")]


def test_legacy_worker_that_has_answered_is_idle_again(harness: BrokerHarness) -> None:
    codec = LEGACY[Dialect.MDP01]
    harness.receive(W, *codec.w2b_ready(b"echo"))
    harness.request(C, 1, b"x", ttl=300_000)
    harness.pass_time(100)
    harness.receive(W, *codec.w2b_final(b"echo", handle(1), [b"y"]))
    harness.pass_time(7.4)
    assert lost(harness) == []
    harness.pass_time(0.2)
    assert lost(harness) == [(W, "expired")]


def test_delphi_worker_is_lost_after_five_seconds(harness: BrokerHarness) -> None:
    harness.receive(W, *DELPHI.w2b_ready(b"echo"))
    assert harness.messages() == [(W, *DELPHI.b2w_ready(W))]
    harness.pass_time(4.9)
    assert harness.messages() == [(W, *DELPHI.b2w_heartbeat())]
    harness.pass_time(0.2)
    assert harness.messages() == [(W, *DELPHI.b2w_disconnect())]
    assert lost(harness) == [(W, "expired")]


def test_any_message_of_a_delphi_worker_is_a_heartbeat(harness: BrokerHarness) -> None:
    """Rule 8 excepts traffic *to* these workers alone."""
    harness.receive(W, *DELPHI.w2b_ready(b"echo"))
    for id in range(1, 7):
        harness.request(C, id, b"x")
        harness.pass_time(4)
        harness.receive(W, *DELPHI.w2b_final(b"echo", handle(id), [b"y"]))
    assert lost(harness) == []


def test_message_with_a_wrong_hash_is_no_heartbeat(harness: BrokerHarness) -> None:
    harness.receive(W, *DELPHI.w2b_ready(b"echo"))
    harness.pass_time(4)
    harness.receive(W, *DELPHI.w2b_heartbeat(b"echo", 0.1)[:-1], b"\x00\x00\x00\x00")
    harness.pass_time(1.1)
    assert lost(harness) == [(W, "expired")]
    assert harness.counts.dropped == {"wrong-hash": 1}


def test_delphi_worker_gets_a_heartbeat_every_interval_whatever_else_is_sent(
    harness: BrokerHarness,
) -> None:
    harness.receive(W, *DELPHI.w2b_ready(b"echo"))
    beats = []
    for id in range(1, 11):
        harness.pass_time(1)
        harness.request(C, id, b"x")
        harness.receive(W, *DELPHI.w2b_heartbeat(b"echo", None))
        beats += [word for word in harness.messages() if word == (W, *DELPHI.b2w_heartbeat())]
    assert len(beats) == 3


# We paused ourselves


def test_workers_that_were_silent_while_we_were_stopped_are_not_judged_at_once(
    harness: BrokerHarness,
) -> None:
    harness.worker(W)
    harness.sent()
    harness.now += 60
    harness.turn()
    assert harness.messages() == []
    harness.heartbeat(W)
    harness.pass_time(2.5)
    assert lost(harness) == []
    assert harness.facts[1] == ("paused", {"until": harness.now})


def test_worker_that_stays_silent_after_our_pause_is_lost_one_interval_later(
    harness: BrokerHarness,
) -> None:
    harness.worker(W)
    harness.now += 60
    harness.turn()
    harness.pass_time(2.4)
    assert lost(harness) == []
    harness.pass_time(0.2)
    assert lost(harness) == [(W, "expired")]


def test_messages_that_waited_while_we_were_stopped_are_heard_first(harness: BrokerHarness) -> None:
    harness.worker(W)
    harness.request(C, 1, ttl=300_000)
    harness.sent()
    harness.now += 60
    harness.answer(W, number(1), b"y")
    assert harness.messages() == [final(C, 1, b"y", worker=W), heartbeat(W)]
    harness.pass_time(7)
    assert lost(harness) == []


def test_short_delay_of_our_own_is_no_pause(make_harness: MakeHarness) -> None:
    harness = make_harness(pause=1.0)
    harness.worker(W)
    harness.pass_time(7.4)
    harness.now += 0.9
    harness.turn()
    assert lost(harness) == [(W, "expired")]
