"""Open the store that a setting names."""

from __future__ import annotations

from typing import Final

from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import Store, StoreError, StoreUnusableError

SQLITE: Final = "sqlite:"


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
