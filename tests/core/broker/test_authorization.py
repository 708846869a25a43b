"""Access rules: which rule decides, and how names and patterns are matched."""

from __future__ import annotations

import pytest

from majordomus.core.broker.state.access_rules import (
    ACTIONS,
    CALL,
    MANAGE,
    MOST_VERDICTS,
    PUBLISH,
    SERVE,
    SUBSCRIBE,
    AccessRules,
    Rule,
    full_name,
    shown_name,
)
from majordomus.core.broker.state.identity import Caller
from majordomus.errors import ConfigurationError

EVERYTHING = frozenset(ACTIONS)


def allow(*actions: str, **fields: tuple[str, ...]) -> Rule:
    return Rule(True, frozenset(actions), source="rule 1", **fields)


def deny(*actions: str, **fields: tuple[str, ...]) -> Rule:
    return Rule(False, frozenset(actions), source="rule 2", **fields)


def test_everything_is_allowed_while_there_is_no_rule() -> None:
    assert AccessRules(()).allows("", (), CALL, b"echo") == (True, "there are no rules")


def test_action_that_no_rule_allows_is_denied_once_there_is_a_rule() -> None:
    rights = AccessRules([allow(CALL, names=("echo",))])
    assert rights.allows("ann", (), CALL, b"echo") == (True, "rule 1 allows it")
    assert rights.allows("ann", (), CALL, b"time") == (False, "no rule allows it")
    assert rights.allows("ann", (), SERVE, b"echo") == (False, "no rule allows it")


def test_rule_that_denies_wins_in_any_position() -> None:
    rules = [allow(CALL), deny(CALL, users=("eve",), names=("s*",))]
    for rights in (AccessRules(rules), AccessRules(rules[::-1])):
        assert rights.allows("eve", (), CALL, b"secret") == (False, "rule 2 denies it")
        assert rights.allows("eve", (), CALL, b"echo") == (True, "rule 1 allows it")
        assert rights.allows("ann", (), CALL, b"secret") == (True, "rule 1 allows it")


def test_rule_about_a_unix_user_matches_its_connections_and_no_user_of_that_name() -> None:
    rights = AccessRules([allow(CALL, users=("uid:1000", "uid:2*"))])
    assert rights.allows("", ("uid:1000",), CALL, b"echo").allowed
    assert rights.allows("ann", ("staff", "uid:2001"), CALL, b"echo").allowed
    for user, groups in (("", ("uid:1001",)), ("", ("uid:10000",)), ("", ())):
        assert not rights.allows(user, groups, CALL, b"echo").allowed


def test_unix_user_is_no_user_and_no_group_of_other_rules() -> None:
    rights = AccessRules([allow(CALL, users=("*",), groups=("*", "uid:1000"))])
    assert not rights.allows("", ("uid:1000",), CALL, b"echo").allowed
    rights = AccessRules([allow(CALL, users=("",))])
    assert rights.allows("", ("uid:1000",), CALL, b"echo").allowed


def test_rule_names_users_or_groups() -> None:
    rights = AccessRules([allow(CALL, users=("ann", "bo?"), groups=("staff", "ops-*"))])
    asked = [
        ("ann", ()),
        ("bob", ()),
        ("bobby", ()),
        ("cy", ("staff",)),
        ("cy", ("guests", "ops-eu")),
        ("cy", ("guests",)),
        ("", ("staff",)),
        ("", ()),
    ]
    verdicts = [rights.allows(user, groups, CALL, b"echo").allowed for user, groups in asked]
    assert verdicts == [True, True, False, True, True, False, True, False]


def test_star_matches_authenticated_users_and_an_empty_name_anonymous_peers() -> None:
    known, unknown = (
        AccessRules([allow(CALL, users=("*",))]),
        AccessRules([allow(CALL, users=("",))]),
    )
    assert [rights.allows("ann", (), CALL, b"x").allowed for rights in (known, unknown)] == [
        True,
        False,
    ]
    assert [rights.allows("", (), CALL, b"x").allowed for rights in (known, unknown)] == [
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("glob", "name", "matches"),
    [
        ("*", b"", True),
        ("echo", b"echo", True),
        ("echo", b"Echo", False),
        ("echo", b"echo2", False),
        ("e?ho", b"echo", True),
        ("e?ho", b"eho", False),
        ("shop.*", b"shop.cart.add", True),
        ("shop.*", b"shop", False),
        ("[a-z]", b"x", False),
        ("[a-z]", b"[a-z]", True),
        ("a+b", b"aab", False),
        ("größe?", "größe!".encode(), True),
        ("a*b", b"a\nb", True),
    ],
)
def test_glob_matches_the_whole_name(glob: str, name: bytes, matches: bool) -> None:
    rights = AccessRules([allow(CALL, names=(glob,))])
    assert rights.allows("ann", (), CALL, name).allowed is matches


@pytest.mark.parametrize("name", [b"mmi.", b"mmi.service", b"$", b"$log"])
def test_peer_cannot_serve_a_reserved_name(name: bytes) -> None:
    for rights in (AccessRules(()), AccessRules([Rule(True, EVERYTHING)])):
        assert not rights.allows("root", ("wheel",), SERVE, name).allowed
        assert rights.allows("root", ("wheel",), CALL, name).allowed


@pytest.mark.parametrize(
    ("glob", "pattern", "allowed"),
    [
        ("news.*", b"news.sport", True),
        ("news.*", b"news.*", True),
        ("news.*", b"news.>", True),
        ("news.*", b"news.*.eu", True),
        ("news.*", b">", False),
        ("news.*", b"*.sport", False),
        ("news.?", b"news.*", False),
        ("news.?", b"news.a", True),
        ("*", b">", True),
        ("*.sport", b"*.sport", True),
        ("*.sport", b">", False),
    ],
)
def test_subscription_is_allowed_when_all_of_its_topics_are(
    glob: str, pattern: bytes, allowed: bool
) -> None:
    rights = AccessRules([allow(SUBSCRIBE, names=(glob,))])
    assert rights.allows("ann", (), SUBSCRIBE, pattern).allowed is allowed


@pytest.mark.parametrize(
    ("glob", "pattern", "denied"),
    [
        ("secret.*", b"secret.a", True),
        ("secret.*", b"secret.>", True),
        ("secret.*", b">", True),
        ("secret.*", b"*.a", True),
        ("secret.*", b"*", False),
        ("secret.*", b"news.>", False),
        ("*.private", b"news.*", True),
        ("*.private", b"news.*.open", False),
        ("a?c", b"abc", True),
        ("a?c", b"*", True),
        ("a?c", b"*.c", True),
        ("a?c", b"x.*", False),
        ("x", b"a..b", False),
    ],
)
def test_subscription_is_denied_when_any_of_its_topics_is(
    glob: str, pattern: bytes, denied: bool
) -> None:
    rights = AccessRules([allow(SUBSCRIBE), deny(SUBSCRIBE, names=(glob,))])
    assert rights.allows("ann", (), SUBSCRIBE, pattern).allowed is not denied


def test_wildcards_in_a_published_topic_are_plain_tokens() -> None:
    rights = AccessRules([allow(PUBLISH), deny(PUBLISH, names=("secret.*",))])
    assert rights.allows("ann", (), PUBLISH, b">").allowed
    assert not rights.allows("ann", (), PUBLISH, b"secret.>").allowed


def test_unknown_action_is_refused_with_the_position_of_its_rule() -> None:
    expected = "rule 1: unknown action 'run'; the known ones are call"
    with pytest.raises(ConfigurationError, match=expected):
        AccessRules([allow("run")])


def test_verdicts_are_remembered_and_never_more_than_the_bound() -> None:
    rights = AccessRules([allow(CALL, names=("a*",))])
    first = rights.allows("ann", (), CALL, b"abc")
    assert rights.allows("ann", (), CALL, b"abc") is first
    for number in range(MOST_VERDICTS + 10):
        rights.allows("ann", (), CALL, b"%d" % number)
    assert len(rights._verdicts) <= MOST_VERDICTS
    assert rights.allows("ann", (), CALL, b"abc") == first


def test_prefix_is_that_of_the_first_group_that_is_a_tenants() -> None:
    rights = AccessRules((), {"acme": "acme.", "umbrella": "u-"})
    assert rights.prefix(("staff", "umbrella", "acme")) == b"u-"
    assert rights.prefix(("staff",)) == b""


@pytest.mark.parametrize("name", [b"echo", b"a.b", b"titanic.request"])
def test_full_name_and_shown_name_are_inverse(name: bytes) -> None:
    assert full_name(b"acme.", name) == b"acme." + name
    assert shown_name(b"acme.", full_name(b"acme.", name)) == name


@pytest.mark.parametrize("name", [b"mmi.service", b"$x"])
def test_names_of_the_broker_are_the_same_for_every_tenant(name: bytes) -> None:
    assert full_name(b"acme.", name) == name == shown_name(b"acme.", name)


def test_callable_names_are_a_tenants_own_and_allowed() -> None:
    rights = AccessRules(
        [allow(CALL, groups=("acme",), names=("acme.e*", "f*"))], {"acme": "acme."}
    )
    ann = Caller("ann", ("acme",), b"acme.")
    names = [b"acme.echo", b"acme.time", b"fun", b"echo"]
    assert rights.callable_by(ann, names) == [b"echo"]
    assert rights.allows("ann", ("acme",), MANAGE, b"mmi.stats").allowed is False
