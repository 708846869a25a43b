"""Verify, compact and copy the file of a broker that does not run.

Each takes the lock of the store, so that no broker can start meanwhile. `backup` leaves the file of
a broker that runs to `online`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from majordomus.durable import online
from majordomus.durable.files import FileLock, real_file, sync_folder
from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import (
    SCANNED,
    RowDamagedError,
    StoreDamagedError,
    StoreError,
    StoreUnusableError,
)


class Report(NamedTuple):
    """What `verify` has found.

    rows: rows that were read. open: those without an outcome. bytes: size of the file.
    problems: one line for each fault; empty when there is none.
    """

    rows: int
    open: int
    bytes: int
    problems: list[str]


def verify(path: Path) -> Report:
    """Check the whole file: the database's structure, and the checksums of every row.

    Raises: StoreUnusableError when it is no store, or another process uses it.
    """
    path = _file(path)
    try:
        store = _open(path)
    except StoreUnusableError as error:
        if isinstance(error.__cause__, StoreDamagedError):
            return Report(0, 0, path.stat().st_size, [str(error)])
        raise
    problems: list[str] = []
    rows = open_rows = after = 0
    try:
        problems += store.integrity()
        while numbers := store.numbers(after, SCANNED):
            after = numbers[-1]
            for number in numbers:
                try:
                    [found] = store.read([number])
                except RowDamagedError as error:
                    problems.append(str(error))
                    continue
                rows += 1
                open_rows += found is not None and found.outcome is None
    except StoreError as error:  # the rest cannot be read
        problems.append(f"{path}: {error}")
    finally:
        store.close()
    return Report(rows, open_rows, path.stat().st_size, problems)


def backup(path: Path, target: Path) -> int:
    """Write a copy of the store to a new file, and return its size. A broker may use the store.

    Raises: StoreUnusableError.
    """
    path = _file(path)
    _check_target(target)
    if _is_used(path):
        try:
            online.copy(path, target)
        except StoreError as error:
            raise StoreUnusableError(str(error)) from error
        return target.stat().st_size
    store = _open(path)
    try:
        store.backup(target)
    except (StoreError, OSError) as error:
        raise StoreUnusableError(f"{target}: {_reason(error)}") from error
    finally:
        store.close()
    return target.stat().st_size


def compact(path: Path) -> tuple[int, int]:
    """Write the file anew, without the space of deleted rows; return its size before and after.

    Raises: StoreUnusableError; the old file is as it was then.
    """
    path = _file(path)
    made = path.with_name(f"{path.name}.compact")
    made.unlink(missing_ok=True)
    before = path.stat().st_size
    store = _open(path)
    try:
        store.backup(made)
        made.replace(path)
        Path(f"{path}-wal").unlink(missing_ok=True)
        sync_folder(path.absolute().parent)
    except (StoreError, OSError) as error:
        made.unlink(missing_ok=True)
        raise StoreUnusableError(f"{path}: {_reason(error)}") from error
    finally:
        store.abandon()
    return before, path.stat().st_size


def _is_used(path: Path) -> bool:
    """Whether a broker uses the store `path`."""
    lock = Path(f"{path}.lock")
    if not lock.exists():
        return False
    try:
        FileLock(lock).close()
    except StoreError:
        return True
    return False


def _file(path: Path) -> Path:
    """Return the file of the store `path`. An empty file would become a new store.

    Raises: StoreUnusableError.
    """
    try:
        file = real_file(path)
        size = file.stat().st_size
        log = Path(f"{file}-wal")
        written = log.stat().st_size if log.is_file() else 0
    except StoreError as error:
        raise StoreUnusableError(str(error)) from error
    except FileNotFoundError as error:
        raise StoreUnusableError(f"{path} does not exist") from error
    except OSError as error:
        raise StoreUnusableError(f"{path}: {_reason(error)}") from error
    if not size and not written:
        raise StoreUnusableError(f"{path} is empty: it is no store")
    return file


def _check_target(target: Path) -> None:
    """Raises: StoreUnusableError: there can be no new file `target`."""
    if os.path.lexists(target):
        raise StoreUnusableError(f"{target} exists already")
    try:
        real_file(target)
    except StoreError as error:
        raise StoreUnusableError(str(error)) from error


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _open(path: Path, **options: Any) -> SqliteStore:
    try:
        return SqliteStore(path, ballast=0, **options)
    except StoreError as error:
        text = str(error)
        named = text if text.startswith(str(path)) else f"{path}: {text}"
        raise StoreUnusableError(named) from error
