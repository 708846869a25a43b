"""Every test of the broker machine ends with a check of the invariants. A failed one prints the
stories of the open requests."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.core.broker_harness import BrokerHarness

HARNESSES = pytest.StashKey[list[BrokerHarness]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    stories = [story for harness in item.stash.get(HARNESSES, []) for story in harness.stories()]
    if report.failed and stories:
        report.sections.append(("open requests", "\n".join(stories)))
    return report


@pytest.fixture
def make_harness(request: pytest.FixtureRequest) -> Iterator[Callable[..., BrokerHarness]]:
    """A function that makes a broker with the given settings."""
    harnesses: list[BrokerHarness] = []
    request.node.stash[HARNESSES] = harnesses

    def make(**settings: Any) -> BrokerHarness:
        harnesses.append(BrokerHarness(**settings))
        return harnesses[-1]

    yield make
    for harness in harnesses:
        harness.check()


@pytest.fixture
def harness(make_harness: Callable[..., BrokerHarness]) -> BrokerHarness:
    """A broker with the default settings."""
    return make_harness()
