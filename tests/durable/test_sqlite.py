"""The SQLite store: its file, lock and ballast, and what it does with a file that is damaged."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

from majordomus.core.broker.durable.records import Append, Read
from majordomus.durable import files, offline, sqlite
from majordomus.durable.queries import QUERIES
from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import StoreError, write
from tests.durable import flips
from tests.durable.samples import end, row

SMALL = 1 << 16
FLIPS = 150


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def filled(path: Path, rows: int = 20) -> None:
    store = SqliteStore(path, ballast=SMALL)
    for number in range(1, rows + 1):
        write(store, [(0, Append(row(number, key=b"k%d" % number)))])
    write(store, [(0, end(number)) for number in range(1, rows // 2)])
    store.close()


def contents(path: Path) -> dict[int, object]:
    store = SqliteStore(path, ballast=0)
    try:
        return {number: store.read([number])[0] for number in store.numbers(0, 1000)}
    finally:
        store.abandon()


def test_commits_are_synced_by_a_write_ahead_log(path: Path) -> None:
    store = SqliteStore(path, ballast=SMALL)
    asked = ("journal_mode", "synchronous", "locking_mode", "wal_autocheckpoint")
    found = [store._sql.execute(f"pragma {name}")[0][0] for name in asked]
    store.close()
    assert found == ["wal", 2, "exclusive", 0]


@pytest.mark.parametrize("library", ["apsw", "sqlite3"])
def test_log_stays_near_its_limit_while_the_store_is_never_idle(
    path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library == "sqlite3":
        monkeypatch.setitem(sys.modules, "apsw", None)
    else:
        pytest.importorskip("apsw", reason="apsw is not installed")
    store = SqliteStore(path, ballast=SMALL, checkpoint=64)
    for number in range(1, 300):
        write(store, [(0, Append(row(number, body=[bytes(4000)])))])
        store.maintain(idle=False)
    assert Path(f"{path}-wal").stat().st_size < 128 * 4096
    assert path.stat().st_size > 200 * 4096
    store.close()


def test_second_store_on_the_file_is_refused(path: Path) -> None:
    store = SqliteStore(path, ballast=SMALL)
    with pytest.raises(StoreError, match="another process uses this store"):
        SqliteStore(path, ballast=SMALL)
    store.close()
    SqliteStore(path, ballast=SMALL).close()


def test_only_the_owner_may_read_the_file(path: Path) -> None:
    filled(path)
    assert path.stat().st_mode & 0o077 == 0
    offline.backup(path, path.with_name("copy.db"))
    assert path.with_name("copy.db").stat().st_mode & 0o077 == 0


def test_file_of_a_newer_version_is_refused(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("pragma user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="has version 99, and this majordomus reads up to 1"):
        SqliteStore(path, ballast=SMALL)


def test_database_of_another_program_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (x)")
    connection.close()
    with pytest.raises(StoreError, match="is a database of another program"):
        SqliteStore(path, ballast=SMALL)


def test_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StoreError, match="damaged or no database"):
        SqliteStore(path, ballast=SMALL)


def test_flipped_bit_is_an_error_or_a_reported_end_of_the_log_or_changes_nothing() -> None:
    found = flips.flips(FLIPS, seed=5)
    assert found.total() == FLIPS
    assert set(found) == {"right", "error", "rolled back"}


def test_tail_of_the_log_that_is_damaged_is_rolled_back_and_reported(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(path, ballast=SMALL)
    for number in range(1, 11):
        write(store, [(0, Append(row(number)))])
    log = Path(f"{path}-wal")
    good = log.read_bytes()
    kept = path.read_bytes()
    store.abandon()
    path.write_bytes(kept)
    log.write_bytes(good[:-100] + bytes(100))
    opened = SqliteStore(path, ballast=0)
    assert opened.numbers(0, 100) == list(range(1, 10))
    assert opened.rolled_back > 0
    opened.abandon()
    assert "pages of the log are damaged" in caplog.text


def test_verify_names_the_damaged_row(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("update request set body = x'90' where number = 7")
    connection.close()
    found = offline.verify(path)
    assert found.problems == ["row 7 is damaged: its checksum is wrong"]
    assert found.rows == 19


@pytest.mark.parametrize(
    "damage",
    [
        "update meta set value = x'36' || substr(value, 2) where name = 'epoch'",
        "update meta set value = x'71' where name = 'epoch'",
        "update meta set value = cast('1' as text) where name = 'epoch'",
        "update meta set value = x'00' || substr(value, 2) where name = 'secret'",
        "update meta set name = 'epoci' where name = 'epoch'",
        "update meta set name = 'secreu' where name = 'secret'",
        "delete from meta where name = 'crc'",
        "update meta set value = x'30' where name = 'crc'",
    ],
)
def test_damaged_secret_or_epoch_is_an_error(path: Path, damage: str) -> None:
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    connection.close()
    with pytest.raises(StoreError, match="damaged"):
        SqliteStore(path, ballast=SMALL)


def test_row_whose_number_is_damaged_and_that_no_scan_finds_is_an_error(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("update request set number = 0 where number = 1")
    connection.close()
    with pytest.raises(StoreError, match="damaged: it has a row with the number 0"):
        SqliteStore(path, ballast=SMALL)


def test_row_that_its_key_does_not_find_any_more_is_an_error(path: Path) -> None:
    store = SqliteStore(path, ballast=0)
    write(store, [(0, Append(row(1, key=b"order 17")))])
    store.close()
    damaged = path.read_bytes().replace(b"order 17", b"order 19", 1)  # in the row or in the index
    path.write_bytes(damaged)
    with pytest.raises(StoreError, match="is damaged: row 1 missing from index request_key"):
        SqliteStore(path, ballast=0)


@pytest.mark.parametrize("library", ["apsw", "sqlite3"])
def test_text_that_is_not_utf_8_is_an_error_of_the_store(
    path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library == "sqlite3":
        monkeypatch.setitem(sys.modules, "apsw", None)
    else:
        pytest.importorskip("apsw", reason="apsw is not installed")
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("update request set owner = cast(x'ed20' as text) where number = 7")
    connection.close()
    assert [problem.startswith("the file is damaged") or "UTF-8" in problem
            for problem in offline.verify(path).problems] == [True]  # fmt: skip


def test_compact_gives_space_back_and_keeps_every_row(path: Path) -> None:
    store = SqliteStore(path, ballast=SMALL)
    for number in range(1, 60):
        write(store, [(0, Append(row(number, body=[bytes(20_000)])))])
    for number in range(1, 50):
        store.begin()
        store.remove([number])
        store.commit()
    store.close()
    expected = contents(path)
    before, after = offline.compact(path)
    assert after < before / 2
    assert contents(path) == expected


def test_store_with_little_space_refuses_new_rows_until_there_is_space_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(path, ballast=SMALL)
    write(store, [(0, Append(row(1)))])
    monkeypatch.setattr(sqlite, "free_bytes", lambda folder: SMALL)
    store._look()
    assert not store.state().accepts
    [(_, answer)] = write(store, [(1, Append(row(2)))])
    assert type(answer).__name__ == "Full"
    assert write(store, [(1, end(1)), (2, Read(2))]) == [(2, None)]
    monkeypatch.undo()
    store._look()
    assert store.state().accepts
    store.close()


def test_ballast_is_written_whole_and_deleted_when_the_disk_is_full(path: Path) -> None:
    store = SqliteStore(path, ballast=SMALL)
    ballast = Path(f"{path}.ballast")
    assert ballast.stat().st_size == SMALL
    assert ballast.stat().st_blocks * 512 >= SMALL
    assert store.make_room()
    assert not ballast.exists()
    assert not store.make_room()
    store._look()
    assert ballast.exists()
    store.close()


MOUNTS = """\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
31 22 0:27 / /mnt/nas rw - nfs4 nas:/export rw
32 22 0:28 / /mnt/nas/local rw - xfs /dev/sdb rw
33 22 0:29 / /mnt/with\\040space rw - cifs //nas/x rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/mnt/nas/a", "nfs4"),
        ("/mnt/nas/local/a", "xfs"),
        ("/mnt/with space/a", "cifs"),
    ],
)
def test_type_of_a_file_system_is_that_of_its_mount(folder: str, kind: str) -> None:
    assert files.file_system(Path(folder), MOUNTS) == kind


def test_store_on_a_network_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 1 0:1 / {tmp_path} rw - nfs4 nas:/x rw\n")
    monkeypatch.setattr(files, "MOUNTS", mounts)
    with pytest.raises(StoreError, match=r"network file system \(nfs4\): use a local disk"):
        SqliteStore(tmp_path / "store.db", ballast=SMALL)


def test_every_named_statement_is_used() -> None:
    source = Path(sqlite.__file__).read_text("utf-8")
    assert [name for name in QUERIES if f'QUERIES["{name}"]' not in source] == []


def test_verifying_a_copy_leaves_nothing_beside_it(path: Path) -> None:
    filled(path)
    (path.parent / "store.db.ballast").unlink(missing_ok=True)
    before = sorted(path.parent.iterdir())
    assert offline.verify(path).problems == []
    assert sorted(path.parent.iterdir()) == before == [path]


def test_lock_of_a_file_that_was_removed_meanwhile_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    try_lock, removed = files.system.try_lock_file, []

    def lock(descriptor: int) -> bool:
        if not removed:  # the command that made it ends between our opening and our locking
            removed.append(True)
            path.unlink()
        return try_lock(descriptor)

    monkeypatch.setattr(files.system, "try_lock_file", lock)
    first = files.FileLock(path)
    with pytest.raises(StoreError, match="is locked"):
        files.FileLock(path)
    assert path.exists()
    first.close()
    assert not path.exists()
    files.FileLock(path).close()


def test_lock_keeps_the_file_that_it_found(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    files.FileLock(path).close()
    assert path.exists()
