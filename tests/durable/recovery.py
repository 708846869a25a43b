"""A power cut while the recovery after another one is under way.

    python -m tests.durable.power --cuts 0 --recoveries 100000 --seed 1

The files that a cut has left are opened on the logged file layer, in a second life: what SQLite
recovers, the checks, the epoch, the checkpoints and some first turns of work are logged as well. It
is cut at random places, and of the files that this leaves one in six has a third life, and so on.
What the opened store had is acknowledged from then on: the rows and outcomes that the recovery has
found, and the absence of those that it has rolled back.

The first life is sound in the negative controls too. What comes after the first cut has the fault,
so only a later cut can find it:

* "normal", "early": as in `power`, from the first turn after the recovery on;
* "unsynced": the recovery does not sync the file of the database, and truncates the log.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Final

from majordomus.durable.store import StoreError
from tests.durable import history
from tests.durable.history import ANOTHER_LIFE, CUTS_OF_A_LIFE, TURNS, Disk, Ledger, Operation
from tests.durable.logged import CHECKPOINTS, logged, opened, turn

CONTROLS: Final = ("full", "normal", "early", "unsynced")


class Recoveries:
    """Cuts of recoveries, and what they have found.

    Each has its last cut in the "recovery", until the store is open, or in the "turns" behind it.
    places: how often which. lives: how many have had so many cuts.
    """

    def __init__(self, folder: Path, control: str = "full") -> None:
        self.found: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self.lives: Counter[int] = Counter()
        self._folder = folder
        self._control = control

    def cut(self, operations: list[Operation], count: int, random: Random) -> None:
        """Cut a history, and the recoveries after it at so many places."""
        firsts = -(-count // CUTS_OF_A_LIFE)
        ledger = Ledger()
        for files in history.cuts(operations, firsts, random, Disk(), ledger):
            of_this = min(CUTS_OF_A_LIFE, count)
            count -= of_this
            self._cut_again(files, ledger.copy(), of_this, 2, random)

    def _cut_again(
        self, files: dict[str, bytes], ledger: Ledger, count: int, number: int, random: Random
    ) -> None:
        """Let a store live on the files that a cut has left; make the next one, the `number`th, at
        so many places."""
        try:
            log = self._life(files, ledger, random)
        except StoreError:
            self.found["corrupt"] += count
            return
        for left in history.cuts(log, count, random, Disk(files), ledger):
            if random.random() < ANOTHER_LIFE:
                self._cut_again(left, ledger.copy(), 1, number + 1, random)
                continue
            with history.cheap_openings():
                self.found[history.judged(left, ledger, self._folder)] += 1
            self.places["turns" if ledger.is_open else "recovery"] += 1
            self.lives[number] += 1

    def _life(self, files: dict[str, bytes], ledger: Ledger, random: Random) -> list[Operation]:
        """Open the store and let it work for some turns; return the log. Raises: StoreError."""
        control = self._control
        checkpoint = CHECKPOINTS[-1] if control == "normal" else random.choice(CHECKPOINTS)
        with history.written(files, self._folder), logged() as vfs:
            vfs.unsynced = "store.db" if control == "unsynced" else ""
            store = opened(self._folder, checkpoint, vfs.log)
            vfs.unsynced = ""
            try:
                if control == "normal":
                    store._sql.execute("pragma synchronous = normal")
                rows = history.reading(store).rows.values()
                last = max(ledger.rows, default=0)
                for batch in history.work(random, random.randrange(TURNS), rows, last):
                    turn(store, batch, vfs.log, control)
                    store.maintain(idle=control != "normal" and random.random() < 0.2)
                if random.random() < 0.5:
                    store.close()
            finally:
                store.abandon()
            return vfs.log
