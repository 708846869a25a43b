"""One broker for all tests, and raw workers of every dialect, which do not use our codecs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from majordomus import Broker, BrokerSettings
from tests.peers.process import PYTHON, running
from tests.peers.rfc import Mdp02Client
from tests.peers.table import WORKERS


def ask(endpoint: str, name: bytes, *body: bytes) -> list[bytes]:
    """Call the broker's management interface; return the status, then the data."""
    with Mdp02Client(endpoint) as client:
        return client.call(name, list(body)).final


def ask_json(endpoint: str, name: bytes, *body: bytes) -> Any:
    status, text = ask(endpoint, name, *body)
    assert status == b"200"
    return json.loads(text)


def wait_for_service(endpoint: str, service: bytes, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while ask(endpoint, b"mmi.service", service)[0] != b"200":
        assert time.monotonic() < until, f"no worker for {service!r}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """A broker on a free port of the loopback address."""
    with Broker(BrokerSettings(), bind="tcp://127.0.0.1:0") as broker:
        yield broker.endpoints[0]


@pytest.fixture(scope="session")
def workers(endpoint: str) -> Iterator[str]:
    """The endpoint, with raw workers of every dialect: `echo-mdp01`, `seen-delphi` and so on.

    Each dialect has a process of its own.
    """
    handlers = ("echo", "seen", "void", "parts")
    with ExitStack() as stack:
        for dialect in WORKERS:
            served = [f"{name}-{dialect}={name}" for name in handlers[: handler_count(dialect)]]
            stack.enter_context(running(*PYTHON, "tests.peers.serve", dialect, endpoint, *served))
            for item in served:
                wait_for_service(endpoint, item.partition("=")[0].encode())
        yield endpoint


def handler_count(dialect: str) -> int:
    """The number of handlers: MDP/0.1 and Delphi workers cannot send a reply in parts."""
    return 3 if dialect in ("mdp01", "delphi") else 4
