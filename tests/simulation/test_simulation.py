"""The simulation in its short form; the long one is ``python -m tests.simulation.simulate``."""

from __future__ import annotations

import pytest

from tests.simulation.simulate import Simulation


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_request_has_one_answer_whatever_happens_to_peers(seed: int) -> None:
    simulation = Simulation(seed)
    simulation.run(10.0)
    counts = simulation.world.machine.registry.counts
    assert min(counts.answered, counts.expired, counts.cancelled, counts.failed) > 0
    assert min(counts.retried, counts.rejected, counts.parts) > 0
    assert min(counts.pushed, counts.published, counts.delivered, counts.undelivered) > 0
    assert simulation.fairness.judged > 1000
    events = simulation.ledger.events
    assert {"workers died", "workers vanished", "workers stopped", "clients died"} <= events.keys()
    assert {"pushes heard", "topics heard", "topics heard after a return"} <= events.keys()
    assert simulation.ledger.heard.total() <= counts.delivered


def test_run_is_the_same_for_the_same_seed() -> None:
    reports = []
    for _ in range(2):
        simulation = Simulation(4)
        simulation.run(2.0)
        reports.append(simulation.report())
    assert reports[0] == reports[1]
