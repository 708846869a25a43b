"""The one copy of SQLite that serves the store: apsw where it is installed, else Python's own.

Never both in one process on one file: when one of two copies closes the file, the POSIX locks of
the whole process are gone (docs/durable.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from majordomus.durable.store import StoreDamagedError, StoreError, StoreFullError

Rows = list[tuple[Any, ...]]
FULL_CODE: Final = 13
BUSY_CODE: Final = 5
CORRUPT_CODES: Final = (11, 26)
COMMENT: Final = re.compile(r"--.*")


class SqliteConnection:
    """One connection, in whichever library. Raises: StoreFullError, StoreError.

    `vfs` is the name of a file layer of apsw, for tests.

    name: library and version of SQLite.
    pages: pages of the write-ahead log after the last commit; −1 where the library cannot say.
    """

    def __init__(self, path: str, vfs: str = "") -> None:
        try:
            import apsw
        except ImportError:
            self._open_standard(path)
        else:
            self._open_apsw(apsw, path, vfs)

    def _open_apsw(self, apsw: Any, path: str, vfs: str) -> None:
        self.pages = 0
        self.name = f"apsw {apsw.sqlite_lib_version()}"
        self._error: type[Exception] = apsw.Error
        try:
            self._connection = apsw.Connection(path, vfs=vfs or None)
        except apsw.Error as error:
            raise failure(error) from error

    def _open_standard(self, path: str) -> None:
        import sqlite3

        self.pages = -1
        self.name = f"sqlite3 {sqlite3.sqlite_version}"
        self._error = sqlite3.Error
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise failure(error) from error

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        """Execute one statement and return all its rows."""
        try:
            cursor = self._connection.cursor()
            found: Rows = list(cursor.execute(sql, values))
        except self._error as error:
            raise failure(error) from error
        except UnicodeDecodeError as error:  # apsw decodes text itself
            raise StoreDamagedError(
                f"the file is damaged: its text is not UTF-8 ({error})"
            ) from error
        return found

    def script(self, sql: str) -> None:
        """Execute several statements, inside a transaction that is open."""
        for statement in COMMENT.sub("", sql).split(";"):
            if statement.strip():
                self.execute(statement)

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute one statement for each of `rows`."""
        try:
            self._connection.cursor().executemany(sql, rows)
        except self._error as error:
            raise failure(error) from error

    def count_pages(self) -> None:
        """Keep `pages` from now on. SQLite's own setting of checkpoints removes what counts, so
        that has to come first."""

        def committed(_connection: object, _database: str, pages: int) -> int:
            self.pages = pages
            return 0

        if self.pages >= 0:
            self._connection.set_wal_hook(committed)

    @property
    def changes(self) -> int:
        """Rows that this connection has changed so far."""
        found = self._connection.total_changes
        return int(found() if callable(found) else found)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        connection = self._connection
        if hasattr(connection, "in_transaction"):
            return bool(connection.in_transaction)
        return bool(connection.getautocommit() is False)

    def close(self) -> None:
        """Close the connection."""
        try:
            self._connection.close()
        except self._error as error:
            raise failure(error) from error


def failure(error: Exception) -> StoreError:
    """Return the error of this project for one of the library's."""
    code = getattr(error, "result", None)
    if code is None:
        code = getattr(error, "sqlite_errorcode", None)
    number = code & 0xFF if isinstance(code, int) else 0
    text = f"{type(error).__name__}: {error}"
    if number == FULL_CODE:
        return StoreFullError(text)
    if number in CORRUPT_CODES:
        return StoreDamagedError(f"the file is damaged or no database ({text})")
    return StoreError(text)
