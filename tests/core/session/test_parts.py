"""What both sessions are made of: tables of states, delays, timers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from enum import IntEnum
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.core.client.calls import Call
from majordomus.core.session.backoff import delay
from majordomus.core.session.outbox import BATCH, SessionOutbox
from majordomus.core.session.timers import TimerQueue
from majordomus.core.session.transitions import (
    CALL,
    CONNECTION,
    DISPATCH,
    CallState,
    ConnectionState,
    DispatchState,
    TransitionRow,
)
from majordomus.errors import LocalProtocolError

TABLES: list[tuple[Mapping[str, Mapping[Any, Any]], type[IntEnum]]] = [
    (CONNECTION, ConnectionState),
    (CALL, CallState),
    (DISPATCH, DispatchState),
]


@pytest.mark.parametrize(("table", "states"), TABLES)
def test_every_pair_that_a_table_does_not_list_is_an_error_of_ours(
    table: Mapping[str, Mapping[Any, Any]], states: type[IntEnum]
) -> None:
    for event, state in itertools.product(table, states):
        moves: TransitionRow[Any] = TransitionRow(table, event)
        if state in table[event]:
            assert moves[state] is table[event][state]
        else:
            with pytest.raises(LocalProtocolError, match=f"{event} in {state.name}"):
                moves[state]


@pytest.mark.parametrize(("table", "states"), TABLES)
def test_every_state_is_reached_and_only_the_last_is_never_left(
    table: Mapping[str, Mapping[Any, Any]], states: type[IntEnum]
) -> None:
    steps = [(a, b) for row in table.values() for a, b in row.items() if a is not b]
    first, *_, last = states
    assert {b for _, b in steps} | {first} == set(states)
    assert {a for a, _ in steps} == set(states) - {last}


@pytest.mark.parametrize("event", ["connected", "lost", "disconnect", "drain", "close"])
def test_what_others_may_cause_at_any_time_is_listed_for_every_state(event: str) -> None:
    assert set(CONNECTION[event]) == set(ConnectionState)


def test_delay_doubles_up_to_its_most_and_half_of_it_is_chance() -> None:
    assert [delay(0.5, 3.0, n, lambda: 0.0) for n in range(5)] == [0.25, 0.5, 1.0, 1.5, 1.5]
    assert [delay(0.5, 3.0, n, lambda: 0.5) for n in range(5)] == [0.375, 0.75, 1.5, 2.25, 2.25]


def test_delay_after_any_number_of_failures_is_a_number() -> None:
    assert delay(0.5, 3.0, 10**9, lambda: 0.0) == 1.5


def call(number: int) -> Call:
    return Call(number, b"", [], inf, 0, True)


def test_timer_that_was_set_for_earlier_stays_there() -> None:
    calls = {1: call(1)}
    timers = TimerQueue(calls)
    timers.schedule(calls[1], 5.0)
    timers.schedule(calls[1], 9.0)
    timers.schedule(calls[1], 3.0)
    assert [timers.pop(2.9), timers.next()] == [None, 3.0]
    assert timers.pop(100.0) is calls[1]
    assert timers.pop(100.0) is None


def test_timer_that_is_moved_between_row_and_heap_comes_once() -> None:
    calls = {number: call(number) for number in (1, 2, 3)}
    timers = TimerQueue(calls)
    for number, when in ((1, 5.0), (2, 7.0), (3, 6.0), (2, 1.0), (1, 2.0)):
        timers.schedule(calls[number], when)
    found = []
    while (one := timers.pop(10.0)) is not None:
        found.append(one.number)
    assert found == [2, 1, 3]
    assert (len(timers), timers.next()) == (0, inf)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.sampled_from(["watch", "end", "remove", "pop", "begin anew"]),
            st.integers(0, 50),
        ),
        max_size=200,
    )
)
def test_timers_give_out_every_living_item_at_its_time_and_no_other(
    steps: list[tuple[int, str, int]],
) -> None:
    calls: dict[int, Call] = {}
    timers = TimerQueue(calls)
    wanted: dict[int, int] = {}
    for number, what, when in steps:
        if what == "watch":
            timers.schedule(calls.setdefault(number, call(number)), when)
            wanted[number] = min(when, wanted.get(number, when))
        elif what == "pop":
            found = timers.pop(when)
            assert (found is None) == all(time > when for time in wanted.values())
            if found is not None:
                earliest = min(wanted.values())
                assert wanted.pop(found.number) == earliest
        elif what == "begin anew":
            timers.clear()
            for known in calls.values():
                known.timer_at, known.timer_place = inf, -1
            wanted.clear()
        elif number in calls:
            timers.remove(calls[number])
            wanted.pop(number, None)
            if what == "end":
                del calls[number]
    for now in range(51):
        found_now = set()
        while (item := timers.pop(now)) is not None:
            found_now.add(item.number)
        assert found_now == {key for key, when in wanted.items() if when == now}
    assert (len(timers), timers.next()) == (0, inf)


def test_gaps_and_old_entries_are_dropped_before_they_outnumber_the_living() -> None:
    for times in (lambda n: 1e9 + n, lambda n: 1e9 - n, lambda n: 1e9 + n * 7919 % 1000):
        calls: dict[int, Call] = {0: call(0)}
        timers = TimerQueue(calls)
        timers.schedule(calls[0], 1e8)  # the first of the row, as long as the test
        for number in range(1, 10_000):
            calls[number] = call(number)
            timers.schedule(calls[number], times(number))
            if number > 100:
                timers.remove(calls[number - 100])
                del calls[number - 100]
        assert len(calls) == 101
        assert len(timers) <= 606


def test_outbox_fills_one_list_while_the_other_is_read() -> None:
    outbox = SessionOutbox()
    outbox.put([b"1"], 1)
    first, first_tags = outbox.take()
    outbox.put([b"2"], 2)
    assert (first, first_tags) == ([[b"1"]], [1])
    second, second_tags = outbox.take()
    outbox.put([b"3"], 3)
    assert (first, second) == ([[b"3"]], [[b"2"]])
    assert (first_tags, second_tags) == ([3], [2])
    assert outbox.take()[0] is first


@given(st.lists(st.tuples(st.sampled_from(["put", "turn", "clear"]), st.integers(0, 9))))
def test_outbox_keeps_the_order_whatever_the_socket_refuses(
    steps: list[tuple[str, int]],
) -> None:
    outbox = SessionOutbox()
    now, count, took, lost = 0.0, 0, [], set()
    for what, room in [*steps, *[("turn", 9)] * 200]:
        if what == "put":
            outbox.put([b"%d" % count], count)
            count += 1
        elif what == "clear":
            outbox.clear()
            lost = set(range(count)) - set(took)
        else:
            now = max(now, outbox.due if outbox.due < inf else now)
            if now >= outbox.due and not outbox.retry(now):
                outbox.unblock()
            for frames, tag in zip(*outbox.take(), strict=True):
                assert tag == int(frames[0])
                if room:
                    room -= 1
                    took.append(int(frames[0]))
                else:
                    outbox.keep(frames, tag, now)
    assert took == [n for n in range(count) if n not in lost]
    assert not outbox.blocked


def test_outbox_that_was_refused_offers_a_batch_at_a_time() -> None:
    outbox = SessionOutbox()
    for n in range(600):
        outbox.put([b"%d" % n], n)
    for frames, tag in list(zip(*outbox.take(), strict=True)):
        outbox.keep(frames, tag, 0.0)
    sizes = []
    while outbox.blocked:
        if not outbox.retry(outbox.due):
            outbox.unblock()
        sizes.append(len(outbox.take()[0]))
    assert sizes == [BATCH, BATCH, 600 - 2 * BATCH, 0]
