"""A copy of a store that is made while the store works has everything acknowledged before it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from majordomus.core.broker.durable.records import Append
from majordomus.durable import offline
from majordomus.durable.files import FileLock
from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import StoreUnusableError, write
from tests.durable.samples import row

SMALL = 1 << 16


def test_copy_of_a_store_at_work_has_all_that_was_stored_before_it(tmp_path: Path) -> None:
    path, copy = tmp_path / "store.db", tmp_path / "copy.db"
    store = SqliteStore(path, ballast=SMALL, checkpoint=8)
    stored = 0
    ends = threading.Event()

    def work() -> None:
        nonlocal stored
        while not ends.is_set():
            write(store, [(0, Append(row(stored + 1, body=[bytes(3000)])))])
            stored += 1
            store.maintain(idle=stored % 5 == 0)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        while stored < 50:
            ends.wait(0.001)
        before = stored
        offline.backup(path, copy)
        after = stored
    finally:
        ends.set()
        worker.join()
    store.close()

    report = offline.verify(copy)
    assert report.problems == []
    assert before <= report.rows <= after + 1
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "copy.db",
        "store.db",
        "store.db.ballast",
    ]


def test_log_is_not_copied_into_the_file_while_a_backup_is_made(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path, ballast=SMALL, checkpoint=4)
    lock = FileLock(Path(f"{path}.backup"))
    size = path.stat().st_size
    for number in range(1, 60):
        write(store, [(0, Append(row(number, body=[bytes(3000)])))])
        store.maintain(idle=True)
    assert path.stat().st_size == size
    lock.close()
    store.maintain(idle=True)
    assert path.stat().st_size > size + 59 * 3000
    store.close()


def test_second_backup_at_a_time_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path, ballast=SMALL)
    lock = FileLock(Path(f"{path}.backup"))
    with pytest.raises(StoreUnusableError, match=r"another backup of .* is being made"):
        offline.backup(path, tmp_path / "copy.db")
    lock.close()
    store.close()
