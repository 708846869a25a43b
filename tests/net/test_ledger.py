"""The short form of the ledger run in `make chaos`: real programs are killed and stopped while
clients call, and both ledgers are compared (benchmarks/ledger)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks.ledger import books, run
from benchmarks.ledger.books import Books

CALLS = 4000
FAULTS_EACH = 0.3
"""Seconds between two faults."""


@pytest.fixture
def right() -> Books:
    """Ledgers in which nothing is wrong."""
    made = Books()
    for key in range(1, 15):
        made.asked(key, "echo", once=key % 2 == 0, timeout=3.0)
        made.got(key, "ok", 0.1)
        made.executed(key)
    return made


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_each_call_has_one_outcome_while_programs_are_killed_and_stopped() -> None:
    result = run.run(CALLS, seed=1, workers=2, tasks=48, between=FAULTS_EACH)
    assert result.problems == []
    assert result.counts["calls"]["all"] >= CALLS
    assert sum(result.faults.values()) > 0
    assert result.control["found"] == result.control["falsified"] > 0


def test_ledgers_of_right_calls_pass_the_audit(right: Books) -> None:
    assert books.audit(right) == []


@pytest.mark.parametrize("number", range(7))
def test_audit_finds_a_falsified_entry(right: Books, number: int) -> None:
    way = books.falsified(right, number)
    assert len(books.audit(right)) == 1, way


def test_audit_accepts_cancelled_only_from_callers_that_cancel(right: Books) -> None:
    right.asked(20, "echo", once=False, timeout=3.0)
    right.got(20, "cancelled", 0.1)
    assert books.audit(right) == ["call 20 (echo) has the outcome cancelled"]
    right.cancelled(20)
    assert books.audit(right) == []


def test_audit_of_files_reads_the_entries_of_every_process(tmp_path: Path) -> None:
    (tmp_path / "clients").write_text("asked 1 work 1 3.0\ncancelled 1\ngot 1 ok 0.100\n")
    for process in ("one", "two"):
        (tmp_path / f"worker-{process}").write_text("1\n")
    read = books.read([tmp_path / "clients"], tmp_path.glob("worker-*"))
    assert books.audit(read) == ["call 1 (work, once) was executed 2 times"]
    assert read.calls[1].cancelled
