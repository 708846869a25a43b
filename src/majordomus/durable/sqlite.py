"""A store in one SQLite file: one process, one connection, one thread.

What makes it durable: a write-ahead log with synchronous FULL, read back; a checkpoint only behind
a commit, so that the log stays near CHECKPOINT_PAGES; a checksum in every row. An error of the disk
ends the store: SQLite would go on as if nothing had happened, and a commit whose sync has failed
may be there after a restart or not.
"""

from __future__ import annotations

import logging
import os
import struct
import time
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import msgspec

from majordomus.core.broker.durable.records import (
    COUNTER_BITS,
    DAMAGED,
    Attempted,
    Complete,
    Damaged,
    StoredOutcome,
    StoredRequest,
    StoreState,
)
from majordomus.durable import wal
from majordomus.durable.driver import SqliteConnection
from majordomus.durable.files import (
    BALLAST,
    Ballast,
    FileLock,
    check_disk,
    free_bytes,
    real_file,
    sync_folder,
)
from majordomus.durable.queries import QUERIES, SCHEMA
from majordomus.durable.store import RowDamagedError, StoreError, StoreFullError

logger = logging.getLogger("majordomus.broker")

VERSION: Final = 1
SECRET: Final = 32
"""Bytes of the secret that ids are made with."""
CHECKPOINT_PAGES: Final = 4000
BACKUP_PAGES: Final = 1 << 18
"""Pages of the log, 1 GiB, after which it is copied into the file also during a backup."""
PAGE_SIZE: Final = 4096
PAGES_OF_A_CHANGE: Final = 4
ROWS_PER_PAGE: Final = 4
QUICKLY_CHECKED: Final = 256 << 20
"""Bytes of a file that is checked at every start; a larger one after a crash alone."""
SYNCHRONOUS_FULL: Final = 2
DEFINITIONS: Final = "select type, name, tbl_name, sql from sqlite_schema order by name"
LOOK_EVERY: Final = 0.3
"""Seconds between two looks at the disk."""

_HEAD: Final = struct.Struct(">qddd6I")
_REPLY: Final = struct.Struct(">qqdd")
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[bytes]).decode


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
        made = _upgrade(driver, self.path)
        self._report_log(driver, written_frames)
        if _meta(driver, "clean") != b"1" or _size(self.path) < QUICKLY_CHECKED:
            _check(driver, self.path)
        driver.execute("begin immediate")
        if not made:
            _check_meta(driver, self.path)
        self.secret = _meta(driver, "secret") or os.urandom(SECRET)
        self.epoch = int(_meta(driver, "epoch") or b"0") + 1
        epoch = b"%d" % self.epoch
        check = b"%d" % crc32(self.secret + epoch)
        for name, value in (
            *(("secret", self.secret), ("epoch", epoch)),
            *(("check", check), ("clean", b"0")),
        ):
            driver.execute(QUERIES["set_meta"], (name, value))
        driver.execute("commit")
        driver.execute("pragma wal_checkpoint(truncate)")
        written = self._ballast.write()
        sync_folder(folder)
        self._rows = driver.execute(QUERIES["counts"])[0][0]
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
        plain = [_values(row) for row in rows if not row.key]
        if plain:
            driver.many(QUERIES["append"], plain)
        self._added += len(plain)
        self._estimate(len(rows), sum(len(one[13]) for one in plain))
        if len(plain) == len(rows):
            return [None] * len(rows)
        found: list[StoredRequest | Damaged | None] = []
        for row in rows:
            known: StoredRequest | Damaged | None = None
            if row.key and not driver.execute(QUERIES["append_keyed"], _values(row)):
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
        values = [_ended(end) for end in ends]
        self._sql.many(QUERIES["complete"], values)
        self._estimate(len(ends), sum(len(one[2]) for one in values))

    def remove(self, numbers: list[int]) -> None:
        """See `Store.remove`."""
        before = self._total_changes()
        self._sql.many(QUERIES["remove"], [(number,) for number in numbers])
        self._added -= self._total_changes() - before
        self._estimate(len(numbers), 0)

    def _total_changes(self) -> int:
        return int(self._sql.execute("select total_changes()")[0][0])

    def read(self, numbers: list[int]) -> list[StoredRequest | None]:
        """See `Store.read`."""
        found: list[StoredRequest | None] = []
        for number in numbers:
            rows = self._sql.execute(QUERIES["read"], (number,))
            found.append(_row(rows[0]) if rows else None)
        return found

    def find(self, owner: str, service: bytes, key: bytes) -> StoredRequest | None:
        """See `Store.find`."""
        rows = self._sql.execute(QUERIES["by_key"], (owner, service, key))
        return _row(rows[0]) if rows else None

    def sweep(self, before: float, most: int) -> int:
        """See `Store.sweep`."""
        changes = self._total_changes()
        self._sql.execute(QUERIES["sweep"], (before, most))
        gone = self._total_changes() - changes
        self._added -= gone
        self._estimate(gone, 0)
        return gone

    def scan(self, after: int, most: int) -> list[StoredRequest]:
        """See `Store.scan`."""
        return [_row(values) for values in self._sql.execute(QUERIES["scan"], (after, most))]

    def page(self, after: int, most: int) -> list[StoredRequest]:
        """See `Store.page`."""
        return [_summary(values) for values in self._sql.execute(QUERIES["page"], (after, most))]

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


def _upgrade(driver: SqliteConnection, path: Path) -> bool:
    """Make the tables of a new file, and return whether it was one.

    Raises: StoreError for a file of a newer version.
    """
    found = driver.execute("pragma user_version")[0][0]
    if found > VERSION:
        raise StoreError(
            f"{path} has version {found}, and this majordomus reads up to {VERSION}: upgrade it"
        )
    if found == VERSION:
        _check_schema(driver, path)
        return False
    if driver.execute("select count(*) from sqlite_schema")[0][0]:
        raise StoreError(f"{path} is a database of another program")
    driver.execute("begin immediate")
    driver.script(SCHEMA)
    driver.execute(f"pragma user_version = {VERSION}")
    driver.execute("commit")
    return True


def _check_meta(driver: SqliteConnection, path: Path) -> None:
    """Check what ids are made of: with another secret every id would be unknown, and with an epoch
    that was lost numbers would be given again. Raises: StoreError."""
    secret, epoch, check = (_meta(driver, name) for name in ("secret", "epoch", "check"))
    last = driver.execute("select max(number) from request")[0][0]
    if last is None and not secret and not epoch:
        return  # the first start was cut off behind the tables
    good = len(secret) == SECRET and epoch.isdigit()
    good = good and check in (b"", b"%d" % crc32(secret + epoch))  # empty: of an older version
    if not good or (last is not None and int(epoch) < last >> COUNTER_BITS):
        raise StoreError(
            f"{path} is damaged: its secret or its epoch is not as it was (restore a backup:"
            " docs/durable.md)"
        )


def _check_schema(driver: SqliteConnection, path: Path) -> None:
    """Compare the definitions of tables and indexes with ours: one damaged letter there hides every
    row, and SQLite's own check accepts it. Raises: StoreError."""
    fresh = SqliteConnection(":memory:")
    try:
        fresh.script(SCHEMA)
        expected = fresh.execute(DEFINITIONS)
    finally:
        fresh.close()
    if driver.execute(DEFINITIONS) != expected:
        raise StoreError(
            f"{path} is damaged: its tables differ (restore a backup: docs/durable.md)"
        )


def _check(driver: SqliteConnection, path: Path) -> None:
    """Check the file after an end that was not in order. Raises: StoreError."""
    found = driver.execute("pragma quick_check(1)")[0][0]
    if found != "ok":
        raise StoreError(f"{path} is damaged: {found} (restore a backup: docs/durable.md)")


def _meta(driver: SqliteConnection, name: str) -> bytes:
    rows = driver.execute(QUERIES["get_meta"], (name,))
    return rows[0][0] if rows and isinstance(rows[0][0], bytes) else b""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────


def _values(row: StoredRequest) -> tuple[Any, ...]:
    """The values of the statements `append` and `append_keyed`."""
    (number, owner, service, called, frames, metadata, accepted, expires, keep) = row[:9]
    key, digest, attempts, most, due, _ = row[9:]
    body = _pack(frames)
    return (
        number,
        attempts,
        most,
        due,
        accepted,
        expires,
        keep,
        owner,
        service,
        called,
        key or None,
        digest or None,
        metadata,
        body,
        _crc(row, body),
    )


def _crc(row: StoredRequest, body: bytes) -> int:
    """The checksum of everything in a row that never changes."""
    number, owner, service, called, _, metadata, accepted, expires, keep, key, digest = row[:11]
    user = owner.encode()
    head = _HEAD.pack(
        *(number, accepted, expires, keep, len(user), len(service), len(called), len(key)),
        *(len(digest), len(metadata)),
    )
    return crc32(body, crc32(b"".join((head, user, service, called, key, digest, metadata))))


def _ended(end: Complete) -> tuple[Any, ...]:
    """The values of the statement `complete`."""
    outcome = end.outcome
    reply = _pack(outcome.frames)
    return (
        outcome.status,
        end.attempts,
        reply,
        outcome.metadata,
        _reply_crc(end.number, outcome, reply),
        outcome.ended,
        outcome.until,
        end.number,
    )


def _reply_crc(number: int, outcome: StoredOutcome, reply: bytes) -> int:
    head = _REPLY.pack(number, outcome.status, outcome.ended, outcome.until)
    return crc32(reply, crc32(outcome.metadata, crc32(head)))


def _row(values: tuple[Any, ...]) -> StoredRequest:
    """Return a whole row, checked. Raises: StoreError when its checksums are wrong."""
    (number, status, attempts, most, due, accepted, expires, keep, until, ended, owner) = values[
        :11
    ]
    (service, called, key, digest, metadata, body, crc, reply_metadata, reply, reply_crc) = values[
        11:
    ]
    outcome = None
    try:
        if status is not None:
            frames = _unpack(reply)
            outcome = StoredOutcome(status, frames, reply_metadata, ended, until)
        row = StoredRequest(
            number,
            owner,
            service,
            called,
            _unpack(body),
            metadata,
            accepted,
            expires,
            keep,
            key or b"",
            digest or b"",
            attempts,
            most,
            due,
            outcome,
        )
        good = crc == _crc(row, body) and _is_counted(row)
        if outcome is not None:
            good = good and reply_crc == _reply_crc(number, outcome, reply)
    except (TypeError, ValueError, AttributeError, struct.error, msgspec.MsgspecError):
        good = False  # a value has another type than it was written with
    if not good:
        raise RowDamagedError(f"row {number} is damaged: its checksum is wrong")
    return row


def _is_counted(row: StoredRequest) -> bool:
    """Whether what changes with each attempt, and is in no checksum, has its types."""
    return (
        isinstance(row.attempts, int) and isinstance(row.most, int) and isinstance(row.due, float)
    )


PAGE_TYPES: Final = (int, int | None, int, int, float, float, float, float, float | None)
PAGE_ENDS: Final = (float | None, str, bytes, bytes, bytes | None, bytes | None)


def _summary(values: tuple[Any, ...]) -> StoredRequest:
    """Return a row of a page: without its bodies, and unchecked but for its types."""
    if not all(map(isinstance, values, PAGE_TYPES + PAGE_ENDS)):
        names = (b"(damaged)", b"(damaged)")
        return StoredRequest(
            int(values[0]), "", *names, [], b"", 0.0, 0.0, 0.0, b"", b"", 0, 0, 0.0
        )
    (number, status, attempts, most, due, accepted, expires, keep, until, ended) = values[:10]
    owner, service, called, key, digest = values[10:]
    outcome = None if status is None else StoredOutcome(status, [], b"", ended, until)
    return StoredRequest(
        number,
        owner,
        service,
        called,
        [],
        b"",
        accepted,
        expires,
        keep,
        key or b"",
        digest or b"",
        attempts,
        most,
        due,
        outcome,
    )
