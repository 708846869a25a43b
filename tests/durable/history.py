"""What a store has done to its files and what it has said meanwhile, and what a power cut leaves.

A history is a list of operations in their order:

    ("write", name, offset, data)    ("truncate", name, size)    ("sync", name)
    ("delete", name)                 ("folder",)                 the names of the folder are synced
    ("issued", batch)                ("stored", batch)           the store has acknowledged it
    ("seen", reading)                the store is open, and has this

A cut is a place in it. What was synced before is there. Of what was not synced of a file, nothing
is there, or everything, or each sector of 512 bytes is kept, dropped or garbled, at random, and
each truncation is done or not. The name of a file is there when the folder was synced since, else
perhaps. The files are made so, and the store is opened as after a restart. Judged:

* lost: a row, or an outcome, that was acknowledged before the cut and is not there;
* corrupt: the store does not open, a checksum is wrong, or a row is there that nobody wrote;
* again: the secret is another one, or the epoch was that of a store that was open before.

What an opened store has is acknowledged, be it by a recovery.

Cuts of one history are made in its order, so that it is replayed once.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from unittest import mock

from majordomus.core.broker.durable.records import (
    Append,
    Complete,
    Remove,
    StoredRequest,
    StoreState,
)
from majordomus.durable import rows, sqlite
from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import Numbered, StoreError
from tests.durable.samples import end, row

SECTOR: Final = 512
NOTHING: Final = 0.2
EVERYTHING: Final = 0.1
"""How often what was not synced of a file is not there at all, and how often it is there whole."""
BATCHES: Final = 15
TURNS: Final = 4
"""Fewer batches than this has a life after a cut."""
CUTS_OF_A_TRACE: Final = 200
CUTS_OF_A_LIFE: Final = 4
ANOTHER_LIFE: Final = 1 / 6
"""How often the files of a later cut have another life."""
SIZES: Final = (10, 100, 1500)
EVERY_ROW: Final = "select * from request order by number"

Operation = tuple[Any, ...]


class Reading(NamedTuple):
    """What an open store has."""

    rows: dict[int, StoredRequest]
    secret: bytes
    epoch: int


def work(
    random: Random, count: int = BATCHES, seen: Iterable[StoredRequest] = (), last: int = 0
) -> list[list[Numbered]]:
    """The batches of a store at work: rows come, get outcomes, and are deleted. `seen`: the rows
    that it has. `last`: the last number that was ever given."""
    batches: list[list[Numbered]] = []
    open_rows = [one.number for one in seen if one.outcome is None]
    ended = [one.number for one in seen if one.outcome is not None]
    for _ in range(count):
        batch: list[Numbered] = []
        fresh: list[int] = []
        for _ in range(random.randrange(1, 10)):
            last += 1
            body = [random.randbytes(random.choice(SIZES))]
            key = b"key %d" % last if random.random() < 0.3 else b""
            batch.append((0, Append(row(last, body=body, key=key, digest=key and b"d"))))
            fresh.append(last)
        for number in random.sample(ended, len(ended) // 2):
            ended.remove(number)
            batch.append((0, Remove(number)))
        for number in random.sample(open_rows, len(open_rows) // 2):
            open_rows.remove(number)
            ended.append(number)
            batch.append((0, end(number)))
        open_rows += fresh
        batches.append(batch)
    return batches


class Ledger:
    """What was issued and what was acknowledged so far.

    is_open: the store has been opened since the last cut.
    wrong: what was found wrong when it was opened before; "" for nothing.
    """

    def __init__(self) -> None:
        self.rows: dict[int, StoredRequest] = {}
        self.ends: dict[int, Complete] = {}
        self.removed: set[int] = set()
        self.stored: set[int] = set()
        self.finished: set[int] = set()
        self.gone: set[int] = set()
        self.secret = b""
        self.epoch = 0
        self.is_open = False
        self.wrong = ""

    def copy(self) -> Ledger:
        """A ledger of its own for what comes after a cut here."""
        other = Ledger()
        other.rows, other.ends = self.rows.copy(), self.ends.copy()
        other.removed, other.stored = self.removed.copy(), self.stored.copy()
        other.finished, other.gone = self.finished.copy(), self.gone.copy()
        other.secret, other.epoch, other.wrong = self.secret, self.epoch, self.wrong
        return other

    def see(self, found: Reading) -> None:
        """Note what an opened store has: nothing else of what was issued may come back."""
        verdict = self.judge(found)
        self.wrong = "" if verdict == "good" else verdict
        self.stored = set(found.rows)
        self.removed = self.rows.keys() - found.rows.keys()
        self.gone = self.removed.copy()
        self.finished = {number for number, one in found.rows.items() if one.outcome is not None}
        self.ends = {number: end for number, end in self.ends.items() if number in self.finished}
        self.secret, self.epoch = found.secret, found.epoch
        self.is_open = True

    def note(self, kind: str, batch: list[Numbered]) -> None:
        """Note a batch that was issued, or stored."""
        stored = kind == "stored"
        for _, one in batch:
            if isinstance(one, Append):
                self.rows[one.row.number] = one.row
                if stored:
                    self.stored.add(one.row.number)
            elif isinstance(one, Complete):
                self.ends[one.number] = one
                if stored:
                    self.finished.add(one.number)
            elif isinstance(one, Remove):
                self.removed.add(one.number)
                if stored:
                    self.gone.add(one.number)

    def judge(self, reading: Reading) -> str:
        """Return "good", "lost", "corrupt" or "again"."""
        if self.wrong:
            return self.wrong
        found = reading.rows
        if (self.stored - self.removed) - set(found) or self.gone & set(found):
            return "lost"
        for number, one in found.items():
            if number not in self.rows:
                return "corrupt"
            if one.outcome is None:
                if one != self.rows[number]:
                    return "corrupt"
                if number in self.finished:
                    return "lost"
                continue
            if one.replace(outcome=None, attempts=0) != self.rows[number]:
                return "corrupt"
            if number not in self.ends or one.outcome != self.ends[number].outcome:
                return "corrupt"
        if reading.epoch <= self.epoch or (self.secret and reading.secret != self.secret):
            return "again"
        return "good"


class Disk:
    """The files as they are surely on the disk, and what is on its way there. `files`: what a cut
    has left."""

    def __init__(self, files: Mapping[str, bytes] = MappingProxyType({})) -> None:
        self.synced = {name: bytearray(content) for name, content in files.items()}
        self.pending: dict[str, list[Operation]] = {}
        self.named = set(files)
        self.deleted: set[str] = set()

    def apply(self, operation: Operation) -> None:
        """One operation without a power cut."""
        kind = operation[0]
        if kind in ("write", "truncate"):
            self.pending.setdefault(operation[1], []).append(operation)
            self.deleted.discard(operation[1])
        elif kind == "sync":
            content = self.synced.setdefault(operation[1], bytearray())
            for one in self.pending.pop(operation[1], ()):
                apply(content, one)
        elif kind == "delete":
            self.deleted.add(operation[1])
        elif kind == "folder":
            for name in self.deleted:
                self.synced.pop(name, None)
                self.pending.pop(name, None)
            self.named = (self.named | set(self.synced) | set(self.pending)) - self.deleted
            self.deleted.clear()

    def after_cut(self, random: Random) -> dict[str, bytes]:
        """The files after a power cut now."""
        files: dict[str, bytes] = {}
        for name in sorted(self.synced.keys() | self.pending.keys()):
            if name in self.deleted and random.random() < 0.5:
                continue
            if name not in self.named and random.random() < 0.5:
                continue  # the name of the new file is not on the disk
            content = self.synced.get(name, b"")
            waiting = self.pending.get(name)
            if waiting and (chance := random.random()) > NOTHING:
                content = bytearray(content)
                change = apply if chance < NOTHING + EVERYTHING else partial(maybe, random)
                for one in waiting:
                    change(content, one)
            files[name] = bytes(content)
        return files


def maybe(random: Random, content: bytearray, operation: Operation) -> None:
    """Apply what was not synced: a part of it, and garbled."""
    if operation[0] == "truncate":
        if random.random() < 0.5:
            apply(content, operation)
        return
    _, name, offset, data = operation
    for start in range(0, len(data), SECTOR):
        chance = random.random()
        sector = data[start : start + SECTOR]
        if chance < 0.5:
            apply(content, ("write", name, offset + start, sector))
        elif chance < 0.6:
            noise = random.randbytes(len(sector))
            apply(content, ("write", name, offset + start, noise))


def apply(content: bytearray, operation: Operation) -> None:
    """Apply a write or a truncation."""
    if operation[0] == "truncate":
        del content[operation[2] :]
        return
    _, _, offset, data = operation
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


checked_row = lru_cache(2000)(rows.row_of)
"""The cuts of one history have the same values again and again: each is checked once."""


class NoLock:
    """A lock that locks nothing."""

    def __init__(self, path: Path) -> None:
        """Take the place of a `FileLock`."""

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def cheap_openings() -> Iterator[None]:
    """Leave out what an opening does for others than the rows: half of the time of a cut. The disk
    is not looked at, the file is not locked against other processes, and pages that are rolled back
    are not counted. `read` checks more than the check that is left out."""
    quiet = StoreState()
    with (
        mock.patch.object(sqlite, "check_disk", lambda _: None),
        mock.patch.object(sqlite, "FileLock", NoLock),
        mock.patch.object(sqlite, "_check", lambda *_: None),
        mock.patch.object(sqlite.wal, "frames", lambda *_: 1),
        mock.patch.object(SqliteStore, "_look", lambda store: setattr(store, "_state", quiet)),
    ):
        yield


def reading(store: SqliteStore) -> Reading:
    """What a store has."""
    rows = {one.number: one for one in map(checked_row, store._sql.execute(EVERY_ROW))}
    return Reading(rows, store.secret, store.epoch)


def read(path: Path) -> Reading:
    """Open the store as after a restart; return what it has. Raises: StoreError."""
    store = SqliteStore(path, ballast=0)
    try:
        if problems := store.integrity():
            raise StoreError(problems[0])
        return reading(store)
    finally:
        store.abandon()


@contextmanager
def written(files: dict[str, bytes], folder: Path) -> Iterator[None]:
    """The files stand in a folder, which is emptied at the end."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        yield
    finally:
        for name in os.listdir(folder):  # noqa: PTH208
            (folder / name).unlink()


def judged(files: dict[str, bytes], ledger: Ledger, folder: Path) -> str:
    """Open what a cut has left; return what `Ledger.judge` says of it."""
    with written(files, folder):
        try:
            return ledger.judge(read(folder / "store.db"))
        except StoreError:
            return "corrupt"


def cuts(
    operations: list[Operation], count: int, random: Random, disk: Disk, ledger: Ledger
) -> Iterator[dict[str, bytes]]:
    """Cut the power at so many places of a history; yield the files of each. `ledger` is then as it
    was at the cut."""
    places = sorted(random.randrange(1, len(operations) + 1) for _ in range(count))
    done = 0
    for place in places:
        for operation in operations[done:place]:
            if operation[0] in ("issued", "stored"):
                ledger.note(*operation)
            elif operation[0] == "seen":
                ledger.see(operation[1])
            else:
                disk.apply(operation)
        done = place
        yield disk.after_cut(random)


def cut(operations: list[Operation], count: int, random: Random, folder: Path) -> Counter[str]:
    """Cut the power at so many places of a history; return how often what was found."""
    ledger = Ledger()
    left = cuts(operations, count, random, Disk(), ledger)
    return Counter(judged(files, ledger, folder) for files in left)


def report(what: str, count: int, seed: int, began: float, found: Counter[str]) -> None:
    """Print what so many cuts have found."""
    shown = ", ".join(f"{number:,} {verdict}" for verdict, number in sorted(found.items()))
    last = seed + (count - 1) // CUTS_OF_A_TRACE
    took = time.perf_counter() - began
    print(f"{what}: {count:,} cuts, seeds {seed} to {last}: {shown} ({took:.0f} s)", flush=True)
