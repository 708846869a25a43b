"""One flipped bit in the files of a store: right data, an explicit error, or a reported rolled-back
end of the log.

    python -m tests.durable.flips --flips 100000 --seed 1

Half of the bits are of a store that was closed, half of a file and its log after a crash. Judged at
an open and a read of every row, by its number, by its key and by a scan; the state of attempts
alone has no checksum.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import NamedTuple

from majordomus.core.broker.durable.records import Append, StoredRequest
from majordomus.durable.queries import QUERIES
from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import StoreError, write
from tests.durable.logged import fast_folder
from tests.durable.samples import end, row

ROWS = 20
Files = dict[str, bytes]


class WrongError(AssertionError):
    """A flipped bit has changed data, and nothing says so."""


def stores(folder: Path) -> tuple[Files, Files]:
    """The files of a store that was closed, and of one that has crashed."""
    path = folder / "store.db"
    store = SqliteStore(path, ballast=0)
    for number in range(1, ROWS + 1):
        write(store, [(0, Append(row(number, key=b"k%d" % number)))])
    write(store, [(0, end(number)) for number in range(1, ROWS // 2)])
    crashed = {name: (folder / name).read_bytes() for name in ("store.db", "store.db-wal")}
    store.close()
    return {"store.db": path.read_bytes()}, crashed


class Content(NamedTuple):
    """What a store has after its opening.

    identity: its secret and its epoch. rolled_back: pages of its log.
    """

    rows: dict[int, StoredRequest | None]
    identity: tuple[bytes, int]
    rolled_back: int


def read(path: Path) -> Content:
    """Open a store and read everything. Raises: StoreError, WrongError."""
    store = SqliteStore(path, ballast=0)
    try:
        rows = {number: store.read([number])[0] for number in store.numbers(0, 1000)}
        compare_indexes(store, rows)
        return Content(rows, (store.secret, store.epoch), store.rolled_back)
    finally:
        store.abandon()


def compare_indexes(store: SqliteStore, rows: dict[int, StoredRequest | None]) -> None:
    """Find each row by its key, and the open ones by a scan. Raises: WrongError."""
    for number, one in rows.items():
        assert one is not None
        found = store._sql.execute(QUERIES["by_key"], (one.owner, one.service, one.key))
        if [values[0] for values in found] != [number]:
            raise WrongError(f"row {number} is not found by its key")
    if [one.number for one in store.scan(0, 1000)] != [
        number for number, one in rows.items() if one is not None and one.outcome is None
    ]:
        raise WrongError("a scan finds other rows without an outcome")


def bare(one: StoredRequest | None) -> object:
    """A row without the state of its attempts."""
    return one and one.replace(attempts=0, most=0, due=0.0)


def judge(path: Path, expected: Content) -> str:
    """Return "right", "error" or "rolled back". Raises: WrongError."""
    try:
        found = read(path)
    except StoreError:
        return "error"
    if found.identity != expected.identity:
        raise WrongError("the secret or the epoch has changed, and nothing says so")
    if found.rolled_back:
        for number, one in found.rows.items():
            whole = expected.rows[number]
            before = whole and whole.replace(outcome=None)
            if bare(one) not in (bare(whole), bare(before)):
                raise WrongError(f"row {number} is another one")
        return "rolled back"
    if {number: bare(one) for number, one in found.rows.items()} != {
        number: bare(one) for number, one in expected.rows.items()
    }:
        raise WrongError("rows are missing or changed, and nothing says so")
    return "right"


def flips(count: int, seed: int) -> Counter[str]:
    """Flip one bit so often, each time in good files; return how often what was found.

    Raises: WrongError.
    """
    random = Random(seed)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=fast_folder()) as made:
        folder = Path(made)
        kinds = stores(folder)
        expected = read(folder / "store.db")
        for number in range(count):
            files = kinds[number % 2]
            name = random.choices(list(files), [len(one) for one in files.values()])[0]
            damaged = bytearray(files[name])
            at, bit = random.randrange(len(damaged)), random.randrange(8)
            damaged[at] ^= 1 << bit
            for path in folder.iterdir():
                path.unlink()
            for one, content in {**files, name: bytes(damaged)}.items():
                (folder / one).write_bytes(content)
            try:
                found[judge(folder / "store.db", expected)] += 1
            except WrongError as error:
                where = f"bit {bit} of byte {at} of {name}, seed {seed}"
                raise WrongError(f"{error}: {where}") from error
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    began = time.perf_counter()
    found = flips(options.flips, options.seed)
    shown = ", ".join(f"{number:,} {what}" for what, number in sorted(found.items()))
    seconds = time.perf_counter() - began
    print(f"{options.flips:,} bit flips, seed {options.seed}: {shown} ({seconds:.0f} s)")


if __name__ == "__main__":
    main()
