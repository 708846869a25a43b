"""Brokers, collectors and pretended connections for the tests of the cloud logger."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from majordomus import AsyncClient, Broker
from majordomus.contrib.cloudlog import follow, make_collector
from majordomus.contrib.cloudlog.handler import CloudLogHandler
from majordomus.contrib.cloudlog.record import BATCH, Batch, LogEntry, Part, Query
from majordomus.contrib.cloudlog.sender import OneWay
from majordomus.errors import Cancelled, DeadlineExceeded
from tests.cli.conftest import shell

__all__ = ["shell"]

NOBODY = "tcp://127.0.0.1:1"
"""Where no broker is."""


class Line(OneWay):
    """A pretended client: `away`, it waits for a broker until somebody closes it."""

    def __init__(self, away: bool = False) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.here = threading.Event()
        self.closed = threading.Event()
        self.waits = threading.Event()
        self.on_send: Callable[[], None] = lambda: None
        if not away:
            self.here.set()

    def send(self, service: str, body: bytes, /, *, timeout: float | None = None) -> None:
        self.on_send()
        if not self.here.is_set():
            self.waits.set()
        until = time.monotonic() + (timeout or 30.0)
        while not self.here.wait(0.002):
            if self.closed.is_set():
                raise Cancelled("closed")
            if time.monotonic() > until:
                raise DeadlineExceeded("no broker")
        self.sent.append((service, body))

    def close(self) -> None:
        self.closed.set()

    @property
    def batches(self) -> list[Batch]:
        return [Batch.from_bytes(body) for service, body in self.sent if service == BATCH]

    @property
    def texts(self) -> list[str]:
        return [entry.text for batch in self.batches for entry in batch.records]


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(bind=["tcp://127.0.0.1:0"]) as running:
        yield running


@pytest.fixture
def url(broker: Broker) -> str:
    return broker.endpoints[0]


@pytest.fixture
def collecting(url: str) -> Iterator[str]:
    """The URL of a broker at which a collector serves."""
    with make_collector(url, records=5000) as collector:
        collector.wait_ready()
        yield url


@pytest.fixture
def handlers() -> Iterator[Callable[..., CloudLogHandler]]:
    """Makes handlers, and closes them."""
    made: list[CloudLogHandler] = []

    def make(broker: str = NOBODY, **options: Any) -> CloudLogHandler:
        made.append(CloudLogHandler(broker, **{"application": "test", **options}))
        return made[-1]

    yield make
    for handler in made:
        handler.flush_timeout = 0.0
        handler.close()


def parts(url: str, query: Query) -> list[Part]:
    """The whole answer to a query that does not follow."""

    async def ask() -> list[Part]:
        async with AsyncClient(url) as client:
            return [part async for part in follow(client, query)]

    return asyncio.run(ask())


def entries(url: str, **query: Any) -> list[LogEntry]:
    """What a collector holds."""
    found = parts(url, Query(**{"last": 10_000, **query}))
    return [entry for part in found for entry in part.records]


def texts(url: str, **query: Any) -> list[str]:
    return [entry.text for entry in entries(url, **query)]


def eventually(condition: Callable[[], object], within: float = 10.0) -> None:
    """Waits until `condition` is true. Fails after `within` seconds."""
    until = time.monotonic() + within
    while not condition():
        assert time.monotonic() < until, f"not within {within} s"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
