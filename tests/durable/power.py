"""Power cuts: what a store has acknowledged is there whatever the disk had not yet written.

    python -m tests.durable.power --cuts 1000000 --seed 1

A file layer of apsw logs every write, truncation, deletion and sync of SQLite; `history` makes the
cuts. In half of the histories the process is killed at some point, and another one goes on with
the files that the kernel has. The negative controls have to lose: synchronous = NORMAL, and an
answer before COMMIT.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest import mock

import apsw

from majordomus.durable import sqlite
from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import write
from tests.durable import history
from tests.durable.history import Operation

CUTS_OF_A_TRACE: Final = 200
CONTROLS: Final = ("full", "normal", "early")
CHECKPOINTS: Final = (4, 20, 4000)
VFS: Final = "logged"


class LoggedFile(apsw.VFSFile):
    """A file whose changes are logged. With the first sync of a new journal SQLite syncs the folder
    as well, below this layer."""

    def __init__(self, log: list[Operation], name: Any, flags: list[int]) -> None:
        path = Path((name.filename() if isinstance(name, apsw.URIFilename) else name) or "")
        self._log, self._name = log, path.name
        self._new = path.name.endswith(("-journal", "-wal")) and not path.exists()
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._log.append(("write", self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._log.append(("truncate", self._name, size))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._log.append(("sync", self._name))
        if self._new:
            self._new = False
            self._log.append(("folder",))
        super().xSync(flags)


class LoggedVfs(apsw.VFS):
    """The file layer of this system, with a log."""

    def __init__(self, log: list[Operation]) -> None:
        super().__init__(VFS, "")
        self._log = log

    def xOpen(self, name: Any, flags: list[int]) -> LoggedFile:  # noqa: N802
        return LoggedFile(self._log, name, flags)

    def xDelete(self, name: str, syncdir: bool) -> None:  # noqa: N802
        self._log.append(("delete", Path(name).name))
        super().xDelete(name, syncdir)
        if syncdir:
            self._log.append(("folder",))


def trace(seed: int, control: str = "full") -> list[Operation]:
    """The history of one store at work. `control`: "full"; "normal" and "early" are negative."""
    random = Random(seed)
    log: list[Operation] = []
    vfs = LoggedVfs(log)
    with (
        tempfile.TemporaryDirectory(dir=fast_folder()) as folder,
        mock.patch.object(sqlite, "sync_folder", lambda _: log.append(("folder",))),
    ):
        checkpoint = random.choice(CHECKPOINTS)
        if control == "normal":  # it syncs with a checkpoint alone
            checkpoint = CHECKPOINTS[-1]

        def opened(folder: Path) -> SqliteStore:
            return SqliteStore(folder / "store.db", ballast=0, checkpoint=checkpoint, vfs=VFS)

        life = Path(folder)
        store = opened(life)
        if control == "normal":
            store._sql.execute("pragma synchronous = normal")
        killed = random.randrange(2 * history.BATCHES) if control != "normal" else -1
        for number, batch in enumerate(history.work(random)):
            if number == killed:
                life = after_kill(store, life, log)
                store = opened(life)
            log.append(("issued", batch))
            if control == "early":
                log.append(("stored", batch))
            write(store, batch)
            if control != "early":
                log.append(("stored", batch))
            store.maintain(idle=control != "normal" and random.random() < 0.2)
        if random.random() < 0.5:
            store.close()
        store.abandon()
    vfs.unregister()
    return log


def after_kill(store: SqliteStore, life: Path, log: list[Operation]) -> Path:
    """Let the process of `store` be killed; return a folder with the files that the kernel has."""
    left = life / "left"
    left.mkdir()
    for path in life.glob("store.db*"):
        shutil.copyfile(path, left / path.name)
    done = len(log)
    store.abandon()  # a killed process does none of this
    del log[done:]
    return left


def fast_folder() -> str | None:
    """A folder in memory, where there is one: the cuts are simulated, and need no real syncs."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def cuts(
    count: int, seed: int, control: str = "full", of_a_trace: int = CUTS_OF_A_TRACE
) -> Counter[str]:
    """Cut the power so often; return how often what was found."""
    found: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(dir=fast_folder()) as folder,
        mock.patch.object(sqlite, "check_disk", lambda _: None),  # a third of a cut's time
    ):
        while found.total() < count:
            of_this = min(of_a_trace, count - found.total())
            made = trace(seed, control)
            with history.cheap_openings():
                found += history.cut(made, of_this, Random(seed), Path(folder))
            seed += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=1_000_000)
    parser.add_argument("--controls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # each cut is reported
    for control in CONTROLS:
        began = time.perf_counter()
        count = options.cuts if control == "full" else options.controls
        if not count:
            continue
        found = cuts(count, options.seed, control)
        shown = ", ".join(f"{number:,} {what}" for what, number in sorted(found.items()))
        last = options.seed + (count - 1) // CUTS_OF_A_TRACE
        print(
            f"{control:>7}: {count:,} cuts, seeds {options.seed} to {last}: {shown}"
            f" ({time.perf_counter() - began:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
