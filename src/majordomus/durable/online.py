"""Copy the file of a store while its broker runs.

    lock FILE.backup → copy FILE → copy FILE-wal → the log was not begun anew meanwhile?

The lock keeps the broker from copying its log into the file (`SqliteStore`). So the log only grows,
and whatever the copy of the file has of a later time is in the copy of the log as well. A log that
was begun anew has other salts in its header; then the copy is made again. The copied pair is
opened, which puts the log into the file, and checked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from majordomus.durable import wal
from majordomus.durable.files import FileLock, sync_folder
from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import StoreError

TRIES: Final = 5


def copy(path: Path, target: Path) -> None:
    """Copy the store `path`, which a broker uses, to the new file `target`. Raises: StoreError."""
    if target.exists():
        raise StoreError(f"{target} exists already")
    named = Path(f"{path}.backup")
    try:
        lock = FileLock(named)
    except StoreError as error:
        raise StoreError(f"another backup of {path} is being made") from error
    made = Path(f"{target}.part")
    try:
        _copy_both(path, made)
        _finish(made)
        made.replace(target)
        sync_folder(target.absolute().parent)
    except OSError as error:
        raise StoreError(f"{error.filename or target}: {error.strerror}") from error
    finally:
        for end in ("", "-wal", "-shm", "-journal", ".lock"):
            Path(f"{made}{end}").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            named.unlink()
        lock.close()


def _copy_both(path: Path, made: Path) -> None:
    log = Path(f"{path}-wal")
    for _ in range(TRIES):
        before = wal.salts(log)
        _copy_file(path, made)
        if log.exists():
            _copy_file(log, Path(f"{made}-wal"))
        if wal.salts(log) == before:
            return
    raise StoreError(f"{path} changed too fast in {TRIES} tries: try again later")


def _copy_file(source: Path, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with source.open("rb") as reader, os.fdopen(descriptor, "wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


def _finish(made: Path) -> None:
    """Put the log into the copy, check it, and make it durable. Raises: StoreError."""
    store = SqliteStore(made, ballast=0)
    try:
        problems = store.integrity()
    finally:
        store.close()
    if problems:
        raise StoreError(f"the copy is damaged: {problems[0]}")
    with made.open("rb") as file:
        os.fsync(file.fileno())
