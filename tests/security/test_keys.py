"""Who may connect: keys in a TOML file, or certificates in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from majordomus.core.broker.state.identity import Identity
from majordomus.errors import ConfigurationError
from majordomus.net.broker.security import curve
from majordomus.security import certificates, keys
from majordomus.security.certificates import Certificate
from majordomus.security.watched import Watched
from tests.security.conftest import overwrite_unseen


def entry(public: str, user: str = "ann", groups: str = '["ops"]') -> str:
    return f'[[key]]\npublic = "{public}"\nuser = "{user}"\ngroups = {groups}\n'


def test_file_has_the_identity_of_each_key(tmp_path: Path, pair: Certificate) -> None:
    other = curve.make()
    path = tmp_path / "keys.toml"
    path.write_text(entry(pair.public) + f'[[key]]\npublic = "{other.public}"\nuser = "bob"\n')
    assert keys.load(path) == {
        pair.public: Identity("ann", ("ops",), pair.public),
        other.public: Identity("bob", (), other.public),
    }


def test_folder_has_the_identity_of_each_key(tmp_path: Path) -> None:
    ann, bob = curve.make({"user": "ann", "groups": "ops, admins"}), curve.make()
    certificates.write(tmp_path / "laptop", ann)
    certificates.write(tmp_path / "bob", bob)
    (tmp_path / "README").write_text("not a key")
    assert keys.load(tmp_path) == {
        ann.public: Identity("ann", ("ops", "admins"), ann.public),
        bob.public: Identity("bob", (), bob.public),
    }


def test_link_to_nothing_and_fifo_in_a_folder_hide_no_other_key(tmp_path: Path) -> None:
    ann = curve.make({"user": "ann"})
    certificates.write(tmp_path / "laptop", ann)
    watched = Watched(tmp_path, keys.load)
    (tmp_path / "left.key").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.key")
    assert watched.look()
    assert set(watched.value) == {ann.public}
    assert len(watched.problems) == 2
    (tmp_path / "laptop.key").unlink()
    watched.look()  # nothing with bytes is left: looked at once more, as an empty folder is
    assert watched.look()
    assert watched.value == {}


def test_one_user_may_have_several_keys(tmp_path: Path, pair: Certificate) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(entry(pair.public) + entry(curve.make().public))
    assert {identity.user for identity in keys.load(path).values()} == {"ann"}


KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (entry(KEY) + entry(KEY), "listed twice"),
        (entry("short"), r"number 1: public must have 40 characters"),
        (f'[[key]]\npublic = "{KEY}"\n', "a user's name"),
        (entry(KEY, user=""), "a user's name"),
        (entry(KEY, user="a\\u001b"), "printable"),
        (entry(KEY, groups='["a,b"]'), "no comma"),
        (entry(KEY, user="uid:0"), "must not begin with uid:"),
        (entry(KEY, groups='["uid:0"]'), "must not begin with uid:"),
        (entry(KEY, groups='"ops"'), "list of names"),
        (entry(KEY) + 'usr = "x"\n', "unknown key 'usr'"),
        ('[key]\npublic = "x"\n', r"only tables \[\[key\]\]"),
        ("[[keys]]\n", r"only tables \[\[key\]\]"),
        ("key = [1]", "this must be a table"),
        ("[[key", "keys.toml:"),
    ],
)
def test_mistake_in_the_file_is_named(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=what):
        keys.load(path)


def test_signature_changes_with_whatever_load_would_see(tmp_path: Path, pair: Certificate) -> None:
    assert keys.signature(tmp_path / "keys.toml") == ()
    assert keys.signature(tmp_path) == ()
    certificates.write(tmp_path / "ann", pair)
    first = keys.signature(tmp_path)
    assert [name for name, *_ in first] == ["ann.key"]
    (tmp_path / "ann.key").unlink()
    assert keys.signature(tmp_path) == ()
    path = tmp_path / "keys.toml"
    path.write_text("")
    before = keys.signature(path)
    path.write_text(entry(pair.public))
    assert keys.signature(path) != before


def test_key_file_with_other_bytes_of_the_same_size_and_time_is_read_again(
    tmp_path: Path, pair: Certificate
) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(entry(pair.public))
    watched = Watched(path, keys.load)
    overwrite_unseen(path, entry(curve.make().public))
    assert watched.look() is True
    assert list(watched.value) != [pair.public]


def test_file_that_is_replaced_while_it_is_loaded_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text("")

    def load(_path: Path, _problems: list[str]) -> dict[str, str]:
        text = path.read_text()
        if not text:
            path.write_text("new")
        return {"text": text}

    watched = Watched(path, load)
    assert (watched.value, watched.look()) == ({"text": ""}, True)
    assert watched.value == {"text": "new"}
