"""The short form of `make durable-proof`: power cuts with their negative controls, and each call to
the disk failing once."""

from __future__ import annotations

import pytest

pytest.importorskip("apsw", reason="apsw logs what SQLite does to its files: pip install apsw")

import apsw

from majordomus.core.broker.durable.records import Append
from tests.durable import faults, logged, power
from tests.durable.history import Ledger, Reading
from tests.durable.samples import row


def test_power_cut_loses_nothing_that_was_acknowledged() -> None:
    assert power.cuts(120, seed=1, of_a_trace=30) == {"good": 120}


@pytest.mark.parametrize("control", ["normal", "early"])
def test_store_that_says_stored_too_early_loses(control: str) -> None:
    found = power.cuts(60, seed=1, control=control, of_a_trace=15)
    assert found["lost"] > 5


def test_power_cut_during_a_recovery_loses_nothing_that_was_acknowledged() -> None:
    done = power.recoveries(240, seed=1, of_a_trace=40)
    assert done.found == {"good": 240}
    assert done.places["recovery"] > 60
    assert sum(number for cuts, number in done.lives.items() if cuts > 2) > 20


@pytest.mark.parametrize("control", ["normal", "early", "unsynced"])
def test_fault_behind_the_first_power_cut_loses(control: str) -> None:
    done = power.recoveries(100, seed=1, control=control, of_a_trace=20)
    assert done.found["lost"] + done.found["corrupt"] > 10
    assert done.found["lost"] > 0


def test_history_of_a_seed_is_the_same_to_the_byte() -> None:
    made = []
    for _ in range(2):
        with power.place(), logged.repeatable(7):
            made.append(logged.trace(7))
    assert made[0] == made[1]


def test_row_that_a_recovery_has_rolled_back_must_not_come_back() -> None:
    ledger = Ledger()
    ledger.note("issued", [(0, Append(row(1))), (0, Append(row(2)))])
    ledger.see(Reading({1: row(1)}, b"secret", 1))

    assert ledger.judge(Reading({1: row(1)}, b"secret", 2)) == "good"
    assert ledger.judge(Reading({1: row(1), 2: row(2)}, b"secret", 2)) == "lost"
    assert ledger.judge(Reading({}, b"secret", 2)) == "lost"
    assert ledger.judge(Reading({1: row(1)}, b"secret", 1)) == "again"
    assert ledger.judge(Reading({1: row(1)}, b"another", 2)) == "again"


@pytest.mark.parametrize("at", [1, 40, 77, 120, 160, 190, 230])
def test_store_ends_after_an_error_of_the_disk_and_has_lost_nothing(at: int) -> None:
    assert faults.one(at, apsw.IOError) in ("failed", "not opened", "done")


@pytest.mark.parametrize("at", [77, 120, 160, 190])
def test_store_goes_on_with_its_ballast_when_the_disk_is_full(at: int) -> None:
    assert faults.one(at, apsw.FullError) == "done"
