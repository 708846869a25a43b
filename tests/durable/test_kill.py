"""The short form of `make durable-proof`: a few rounds of kill -9 of a real broker."""

from __future__ import annotations

import pytest

from tests.durable import kill


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_broker_and_workers_are_killed() -> None:
    series = kill.run(3, seed=7)
    assert series.kills >= 3
    assert len(series.acknowledged) > 5
    assert series.counts["read"] >= len(series.acknowledged)
