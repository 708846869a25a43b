"""The wheel in which everything waits that waits for a point in time."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.core.broker.state.timer_wheel import STEPS_PER_SECOND, Deadlines

STEP = 1 / STEPS_PER_SECOND


def test_item_is_due_at_its_time_or_one_step_later_and_never_before() -> None:
    wheel: Deadlines[str] = Deadlines()
    wheel.add("x", 10.001)
    assert wheel.due(10.001 - 1e-6) == []
    assert wheel.due(10.001 + STEP) == ["x"]


def test_items_come_oldest_first_and_once() -> None:
    wheel: Deadlines[str] = Deadlines()
    for name, when in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        wheel.add(name, when)
    assert wheel.due(2.5) == ["a", "b"]
    assert wheel.due(9.0) == ["c"]
    assert wheel.due(99.0) == []


def test_next_is_when_something_is_due() -> None:
    wheel: Deadlines[str] = Deadlines()
    assert wheel.next() == inf
    wheel.add("x", 5.0)
    wheel.add("y", 4.0)
    assert 4.0 < wheel.next() <= 4.0 + STEP
    assert wheel.due(wheel.next()) == ["y"]
    assert 5.0 < wheel.next() <= 5.0 + STEP


def test_item_that_was_taken_out_leaves_nothing() -> None:
    wheel: Deadlines[int] = Deadlines()
    slots = {n: wheel.add(n, 5.0 + n) for n in range(1000)}
    for n, slot in slots.items():
        del slot[n]
    assert len(wheel) == 0
    assert wheel.next() == inf
    assert wheel.due(9999.0) == []
    assert (wheel._buckets, wheel._steps) == ({}, [])


def test_item_may_be_taken_out_twice_and_after_it_was_due() -> None:
    wheel: Deadlines[str] = Deadlines()
    slot = wheel.add("x", 1.0)
    assert wheel.due(2.0) == ["x"]
    assert slot.pop("x", None) is None
    assert wheel.add("x", 1.0) is not slot
    assert wheel.due(2.0) == ["x"]


def test_item_whose_time_has_passed_is_due_at_once() -> None:
    wheel: Deadlines[str] = Deadlines()
    assert wheel.due(100.0) == []
    wheel.add("late", 1.0)
    assert wheel.next() <= 100.0
    assert wheel.due(100.0) == ["late"]


@pytest.mark.parametrize("start", [0.0, 1e3, 1e8])
def test_wheel_does_not_care_when_the_clock_began(start: float) -> None:
    wheel: Deadlines[str] = Deadlines()
    wheel.add("x", start + 1.0)
    assert wheel.due(start + 0.999) == []
    assert wheel.due(start + 1.0 + STEP) == ["x"]


TIMES = st.floats(0, 1000, allow_nan=False)
STEPS = st.lists(st.tuples(st.sampled_from(["add", "drop", "due"]), TIMES), max_size=60)


@given(STEPS)
def test_wheel_does_what_a_sorted_list_would(steps: list[tuple[str, float]]) -> None:
    wheel: Deadlines[int] = Deadlines()
    open_items: dict[int, tuple[float, dict[int, Any]]] = {}
    now = 0.0
    for n, (what, value) in enumerate(steps):
        if what == "add":
            open_items[n] = (value, wheel.add(n, value))
        elif what == "drop" and open_items:
            item = min(open_items)
            open_items.pop(item)[1].pop(item)
        elif what == "due":
            now = max(now, value)
            due = wheel.due(now)
            whens = [open_items.pop(item)[0] for item in due]
            assert all(when < now for when in whens)
            steps_of = [int(when * STEPS_PER_SECOND) for when in whens]
            assert steps_of == sorted(steps_of)
        assert all(when > now - STEP for when, _ in open_items.values() if what == "due")
        assert len(wheel) == len(open_items)
        expected = min((when for when, _ in open_items.values()), default=inf)
        assert expected < wheel.next() or expected == inf
        assert wheel.next() <= expected + STEP
