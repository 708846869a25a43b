"""A store at work on a file layer of apsw that logs every write, truncation, deletion and sync.

The log is a history for `history`. All of it follows from a seed: the random numbers of SQLite
(salts of its log) and the secret of the store as well.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest import mock

import apsw

from majordomus.durable import sqlite
from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import Numbered, StoreError, write
from tests.durable import history
from tests.durable.history import Operation

CHECKPOINTS: Final = (4, 20, 4000)
VFS: Final = "logged"


class LoggedFile(apsw.VFSFile):
    """A file whose changes are logged. With the first sync of a new journal SQLite syncs the folder
    as well, below this layer."""

    def __init__(self, vfs: LoggedVfs, name: Any, flags: list[int]) -> None:
        path = Path((name.filename() if isinstance(name, apsw.URIFilename) else name) or "")
        self._vfs, self._log, self._name = vfs, vfs.log, path.name
        self._new = path.name.endswith(("-journal", "-wal")) and not path.exists()
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._log.append(("write", self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._log.append(("truncate", self._name, size))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._name == self._vfs.unsynced:
            return
        self._log.append(("sync", self._name))
        if self._new:
            self._new = False
            self._log.append(("folder",))
        super().xSync(flags)


class LoggedVfs(apsw.VFS):
    """The file layer of this system, with a log.

    unsynced: the name of a file whose syncs are left out, for negative controls.
    """

    def __init__(self, log: list[Operation]) -> None:
        super().__init__(VFS, "")
        self.log = log
        self.unsynced = ""

    def xOpen(self, name: Any, flags: list[int]) -> LoggedFile:  # noqa: N802
        return LoggedFile(self, name, flags)

    def xDelete(self, name: str, syncdir: bool) -> None:  # noqa: N802
        self.log.append(("delete", Path(name).name))
        super().xDelete(name, syncdir)
        if syncdir:
            self.log.append(("folder",))


@contextmanager
def logged() -> Iterator[LoggedVfs]:
    """The file layer VFS, with an empty log that has the syncs of folders too."""
    log: list[Operation] = []
    vfs = LoggedVfs(log)
    try:
        with mock.patch.object(sqlite, "sync_folder", lambda _: log.append(("folder",))):
            yield vfs
    finally:
        vfs.unregister()


class SeededVfs(apsw.VFS):
    """A file layer from which SQLite takes the seed of its random numbers."""

    def __init__(self, random: Random) -> None:
        super().__init__("seeded", "", makedefault=True)
        self._random = random

    def xRandomness(self, size: int) -> bytes:  # noqa: N802
        super().xRandomness(size)  # or SQLite takes the next file opened for one after a fork
        return self._random.randbytes(size)


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Let the random bytes of SQLite and of the system follow from a seed."""
    random = Random(f"bytes {seed}")
    vfs = SeededVfs(random)
    apsw.randomness(0)  # forget the seed
    apsw.randomness(1)
    vfs.unregister()
    with mock.patch.object(os, "urandom", random.randbytes):
        yield


def trace(seed: int, control: str = "full") -> list[Operation]:
    """The history of one store at work. `control`: "full"; "normal" and "early" are negative."""
    random = Random(seed)
    with logged() as vfs, tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        log = vfs.log
        checkpoint = random.choice(CHECKPOINTS)
        if control == "normal":  # it syncs with a checkpoint alone
            checkpoint = CHECKPOINTS[-1]

        life = Path(folder)
        store = opened(life, checkpoint, log)
        if control == "normal":
            store._sql.execute("pragma synchronous = normal")
        killed = random.randrange(2 * history.BATCHES) if control != "normal" else -1
        for number, batch in enumerate(history.work(random)):
            if number == killed:
                life = after_kill(store, life, log)
                store = opened(life, checkpoint, log)
            turn(store, batch, log, control)
            store.maintain(idle=control != "normal" and random.random() < 0.2)
        if random.random() < 0.5:
            store.close()
        store.abandon()
    return log


def opened(folder: Path, checkpoint: int, log: list[Operation]) -> SqliteStore:
    """Open a store on the logged file layer, and log what it has. Raises: StoreError."""
    store = SqliteStore(folder / "store.db", ballast=0, checkpoint=checkpoint, vfs=VFS)
    try:
        log.append(("seen", history.reading(store)))
    except StoreError:
        store.abandon()
        raise
    return store


def turn(store: SqliteStore, batch: list[Numbered], log: list[Operation], control: str) -> None:
    """Write a batch, and log what is said of it."""
    log.append(("issued", batch))
    if control == "early":
        log.append(("stored", batch))
    write(store, batch)
    if control != "early":
        log.append(("stored", batch))


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
