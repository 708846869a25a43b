"""Every test of the broker machine ends with the invariants, and one that fails tells the stories
of the requests that are open."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.core.broker_harness import House

HOUSES = pytest.StashKey[list[House]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    stories = [story for house in item.stash.get(HOUSES, []) for story in house.stories()]
    if report.failed and stories:
        report.sections.append(("open requests", "\n".join(stories)))
    return report


@pytest.fixture
def make_house(request: pytest.FixtureRequest) -> Iterator[Callable[..., House]]:
    """Houses with settings of their own."""
    houses: list[House] = []
    request.node.stash[HOUSES] = houses

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
