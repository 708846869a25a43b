"""A client's own order of its brokers, and its return to the first of them."""

from __future__ import annotations

import collections
from math import inf
from typing import Any

import pytest

from majordomus.core.client.session import Final
from majordomus.core.session.home import (
    FIRST_HOLD,
    FIRST_PROBE,
    HOLD,
    HOME,
    IDLE,
    Home,
    HomeState,
    order,
)
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect
from tests.core.session_harness import ClientScript

NAMES = [b"tcp://a:1", b"tcp://b:1", b"tcp://c:1"]
SETTLE = 5.0
HELLO_AND_BYE = ["HELLO", "DISCONNECT"]


def words(script: ClientScript) -> list[str]:
    return [word[0] for word in script.said()]


class TestOrder:
    def test_order_of_a_client_is_every_broker_once_and_always_the_same(self) -> None:
        for n in range(20):
            made = order(b"client %d" % n, NAMES)
            assert sorted(made) == [0, 1, 2]
            assert made == order(b"client %d" % n, NAMES)

    def test_clients_spread_over_the_brokers(self) -> None:
        firsts = collections.Counter(order(b"client %d" % n, NAMES)[0] for n in range(3000))
        assert all(900 < firsts[n] < 1100 for n in range(3))

    def test_clients_of_a_broker_that_fails_spread_over_the_others(self) -> None:
        orders = [order(b"client %d" % n, NAMES) for n in range(3000)]
        seconds = collections.Counter(one[1] for one in orders if one[0] == 0)
        assert all(count > 400 for count in seconds.values())
        assert set(seconds) == {1, 2}

    def test_broker_that_is_added_changes_the_order_of_the_others_for_no_client(self) -> None:
        for n in range(100):
            id = b"client %d" % n
            with_another = order(id, [*NAMES, b"tcp://d:1"])
            assert [one for one in with_another if one != 3] == order(id, NAMES)

    def test_session_tries_its_brokers_in_the_order_of_its_id(self) -> None:
        script = ClientScript(endpoints=3, spread=tuple(NAMES))
        mine = order((1).to_bytes(16, "big"), NAMES)
        assert script.session.endpoint == mine[0]
        for n in range(1, 4):
            script.connect()
            script.cut()
            assert script.session.endpoint == mine[n % 3]
            script.pass_time(3)

    def test_session_with_a_new_id_has_another_order(self) -> None:
        script = ClientScript(endpoints=3, spread=tuple(NAMES))
        seen = set()
        for _ in range(20):
            script.session.renew_id()
            seen.add(tuple(script.session.connection.order))
            assert script.session.endpoint == script.session.connection.order[0]
        assert len(seen) > 2

    def test_session_without_names_keeps_the_given_order(self) -> None:
        assert ClientScript(endpoints=3).session.connection.order == [0, 1, 2]


class TestStates:
    @pytest.mark.parametrize("event", ["leave", "arrive", "answer", "no answer"])
    def test_event_from_outside_is_listed_for_every_state(self, event: str) -> None:
        assert set(HOME[event]) == set(HomeState)

    def test_only_two_answers_in_a_row_bring_a_client_back(self) -> None:
        home = Home(SETTLE, lambda: 0.0)
        home.connected(0.0, here=False)
        for answers in ([False], [True, False]):
            for answer in answers:
                home.tick(home.due)
                assert home.wanted
                home.wanted = False
                home.answered(answer, home.due)
            assert home.state is HomeState.AWAY
        for _ in range(2):
            home.tick(home.due)
            home.answered(True, home.due)
        assert home.back

    def test_probes_without_an_answer_become_rare(self) -> None:
        home, now, waits = Home(SETTLE, lambda: 0.0), 0.0, []
        home.connected(now, here=False)
        for _ in range(8):
            waits.append(home.due - now)
            now = home.due
            home.tick(now)
            home.answered(False, now)
        assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]

    def test_return_that_did_not_last_makes_the_next_one_later(self) -> None:
        home = Home(SETTLE, lambda: 0.0)
        waits = []
        for now in (0.0, 10.0, 20.0):
            home.connected(now, here=True)
            home.connected(now + 1.0, here=False)
            waits.append(home.due - now - 1.0)
        home.connected(100.0, here=True)
        home.connected(1000.0, here=False)
        waits.append(home.due - 1000.0)
        assert waits == [1.0, 2.0, 4.0, 0.5]

    def test_probe_without_a_report_counts_as_not_answered(self) -> None:
        home = Home(SETTLE, lambda: 0.0)
        home.connected(0.0, here=False)
        home.tick(home.due)
        home.tick(home.due)
        assert home.state is HomeState.AWAY
        assert not home.wanted


def away(**settings: Any) -> ClientScript:
    """A client that has lost its first broker and is connected to the second."""
    script = ClientScript(endpoints=2, **settings)
    script.connect()
    script.cut()
    script.connect()
    script.out()
    return script


def home_is_back(script: ClientScript) -> None:
    """The first broker answers both probes."""
    home = script.session.connection.home
    assert home is not None
    for _ in range(2):
        while not home.wanted:
            script.pass_time(0.25)
        home.wanted = False
        home.answered(True, script.now)
        script.turn()


class TestReturn:
    def test_idle_client_returns_when_its_first_broker_has_been_back_for_a_while(self) -> None:
        script = away()
        began = script.now
        home_is_back(script)
        assert script.now >= began + FIRST_PROBE / 2 + SETTLE
        script.pass_time(IDLE)
        assert script.out() == ([], [], [0])
        script.connect()
        assert not script.session.connection.home.away  # type: ignore[union-attr]
        assert script.session.next_deadline() == inf

    def test_client_with_presence_takes_leave_and_greets_its_first_broker(self) -> None:
        script = away(presence=True)
        home_is_back(script)
        script.pass_time(IDLE)
        script.connect()
        assert words(script)[-2:] == ["DISCONNECT", "HELLO"]

    def test_call_in_flight_ends_where_it_was_sent(self) -> None:
        script = away()
        call = script.call(b"x", ttl=60.0)
        script.said()
        home_is_back(script)
        script.pass_time(1.0)
        assert script.out() == ([], [], [])
        script.final(script.session.wire(call) or call, b"y")
        script.pass_time(IDLE)
        assert script.out() == ([], [Final(call, 200, [b"y"], b"")], [0])

    def test_busy_client_holds_new_calls_until_those_in_flight_have_ended(self) -> None:
        script = away()
        first = script.call(b"1", ttl=60.0)
        home_is_back(script)
        script.pass_time(FIRST_HOLD)
        second = script.call(b"2", ttl=60.0)
        assert [word[-1] for word in script.said()] == [b"1"]
        script.final(first)
        assert script.out() == ([], [Final(first, 200, [], b"")], [0])
        script.connect()
        assert [word[-1] for word in script.said()] == [b"2"]
        script.final(second)
        assert script.events() == [Final(second, 200, [], b"")]

    def test_held_calls_leave_when_those_in_flight_take_too_long(self) -> None:
        script = away()
        script.call(b"1", ttl=60.0)
        home_is_back(script)
        script.pass_time(FIRST_HOLD)
        script.call(b"2", ttl=60.0)
        script.said()
        script.pass_time(HOLD)
        assert [word[-1] for word in script.said()] == [b"2"]
        script.call(b"3", ttl=60.0)
        assert [word[-1] for word in script.said()] == [b"3"]
        assert script.renewals == []

    def test_client_of_an_older_dialect_returns_too(self) -> None:
        script = away(dialect=Dialect.MDP01)
        home_is_back(script)
        script.pass_time(IDLE)
        assert script.out() == ([], [], [0])

    def test_one_way_message_that_the_socket_refused_is_not_left_behind(self) -> None:
        script = away()
        home_is_back(script)
        script.full = True
        script.call(b"x", flags=spec.ONE_WAY, ttl=60.0)
        script.full = False
        script.pass_time(2.0)
        script.connect()
        assert [word[-1] for word in script.said()] == [b"x"]

    def test_client_that_finds_no_first_broker_there_goes_on_at_the_next(self) -> None:
        script = away(connect_timeout=1.0)
        home_is_back(script)
        script.pass_time(IDLE)
        script.out()
        script.pass_time(1.0)
        assert script.out() == ([], [], [1])
        script.connect()
        assert script.session.connection.home.away  # type: ignore[union-attr]

    def test_client_that_never_returns_probes_nothing(self) -> None:
        script = away(home_after=inf)
        assert script.session.connection.home is None
        assert script.session.next_deadline() == inf

    def test_client_of_one_broker_probes_nothing(self) -> None:
        script = ClientScript()
        assert script.session.connection.home is None
