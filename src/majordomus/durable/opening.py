"""Open the store that a setting names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from majordomus.durable.sqlite import VERSION, SqliteStore
from majordomus.durable.store import Store, StoreError, StoreUnusableError

SQLITE: Final = "sqlite:"
SQLITE_HEAD: Final = b"SQLite format 3\0"
VERSION_AT: Final = 60
"""Where the header of a file has `user_version` ("Database File Format", sqlite.org)."""


def path_of(named: str) -> str:
    """Return the file of `sqlite:FILE`. Raises: StoreUnusableError for anything else."""
    file = named.removeprefix(SQLITE)
    if not named.startswith(SQLITE) or not file.strip():
        raise StoreUnusableError(f"a store is sqlite:FILE, not {named!r}")
    if file == ":memory:" or file.startswith("file:"):
        raise StoreUnusableError(f"a store is a file, sqlite:FILE, not {named!r}")
    return file


def open_store(named: str) -> Store:
    """Open the store called `named`. Raises: StoreUnusableError, with one line that says why."""
    try:
        return SqliteStore(path_of(named))
    except StoreError as error:
        raise StoreUnusableError(f"--store {named}: {error}") from error
    except OSError as error:
        raise StoreUnusableError(f"--store {named}: {error.strerror or error}") from error


def wrong_head(file: Path) -> str:
    """Return what the first bytes of a store show to be wrong; empty for nothing. A new file has
    none. The file is not opened as a database: a broker may use it."""
    with file.open("rb") as opened:
        head = opened.read(VERSION_AT + 4)
    if head and not head.startswith(SQLITE_HEAD):
        return "is not a database of SQLite"
    version = int.from_bytes(head[VERSION_AT:], "big")
    if version > VERSION:
        return f"has version {version}, and this majordomus reads up to {VERSION}: upgrade it"
    return ""
