"""Durable requests in the simulation, and ten seeded bugs that it has to find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from majordomus.core.broker.durable import lifecycle, writes
from majordomus.core.broker.durable.lifecycle import DurableRequests
from majordomus.core.broker.durable.records import (
    Append,
    Complete,
    Remove,
    StoredRequest,
    Sweep,
)
from majordomus.core.broker.state.registry import RULES
from majordomus.core.broker.state.transitions import RUNNING
from majordomus.durable.memory import MemoryStore
from tests.simulation.durable import wrong

Patch = pytest.MonkeyPatch
RUNS = 40
MOST = 150
"""Runs in which each seeded bug is found."""


def test_no_run_shows_a_fault() -> None:
    assert list(wrong(RUNS)) == []


def _at_once(kind: type) -> Callable[[Patch], None]:
    """The consequence of a write does not wait for the store."""

    def seed(patch: Patch) -> None:
        add = writes.Writes.add

        def eager(self: Any, operation: Any, then: Any = None) -> None:
            add(self, operation, None if isinstance(operation, kind) else then)
            if isinstance(operation, kind) and then is not None:
                eager.later.append(then)  # type: ignore[attr-defined]

        eager.later = []  # type: ignore[attr-defined]
        tick = DurableRequests.tick

        def ticked(self: Any, now: float) -> None:
            later, eager.later = eager.later, []  # type: ignore[attr-defined]
            for then in later:
                self.follow(then, None, now)
            tick(self, now)

        patch.setattr(writes.Writes, "add", eager)
        patch.setattr(DurableRequests, "tick", ticked)

    return seed


def _dispatch_lost(patch: Patch) -> None:
    """A request that ran when the broker crashed does not run again."""
    recover = DurableRequests.recover
    patch.setattr(
        DurableRequests,
        "recover",
        lambda self, rows, now: recover(self, [r for r in rows if not r.attempts], now),
    )


def _retry_lost(patch: Patch) -> None:
    """A failed attempt is not followed by another one."""

    def delay(self: Any, job: Any, now: float) -> None:
        if job.state is RUNNING:
            job.move("retry")
        job.timer = self._due.add(job, now + 1e9)

    patch.setattr(DurableRequests, "_delay", delay)


def _key_forgotten(patch: Patch) -> None:
    """The keys are not known after a restart."""
    made = MemoryStore.__init__

    def forget(self: Any, rows: Any = None, epoch: int = 1) -> None:
        made(self, rows, epoch)
        self._keys = {}

    patch.setattr(MemoryStore, "__init__", forget)


def _outcome_replaced(patch: Patch) -> None:
    """An outcome replaces one that is stored already, and a request is withdrawn also then."""

    def complete(self: Any, ends: list[Complete]) -> None:
        for end in ends:
            if end.number in self.rows:
                row = self.rows[end.number].replace(attempts=end.attempts, outcome=end.outcome)
                self._change(end.number, row)

    def read(self: Any, request: Any, wants: Any, answer: Any, now: float) -> None:
        if isinstance(answer, StoredRequest) and wants is lifecycle.Wants.WITHDRAWN:
            outcome = answer.outcome.replace(status=499)  # type: ignore[union-attr]
            self.writes.add(Complete(answer.number, 0, outcome))
        original(self, request, wants, answer, now)

    original = DurableRequests._read
    patch.setattr(MemoryStore, "complete", complete)
    patch.setattr(DurableRequests, "_read", read)


def _epoch_used_again(patch: Patch) -> None:
    """The epoch stays the same over restarts, so numbers are used again."""
    made = MemoryStore.__init__

    def same(self: Any, rows: Any = None, epoch: int = 1) -> None:
        made(self, rows, 1)

    def change(self: Any, rows: list[StoredRequest]) -> Any:
        for row in rows:
            self._change(row.number, row)
        return [None] * len(rows)

    patch.setattr(MemoryStore, "__init__", same)
    patch.setattr(MemoryStore, "append", change)


def _outcome_not_kept(patch: Patch) -> None:
    """The row of a submitted request is deleted in place of its outcome."""
    add = writes.Writes.add

    def remove(self: Any, operation: Any, then: Any = None) -> None:
        if isinstance(operation, Complete):
            operation = Remove(operation.number)
        add(self, operation, then)

    patch.setattr(writes.Writes, "add", remove)


def _sweeps_everything(patch: Patch) -> None:
    """Outcomes are deleted before their time."""
    add = writes.Writes.add

    def sweep(self: Any, operation: Any, then: Any = None) -> None:
        if isinstance(operation, Sweep):
            operation = operation._replace(before=operation.before + 1e7)
        add(self, operation, then)

    patch.setattr(writes.Writes, "add", sweep)


def _digest_ignored(patch: Patch) -> None:
    """A key with another body is taken for the same request."""
    patch.setattr(lifecycle.options, "digest_of", lambda body: b"same")


def _attempts_not_counted(patch: Patch) -> None:
    """A request that loses its workers runs without an end."""
    leave = DurableRequests._leave_run

    def uncounted(self: Any, job: Any) -> None:
        before = job.attempts
        leave(self, job)
        job.attempts = before

    patch.setattr(DurableRequests, "_leave_run", uncounted)


BUGS: dict[str, Callable[[Patch], None]] = {
    "accepted before it is stored": _at_once(Append),
    "answered before the outcome is stored": _at_once(Complete),
    "dispatch lost at a crash": _dispatch_lost,
    "retry lost": _retry_lost,
    "key forgotten after a restart": _key_forgotten,
    "outcome replaced": _outcome_replaced,
    "epoch used again": _epoch_used_again,
    "outcome not kept": _outcome_not_kept,
    "outcome swept before its time": _sweeps_everything,
    "body of a key ignored": _digest_ignored,
    "attempts not counted": _attempts_not_counted,
}


@pytest.mark.skipif(RULES == "compiled", reason="compiled classes cannot be given a fault")
@pytest.mark.parametrize("bug", BUGS)
def test_seeded_bug_is_found(bug: str, monkeypatch: Patch) -> None:
    BUGS[bug](monkeypatch)
    assert next(wrong(MOST), None) is not None
