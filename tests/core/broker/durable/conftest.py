"""Every test ends with a check of the invariants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.core.durable_harness import DurableHarness


@pytest.fixture
def make() -> Iterator[Callable[..., DurableHarness]]:
    """A function that makes a broker with a store and the given settings."""
    made: list[DurableHarness] = []

    def build(**settings: Any) -> DurableHarness:
        made.append(DurableHarness(**settings))
        return made[-1]

    yield build
    for harness in made:
        harness.check()


@pytest.fixture
def broker(make: Callable[..., DurableHarness]) -> DurableHarness:
    return make()
