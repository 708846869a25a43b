"""The fixtures for pytest. They are there where majordomus is installed.

test_broker: a `TestBroker` with the virtual clock
any_broker: the same test twice: with the virtual clock, and with a real broker

An `async def` test that uses one of them runs on its event loop.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from majordomus.testing.broker import TestBroker

FIXTURES = ("test_broker", "any_broker")


@pytest.fixture
def test_broker() -> Iterator[TestBroker]:
    """A broker, workers and clients in one thread, on a virtual clock (docs/testing.md)."""
    from majordomus.testing.broker import TestBroker

    with TestBroker() as broker:
        yield broker


@pytest.fixture(params=["virtual", "real"])
def any_broker(request: pytest.FixtureRequest) -> Iterator[TestBroker]:
    """As `test_broker`, and then with a real broker; what needs the virtual clock skips there."""
    from majordomus.testing.broker import TestBroker

    with TestBroker(real=request.param == "real") as broker:
        yield broker


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test on the event loop of its broker."""
    function = pyfuncitem.obj
    used = [name for name in FIXTURES if name in pyfuncitem.funcargs]
    if not used or not inspect.iscoroutinefunction(function):
        return None
    broker: Any = pyfuncitem.funcargs[used[0]]
    names = inspect.signature(function).parameters
    broker.run(function(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
