"""The n-th call to the disk fails, for every n: the store ends, and has lost nothing that it said.

    python -m tests.durable.faults

A file layer of apsw lets one write, truncation or sync fail with an I/O error, or with "no space".
After an I/O error the store raises StoreError and is abandoned; it is opened again, and everything
that was acknowledged before is there. After "no space" the ballast is deleted, new rows are
refused, and outcomes are stored.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import apsw

from majordomus.core.broker.durable.records import FULL, Append, Remove
from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import Numbered, StoreError, write
from tests.durable.logged import fast_folder
from tests.durable.samples import end, row

VFS: Final = "faulty"
CODES: Final = {apsw.IOError: apsw.SQLITE_IOERR, apsw.FullError: apsw.SQLITE_FULL}


class Fault:
    """The call that fails.

    at: its number, from 1; 0 for none. error: what it raises. calls: calls so far.
    """

    def __init__(self, at: int = 0, error: type[Exception] = apsw.IOError) -> None:
        self.at = at
        self.error = error
        self.calls = 0

    def call(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            raised: Any = self.error("injected")
            raised.result = raised.extendedresult = CODES[self.error]
            raise raised


class FaultyFile(apsw.VFSFile):
    """A file of which one call fails."""

    def __init__(self, fault: Fault, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._fault = fault

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._fault.call()
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._fault.call()
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._fault.call()
        super().xSync(flags)


class FaultyVfs(apsw.VFS):
    """The file layer of this system, with a fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(VFS, "")
        self.fault = fault

    def xOpen(self, name: Any, flags: list[int]) -> FaultyFile:  # noqa: N802
        return FaultyFile(self.fault, name, flags)


def batches() -> list[list[Numbered]]:
    """A small work: rows come, get outcomes and are deleted; one of them is larger than a page."""
    work: list[list[Numbered]] = []
    for n in range(1, 9):
        batch: list[Numbered] = [(0, Append(row(n, body=[bytes(n * 1500)], key=b"k%d" % n)))]
        if n > 1:
            batch.append((0, end(n - 1)))
        if n > 3:
            batch.append((0, Remove(n - 3)))
        work.append(batch)
    return work


def run(folder: Path, fault: Fault) -> str:
    """Do the work until the fault; judge what is there after a restart.

    Returns what happened: "done", "failed", "not opened". Raises: AssertionError.
    """
    path = folder / "store.db"
    vfs = FaultyVfs(fault)
    acknowledged: list[Numbered] = []
    unknown: list[Numbered] = []
    happened = "not opened"
    try:
        store = SqliteStore(path, ballast=1 << 16, checkpoint=6, vfs=VFS)
        happened = "done"
        try:
            for batch in batches():
                unknown = batch
                answers = dict(write(store, batch))
                refused = any(answer is FULL for answer in answers.values())
                acknowledged += [one for one in batch if not (refused and _is_append(one))]
                unknown = []
                store.maintain(idle=False)
        except StoreError:
            happened = "failed"
        store.abandon()
    except StoreError:
        assert fault.at, "the store does not open without a fault"
    finally:
        vfs.unregister()
    _judge(path, acknowledged, unknown)
    return happened


def _is_append(one: Numbered) -> bool:
    return isinstance(one[1], Append)


def _judge(path: Path, acknowledged: list[Numbered], unknown: list[Numbered]) -> None:
    store = SqliteStore(path, ballast=0)
    try:
        assert store.integrity() == []
        found = {number: store.read([number])[0] for number in store.numbers(0, 1000)}
    finally:
        store.close()
    rows = {one.row.number for _, one in acknowledged if isinstance(one, Append)}
    gone = {one.number for _, one in acknowledged if isinstance(one, Remove)}
    maybe = {one.number for _, one in unknown if isinstance(one, Remove)}
    new = {one.row.number for _, one in unknown if isinstance(one, Append)}
    assert rows - gone - maybe <= set(found) <= (rows | new) - gone
    for _, one in acknowledged:
        if not isinstance(one, Append | Remove) and one.number in found:
            row_found = found[one.number]
            assert row_found is not None
            assert row_found.outcome == one.outcome


def one(at: int, error: type[Exception]) -> str:
    """Let the call number `at` of the work fail; return what happened. Raises: AssertionError."""
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        return run(Path(folder), Fault(at, error))


def every(error: type[Exception]) -> Counter[str]:
    """Let each call of the work fail once; return how often what happened."""
    found: Counter[str] = Counter()
    at = 0
    while True:
        at += 1
        fault = Fault(at, error)
        with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
            found[run(Path(folder), fault)] += 1
        if fault.calls < at:
            return found


def main() -> None:
    for error in (apsw.IOError, apsw.FullError):
        found = every(error)
        shown = ", ".join(f"{count} {what}" for what, count in sorted(found.items()))
        print(f"{error.__name__} at each of {found.total()} calls: {shown}; nothing lost")


if __name__ == "__main__":
    main()
