"""Power cuts below Python's own sqlite3, by a log of its system calls.

    python -m tests.durable.calls --cuts 10000 --seed 1

The same work and the same cuts as `power`. A library for LD_PRELOAD (calls.c) logs what SQLite
gives to the kernel, so nothing of SQLite is replaced. apsw is not loaded. A second process does the
work; what it has said is a file of its folder too, so it stands in the log at its place. In half of
the histories the work begins in a process that is killed, and the second one goes on.
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
from pathlib import Path
from random import Random
from typing import Any, Final

from majordomus.durable.sqlite import SqliteStore
from majordomus.durable.store import Numbered, write
from tests.durable import history
from tests.durable.history import Operation

SOURCE: Final = Path(__file__).with_name("calls.c")
HEAD: Final = struct.Struct("<cHqI")
MARKS: Final = "marks"
CUTS_OF_A_TRACE: Final = 200
CONTROLS: Final = ("full", "normal", "early")
CHECKPOINTS: Final = (4, 20, 4000)


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
        store = live(folder, batches, random, checkpoint, control)
        if random.random() < 0.5:
            store.close()
        store.abandon()


def live(
    folder: Path, batches: list[list[Numbered]], random: Random, checkpoint: int, control: str
) -> SqliteStore:
    """Open the store and write the batches; return the store."""
    marks = os.open(folder / MARKS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def say(*mark: Any) -> None:
        os.write(marks, pickle.dumps(mark))

    store = SqliteStore(folder / "store.db", ballast=0, checkpoint=checkpoint)
    say("seen", history.reading(store))
    if control == "normal":
        store._sql.execute("pragma synchronous = normal")
    for batch in batches:
        say("issued", batch)
        if control == "early":
            say("stored", batch)
        write(store, batch)
        if control != "early":
            say("stored", batch)
        store.maintain(idle=control != "normal" and random.random() < 0.2)
    os.close(marks)
    return store


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


def traces(
    library: Path, base: Path, first: int, count: int, control: str
) -> list[list[Operation]]:
    """The histories of so many stores."""
    log = base / "log"
    folder = base / "stores"
    folder.mkdir()
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "CALLS_LOG": str(log),
        "CALLS_FOLDER": str(folder),
    }
    command = [sys.executable, "-m", "tests.durable.calls", "--work", str(folder), control]
    command += ["--seed", str(first), "--stores", str(count)]
    subprocess.run(command, check=True, env=environment)
    found = operations(log.read_bytes())
    shutil.rmtree(folder)
    log.unlink()
    return [found[seed] for seed in range(first, first + count)]


def cuts(count: int, seed: int, control: str = "full") -> Counter[str]:
    """Cut the power so often; return how often what was found."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    found: Counter[str] = Counter()
    stores = -(-count // CUTS_OF_A_TRACE)
    with tempfile.TemporaryDirectory(dir=memory) as made:
        base = Path(made).resolve()
        library = build(base)
        files = base / "files"
        files.mkdir()
        for number, log in enumerate(traces(library, base, seed, stores, control)):
            of_this = min(CUTS_OF_A_TRACE, count - found.total())
            found += history.cut(log, of_this, Random(seed + number), files)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=10_000)
    parser.add_argument("--controls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stores", type=int, default=1)
    parser.add_argument("--work", nargs=2, metavar=("FOLDER", "CONTROL"), help="be the work")
    options = parser.parse_args()
    sys.modules["apsw"] = None  # type: ignore[assignment]  # a process has one copy of SQLite
    if options.work:
        work(Path(options.work[0]), options.seed, options.stores, options.work[1])
        return
    logging.disable(logging.WARNING)  # each cut is reported
    for control in CONTROLS:
        began = time.perf_counter()
        count = options.cuts if control == "full" else options.controls
        if not count:
            continue
        found = cuts(count, options.seed, control)
        shown = ", ".join(f"{number:,} {what}" for what, number in sorted(found.items()))
        last = options.seed + (count - 1) // CUTS_OF_A_TRACE
        print(
            f"{control:>7}: {count:,} cuts, seeds {options.seed} to {last}: {shown}"
            f" ({time.perf_counter() - began:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
