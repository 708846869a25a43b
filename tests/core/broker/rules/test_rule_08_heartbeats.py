"""Rule 8: any traffic is a heartbeat (but to Delphi workers only HEARTBEAT is one), and peers that
were silent because the broker paused are heard before they are judged. docs/spec/mdp-0.2.md to
§4."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from majordomus.protocol import spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.core.broker_harness import House, disconnect, final, handle, heartbeat, number, welcome

C, V, W = b"client-c", b"worker-v", b"worker-w"
DELPHI = LEGACY[Dialect.DELPHI]
RFC_DIALECTS = (Dialect.MDP01, Dialect.MDP02, Dialect.MDP02D)
MakeHouse = Callable[..., House]


def lost(house: House) -> list[tuple[object, object]]:
    """(peer, why) of every worker and present client that was lost."""
    return [
        (data.get("worker", data.get("peer")), data["why"])
        for fact, data in house.facts
        if fact in ("worker-lost", "client-lost")
    ]


# Workers of MDP/0.3


def test_silent_worker_is_lost_after_three_intervals_and_told(house: House) -> None:
    house.worker(W)
    house.said()
    house.pass_time(7.49)
    assert house.words() == [heartbeat(W), heartbeat(W)]
    house.pass_time(0.02)
    assert house.words() == [disconnect(W)]
    assert lost(house) == [(W, "expired")]


def test_worker_that_heartbeats_stays(house: House) -> None:
    house.worker(W)
    house.said()
    for _ in range(8):
        house.pass_time(2.5)
        house.heartbeat(W)
    assert set(map(str, house.words())) == {str(heartbeat(W))}
    assert lost(house) == []


@pytest.mark.parametrize(
    "command", [spec.FINAL, spec.PARTIAL, spec.REJECT, spec.CAPACITY, spec.READY, spec.REQUEST]
)
def test_any_message_of_a_worker_is_a_heartbeat(house: House, command: int) -> None:
    house.worker(W)
    for _ in range(4):
        house.pass_time(5)
        house.say(W, command, id=number(9) if command != spec.REQUEST else 1, code=1,
                  service=b"echo")  # fmt: skip
    assert lost(house) == []


def test_worker_gets_a_heartbeat_only_when_nothing_else_was_sent_for_an_interval(
    house: House,
) -> None:
    house.worker(W, capacity=9)
    house.said()
    house.pass_time(2)
    house.request(C, 1)
    house.heartbeat(W)
    house.pass_time(2.4)
    assert [word[1] for word in house.words()] == ["REQUEST"]
    house.pass_time(0.2)
    assert house.words() == [heartbeat(W)]


def test_heartbeat_is_never_answered(house: House) -> None:
    house.worker(W)
    house.said()
    house.heartbeat(W, W, W)
    assert house.words() == []


def test_load_of_a_heartbeat_is_kept_and_0xffff_is_unknown(house: House) -> None:
    house.worker(W)
    worker = house.machine.registry.workers[W]
    house.say(W, spec.HEARTBEAT, code=42)
    assert worker.load == 0.42
    house.say(W, spec.HEARTBEAT, code=spec.LOAD_UNKNOWN)
    assert worker.load is None


def test_interval_and_liveness_are_settings(make_house: MakeHouse) -> None:
    house = make_house(worker_interval=1.0, liveness=2)
    house.worker(W)
    assert house.words() == [welcome(W, 1000, liveness=2)]
    house.pass_time(2.1)
    assert house.words() == [heartbeat(W), disconnect(W)]


# Clients


def test_client_with_presence_gets_heartbeats_and_is_lost_when_it_is_silent(house: House) -> None:
    house.say(C, spec.HELLO)
    assert house.words() == [welcome(C, 30_000)]
    house.pass_time(89)
    assert house.words() == [heartbeat(C), heartbeat(C)]
    house.pass_time(1.1)
    assert house.words() == [disconnect(C)]
    assert lost(house) == [(C, "expired")]


def test_heartbeat_of_a_client_with_presence_keeps_it(house: House) -> None:
    house.say(C, spec.HELLO)
    for _ in range(8):
        house.pass_time(30)
        house.heartbeat(C)
    assert lost(house) == []
    assert house.counts.dropped == {}


def test_open_requests_of_a_client_that_falls_silent_are_cancelled(house: House) -> None:
    house.say(C, spec.HELLO)
    house.request(C, 1, ttl=600_000)
    house.said()
    house.pass_time(91)
    assert house.words() == [heartbeat(C), heartbeat(C), disconnect(C)]
    assert house.counts.cancelled == 1


def test_client_without_presence_gets_no_heartbeats(house: House) -> None:
    house.request(C, 1, ttl=300_000)
    house.pass_time(250)
    assert house.words() == []


@pytest.mark.parametrize("command", [spec.HEARTBEAT, spec.CAPACITY])
def test_heartbeat_or_capacity_of_a_stranger_gets_disconnect(house: House, command: int) -> None:
    house.say(C, command, code=1)
    assert house.words() == [disconnect(C)]
    assert house.counts.dropped == {"unknown-worker": 1}


def test_peer_that_is_worker_and_client_has_the_workers_interval(house: House) -> None:
    house.worker(W)
    house.say(W, spec.HELLO)
    assert house.words() == [welcome(W), welcome(W)]
    house.pass_time(7.6)
    assert house.words() == [heartbeat(W), heartbeat(W), disconnect(W)]


# Workers of the older dialects


@pytest.mark.parametrize("dialect", RFC_DIALECTS)
def test_idle_legacy_worker_is_lost_after_three_silent_intervals(
    house: House, dialect: Dialect
) -> None:
    codec = LEGACY[dialect]
    house.hear(W, *codec.w2b_ready(b"echo"))
    assert house.words() == []
    house.pass_time(7.49)
    assert house.words() == [(W, *codec.b2w_heartbeat())] * 2
    house.pass_time(0.1)
    assert house.words() == [(W, *codec.b2w_disconnect())]


@pytest.mark.parametrize("dialect", RFC_DIALECTS)
def test_busy_legacy_worker_may_be_silent_until_its_busy_timeout(
    make_house: MakeHouse, dialect: Dialect
) -> None:
    house = make_house(busy_timeout=60.0)
    codec = LEGACY[dialect]
    house.hear(W, *codec.w2b_ready(b"echo"))
    house.request(C, 1, b"x", ttl=300_000)
    house.said()
    house.pass_time(59)
    assert house.words() == [(W, *codec.b2w_heartbeat())] * 23
    house.pass_time(1.1)
    assert house.words() == [(W, *codec.b2w_disconnect())]
    house.worker(V)
    assert [word[1] for word in house.words()] == ["WELCOME", "REQUEST"]


def test_busy_timeout_can_be_set_for_a_service(make_house: MakeHouse) -> None:
    house = make_house(busy_timeout=20.0, busy_timeouts={"render": 50.0})
    codec = LEGACY[Dialect.MDP01]
    for worker, service in ((V, b"echo"), (W, b"render")):
        house.hear(worker, *codec.w2b_ready(service))
        house.request(C, len(house.facts), service=service, ttl=300_000)
    house.pass_time(21)
    assert lost(house) == [(V, "expired")]
    house.pass_time(30)
    assert lost(house) == [(V, "expired"), (W, "expired")]


def test_legacy_worker_that_has_answered_is_idle_again(house: House) -> None:
    codec = LEGACY[Dialect.MDP01]
    house.hear(W, *codec.w2b_ready(b"echo"))
    house.request(C, 1, b"x", ttl=300_000)
    house.pass_time(100)
    house.hear(W, *codec.w2b_final(b"echo", handle(1), [b"y"]))
    house.pass_time(7.4)
    assert lost(house) == []
    house.pass_time(0.2)
    assert lost(house) == [(W, "expired")]


def test_delphi_worker_is_lost_after_five_seconds(house: House) -> None:
    house.hear(W, *DELPHI.w2b_ready(b"echo"))
    assert house.words() == [(W, *DELPHI.b2w_ready(W))]
    house.pass_time(4.9)
    assert house.words() == [(W, *DELPHI.b2w_heartbeat())]
    house.pass_time(0.2)
    assert house.words() == [(W, *DELPHI.b2w_disconnect())]
    assert lost(house) == [(W, "expired")]


def test_any_message_of_a_delphi_worker_is_a_heartbeat(house: House) -> None:
    """Rule 8 excepts traffic *to* these workers alone."""
    house.hear(W, *DELPHI.w2b_ready(b"echo"))
    for id in range(1, 7):
        house.request(C, id, b"x")
        house.pass_time(4)
        house.hear(W, *DELPHI.w2b_final(b"echo", handle(id), [b"y"]))
    assert lost(house) == []


def test_message_with_a_wrong_hash_is_no_heartbeat(house: House) -> None:
    house.hear(W, *DELPHI.w2b_ready(b"echo"))
    house.pass_time(4)
    house.hear(W, *DELPHI.w2b_heartbeat(b"echo", 0.1)[:-1], b"\x00\x00\x00\x00")
    house.pass_time(1.1)
    assert lost(house) == [(W, "expired")]
    assert house.counts.dropped == {"wrong-hash": 1}


def test_delphi_worker_gets_a_heartbeat_every_interval_whatever_else_is_sent(house: House) -> None:
    house.hear(W, *DELPHI.w2b_ready(b"echo"))
    beats = []
    for id in range(1, 11):
        house.pass_time(1)
        house.request(C, id, b"x")
        house.hear(W, *DELPHI.w2b_heartbeat(b"echo", None))
        beats += [word for word in house.words() if word == (W, *DELPHI.b2w_heartbeat())]
    assert len(beats) == 3


# We paused ourselves


def test_workers_that_were_silent_while_we_were_stopped_are_not_judged_at_once(
    house: House,
) -> None:
    house.worker(W)
    house.said()
    house.now += 60
    house.turn()
    assert house.words() == []
    house.heartbeat(W)
    house.pass_time(2.5)
    assert lost(house) == []
    assert house.facts[1] == ("paused", {"until": house.now})


def test_worker_that_stays_silent_after_our_pause_is_lost_one_interval_later(house: House) -> None:
    house.worker(W)
    house.now += 60
    house.turn()
    house.pass_time(2.4)
    assert lost(house) == []
    house.pass_time(0.2)
    assert lost(house) == [(W, "expired")]


def test_messages_that_waited_while_we_were_stopped_are_heard_first(house: House) -> None:
    house.worker(W)
    house.request(C, 1, ttl=300_000)
    house.said()
    house.now += 60
    house.answer(W, number(1), b"y")
    assert house.words() == [final(C, 1, b"y", worker=W), heartbeat(W)]
    house.pass_time(7)
    assert lost(house) == []


def test_short_delay_of_our_own_is_no_pause(make_house: MakeHouse) -> None:
    house = make_house(pause=1.0)
    house.worker(W)
    house.pass_time(7.4)
    house.now += 0.9
    house.turn()
    assert lost(house) == [(W, "expired")]
