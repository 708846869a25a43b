"""Topics, patterns, and the tree that finds who subscribed.

Work is counted in executed lines, as in test_rule_10_cost.py.
"""

from __future__ import annotations

import time
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from majordomus.core.broker.state.topics import Topics
from majordomus.protocol.topics import agrees, name_problem
from tests.core.broker.rules.test_rule_10_cost import lines_of

MANY = 100_000

TOKENS = st.sampled_from([b"a", b"b", b"c"])
TOPICS = st.lists(TOKENS, min_size=1, max_size=4).map(b".".join)
PATTERNS = st.tuples(
    st.lists(st.sampled_from([b"a", b"b", b"*"]), max_size=3),
    st.sampled_from([b"a", b"*", b">"]),
).map(lambda parts: b".".join([*parts[0], parts[1]]))


@pytest.mark.parametrize(
    ("pattern", "topic", "holds"),
    [
        (b"prices", b"prices", True),
        (b"prices", b"prices.eur", False),
        (b"prices.*", b"prices.eur", True),
        (b"prices.*", b"prices", False),
        (b"prices.*", b"prices.eur.usd", False),
        (b"prices.>", b"prices.eur.usd", True),
        (b"prices.>", b"prices.eur", True),
        (b"prices.>", b"prices", False),
        (b">", b"anything.at.all", True),
        (b"*", b"anything", True),
        (b"*.eur", b"prices.eur", True),
        (b"*.eur", b"prices.usd", False),
        (b"*.*.>", b"a.b", False),
        (b"*.*.>", b"a.b.c", True),
    ],
)
def test_star_stands_for_one_token_and_arrow_for_one_or_more(
    pattern: bytes, topic: bytes, holds: bool
) -> None:
    topics: Topics[str] = Topics()
    topics.add(pattern, "me")
    assert list(topics.match(topic)) == (["me"] if holds else [])
    assert agrees(pattern, topic) is holds


def test_subscriber_with_several_patterns_that_agree_is_found_once() -> None:
    topics: Topics[str] = Topics()
    for pattern in (b"a.b", b"a.*", b"*.b", b"a.>", b">"):
        topics.add(pattern, "me")
    topics.add(b"a.*", "you")
    assert sorted(topics.match(b"a.b")) == ["me", "you"]


def test_same_pattern_twice_is_one_subscription() -> None:
    topics: Topics[str] = Topics()
    assert topics.add(b"a.*", "me") is True
    assert topics.add(b"a.*", "me") is False
    assert len(topics) == 1
    assert topics.remove(b"a.*", "me") is True
    assert topics.remove(b"a.*", "me") is False
    assert topics.remove(b"never.there", "me") is False
    assert (len(topics), topics.nodes) == (0, 0)


def test_unsubscribing_frees_everything_but_what_others_need() -> None:
    topics: Topics[str] = Topics()
    topics.add(b"a.b.c.d", "me")
    topics.add(b"a.b", "you")
    assert topics.nodes == 4
    topics.remove(b"a.b.c.d", "me")
    assert topics.nodes == 2
    topics.remove(b"a.b", "you")
    assert topics.nodes == 0


@given(st.lists(st.tuples(PATTERNS, st.integers(0, 3)), max_size=12), TOPICS, st.randoms())
def test_tree_finds_what_each_pattern_alone_would_and_ends_empty(
    wishes: list[tuple[bytes, int]], topic: bytes, random: Random
) -> None:
    topics: Topics[int] = Topics()
    for pattern, subscriber in wishes:
        topics.add(pattern, subscriber)
    found = topics.match(topic)
    assert len(found) == len(set(found))
    assert set(found) == {who for pattern, who in wishes if agrees(pattern, topic)}
    assert set(topics.pairs()) == set(wishes)
    rest = list(set(wishes))
    random.shuffle(rest)
    for pattern, subscriber in rest:
        assert topics.remove(pattern, subscriber)
    assert (len(topics), topics.nodes) == (0, 0)


def filled(n: int) -> Topics[int]:
    """`n` subscriptions of as many subscribers, none of which agrees with the topic asked for but
    three."""
    topics: Topics[int] = Topics()
    for i in range(n):
        form = (b"prices.s%d", b"prices.*.s%d", b"s%d.>", b"*.x.s%d")[i % 4]
        topics.add(form % i, i)
    for i, pattern in enumerate((b"prices.eur", b"prices.*", b"prices.>")):
        topics.add(pattern, -i - 1)
    return topics


def test_cost_of_a_match_does_not_grow_with_the_number_of_other_subscriptions() -> None:
    few, many = filled(100), filled(MANY)
    assert sorted(many.match(b"prices.eur")) == [-3, -2, -1]
    steps = {n: lines_of(lambda t=t: t.match(b"prices.eur")) for n, t in ((1, few), (2, many))}
    assert steps[1] > 10
    assert steps[2] == steps[1]
    rounds = 2000
    began = time.perf_counter()
    for _ in range(rounds):
        many.match(b"prices.eur")
    each = (time.perf_counter() - began) / rounds
    print(f"\nmatch among {len(many):,} subscriptions: {steps[2]} steps, {each * 1e6:.1f} µs")


def test_cost_of_subscribing_and_unsubscribing_does_not_grow_either() -> None:
    def come_and_go(topics: Topics[int]) -> None:
        topics.add(b"prices.new.one", 5_000_000)
        topics.remove(b"prices.new.one", 5_000_000)

    few, many = filled(100), filled(MANY)
    assert lines_of(lambda: come_and_go(many)) == lines_of(lambda: come_and_go(few))


@pytest.mark.parametrize(
    ("name", "pattern", "topic"),
    [
        (b"a.b", "", ""),
        ("größe.*".encode(), "", "an event has one topic: '*' and '>' are for patterns"),
        (b">", "", "an event has one topic: '*' and '>' are for patterns"),
        (b"", "a pattern needs a name", "a topic needs a name"),
        (b"x" * 21, "a pattern has at most 20 bytes", "a topic has at most 20 bytes"),
        (b"a.b.c.d.e", "a pattern has at most 4 tokens", "a topic has at most 4 tokens"),
        (b"\xff", "a pattern must be UTF-8", "a topic must be UTF-8"),
        (
            b"a..b",
            "a pattern has no empty token: its tokens are parted by single dots",
            "a topic has no empty token: its tokens are parted by single dots",
        ),
        (
            b"a.>.b",
            "'>' stands for the rest: it is the last token of a pattern",
            "an event has one topic: '*' and '>' are for patterns",
        ),
        (
            b"a.b*",
            "'*' and '>' stand for whole tokens",
            "an event has one topic: '*' and '>' are for patterns",
        ),
    ],
)
def test_name_that_is_none_is_told_what_is_wrong(name: bytes, pattern: str, topic: str) -> None:
    assert name_problem(name, 20, 4, pattern=True) == pattern
    assert name_problem(name, 20, 4, pattern=False) == topic


def test_pattern_with_too_many_wildcards_is_refused() -> None:
    assert name_problem(b"*.a.*.>", 20, 4, pattern=True, wildest=2) == ""
    text = "a pattern has at most 1 tokens '*'"
    assert name_problem(b"*.a.*.>", 20, 4, pattern=True, wildest=1) == text


def test_event_costs_little_whatever_patterns_there_are() -> None:
    """All patterns of 16 tokens with three `*` match up to their last token, and none to its end.
    Before their last token 2,516 nodes can be walked, with up to three of 15 tokens a `*`."""
    topics: Topics[int] = Topics()
    for places in combinations(range(15), 3):
        tokens = [b"*" if n in places else b"a" for n in range(15)]
        topics.add(b".".join([*tokens, b"never"]), 1)
    topic = b".".join([b"a"] * 16)
    assert list(topics.match(topic)) == []
    assert lines_of(lambda: topics.match(topic)) < 12 * 2516
