"""Access rules in TOML: what is read, what is refused and in which words, what a change does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from majordomus.errors import ConfigurationError
from majordomus.security import acl
from tests.security.conftest import overwrite_unseen

GOOD = """
[[rule]]
allow = ["call", "publish"]
users = ["ann"]
groups = ["staff"]
names = ["shop.*"]

[[rule]]
deny = ["call"]
names = ["shop.admin"]

[tenants]
acme = "acme."
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rights.toml"


def test_rules_and_tenants_are_read_as_they_are_written(file: Path) -> None:
    file.write_text(GOOD)
    rights = acl.load(file)
    allowed = rights.allows("ann", (), "call", b"shop.cart")
    assert allowed == (True, "rule 1 of rights.toml allows it")
    assert rights.allows("joe", ("staff",), "publish", b"shop.cart").allowed
    assert not rights.allows("joe", (), "call", b"shop.cart").allowed
    denied = rights.allows("ann", ("staff",), "call", b"shop.admin")
    assert denied == (False, "rule 2 of rights.toml denies it")
    assert rights.prefix(("acme",)) == b"acme."


def test_file_without_rules_allows_everything(file: Path) -> None:
    file.write_text("# later\n")
    assert acl.load(file).allows("", (), "call", b"echo").allowed


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[rule]\nallow = ['call']", "rules are written as [[rule]], with two brackets"),
        ("[[rules]]", "unknown table 'rules'; the known ones are rule and tenants"),
        ("rule = ['x']", "rule 1: Expected `object`, got `str`"),
        ("[[rule]]", "rule 1: write either allow = [...] or deny = [...]"),
        (
            "[[rule]]\nallow = ['call']\ndeny = ['call']",
            "rule 1: write either allow = [...] or deny = [...]",
        ),
        (
            "[[rule]]\nallow = ['call']\n[[rule]]\nallow = ['run']",
            (
                "rule 2: unknown action 'run'; "
                "the known ones are call, serve, publish, subscribe, manage"
            ),
        ),
        ("[[rule]]\nallow = 'call'", "rule 1: Expected `array | null`, got `str` - at `$.allow`"),
        ("[[rule]]\nallow = []", "rule 1: allow is empty; leave it out to match all"),
        (
            "[[rule]]\nallow = ['call']\nusers = []",
            "rule 1: users is empty; leave it out to match all",
        ),
        (
            "[[rule]]\nallow = ['call']\nuser = ['ann']",
            "rule 1: Object contains unknown field `user`",
        ),
        (
            "[[rule]]\nallow = ['call']\nusers = [5]",
            "rule 1: Expected `str`, got `int` - at `$.users[0]`",
        ),
        ("tenants = 5", "tenants: Expected `object`, got `int`"),
        ("[tenants]\na = ''", "tenants: a: a prefix has 1 to 100 printable characters"),
        ('[tenants]\na = "x\\n"', "tenants: a: a prefix has 1 to 100 printable characters"),
        (
            "[tenants]\na = '$x'",
            "tenants: a: '$x' is reserved: the broker's own names begin with it",
        ),
        (
            "[tenants]\na = 'x'\nb = 'x.'",
            "tenants: b: 'x.' begins with 'x', the prefix of a: their names would overlap",
        ),
    ],
)
def test_error_is_one_line_with_the_number_of_the_rule(
    file: Path, text: str, complaint: str
) -> None:
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        acl.load(file)
    assert str(caught.value) == f"{file}: {complaint}"
    assert "\n" not in str(caught.value)


def test_text_that_is_no_toml_is_refused_with_its_place(file: Path) -> None:
    file.write_text("[[rule]]\nallow = [")
    with pytest.raises(ConfigurationError, match=r"rights\.toml: .*\(at .*\)$"):
        acl.load(file)


def test_file_that_is_not_there_is_an_error(file: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*: No such file"):
        acl.AclFile(file)


def test_two_groups_may_share_one_prefix(file: Path) -> None:
    file.write_text("[tenants]\na = 'x.'\nb = 'x.'\n")
    assert acl.load(file).prefix(("b",)) == b"x."


def test_change_is_seen_once(file: Path) -> None:
    file.write_text(GOOD)
    watched = acl.AclFile(file)
    before = watched.rights
    assert not watched.changed()
    file.write_text("[[rule]]\nallow = ['call']\n")
    assert watched.changed()
    assert not watched.changed()
    assert watched.rights is not before


def test_change_of_the_same_size_and_time_is_seen(file: Path) -> None:
    file.write_text("[[rule]]\nallow = ['call']\n")
    watched = acl.AclFile(file)
    overwrite_unseen(file, "[[rule]]\ndeny  = ['call']\n")
    assert watched.changed()
    assert not watched.rights.allows("ann", (), "call", b"x").allowed


def test_change_of_the_same_size_is_seen_by_its_time(file: Path) -> None:
    file.write_text("[[rule]]\nallow = ['call']\n")
    watched = acl.AclFile(file)
    file.write_text("[[rule]]\nallow = ['call']\n")
    os.utime(file, ns=(1, 1))
    assert watched.changed()


@pytest.mark.parametrize("broken", ["[[rule]]\nallow = ['fly']\n", None])
def test_invalid_change_is_reported_once_and_the_old_rights_stay(
    file: Path, broken: str | None
) -> None:
    file.write_text(GOOD)
    watched = acl.AclFile(file)
    before = watched.rights
    if broken is None:
        file.unlink()
    else:
        file.write_text(broken)
    with pytest.raises(ConfigurationError):
        watched.changed()
    assert not watched.changed()
    assert watched.rights is before
    file.write_text(GOOD + "\n")
    assert watched.changed()


def test_file_that_is_empty_for_a_moment_opens_nothing(file: Path) -> None:
    file.write_text("[[rule]]\nallow = ['call']\nusers = ['ann']\n")
    watched = acl.AclFile(file)
    file.write_text("")
    assert not watched.changed()
    assert not watched.rights.allows("eve", (), "call", b"x").allowed
    file.write_text("[[rule]]\nallow = ['call']\nusers = ['bob']\n")
    assert watched.changed()
    assert watched.rights.allows("bob", (), "call", b"x").allowed
    assert not watched.rights.allows("eve", (), "call", b"x").allowed


def test_file_that_stays_empty_has_no_rules(file: Path) -> None:
    file.write_text("[[rule]]\nallow = ['call']\nusers = ['ann']\n")
    watched = acl.AclFile(file)
    file.write_text("")
    assert [watched.changed() for _ in range(3)] == [False, True, False]
    assert watched.rights.allows("eve", (), "call", b"x").allowed
