"""Files that are no store, and stores that were damaged or copied without care."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest

from majordomus.core.broker.durable.records import DAMAGED, FULL, Append, Find, Page, Read
from majordomus.durable import offline
from majordomus.durable.opening import open_store
from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import StoreError, StoreUnusableError, write
from tests.durable.samples import end, row

SMALL = 1 << 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with two rows; the first one has an outcome."""
    made = tmp_path / "store.db"
    store = SqliteStore(made, ballast=SMALL)
    rows = [(0, Append(row(number, key=b"k%d" % number))) for number in (1, 2)]
    write(store, rows)
    write(store, [(0, end(1))])
    store.close()
    return made


def change(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(sql)
    connection.close()


def link(path: Path) -> None:
    os.link(path.with_name("store.db"), path)


REFUSED: list[tuple[Callable[[Path], object], str]] = [
    (Path.mkdir, "is a folder: name a file in it"),
    (link, r"has 2 names \(hard links\): copy it, and use the copy"),
    (lambda path: path.symlink_to(path), "is a loop of symbolic links"),
    (lambda path: path.with_name(f"{path.name}.ballast").mkdir(), "is in the way of the ballast"),
]
if sys.platform != "win32":
    REFUSED.append((os.mkfifo, "is not a file"))


@pytest.mark.parametrize(("make", "text"), REFUSED)
def test_what_is_no_file_of_its_own_is_refused_with_the_reason(
    path: Path, make: Callable[[Path], object], text: str
) -> None:
    other = path.with_name("other.db")
    make(other)
    before = sorted(path.parent.iterdir())
    with pytest.raises(StoreUnusableError, match=text):
        open_store(f"sqlite:{other}")
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusableError, match="is not UTF-8: use another one"):
        open_store(f"sqlite:{tmp_path}/\udcff.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("named", ["sqlite:", "sqlite:  ", "sqlite::memory:", "sqlite:file:x.db"])
def test_setting_that_names_no_file_is_refused(named: str) -> None:
    with pytest.raises(StoreUnusableError, match=r"^a store is .*sqlite:FILE, not"):
        open_store(named)


def test_store_behind_a_symbolic_link_has_the_lock_of_its_file(path: Path) -> None:
    other = path.with_name("other.db")
    other.symlink_to(path)
    store = SqliteStore(other, ballast=SMALL)
    with pytest.raises(StoreError, match="another process uses this store"):
        SqliteStore(path, ballast=SMALL)
    assert not path.with_name("other.db.lock").exists()
    copy = path.with_name("copy.db")
    offline.backup(other, copy)
    store.close()
    assert offline.verify(copy).rows == 2


@pytest.mark.parametrize("verb", [offline.verify, offline.compact])
def test_empty_file_is_no_store(tmp_path: Path, verb: Callable[[Path], object]) -> None:
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(StoreUnusableError, match=r"empty\.db is empty: it is no store"):
        verb(empty)
    with pytest.raises(StoreUnusableError, match="is a folder"):
        verb(tmp_path)
    with pytest.raises(StoreUnusableError, match="is empty: it is no store"):
        offline.backup(empty, tmp_path / "copy.db")
    assert [(one.name, one.stat().st_size) for one in tmp_path.iterdir()] == [("empty.db", 0)]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("", "exists already"),
        ("no/copy.db", "the folder .* does not exist"),
        ("x" * 300, "[Nn]ame too long"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_backup_that_cannot_be_written_is_refused_with_the_reason(
    path: Path, target: str, text: str
) -> None:
    before = sorted(path.parent.iterdir())
    with pytest.raises(StoreUnusableError, match=text):
        offline.backup(path, path.parent / target)
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize(
    "damage",
    [
        "delete from meta where name = 'epoch'",
        "delete from meta where name = 'secret'",
        "update meta set value = x'31' where name = 'epoch'",
        "update meta set value = x'00' where name = 'secret'",
        "delete from meta",
    ],
)
def test_store_that_has_lost_what_ids_are_made_of_is_refused(path: Path, damage: str) -> None:
    SqliteStore(path, ballast=SMALL).close()
    change(path, damage)
    with pytest.raises(StoreError, match="is damaged: its secret or its epoch"):
        SqliteStore(path, ballast=SMALL)


@pytest.mark.parametrize(
    "damage",
    [
        "reply = x'90'",
        "attempts = 'x'",
        "due = 'x'",
        "accepted = 'x'",
        "key = 55",
        "owner = x'ff'",
        "status = 'x'",
    ],
)
def test_damaged_row_ends_no_store(path: Path, damage: str) -> None:
    change(path, f"update request set {damage} where number = 1")  # noqa: S608
    assert offline.verify(path).problems == ["row 1 is damaged: its checksum is wrong"]
    store = SqliteStore(path, ballast=SMALL)
    [(_, found), (_, good)] = write(store, [(1, Read(1)), (2, Read(2))])
    assert found is DAMAGED
    assert good == row(2, key=b"k2")
    [(_, page)] = write(store, [(3, Page(0, 10))])
    assert [one.number for one in page] == [1, 2]
    if damage == "reply = x'90'":  # the key is as it was
        answers = write(store, [(4, Append(row(9, key=b"k1"))), (5, Find("ann", b"mail", b"k1"))])
        assert answers == [(4, DAMAGED), (5, DAMAGED)]
    store.close()


def test_row_is_found_by_its_key_on_a_full_disk(path: Path) -> None:
    store = SqliteStore(path, ballast=SMALL)
    store.make_room()
    store._look_at = inf
    appends = [(1, Append(row(8, key=b"k2"))), (2, Append(row(9, key=b"new"))), (3, Append(row(7)))]
    answers = dict(write(store, appends))
    assert answers[1] == row(2, key=b"k2")
    assert answers[2] is FULL
    assert answers[3] is FULL
    [(_, found)] = write(store, [(4, Find("bob", b"mail", b"k2"))])
    assert found is None
    store.close()
