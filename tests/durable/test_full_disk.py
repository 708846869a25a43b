"""A disk that is really full: a small file system in memory, which only root can mount."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from majordomus.core.broker.durable.records import FULL, Append, Complete, Remove, StoredOutcome
from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import write
from tests.durable.samples import row

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if sys.platform != "linux":
        pytest.skip("only Linux mounts a file system of so many bytes")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.decode(errors='replace').strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("watched", [True, False])
def test_disk_that_fills_up_refuses_new_rows_takes_outcomes_and_recovers(
    small_disk: Path, watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not watched:  # the store does not see that the disk fills up before it is full
        monkeypatch.setattr("majordomus.durable.sqlite.free_bytes", lambda folder: 1 << 40)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(MIB))
    store = SqliteStore(small_disk / "store.db", ballast=MIB, checkpoint=64)
    stored: list[int] = []
    for number in range(1, 10_000):
        store._look_at = 0.0
        answers = dict(write(store, [(number, Append(row(number, body=[bytes(4000)])))]))
        if answers.get(number) is FULL:
            break
        store.maintain(idle=False)
        stored.append(number)
    monkeypatch.undo()
    assert len(stored) > 100
    assert not store.state().accepts
    outcome = StoredOutcome(200, [bytes(100)], b"", 1.0, 9.0)
    for at in range(0, len(stored), 50):
        some = stored[at : at + 50]
        assert write(store, [(0, Complete(number, 1, outcome)) for number in some]) == []
        store.maintain(idle=False)
        assert write(store, [(0, Remove(number)) for number in some]) == []
        store.maintain(idle=False)
    store.maintain(idle=True)
    filler.unlink()  # the space of deleted rows is used again, and is not the disk's
    store._look_at = 0.0
    assert store.state().accepts
    assert write(store, [(0, Append(row(20_000)))]) == []
    store.close()
    again = SqliteStore(small_disk / "store.db", ballast=MIB)
    assert again.numbers(0, 100_000) == [20_000]
    again.close()
