"""A store in one SQLite file: one process, one connection, one thread.

What makes it durable: a write-ahead log with synchronous FULL, read back; a checkpoint only behind
a commit, so that the log stays near CHECKPOINT_PAGES; a checksum in every row. An error of the disk
ends the store: SQLite would go on as if nothing had happened, and a commit whose sync has failed
may be there after a restart or not.
"""

from __future__ import annotations

import logging
import os
import time
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from majordomus.core.broker.durable.records import (
    DAMAGED,
    Attempted,
    Complete,
    Damaged,
    StoredRequest,
    StoreState,
)
from majordomus.durable import rows as stored
from majordomus.durable import wal
from majordomus.durable.driver import Rows, SqliteConnection
from majordomus.durable.files import (
    BALLAST,
    Ballast,
    FileLock,
    check_disk,
    free_bytes,
    real_file,
    sync_folder,
)
from majordomus.durable.queries import QUERIES, SCHEMA, several
from majordomus.durable.store import (
    RowDamagedError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
)

logger = logging.getLogger("majordomus.broker")

VERSION: Final = 1
CHECKPOINT_PAGES: Final = 4000
BACKUP_PAGES: Final = 1 << 18
"""Pages of the log, 1 GiB, after which it is copied into the file also during a backup."""
PAGE_SIZE: Final = 4096
PAGES_OF_A_CHANGE: Final = 4
ROWS_PER_PAGE: Final = 4
WHOLLY_CHECKED: Final = 256 << 20
"""Bytes of a file that is checked at every start, its indexes too: a damaged entry there hides a
row from its key. A larger file is checked after a crash alone, and without its indexes."""
SYNCHRONOUS_FULL: Final = 2
DEFINITIONS: Final = "select type, name, tbl_name, sql from sqlite_schema order by name"
META: Final = {"secret", "epoch", "crc", "clean"}
"""The names of the table `meta`, once the store has been opened."""
LOOK_EVERY: Final = 0.3
"""Seconds between two looks at the disk."""

GROUPS: Final = (16, 4)
"""Rows of one statement. SQLite is called without the interpreter lock, so each statement lets the
broker's thread go on and then waits for it: 64 rows are 4 statements, not 64."""
APPENDS: Final = {size: several(QUERIES["append"], size) for size in GROUPS}
REMOVED_AT_ONCE: Final = 16
REMOVE: Final = several(QUERIES["remove_some"], REMOVED_AT_ONCE)


class SqliteStore:
    """The store in the file `path`.

    ballast: bytes that are reserved for outcomes on a full disk. New rows are refused when the disk
    has less than twice that left.
    checkpoint: pages of the log after which it is copied into the file. vfs: a file layer of apsw,
    for tests.
    rolled_back: pages of the log that were not whole when it was opened.
    Raises: StoreError, with one line that says what to do.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        ballast: int = BALLAST,
        checkpoint: int = CHECKPOINT_PAGES,
        vfs: str = "",
    ) -> None:
        self._vfs = vfs
        self._checkpoint_pages = checkpoint
        self.path = real_file(Path(path))
        folder = self.path.parent
        check_disk(folder)
        self._lock = FileLock(Path(f"{self.path}.lock"))
        self._driver: SqliteConnection | None = None
        try:
            self._ballast = Ballast(Path(f"{self.path}.ballast"), ballast)
            if ballast:
                self._ballast.check()
            self._open(folder)
        except BaseException:
            self.close()
            raise

    def _open(self, folder: Path) -> None:
        new = not self.path.exists()
        if new:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        log = Path(f"{self.path}-wal")
        written_frames = wal.frames(log, PAGE_SIZE) if not new else 0
        driver = self._driver = SqliteConnection(str(self.path), self._vfs)
        self.name = f"sqlite ({driver.name})"
        _configure(driver)
        _upgrade(driver, self.path)
        self._report_log(driver, written_frames)
        if _size(self.path) < WHOLLY_CHECKED:
            _check(driver, self.path, "integrity_check")
        elif _meta(driver, "clean") != b"1":
            _check(driver, self.path, "quick_check")
        driver.execute("begin immediate")
        self.secret, last = _identity(driver, self.path)
        self.epoch = last + 1
        epoch = b"%d" % self.epoch
        crc = _identity_crc(self.secret, epoch)
        for one in (("secret", self.secret), ("epoch", epoch), ("crc", crc), ("clean", b"0")):
            driver.execute(QUERIES["set_meta"], one)
        driver.execute("commit")
        driver.execute("pragma wal_checkpoint(truncate)")
        written = self._ballast.write()
        sync_folder(folder)
        self._rows, least = driver.execute(QUERIES["counts"])[0]
        if least <= 0:  # no scan would find it
            raise StoreDamagedError(f"{self.path} is damaged: it has a row with the number {least}")
        self._added = 0
        self._estimated = 0
        self._state = StoreState(self._rows, 0, -1, written)
        self._look_at = 0.0
        self._look()

    def _report_log(self, driver: SqliteConnection, written: int) -> None:
        """Report what SQLite has rolled back: what stands behind the last whole commit of its
        log."""
        self.rolled_back = 0
        if written:
            whole = driver.execute("pragma wal_checkpoint(passive)")[0][1]
            self.rolled_back = max(0, written - max(0, whole))
        if self.rolled_back:
            logger.warning(
                "%s: the last %d pages of the log are damaged or of a commit that was cut off; they"
                " are rolled back",
                self.path,
                self.rolled_back,
            )

    # ── transactions ──────────────────────────────────────────────────────────────────────────────

    @property
    def _sql(self) -> SqliteConnection:
        if self._driver is None:
            raise StoreError("the store is closed")
        return self._driver

    def begin(self) -> None:
        """See `Store.begin`."""
        self._added = 0
        self._sql.execute("begin immediate")

    def commit(self) -> None:
        """See `Store.commit`."""
        self._sql.execute("commit")
        self._rows += self._added

    def rollback(self) -> None:
        """See `Store.rollback`. SQLite has done it already after some errors."""
        if self._driver is not None and self._driver.in_transaction:
            self._driver.execute("rollback")

    # ── rows ──────────────────────────────────────────────────────────────────────────────────────

    def append(self, rows: list[StoredRequest]) -> list[StoredRequest | Damaged | None]:
        """See `Store.append`."""
        driver = self._sql
        plain = [stored.values_of(row) for row in rows if not row.key]
        at = 0
        for size in GROUPS:
            while len(plain) - at >= size:
                driver.execute(APPENDS[size], tuple(chain(*plain[at : at + size])))
                at += size
        if at < len(plain):
            driver.many(QUERIES["append"], plain[at:])
        self._added += len(plain)
        self._estimate(len(rows), sum(len(one[13]) for one in plain))
        if len(plain) == len(rows):
            return [None] * len(rows)
        found: list[StoredRequest | Damaged | None] = []
        for row in rows:
            known: StoredRequest | Damaged | None = None
            if row.key and not driver.execute(QUERIES["append_keyed"], stored.values_of(row)):
                known = self._by_key(row)
            elif row.key:
                self._added += 1
            found.append(known)
        return found

    def _by_key(self, row: StoredRequest) -> StoredRequest | Damaged:
        try:
            found = self.find(row.owner, row.service, row.key)
        except RowDamagedError:
            return DAMAGED
        if found is None:
            raise StoreError(f"row {row.number} is in the store already")
        return found

    def record(self, changes: list[Attempted]) -> None:
        """See `Store.record`."""
        values = [(attempts, most, due, number) for number, attempts, most, due in changes]
        self._sql.many(QUERIES["record"], values)
        self._estimate(len(values), 0)

    def complete(self, ends: list[Complete]) -> None:
        """See `Store.complete`."""
        values = [stored.ended(end) for end in ends]
        self._sql.many(QUERIES["complete"], values)
        self._estimate(len(ends), sum(len(one[2]) for one in values))

    def remove(self, numbers: list[int]) -> None:
        """See `Store.remove`."""
        driver = self._sql
        before = driver.changes
        if len(numbers) < min(GROUPS):
            driver.many(QUERIES["remove"], [(number,) for number in numbers])
        else:
            for at in range(0, len(numbers), REMOVED_AT_ONCE):
                some = numbers[at : at + REMOVED_AT_ONCE]
                driver.execute(REMOVE, some + some[-1:] * (REMOVED_AT_ONCE - len(some)))
        self._added -= driver.changes - before
        self._estimate(len(numbers), 0)

    def read(self, numbers: list[int]) -> list[StoredRequest | None]:
        """See `Store.read`."""
        found: list[StoredRequest | None] = []
        for number in numbers:
            rows = self._sql.execute(QUERIES["read"], (number,))
            found.append(stored.row_of(rows[0]) if rows else None)
        return found

    def find(self, owner: str, service: bytes, key: bytes) -> StoredRequest | None:
        """See `Store.find`."""
        rows = self._sql.execute(QUERIES["by_key"], (owner, service, key))
        return stored.row_of(rows[0]) if rows else None

    def sweep(self, before: float, most: int) -> int:
        """See `Store.sweep`."""
        changes = self._sql.changes
        self._sql.execute(QUERIES["sweep"], (before, most))
        gone = self._sql.changes - changes
        self._added -= gone
        self._estimate(gone, 0)
        return gone

    def scan(self, after: int, most: int) -> list[StoredRequest]:
        """See `Store.scan`."""
        return [
            stored.row_of(values) for values in self._sql.execute(QUERIES["scan"], (after, most))
        ]

    def page(self, after: int, most: int) -> list[StoredRequest]:
        """See `Store.page`."""
        return [
            stored.summary_of(values)
            for values in self._sql.execute(QUERIES["page"], (after, most))
        ]

    def numbers(self, after: int, most: int) -> list[int]:
        """Return the numbers of rows above `after`, in order."""
        return [values[0] for values in self._sql.execute(QUERIES["numbers"], (after, most))]

    def integrity(self) -> list[str]:
        """Check the structure of the whole file; return one line for each fault."""
        found = [str(values[0]) for values in self._sql.execute("pragma integrity_check")]
        return [] if found == ["ok"] else found

    # ── the disk ──────────────────────────────────────────────────────────────────────────────────

    def state(self) -> StoreState:
        """See `Store.state`."""
        if time.monotonic() >= self._look_at:
            self._look()
        return self._state

    def _look(self) -> None:
        """Look at the files and the disk; accept new rows again once there is space for them."""
        self._look_at = time.monotonic() + LOOK_EVERY
        size = sum(_size(Path(f"{self.path}{end}")) for end in ("", "-wal"))
        free = free_bytes(self.path.parent)
        if free < 0:  # not known: what was given back for outcomes is not taken again
            accepts = not self._ballast.size or self._ballast.there
        else:
            unused = self._sql.execute("pragma freelist_count")[0][0] * PAGE_SIZE
            enough = free + unused >= 2 * self._ballast.size
            accepts = enough and self._ballast.write()
        self._state = StoreState(self._rows, size, free, accepts)

    def make_room(self) -> bool:
        """See `Store.make_room`."""
        self._state = self._state._replace(accepts=False)
        return self._ballast.drop()

    def _estimate(self, rows: int, size: int) -> None:
        """Count the pages that a change adds to the log, too many rather than too few: for a
        library that cannot say."""
        self._estimated += PAGES_OF_A_CHANGE + rows // ROWS_PER_PAGE + size // PAGE_SIZE

    def maintain(self, *, idle: bool) -> None:
        """See `Store.maintain`. The checkpoint is our own: SQLite's hides its errors, and after a
        sync that has failed once the next one succeeds without the pages."""
        pages = self._estimated if self._sql.pages < 0 else self._sql.pages
        if pages >= self._checkpoint_pages or (idle and self._estimated):
            self._checkpoint()
        if idle:
            self.state()

    def _is_copied(self) -> bool:
        """Whether another process copies the file (`online`): it has a lock beside it."""
        path = Path(f"{self.path}.backup")
        if not path.exists():
            return False
        try:
            FileLock(path).close()
        except StoreError:
            return True
        return False

    def _checkpoint(self) -> None:
        """Copy the log into the file. The next transaction then writes the log from its begin."""
        if self._is_copied() and max(self._estimated, self._sql.pages) < BACKUP_PAGES:
            return
        try:
            self._sql.execute("pragma wal_checkpoint(passive)")
        except StoreFullError:
            self.make_room()
            self._sql.execute("pragma wal_checkpoint(passive)")
        self._estimated = 0
        self._sql.pages = min(self._sql.pages, 0)

    def backup(self, target: Path) -> None:
        """Write a copy of the store to a new file. Raises: StoreError."""
        if target.exists():
            raise StoreError(f"{target} exists already")
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            self._sql.execute("vacuum into ?", (str(target),))
            os.fsync(descriptor)
        except BaseException:
            target.unlink()
            raise
        finally:
            os.close(descriptor)
        sync_folder(target.absolute().parent)

    def close(self) -> None:
        """Close the store. May be repeated."""
        driver, self._driver = self._driver, None
        try:
            if driver is not None:
                if not driver.in_transaction and hasattr(self, "_state"):
                    driver.execute(QUERIES["set_meta"], ("clean", b"1"))
                driver.close()
        finally:
            self._lock.close()

    def abandon(self) -> None:
        """Release the file after an error of the disk, without another write."""
        driver, self._driver = self._driver, None
        try:
            if driver is not None:
                driver.close()
        except StoreError:
            pass
        finally:
            self._lock.close()


# ── opening ───────────────────────────────────────────────────────────────────────────────────────


def _configure(driver: SqliteConnection) -> None:
    """Set what makes commits durable, and read it back: a library may be built with other
    defaults. Raises: StoreError."""
    driver.execute("pragma locking_mode = exclusive")
    driver.execute("pragma auto_vacuum = incremental")  # has an effect before the first table alone
    mode = driver.execute("pragma journal_mode = wal")[0][0]
    driver.execute("pragma synchronous = full")
    driver.execute("pragma wal_autocheckpoint = 0")
    driver.count_pages()
    driver.execute("pragma temp_store = memory")
    if mode != "wal":
        raise StoreError(f"this SQLite has no write-ahead log (journal_mode = {mode})")
    if driver.execute("pragma synchronous")[0][0] != SYNCHRONOUS_FULL:
        raise StoreError("this SQLite does not take synchronous = full")


def _upgrade(driver: SqliteConnection, path: Path) -> None:
    """Make the tables of a new file. Raises: StoreError for a file of a newer version."""
    found = driver.execute("pragma user_version")[0][0]
    if found > VERSION:
        raise StoreError(
            f"{path} has version {found}, and this majordomus reads up to {VERSION}: upgrade it"
        )
    if found == VERSION:
        _check_schema(driver, path)
        return
    if driver.execute("select count(*) from sqlite_schema")[0][0]:
        raise StoreError(f"{path} is a database of another program")
    driver.execute("begin immediate")
    driver.script(SCHEMA)
    driver.execute(f"pragma user_version = {VERSION}")
    driver.execute("commit")


def _check_schema(driver: SqliteConnection, path: Path) -> None:
    """Compare the definitions of tables and indexes with ours: one damaged letter there hides every
    row, and SQLite's own check accepts it. Raises: StoreError."""
    if driver.execute(DEFINITIONS) != _definitions():
        raise StoreDamagedError(
            f"{path} is damaged: its tables differ (restore a backup: docs/durable.md)"
        )


@cache
def _definitions() -> Rows:
    """The definitions of the tables and indexes as SQLite stores them."""
    fresh = SqliteConnection(":memory:")
    try:
        fresh.script(SCHEMA)
        return fresh.execute(DEFINITIONS)
    finally:
        fresh.close()


def _check(driver: SqliteConnection, path: Path, how: str) -> None:
    """Check the file as SQLite's `how` does. Raises: StoreError."""
    found = driver.execute(f"pragma {how}(1)")[0][0]
    if found != "ok":
        raise StoreDamagedError(f"{path} is damaged: {found} (restore a backup: docs/durable.md)")


def _meta(driver: SqliteConnection, name: str) -> object:
    rows = driver.execute(QUERIES["get_meta"], (name,))
    return rows[0][0] if rows else b""


def _identity(driver: SqliteConnection, path: Path) -> tuple[bytes, int]:
    """Return the secret of the store and its last epoch; a new store has a new secret and 0.

    Raises: StoreError: with a damaged secret every id is unknown, and with a damaged epoch numbers
    are given again.
    """
    found = driver.execute(QUERIES["every_meta"])
    if not found and not driver.execute(QUERIES["counts"])[0][0]:
        return os.urandom(32), 0  # it is new, or its first start was cut off behind the tables
    values: dict[str, Any] = dict(found)
    whole = len(found) == len(META) and values.keys() == META
    if whole and all(isinstance(value, bytes) for value in values.values()):
        secret, epoch = values["secret"], values["epoch"]
        if values["crc"] == _identity_crc(secret, epoch):
            return secret, int(epoch)
    raise StoreDamagedError(
        f"{path} is damaged: its secret or its epoch (restore a backup: docs/durable.md)"
    )


def _identity_crc(secret: bytes, epoch: bytes) -> bytes:
    return b"%d" % crc32(epoch, crc32(secret))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
