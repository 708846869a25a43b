"""The client's session: connections that come and go, heartbeats, draining brokers, full
sockets."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from majordomus.core.client.session import BY_CALLER, NO_ANSWER, NO_BROKER, Final, Lost, Part
from majordomus.core.session.connection import Probe
from majordomus.protocol import mdp03, metadata, spec
from tests.core.session_harness import ClientScript, Word

HELLO: Word = (
    "HELLO",
    {
        "flags": spec.METADATA,
        "metadata": metadata.pack({"session": (1).to_bytes(16, "big")}),
    },
)
HEARTBEAT: Word = ("HEARTBEAT", {})
DISCONNECT: Word = ("DISCONNECT", {})


def request(id: int, *body: bytes, ttl: int = 5000, **fields: Any) -> Word:
    return ("REQUEST", {"id": id, "ttl": ttl, "service": b"echo", **fields}, *body)


def connected(**settings: Any) -> ClientScript:
    """A client that has a connection; what it said on it at once was looked at."""
    script = ClientScript(**settings)
    script.connect()
    script.out()
    return script


def welcome(script: ClientScript, interval: int = 30_000, **facts: Any) -> None:
    """The broker sends WELCOME; `interval` in milliseconds."""
    fields = {"flags": spec.METADATA, "metadata": metadata.pack(facts)} if facts else {}
    script.say(spec.WELCOME, ttl=interval, address=b"me", **fields)


# ── the loss of a broker ──────────────────────────────────────────────────────────────────────────


def lose_by_monitor(script: ClientScript) -> None:
    script.cut()


def lose_by_disconnect(script: ClientScript) -> None:
    script.say(spec.DISCONNECT)


def lose_unseen(script: ClientScript) -> None:
    """The monitor's word of the end was lost, that of the next connection was not."""
    script.connect()


LOSSES = pytest.mark.parametrize("lose", [lose_by_monitor, lose_by_disconnect, lose_unseen])


@LOSSES
def test_call_is_sent_again_with_a_new_id_after_the_broker_is_lost(lose: Any) -> None:
    script = connected(endpoints=2)
    call = script.call(b"x")
    script.said()
    script.pass_time(0.5)
    lose(script)
    assert script.out() == ([], [], [1])
    script.pass_time(0.5)
    script.connect()
    assert script.out() == ([request(2, b"x", ttl=4000)], [], [])
    script.final(1, b"of the old one")
    script.final(2, b"of the new one")
    assert script.events() == [Final(call, 200, [b"of the new one"], b"")]


@LOSSES
def test_call_that_is_once_is_lost_with_its_broker(lose: Any) -> None:
    script = connected(endpoints=2)
    once = script.call(b"x", flags=spec.ONCE)
    script.said()
    lose(script)
    script.connect()
    assert script.out() == ([], [Lost(once)], [1])


@LOSSES
def test_call_whose_parts_were_delivered_is_lost_with_its_broker(lose: Any) -> None:
    script = connected(endpoints=2)
    call = script.call()
    script.said()
    script.say(spec.PARTIAL, b"1", id=1)
    lose(script)
    script.connect()
    assert script.out() == ([], [Part(call, [b"1"]), Lost(call)], [1])


def test_call_that_must_not_restart_is_lost_with_its_broker() -> None:
    script = connected()
    call = script.call(restart=False)
    script.said()
    script.cut()
    script.connect()
    assert script.out() == ([], [Lost(call)], [0])


def test_one_way_message_that_was_sent_is_not_sent_again() -> None:
    script = connected()
    script.call(flags=spec.ONE_WAY)
    script.cut()
    script.connect()
    assert script.out() == ([request(1, flags=spec.ONE_WAY)], [], [0])


def test_call_that_is_once_and_has_not_left_survives_its_broker() -> None:
    script = connected()
    script.session.call(b"echo", [b"x"], script.now, ttl=5.0, flags=spec.ONCE)
    script.cut()
    script.connect()
    assert script.out() == ([request(1, b"x", flags=spec.ONCE)], [], [0])


def test_calls_are_sent_again_in_the_order_in_which_they_were_made() -> None:
    script = connected()
    for n in range(3):
        script.call(b"%d" % n)
    script.said()
    script.cut()
    script.call(b"3")
    script.connect()
    assert script.said() == [request(n, b"%d" % i) for i, n in enumerate((5, 6, 7, 4))]


def test_calls_that_had_left_are_sent_again_before_those_that_the_socket_had_refused() -> None:
    script = connected()
    script.room = 2
    for n in range(4):
        script.session.call(b"echo", [b"%d" % n], script.now, ttl=5.0)
    script.turn()
    script.session.call(b"echo", [b"4"], script.now, ttl=5.0)
    assert [word[2] for word in script.said()] == [b"0", b"1"]
    script.cut()
    script.room = 99
    script.connect()
    assert [word[2] for word in script.said()] == [b"0", b"1", b"2", b"3", b"4"]


def test_call_is_not_sent_again_when_its_deadline_has_passed() -> None:
    script = connected()
    call = script.call(ttl=1.0)
    script.said()
    script.cut()
    script.pass_time(1.5)
    script.connect()
    assert script.out() == ([], [Final(call, 408, [NO_BROKER], b"")], [0])


def test_no_id_is_used_twice_on_a_connection() -> None:
    script = connected()
    for _ in range(3):
        script.call()
    for _ in range(3):
        script.cut()
        script.pass_time(0.1)
        script.connect()
    script.call()
    ids = [fields["id"] for _, fields in script.said()]
    assert ids == list(range(1, 14))


# ── where to connect to ───────────────────────────────────────────────────────────────────────────


def test_client_goes_round_its_endpoints_as_they_are_lost() -> None:
    script = ClientScript(endpoints=3)
    seen = []
    for _ in range(4):
        script.connect()
        script.pass_time(10.0)
        seen.append(script.session.endpoint)
        script.cut()
    assert (seen, script.out()) == ([0, 1, 2, 0], ([], [], [1, 2, 0, 1]))


def test_endpoint_that_does_not_answer_is_given_up_after_the_timeout() -> None:
    script = ClientScript(endpoints=3)
    script.turn()
    script.pass_time(0.9)
    assert script.out() == ([], [], [])
    script.pass_time(0.2)
    assert script.out() == ([], [], [1])
    script.pass_time(2.0)
    assert script.out() == ([], [], [2, 0])


def tries(script: ClientScript, seconds: float) -> list[tuple[float, int]]:
    """When the session changed its socket within `seconds`, and for which endpoint."""
    began, found = script.now, []
    while script.session.next_deadline() <= began + seconds:
        script.pass_time(script.session.next_deadline() - script.now)
        found += [(script.now - began, one) for one in script.renewals]
        script.renewals.clear()
    return found


def test_endpoints_are_tried_for_twice_as_long_in_each_round_in_which_none_answers() -> None:
    script = ClientScript(endpoints=2)
    script.turn()
    times = [1, 2, 4, 6, 10, 14, 22, 30, 40, 50, 60]
    assert tries(script, 60.0) == [(at, n % 2) for n, at in enumerate(times, 1)]


def test_endpoint_may_take_twice_as_long_as_the_last_connection_took() -> None:
    script = ClientScript(endpoints=2)
    script.turn()
    script.pass_time(4.0)
    script.pass_time(1.5)
    script.connect()
    script.cut()
    script.out()
    assert tries(script, 4.0) == [(3.0, 1)]


def test_time_of_a_try_counts_from_the_last_byte_that_came() -> None:
    script = ClientScript(endpoints=2)
    script.turn()
    for _ in range(5):
        script.pass_time(0.75)
        assert script.session.connection.waits_for_bytes
        script.session.connection.progressed(script.now)
    assert tries(script, 1.5) == [(1.0, 1)]


def test_endpoint_that_refuses_is_left_at_once_and_a_round_of_refusals_ends_with_a_wait() -> None:
    script = ClientScript(endpoints=3)
    script.turn()
    at_once, seen = [], []
    for _ in range(4):
        at_once.append(script.session.connection.unreached(script.now))
        seen.append(script.session.endpoint)
    assert (at_once, seen) == ([True, True, False, True], [1, 2, 0, 1])
    script.pass_time(0.5)
    script.connect()
    assert not script.session.connection.unreached(script.now)
    assert (script.session.endpoint, script.out()) == (1, ([], [], []))


def test_only_endpoint_that_refuses_is_tried_again() -> None:
    script = ClientScript()
    script.turn()
    assert not script.session.connection.unreached(script.now)
    assert (script.session.endpoint, script.session.next_deadline()) == (0, inf)


def test_only_endpoint_is_waited_for_without_changing_the_socket() -> None:
    script = ClientScript()
    script.turn()
    script.pass_time(1000.0)
    assert script.out() == ([], [], [])


def test_refused_connection_leaves_the_next_try_to_the_socket() -> None:
    script = ClientScript(endpoints=2)
    script.turn()
    script.cut()
    assert script.out() == ([], [], [])


def test_connection_that_never_lasts_is_tried_ever_less_often() -> None:
    script = ClientScript(retry_first=0.5, retry_most=2.0)
    waits = []
    for _ in range(6):
        script.connect()
        before = script.now
        script.cut()
        while not script.renewals:
            script.pass_time(script.session.next_deadline() - script.now)
        waits.append(script.now - before)
        script.renewals.clear()
    assert waits == pytest.approx([0, 0.25, 0.5, 1.0, 1.0, 1.0])
    script.connect()
    script.pass_time(2.0)
    script.cut()
    assert script.out() == ([], [], [0])


def test_what_the_old_socket_reports_before_the_shell_changes_it_is_ignored() -> None:
    script = connected(endpoints=2)
    script.session.lost(script.now)
    script.session.connected(script.now)
    script.session.lost(script.now)
    script.session.call(b"echo", [], script.now, ttl=5.0)
    script.turn()
    assert script.out() == ([], [], [1])
    script.connect()
    assert script.out() == ([request(1)], [], [])


# ── suspicion ─────────────────────────────────────────────────────────────────────────────────────


def suspicious(probe: Probe = Probe.PING, **settings: Any) -> ClientScript:
    """A client with a connection that can be probed, one of whose calls got no answer."""
    script = ClientScript(**{"endpoints": 2, **settings})
    script.session.connection.probe = probe
    script.connect()
    script.call(b"x", ttl=1.0)
    script.out()
    script.pass_time(1.125)
    return script


def silence(number: int) -> Final:
    return Final(number, spec.DEADLINE_EXCEEDED, [NO_ANSWER], b"")


def test_deadline_that_passed_in_silence_asks_for_one_ping() -> None:
    script = suspicious()
    connection = script.session.connection
    assert (connection.probe_wanted, script.out()) == (True, ([], [silence(1)], []))
    connection.probe_wanted = False
    script.call(b"y", ttl=0.5)
    script.pass_time(0.75)
    assert (connection.probe_wanted, script.events()) == (False, [silence(2)])


def test_broker_that_does_not_answer_the_probe_is_left_for_the_next_one() -> None:
    script = suspicious()
    script.call(b"y", ttl=10.0)
    script.out()
    script.pass_time(2.375)
    assert script.out() == ([], [], [])
    script.pass_time(0.125)
    assert script.out() == ([], [], [1])
    script.connect()
    assert script.said() == [request(3, b"y", ttl=7500)]


def test_bytes_after_the_probe_clear_the_broker() -> None:
    script = suspicious()
    script.pass_time(1.0)
    assert script.session.connection.waits_for_bytes
    script.session.connection.progressed(script.now)
    script.pass_time(100.0)
    assert (script.out(), script.session.next_deadline()) == (([], [silence(1)], []), inf)
    assert not script.session.connection.waits_for_bytes


def test_deadline_that_passed_soon_after_a_message_is_no_reason_for_a_probe() -> None:
    script = ClientScript(endpoints=2)
    script.session.connection.probe = Probe.PING
    script.connect()
    script.call(b"x", ttl=1.0)
    script.call(b"y", ttl=5.0)
    script.pass_time(1.0625)
    script.final(2, b"done")
    script.pass_time(1.0)
    assert not script.session.connection.probe_wanted


def test_session_probes_by_a_request_where_its_socket_cannot_ping() -> None:
    script = suspicious(Probe.REQUEST)
    probe = {"flags": spec.FAIL_FAST, "id": 2, "ttl": 1000, "service": b"mmi.service"}
    assert script.out() == ([("REQUEST", probe, b"mmi.service")], [silence(1)], [])
    script.final(2, b"404")
    script.pass_time(10.0)
    assert (script.out(), script.session.late) == (([], [], []), 0)


def test_client_with_presence_heartbeats_while_it_probes() -> None:
    script = ClientScript(presence=True, interval=1.0, liveness=100)
    script.session.connection.probe = Probe.PING
    script.connect()
    script.call(b"x", ttl=1.0)
    script.out()
    script.pass_time(3.0)
    assert script.out() == ([HEARTBEAT] * 3, [silence(1)], [])
    script.pass_time(1.0)
    assert script.out() == ([DISCONNECT], [], [0])


# ── presence ──────────────────────────────────────────────────────────────────────────────────────


def test_client_with_presence_sends_hello_first_on_each_connection() -> None:
    script = ClientScript(presence=True)
    script.call(b"x")
    script.connect()
    assert script.out() == ([HELLO, request(1, b"x")], [], [])
    script.cut()
    script.connect()
    assert script.out() == ([HELLO, request(2, b"x")], [], [0])


def test_client_that_becomes_present_sends_hello_at_once_and_later() -> None:
    script = connected()
    script.session.set_presence(script.now)
    script.session.set_presence(script.now)
    script.turn()
    assert script.said() == [HELLO]
    script.cut()
    script.connect()
    assert script.said() == [HELLO]


def test_client_without_presence_neither_heartbeats_nor_checks_for_silence() -> None:
    script = connected()
    script.pass_time(1000.0)
    assert script.out() == ([], [], [])


def test_welcome_sets_interval_and_liveness() -> None:
    script = connected(presence=True)
    welcome(script, 2000, liveness=2, broker="harness")
    assert (script.session.peer_id, script.session.welcome) == (
        b"me",
        {"liveness": 2, "broker": "harness"},
    )
    script.pass_time(3.9)
    assert script.out() == ([HEARTBEAT], [], [])
    script.pass_time(0.2)
    assert script.out() == ([DISCONNECT], [], [0])


@pytest.mark.parametrize("liveness", [0, -1, True, "3", 10**6, None])
def test_welcome_with_a_liveness_of_no_use_leaves_it_as_it_was(liveness: Any) -> None:
    script = connected(presence=True, liveness=2)
    welcome(script, 0, liveness=liveness)
    script.pass_time(59.0)
    assert script.out() == ([HEARTBEAT], [], [])
    script.pass_time(1.0)
    assert script.renewals == [0]


def test_welcome_that_asks_for_a_flood_of_heartbeats_does_not_get_it() -> None:
    script = connected(presence=True)
    welcome(script, 1)
    script.pass_time(0.025)
    assert script.said() == [HEARTBEAT, HEARTBEAT]


def test_welcome_with_rubbish_for_metadata_is_counted() -> None:
    script = connected(presence=True)
    script.say(spec.WELCOME, ttl=1000, flags=spec.METADATA, metadata=b"\xc1")
    assert script.out() == ([], [], [])
    assert script.session.invalid == {"bad-metadata": 1}


def test_client_heartbeats_only_when_it_sent_nothing_else_for_an_interval() -> None:
    script = connected(presence=True, interval=10.0)
    script.pass_time(6.0)
    script.call(flags=spec.ONE_WAY)
    script.said()
    script.pass_time(9.0)
    assert script.said() == []
    script.pass_time(1.0)
    assert script.said() == [HEARTBEAT]
    script.say(spec.HEARTBEAT)
    script.pass_time(10.0)
    assert script.said() == [HEARTBEAT]


@pytest.mark.parametrize("heard", [mdp03.pack(spec.HEARTBEAT), b"rubbish"])
def test_any_message_of_the_broker_counts_as_heartbeat(heard: bytes) -> None:
    script = connected(presence=True, interval=10.0)
    for _ in range(10):
        script.pass_time(29.0)
        script.hear(heard)
    assert script.renewals == []


def test_silent_broker_is_lost_and_its_calls_go_to_the_next() -> None:
    script = connected(presence=True, interval=10.0, endpoints=2)
    call, once = script.call(b"x", ttl=60.0), script.call(b"y", ttl=60.0, flags=spec.ONCE)
    script.said()
    script.pass_time(29.9)
    assert script.out() == ([HEARTBEAT, HEARTBEAT], [], [])
    script.pass_time(0.1)
    assert script.out() == ([DISCONNECT], [Lost(once)], [1])
    script.connect()
    assert script.said() == [HELLO, request(3, b"x", ttl=30_000)]
    script.final(3)
    assert script.events() == [Final(call, 200, [], b"")]


def test_session_that_was_paused_listens_before_it_judges() -> None:
    script = connected(presence=True, interval=10.0)
    script.pause(100.0)
    assert script.out() == ([HEARTBEAT], [], [])
    script.pass_time(5.0)
    script.say(spec.HEARTBEAT)
    script.pass_time(29.0)
    assert script.renewals == []


def test_broker_that_stays_silent_after_our_pause_is_lost_after_one_more_interval() -> None:
    script = connected(presence=True, interval=10.0)
    script.pause(100.0)
    script.said()
    script.pass_time(9.9)
    assert script.out() == ([], [], [])
    script.pass_time(0.1)
    assert script.out() == ([DISCONNECT], [], [0])


def test_session_that_was_a_little_late_judges_as_always() -> None:
    script = connected(presence=True, interval=10.0)
    script.pass_time(29.5)
    script.said()
    script.pause(1.0)
    assert script.out() == ([DISCONNECT], [], [0])


def test_client_with_presence_sends_disconnect() -> None:
    script = connected(presence=True)
    call = script.call()
    script.said()
    script.close()
    assert script.out() == (
        [("CANCEL", {"id": 1}), DISCONNECT],
        [Final(call, 499, [BY_CALLER], b"")],
        [],
    )


def test_client_without_a_connection_sends_no_disconnect() -> None:
    script = ClientScript(presence=True)
    script.close()
    assert script.out() == ([], [], [])


# ── a broker that drains ──────────────────────────────────────────────────────────────────────────


def draining(**settings: Any) -> ClientScript:
    script = connected(presence=True, **settings)
    welcome(script)
    return script


def drain(script: ClientScript) -> None:
    script.say(spec.CAPACITY)


def test_client_leaves_a_draining_broker_when_no_call_is_open() -> None:
    script = draining(endpoints=2)
    drain(script)
    assert script.out() == ([DISCONNECT], [], [1])
    script.connect()
    script.call()
    assert script.out() == ([HELLO, request(1)], [], [])


def test_client_leaves_a_draining_broker_with_its_last_answer() -> None:
    script = draining(endpoints=2)
    calls = [script.call(flags=spec.ONCE), script.call(flags=spec.ONCE)]
    script.said()
    drain(script)
    script.final(1)
    assert script.out() == ([], [Final(calls[0], 200, [], b"")], [])
    script.final(2)
    assert script.out() == ([DISCONNECT], [Final(calls[1], 200, [], b"")], [1])


def test_call_refused_by_a_draining_broker_goes_to_the_next_with_all_that_may() -> None:
    script = draining(endpoints=2)
    script.call(b"slow")
    script.call(b"new")
    script.said()
    drain(script)
    script.final(2, b"draining", status=503)
    assert script.out() == ([DISCONNECT], [], [1])
    script.connect()
    assert script.said() == [HELLO, request(3, b"slow")]
    script.pass_time(0.1)
    assert script.said() == [request(4, b"new", ttl=4968)]


def test_call_refused_by_a_draining_broker_waits_for_one_that_cannot_move() -> None:
    script = draining(endpoints=2)
    once = script.call(b"once", flags=spec.ONCE)
    script.call(b"new")
    script.said()
    drain(script)
    script.final(2, b"draining", status=503)
    assert script.out() == ([], [], [])
    script.final(1)
    assert script.out() == ([DISCONNECT], [Final(once, 200, [], b"")], [1])


def test_call_that_fails_fast_at_a_draining_broker_makes_way_for_the_others() -> None:
    script = draining(endpoints=2)
    call = script.call(flags=spec.FAIL_FAST)
    drain(script)
    script.said()
    script.final(1, b"draining", status=503)
    assert script.out() == ([DISCONNECT], [Final(call, 503, [b"draining"], b"")], [1])


@pytest.mark.parametrize("ending", ["cancel", "expire"])
def test_client_leaves_a_draining_broker_when_its_last_call_ends_here(ending: str) -> None:
    script = draining(endpoints=2)
    call = script.call(ttl=1.0)
    drain(script)
    script.out()
    if ending == "cancel":
        script.cancel(call)
    else:
        script.pass_time(1.25)
    assert script.renewals == [1]


def test_client_between_brokers_that_all_drain_goes_round_ever_less_often() -> None:
    script = ClientScript(presence=True, endpoints=2, retry_first=0.5, retry_most=2.0)
    waits = []
    for _ in range(7):
        script.connect()
        before = script.now
        drain(script)
        while not script.renewals:
            script.pass_time(script.session.next_deadline() - script.now)
        waits.append(script.now - before)
        script.renewals.clear()
    assert waits == pytest.approx([0, 0, 0.25, 0.5, 1.0, 1.0, 1.0])


def test_client_with_one_broker_stays_until_it_is_sent_off() -> None:
    script = draining()
    call = script.call()
    drain(script)
    script.final(1, b"draining", status=503)
    script.said()
    assert script.out() == ([], [], [])
    script.say(spec.DISCONNECT)
    script.connect()
    script.pass_time(0.1)
    assert script.out() == ([HELLO, request(2, ttl=4968)], [], [0])
    script.final(2)
    assert script.events() == [Final(call, 200, [], b"")]


def test_client_ignores_a_capacity_above_0() -> None:
    script = draining(endpoints=2)
    script.say(spec.CAPACITY, code=5)
    assert script.out() == ([], [], [])


# ── a full socket ─────────────────────────────────────────────────────────────────────────────────


def test_call_that_the_socket_refuses_is_tried_again_ever_less_often() -> None:
    script = connected()
    script.full = True
    script.call(b"x", ttl=60.0)
    before, tries = script.now, []
    for _ in range(6):
        due = script.session.next_deadline()
        script.pass_time(due - script.now)
        tries.append(script.now - before)
    assert tries == pytest.approx([0.005, 0.015, 0.035, 0.075, 0.155, 0.255])
    script.full = False
    script.pass_time(0.1)
    ((command, fields, *body),) = script.said()
    assert (command, fields["id"], body) == ("REQUEST", 1, [b"x"])
    assert fields["ttl"] < 59_800


def test_calls_that_the_socket_refuses_keep_their_order() -> None:
    script = connected()
    script.room = 2
    for n in range(5):
        script.session.call(b"echo", [b"%d" % n], script.now, ttl=5.0)
    script.turn()
    script.call(b"5")
    script.room = 3
    script.pass_time(0.005)
    script.room = 99
    script.pass_time(0.01)
    assert [word[2] for word in script.said()] == [b"%d" % n for n in range(6)]


def test_socket_that_takes_some_is_asked_again_soon() -> None:
    script = connected()
    script.full = True
    for n in range(1000):
        script.session.call(b"echo", [b"%d" % n], script.now, ttl=60.0)
    script.turn()
    script.full = False
    took = script.now
    while script.session.open_calls > len(script._words):
        script.room = 100
        script.pass_time(0.005)
    assert [int(word[2]) for word in script.said()] == list(range(1000))
    assert script.now - took < 0.1


def test_many_calls_that_waited_leave_in_batches() -> None:
    script = ClientScript()
    for n in range(600):
        script.call(b"%d" % n)
    script.session.connected(script.now)
    sizes = []
    for _ in range(4):
        sends, _, _, _ = script.session.take_effects()
        sizes.append(len(sends))
        script.session.tick(script.now)
    assert sizes == [256, 256, 88, 0]


def test_call_expires_while_the_socket_is_full() -> None:
    script = connected()
    script.full = True
    call = script.call(ttl=1.0)
    script.pass_time(1.0)
    assert script.events() == [Final(call, 408, [b"no answer came before the deadline"], b"")]
    script.full = False
    script.pass_time(1.0)
    assert script.out() == ([], [], [])


def test_call_cancelled_while_the_socket_is_full_never_leaves() -> None:
    script = connected()
    script.full = True
    call = script.call()
    script.cancel(call)
    script.full = False
    script.pass_time(1.0)
    assert script.out() == ([], [Final(call, 499, [BY_CALLER], b"")], [])


def test_call_that_is_once_and_was_refused_by_the_socket_survives_its_broker() -> None:
    script = connected()
    script.full = True
    script.call(flags=spec.ONCE)
    script.cut()
    script.full = False
    script.connect()
    assert script.out() == ([request(1, flags=spec.ONCE)], [], [0])


def test_one_way_message_that_the_socket_refused_is_tried_again() -> None:
    script = connected()
    script.full = True
    number = script.call(b"log", flags=spec.ONE_WAY, to=b"w1")
    assert (script.session.open_calls, script.session.has_left(number)) == (1, False)
    script.full = False
    script.pass_time(0.01)
    ((command, fields, *body),) = script.said()
    assert (command, fields["id"], fields["address"], body) == ("REQUEST", 1, b"w1", [b"log"])
    assert (script.session.open_calls, script.session.has_left(number)) == (0, True)


def test_hello_that_the_socket_refused_still_goes_first() -> None:
    script = ClientScript(presence=True)
    script.call(b"x")
    script.full = True
    script.connect()
    script.call(b"y")
    script.full = False
    script.pass_time(0.005)
    assert [word[0] for word in script.said()] == ["HELLO", "REQUEST", "REQUEST"]


def test_heartbeats_do_not_pile_up_at_a_full_socket() -> None:
    script = connected(presence=True, interval=1.0, liveness=1000)
    script.full = True
    script.pass_time(100.0)
    script.full = False
    script.pass_time(0.1)
    assert len(script.said()) <= 1


def test_cancel_that_the_socket_refused_is_not_forgotten() -> None:
    script = connected()
    call = script.call()
    script.full = True
    script.cancel(call)
    script.said()
    script.full = False
    script.pass_time(0.005)
    assert script.said() == [("CANCEL", {"id": 1})]


def test_answers_to_rubbish_do_not_pile_up_at_a_full_socket() -> None:
    script = connected()
    script.full = True
    for id in range(1, 3000):
        script.session.receive([mdp03.pack(99, id=id)], script.now)
        script.turn()
    script.full = False
    script.pass_time(1.0)
    assert len(script.said()) == 1000


# ── the sizes that WELCOME announces ──────────────────────────────────────────────────────────────


def limited() -> ClientScript:
    """A client whose broker takes bodies of 10 bytes and parts of 5."""
    script = connected(presence=True)
    welcome(script, max_message=10, max_part=5)
    script.out()
    return script


def excess(size: int, most: int) -> list[bytes]:
    return [b"%d bytes; the broker takes at most %d" % (size, most)]


def test_body_that_is_larger_than_the_broker_takes_ends_with_413_and_nothing_is_sent() -> None:
    script = limited()
    script.call(b"12345", b"67890")
    number = script.call(b"12345", b"678901")
    assert script.out() == (
        [request(1, b"12345", b"67890")],
        [Final(number, 413, excess(11, 10), b"")],
        [],
    )


def test_one_way_message_and_event_that_are_too_large_are_dropped_and_counted() -> None:
    script = limited()
    script.call(bytes(11), flags=spec.ONE_WAY)
    script.session.publish(b"news", [bytes(12)], script.now, ttl=5.0)
    script.turn()
    ((event,), sent) = script.events(), script.said()
    assert (sent, script.session.dropped) == ([], 1)
    assert (event.what, event.name, event.status, event.frames) == (
        "publish",
        b"news",
        413,
        excess(12, 10),
    )


def test_part_that_is_larger_than_the_broker_takes_ends_the_call_with_413() -> None:
    script = limited()
    number = script.call(b"x", flags=spec.MORE)
    script.session.streams.part(number, [b"12345"])
    script.turn()
    script.out()
    script.session.streams.part(number, [b"123456"])
    script.turn()
    assert script.out() == (
        [("CANCEL", {"id": number})],
        [Final(number, 413, excess(6, 5), b"")],
        [],
    )


def test_sizes_are_unknown_again_on_the_next_connection() -> None:
    script = limited()
    script.cut()
    script.connect()
    script.out()
    number = script.call(bytes(11))
    assert script.said() == [request(number, bytes(11))]


def test_call_that_waited_for_a_broker_with_a_lower_limit_ends_with_413() -> None:
    script = limited()
    script.full = True
    script.call(b"x")
    script.session._connection.max_message = 5
    number = script.call(bytes(5))
    script.session._connection.max_message = 4
    script.full = False
    script.pass_time(0.1)
    assert script.events() == [Final(number, 413, excess(5, 4), b"")]


# ── messages that are larger than the client takes ────────────────────────────────────────────────


def cut(script: ClientScript, command: int, **fields: Any) -> bool:
    """The wire has kept the header of a message, and something in place of its body."""
    done = script.session.receive_cut([mdp03.pack(command, **fields), b""], script.now)
    script.turn()
    return done


TOO_MUCH = b"larger than the 70000 bytes that this side takes from its broker"


def test_call_whose_answer_is_larger_than_the_client_takes_ends_with_413() -> None:
    script = connected(max_received=70_000)
    call = script.call()
    script.said()
    assert cut(script, spec.FINAL, id=call, code=200)
    assert script.out() == ([], [Final(call, 413, [TOO_MUCH], b"")], [])


def test_call_whose_part_is_larger_than_the_client_takes_is_cancelled_too() -> None:
    script = connected(max_received=70_000)
    call = script.call()
    script.said()
    assert cut(script, spec.PARTIAL, id=call)
    assert script.out() == ([("CANCEL", {"id": call})], [Final(call, 413, [TOO_MUCH], b"")], [])


def test_larger_message_of_no_open_call_is_counted() -> None:
    script = connected()
    assert cut(script, spec.FINAL, id=7, code=200)
    assert cut(script, spec.EVENT, service=b"news")
    assert script.session.invalid == {"too-large": 2}
    assert script.out() == ([], [], [])


def test_larger_message_that_cannot_be_assigned_is_not_taken() -> None:
    script = connected()
    assert not script.session.receive_cut([b""], script.now)
    assert not script.session.receive_cut([b"MDP\x03 but no header", b""], script.now)


def test_welcome_lowers_what_is_taken_until_the_next_connection() -> None:
    script = connected(presence=True, endpoints=2, max_received=50_000_000)
    welcome(script, max_message=1_000_000)
    assert script.session.connection.max_received == 1_000_000 + 1024 * 1024
    script.cut()
    script.connect()
    assert script.session.connection.max_received == 50_000_000
