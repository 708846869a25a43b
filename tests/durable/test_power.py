"""The short form of `make durable-proof`: power cuts with their negative controls, and each call to
the disk failing once."""

from __future__ import annotations

import pytest

pytest.importorskip("apsw", reason="apsw logs what SQLite does to its files: pip install apsw")

import apsw

from tests.durable import faults, power


def test_power_cut_loses_nothing_that_was_acknowledged() -> None:
    assert power.cuts(120, seed=1, of_a_trace=30) == {"good": 120}


@pytest.mark.parametrize("control", ["normal", "early"])
def test_store_that_says_stored_too_early_loses(control: str) -> None:
    found = power.cuts(60, seed=1, control=control, of_a_trace=15)
    assert found["lost"] > 5


@pytest.mark.parametrize("at", [1, 40, 77, 120, 160, 190, 230])
def test_store_ends_after_an_error_of_the_disk_and_has_lost_nothing(at: int) -> None:
    assert faults.one(at, apsw.IOError) in ("failed", "not opened", "done")


@pytest.mark.parametrize("at", [77, 120, 160, 190])
def test_store_goes_on_with_its_ballast_when_the_disk_is_full(at: int) -> None:
    assert faults.one(at, apsw.FullError) == "done"
