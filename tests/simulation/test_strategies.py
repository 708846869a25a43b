"""The comparison of the strategies in its short form; the long one is
``python -m tests.simulation.strategies``."""

from __future__ import annotations

import pytest

from majordomus.core.broker import invariants
from majordomus.core.broker.balancing.registry import STRATEGIES
from tests.simulation.strategies import FLEETS, Fleet, measure, table

SHORT = 1500


@pytest.mark.parametrize("fleet", FLEETS)
def test_who_asks_what_workers_hold_waits_less_than_who_throws_dice(fleet: str) -> None:
    _, chance = measure("random", fleet, SHORT)
    for strategy in ("least-outstanding", "least-load", "random-two"):
        assert measure(strategy, fleet, SHORT)[1] < chance


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_request_is_begun_once_and_the_books_agree(strategy: str) -> None:
    run = Fleet(strategy, FLEETS["one slow"], seed=2)
    run.run(SHORT)
    counts = run.machine.registry.counts
    assert (len(run.waits), counts.accepted, counts.dispatched) == (SHORT, SHORT, SHORT)
    invariants.check(run.machine)


def test_table_has_a_row_for_each_strategy_and_one_for_chance() -> None:
    rows = [line.split("|")[1].strip().strip("`") for line in table(50)]
    assert rows == ["strategy", "---", *STRATEGIES, "random"]
