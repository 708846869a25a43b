"""Open the store that a setting names."""

from __future__ import annotations

from typing import Final

from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import Store, StoreError, StoreUnusableError

SQLITE: Final = "sqlite:"


def path_of(named: str) -> str:
    """Return the file of `sqlite:FILE`. Raises: StoreUnusableError for anything else."""
    if not named.startswith(SQLITE) or len(named) == len(SQLITE):
        raise StoreUnusableError(f"a store is sqlite:FILE, not {named!r}")
    return named.removeprefix(SQLITE)


def open_store(named: str) -> Store:
    """Open the store called `named`. Raises: StoreUnusableError, with one line that says why."""
    try:
        return SqliteStore(path_of(named))
    except StoreError as error:
        raise StoreUnusableError(f"--store {named}: {error}") from error
    except OSError as error:
        raise StoreUnusableError(f"--store {named}: {error.strerror or error}") from error
