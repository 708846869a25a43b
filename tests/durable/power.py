"""Power cuts: what a store has acknowledged is there whatever the disk had not yet written.

    python -m tests.durable.power --cuts 1000000 --recoveries 100000 --seed 1

`logged` makes the histories, `history` the cuts. In half of the histories the process is killed at
some point, and another one goes on with the files that the kernel has. The negative controls have
to lose: synchronous = NORMAL, and an answer before COMMIT. `recovery` cuts the power again, while
the store recovers from a cut.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final
from unittest import mock

from majordomus.durable import sqlite
from tests.durable import history, recovery
from tests.durable.history import CUTS_OF_A_TRACE
from tests.durable.logged import fast_folder, repeatable, trace
from tests.durable.recovery import Recoveries

CONTROLS: Final = ("full", "normal", "early")


@contextmanager
def place() -> Iterator[Path]:
    """A folder for the files of cuts. The disk is not looked at: a third of a cut's time."""
    with (
        tempfile.TemporaryDirectory(dir=fast_folder()) as folder,
        mock.patch.object(sqlite, "check_disk", lambda _: None),
    ):
        yield Path(folder)


def shares(count: int, seed: int, of_a_trace: int) -> Iterator[tuple[int, int]]:
    """The seeds of so many cuts, and the cuts of each."""
    while count > 0:
        yield seed, min(of_a_trace, count)
        count -= of_a_trace
        seed += 1


def cuts(
    count: int, seed: int, control: str = "full", of_a_trace: int = CUTS_OF_A_TRACE
) -> Counter[str]:
    """Cut the power so often; return how often what was found."""
    found: Counter[str] = Counter()
    with place() as folder:
        for one, of_this in shares(count, seed, of_a_trace):
            with repeatable(one):
                made = trace(one, control)
                with history.cheap_openings():
                    found += history.cut(made, of_this, Random(one), folder)
    return found


def recoveries(
    count: int, seed: int, control: str = "full", of_a_trace: int = CUTS_OF_A_TRACE
) -> Recoveries:
    """Cut the power during so many recoveries; return what was found."""
    with place() as folder:
        done = Recoveries(folder, control)
        for one, of_this in shares(count, seed, of_a_trace):
            with repeatable(one):
                done.cut(trace(one), of_this, Random(one))
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=1_000_000)
    parser.add_argument("--recoveries", type=int, default=100_000)
    parser.add_argument("--controls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # each cut is reported
    for control in CONTROLS:
        began = time.perf_counter()
        count = options.cuts if control == "full" else min(options.cuts, options.controls)
        if count:
            found = cuts(count, options.seed, control)
            history.report(f"{control:>7}", count, options.seed, began, found)
    for control in recovery.CONTROLS:
        began = time.perf_counter()
        wanted = options.recoveries
        count = wanted if control == "full" else min(wanted, options.controls)
        if count:
            done = recoveries(count, options.seed, control)
            what = f"{control:>8}, in a recovery"
            history.report(what, count, options.seed, began, done.found)
            print(f"          last cuts: {dict(done.places)}; cuts: {dict(done.lives)}", flush=True)


if __name__ == "__main__":
    main()
