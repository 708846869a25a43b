"""Power cuts below Python's own sqlite3, by a log of its system calls.

    python -m tests.durable.calls --cuts 10000 --recoveries 10000 --seed 1

The same work and the same cuts as `power`. A library for LD_PRELOAD (calls.c) logs what SQLite
gives to the kernel, so nothing of SQLite is replaced. apsw is not loaded. A second process does the
work; what it has said is a file of its folder too, so it stands in the log at its place. In half of
the histories the work begins in a process that is killed, and the second one goes on. The cuts of
recoveries are those of `recovery`; the second lives of some stores are in one process.
"""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import Numbered, StoreError, write
from tests.durable import history
from tests.durable.history import (
    ANOTHER_LIFE,
    CUTS_OF_A_LIFE,
    CUTS_OF_A_TRACE,
    TURNS,
    Disk,
    Ledger,
    Operation,
    Reading,
)

SOURCE: Final = Path(__file__).with_name("calls.c")
HEAD: Final = struct.Struct("<cHqI")
MARKS: Final = "marks"
CONTROLS: Final = ("full", "normal", "early")
CONTROLS_OF_RECOVERIES: Final = (*CONTROLS, "unsynced")
CHECKPOINTS: Final = (4, 20, 4000)
STORES_AT_ONCE: Final = 10
NUMBERS_OF_A_LIFE: Final = 1000


def compiler() -> str | None:
    """The C compiler of this machine; None without one."""
    return shutil.which(os.environ.get("CC", "cc"))


def build(folder: Path) -> Path:
    """Compile the library into `folder`."""
    library = folder / "calls.so"
    command = [compiler() or "cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    subprocess.run([*command, "-ldl"], check=True)
    return library


# ── the process that works ────────────────────────────────────────────────────────────────────────


def work(base: Path, first: int, count: int, control: str) -> None:
    """Let one store after the other work, each in a folder of its own."""
    for seed in range(first, first + count):
        folder = base / str(seed)
        folder.mkdir()
        random = Random(seed)
        checkpoint = CHECKPOINTS[-1] if control == "normal" else random.choice(CHECKPOINTS)
        killed = random.randrange(2 * history.BATCHES) if control != "normal" else -1
        batches = history.work(random)
        if 0 < killed < len(batches):
            if not (child := os.fork()):
                live(folder, batches[:killed], random, checkpoint, control)
                os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(child, 0)
            batches = batches[killed:]
        end(live(folder, batches, random, checkpoint, control), random)


def work_again(base: Path, first: int, count: int, control: str, lives: int) -> None:
    """Let one store after the other work on what a cut has left in its folder, as `lives` others
    did before it."""
    for number in range(count):
        folder = base / str(number)
        random = Random(f"{first} {lives} {number}")
        checkpoint = CHECKPOINTS[-1] if control == "normal" else random.choice(CHECKPOINTS)
        try:
            store, seen = begin(folder, checkpoint, control)
            last = lives * NUMBERS_OF_A_LIFE
            batches = history.work(random, random.randrange(TURNS), seen.rows.values(), last)
            turns(store, folder, batches, random, control)
            end(store, random)
        except StoreError:
            continue


def live(
    folder: Path, batches: list[list[Numbered]], random: Random, checkpoint: int, control: str
) -> SqliteStore:
    """Open the store and write the batches; return the store."""
    store, _ = begin(folder, checkpoint, control)
    turns(store, folder, batches, random, control)
    return store


def begin(folder: Path, checkpoint: int, control: str) -> tuple[SqliteStore, Reading]:
    """Open the store; return it, and what it has. Raises: StoreError."""
    store = SqliteStore(folder / "store.db", ballast=0, checkpoint=checkpoint)
    seen = history.reading(store)
    say(folder, "seen", seen)
    if control == "normal":
        store._sql.execute("pragma synchronous = normal")
    return store, seen


def turns(
    store: SqliteStore, folder: Path, batches: list[list[Numbered]], random: Random, control: str
) -> None:
    """Write the batches."""
    for batch in batches:
        say(folder, "issued", batch)
        if control == "early":
            say(folder, "stored", batch)
        write(store, batch)
        if control != "early":
            say(folder, "stored", batch)
        store.maintain(idle=control != "normal" and random.random() < 0.2)


def say(folder: Path, *mark: Any) -> None:
    """Put a mark into the log, at its place among the system calls."""
    marks = os.open(folder / MARKS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(marks, pickle.dumps(mark))
    os.close(marks)


def end(store: SqliteStore, random: Random) -> None:
    """Close the store, or abandon it."""
    if random.random() < 0.5:
        store.close()
    store.abandon()


# ── the log ───────────────────────────────────────────────────────────────────────────────────────


def operations(log: bytes) -> dict[int, list[Operation]]:
    """The history of each store, by its seed."""
    found: dict[int, list[Operation]] = defaultdict(list)
    at = 0
    while at < len(log):
        kind, length, offset, size = HEAD.unpack_from(log, at)
        at += HEAD.size
        folder, _, name = log[at : at + length].decode().partition("/")
        data = log[at + length : at + length + size]
        at += length + size
        of = found[int(folder)]
        if name == MARKS:
            of.append(pickle.loads(data))  # noqa: S301 (this program has written it)
        elif not name and kind == b"s":
            of.append(("folder",))
        elif kind == b"w":
            of.append(("write", name, offset, data))
        elif kind == b"t":
            of.append(("truncate", name, offset))
        elif kind == b"s":
            of.append(("sync", name))
        elif kind == b"d":
            of.append(("delete", name))
    return found


def logged(
    library: Path, base: Path, first: int, count: int, control: str, lives: int = 0
) -> dict[int, list[Operation]]:
    """Let another process do the work in the folder `stores`; return the histories."""
    log = base / "log"
    folder = base / "stores"
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "CALLS_LOG": str(log),
        "CALLS_FOLDER": str(folder),
    }
    command = [sys.executable, "-m", "tests.durable.calls", "--work", str(folder), control]
    command += ["--seed", str(first), "--stores", str(count), "--lives", str(lives)]
    subprocess.run(command, check=True, env=environment)
    found = operations(log.read_bytes())
    shutil.rmtree(folder)
    log.unlink()
    return found


def traces(
    library: Path, base: Path, first: int, count: int, control: str
) -> list[list[Operation]]:
    """The histories of so many stores."""
    (base / "stores").mkdir()
    found = logged(library, base, first, count, control)
    return [found[seed] for seed in range(first, first + count)]


@contextmanager
def place() -> Iterator[tuple[Path, Path, Path]]:
    """The library, a folder for it, and one for the files of cuts."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as made:
        base = Path(made).resolve()
        files = base / "files"
        files.mkdir()
        yield build(base), base, files


def cuts(count: int, seed: int, control: str = "full") -> Counter[str]:
    """Cut the power so often; return how often what was found."""
    found: Counter[str] = Counter()
    stores = -(-count // CUTS_OF_A_TRACE)
    with place() as (library, base, files):
        for number, log in enumerate(traces(library, base, seed, stores, control)):
            of_this = min(CUTS_OF_A_TRACE, count - found.total())
            found += history.cut(log, of_this, Random(seed + number), files)
    return found


class Left(NamedTuple):
    """What a cut has left, what is known then, and how often its recovery is cut."""

    files: dict[str, bytes]
    ledger: Ledger
    count: int


def recoveries(count: int, seed: int, control: str = "full") -> Counter[str]:
    """Cut the power during so many recoveries; return how often what was found."""
    found: Counter[str] = Counter()
    with place() as (library, base, files):
        while count > 0:
            stores = min(STORES_AT_ONCE, -(-count // CUTS_OF_A_TRACE))
            random = Random(seed)
            left: list[Left] = []
            for log in traces(library, base, seed, stores, "full"):
                left += first_cuts(log, min(CUTS_OF_A_TRACE, count), random)
                count -= CUTS_OF_A_TRACE
            lives = 0
            while left:
                lives += 1
                logs = second_lives(library, base, left, seed, control, lives)
                left = [
                    other
                    for one, log in zip(left, logs, strict=True)
                    for other in cut_again(one, log, random, files, found)
                ]
            seed += stores
    return found


def first_cuts(log: list[Operation], count: int, random: Random) -> Iterator[Left]:
    """Cut a history, for so many cuts of the recoveries."""
    ledger = Ledger()
    firsts = -(-count // CUTS_OF_A_LIFE)
    for files in history.cuts(log, firsts, random, Disk(), ledger):
        yield Left(files, ledger.copy(), min(CUTS_OF_A_LIFE, count))
        count -= CUTS_OF_A_LIFE


def second_lives(
    library: Path, base: Path, left: list[Left], seed: int, control: str, lives: int
) -> list[list[Operation]]:
    """Let a store work on each of what cuts have left; return the histories."""
    for number, one in enumerate(left):
        folder = base / "stores" / str(number)
        folder.mkdir(parents=True)
        for name, content in one.files.items():
            (folder / name).write_bytes(content)
    found = logged(library, base, seed, len(left), control, lives)
    logs = [found[number] for number in range(len(left))]
    return [without_syncs(log) for log in logs] if control == "unsynced" else logs


def without_syncs(log: list[Operation]) -> list[Operation]:
    """Leave out the syncs of the file of the database until the store is open."""
    opened = next((at for at, one in enumerate(log) if one[0] == "seen"), len(log))
    return [one for one in log[:opened] if one != ("sync", "store.db")] + log[opened:]


def cut_again(
    left: Left, log: list[Operation], random: Random, folder: Path, found: Counter[str]
) -> Iterator[Left]:
    """Cut the history of a second life; yield what is left for another one."""
    if not any(one[0] == "seen" for one in log):
        found["corrupt"] += left.count
        return
    ledger = left.ledger
    for files in history.cuts(log, left.count, random, Disk(left.files), ledger):
        if random.random() < ANOTHER_LIFE:
            yield Left(files, ledger.copy(), 1)
        else:
            found[history.judged(files, ledger, folder)] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=10_000)
    parser.add_argument("--recoveries", type=int, default=10_000)
    parser.add_argument("--controls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stores", type=int, default=1)
    parser.add_argument("--lives", type=int, default=0)
    parser.add_argument("--work", nargs=2, metavar=("FOLDER", "CONTROL"), help="be the work")
    options = parser.parse_args()
    sys.modules["apsw"] = None  # type: ignore[assignment]  # a process has one copy of SQLite
    logging.disable(logging.WARNING)  # each cut is reported
    if options.work:
        base, control = Path(options.work[0]), options.work[1]
        if options.lives:
            work_again(base, options.seed, options.stores, control, options.lives)
        else:
            work(base, options.seed, options.stores, control)
        return
    for control in CONTROLS:
        began = time.perf_counter()
        count = options.cuts if control == "full" else min(options.cuts, options.controls)
        if count:
            found = cuts(count, options.seed, control)
            history.report(f"{control:>7}", count, options.seed, began, found)
    for control in CONTROLS_OF_RECOVERIES:
        began = time.perf_counter()
        wanted = options.recoveries
        count = wanted if control == "full" else min(wanted, options.controls)
        if count:
            found = recoveries(count, options.seed, control)
            history.report(f"{control:>8}, in a recovery", count, options.seed, began, found)


if __name__ == "__main__":
    main()
