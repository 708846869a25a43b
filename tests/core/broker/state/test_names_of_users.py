"""Rules whose names have `$user`: the name of the user that asks, as one token, and no more."""

from __future__ import annotations

import pytest

from majordomus.core.broker.state.access_rules import (
    ACTIONS,
    CALL,
    PUBLISH,
    SUBSCRIBE,
    AccessRules,
    Rule,
)
from majordomus.errors import ConfigurationError

EVERYTHING = frozenset(ACTIONS)
WITH_WILDCARDS = ("", "*", ">", "?", "a*", "a?n", "ann.bob", "ann.", ".ann", "\x00", "a\x00b")
"""Names of users that are not one token."""


def rules(*names: str, allow: bool = True) -> AccessRules:
    every = [] if allow else [Rule(True, EVERYTHING)]
    return AccessRules([*every, Rule(allow, EVERYTHING, names=names, source="rule 1")])


def allows(rights: AccessRules, user: str, action: str, name: str) -> bool:
    return rights.allows(user, (), action, name.encode()).allowed


@pytest.mark.parametrize("user", ["ann", "Ünal", "build-7", "ann@example", "$user", "mmi", "a+[b]"])
def test_user_may_use_the_names_that_have_its_own_name_as_a_token(user: str) -> None:
    rights = rules("notes.$user.*")
    assert allows(rights, user, CALL, f"notes.{user}.put")
    assert allows(rights, user, PUBLISH, f"notes.{user}.deep.down")
    assert allows(rights, user, SUBSCRIBE, f"notes.{user}.*")
    assert allows(rights, user, SUBSCRIBE, f"notes.{user}.>")
    assert not allows(rights, user, CALL, f"notes.{user}")
    assert not allows(rights, user, CALL, f"notes.{user}x.put")
    assert not allows(rights, user, CALL, "notes.joe.put")
    assert not allows(rights, user, SUBSCRIBE, "notes.*.put")
    assert not allows(rights, user, SUBSCRIBE, "notes.>")


def test_name_may_end_or_begin_with_the_user() -> None:
    assert allows(rules("$user"), "ann", CALL, "ann")
    assert allows(rules("$user.*"), "ann", CALL, "ann.notes")
    assert not allows(rules("$user"), "ann", CALL, "ann.notes")
    assert not allows(rules("$user"), "ann", CALL, "$user")


@pytest.mark.parametrize("user", WITH_WILDCARDS)
def test_user_whose_name_is_not_one_token_is_allowed_nothing_by_such_a_rule(user: str) -> None:
    rights = rules("notes.$user.*")
    for name in ("notes.ann.put", "notes.ann.bob.put", f"notes.{user}.put", "notes..put"):
        verdict = rights.allows(user, (), CALL, name.encode())
        assert not verdict.allowed
        assert verdict.why.startswith("no rule allows it: $user stands for no name")
        assert not allows(rights, user, SUBSCRIBE, name)
    for pattern in ("notes.*.put", "notes.>", ">"):
        assert not allows(rights, user, SUBSCRIBE, pattern)


def test_user_with_dots_may_still_use_what_another_rule_allows() -> None:
    rights = rules("notes.$user.*", "time")
    assert allows(rights, "ann.bob", CALL, "time")


def test_rule_that_denies_names_of_the_user_denies_them_to_that_user_alone() -> None:
    rights = rules("notes.$user.admin", allow=False)
    assert not allows(rights, "ann", CALL, "notes.ann.admin")
    assert allows(rights, "ann", CALL, "notes.joe.admin")
    assert not allows(rights, "ann", SUBSCRIBE, "notes.>")
    assert not allows(rights, "ann", SUBSCRIBE, "notes.*.admin")
    assert allows(rights, "ann", SUBSCRIBE, "notes.joe.*")


@pytest.mark.parametrize("user", WITH_WILDCARDS)
def test_user_whose_name_is_not_one_token_is_denied_the_names_of_all_users(user: str) -> None:
    rights = rules("notes.$user.admin", allow=False)
    assert not allows(rights, user, CALL, "notes.ann.admin")
    assert not allows(rights, user, CALL, "notes.ann.bob.admin")
    assert not allows(rights, user, SUBSCRIBE, "notes.joe.*")
    assert allows(rights, user, CALL, "notes.ann.put")


@pytest.mark.parametrize(
    "glob", ["notes-$user", "$user-notes", "$users", "notes.$user*", "$user.$user", "x$user.y"]
)
def test_user_that_is_no_whole_token_of_a_rule_is_refused(glob: str) -> None:
    with pytest.raises(ConfigurationError, match=r"rule 1: .* write \$user once, as a whole word"):
        rules(glob)


@pytest.mark.parametrize("glob", ["*.$user", "notes.*.$user.x", "n?.$user"])
def test_wildcard_before_the_user_in_a_rule_is_refused(glob: str) -> None:
    with pytest.raises(ConfigurationError, match=r"rule 1: .* no \* or \? may stand before \$user"):
        rules(glob)
