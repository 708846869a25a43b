"""Who wants to see what, and what nobody's regular expression may cost the collector."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.contrib.cloudlog.record import LogEntry
from majordomus.contrib.cloudlog.sieve import Sieve, exponent, for_collector
from majordomus.errors import ConfigurationError

INFO = LogEntry(text="order 17 taken", level=20, application="shop")


@pytest.mark.parametrize(
    ("sieve", "passes"),
    [
        (Sieve(), True),
        (Sieve(level=20), True),
        (Sieve(level=21), False),
        (Sieve(applications=["shop", "bank"]), True),
        (Sieve(applications=["bank"]), False),
        (Sieve(grep=r"order \d+"), True),
        (Sieve(grep="^taken"), False),
        (Sieve(level=20, applications=["shop"], grep="taken"), True),
        (Sieve(level=30, applications=["shop"], grep="taken"), False),
    ],
)
def test_level_application_and_expression_all_have_to_fit(sieve: Sieve, passes: bool) -> None:
    assert sieve.passes(INFO) is passes
    assert sieve.may_pass(INFO) is passes


def test_levels_of_the_original_are_compared_as_what_they_mean() -> None:
    assert Sieve(level=30).passes(LogEntry(level=2))
    assert not Sieve(level=30).passes(LogEntry(level=0))


def test_expression_that_is_none_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigurationError, match=r"'\(' is not a regular expression: missing \)"):
        Sieve(grep="(")
    with pytest.raises(ConfigurationError):
        for_collector(0, [], "[")


@pytest.mark.parametrize(
    ("pattern", "power"),
    [
        ("", 1),
        ("order", 1),
        (r"a\*b\\[*+]", 1),
        ("a|b|c", 1),
        (r"\d+", 2),
        ("a*?b{2,}c?", 4),
        ("(a|b)", 2),
        ("(?:x)", 1),
        ("a+|b+c+", 3),
        ("(a+)+", None),
        ("(a|a)*", None),
        (r"(a)\1", None),
        ("(?i)a", None),
        ("(?=a)", None),
        ("(a)?", None),
    ],
)
def test_what_an_expression_may_cost_is_seen_in_it(pattern: str, power: int | None) -> None:
    assert exponent(pattern) == power


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(a|aa)*$", "a*a*a*a*a*$", "a?" * 30 + "a" * 30, "(|)" * 40 + "x", r"(a*)*\1$"],
)
@pytest.mark.parametrize("text", ["a" * 40 + "b", "a" * 4000 + "b", ""])
def test_no_expression_keeps_the_collector_from_its_work(pattern: str, text: str) -> None:
    sieve = for_collector(0, [], pattern)
    began = time.process_time()
    sieve.may_pass(LogEntry(text=text))
    assert time.process_time() - began < 0.5


def test_what_the_collector_cannot_decide_it_lets_through() -> None:
    assert for_collector(0, [], "(a+)+$").may_pass(LogEntry(text="b"))
    assert Sieve(grep="a+b").may_pass(LogEntry(text="x" * 2000))
    assert not Sieve(grep="a+b").may_pass(LogEntry(text="x" * 200))


PIECES = st.sampled_from([*"ab|()*+?.^$\\[]{}2,", "(?:", "a+", "b*"])


@given(st.lists(PIECES, max_size=8).map("".join), st.text("ab2", max_size=12))
def test_what_a_viewer_wants_always_comes_through_the_collector(pattern: str, text: str) -> None:
    try:
        viewer = Sieve(grep=pattern)
    except ConfigurationError:
        return
    line = LogEntry(text=text)
    if viewer.passes(line):
        assert for_collector(0, [], pattern).may_pass(line)
