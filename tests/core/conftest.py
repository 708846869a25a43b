"""Every test of the broker machine ends with the invariants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.core.house import House


@pytest.fixture
def make_house() -> Iterator[Callable[..., House]]:
    """Houses with settings of their own."""
    houses: list[House] = []

    def make(**settings: Any) -> House:
        houses.append(House(**settings))
        return houses[-1]

    yield make
    for house in houses:
        house.check()


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    """A broker with the default settings."""
    return make_house()
