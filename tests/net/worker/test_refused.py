"""A broker that refuses one service of a worker: the others are served, and the reason is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from majordomus import BrokerSettings
from majordomus.errors import Unauthenticated
from majordomus.net.broker.broker import Broker
from majordomus.net.client.client import Client
from majordomus.net.worker.async_worker import AsyncWorker
from majordomus.net.worker.base import WorkerBase
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from tests.net.conftest import eventually

WITHIN = 20.0
RULES = """
[[rule]]
allow = ["call", "serve"]
names = ["good", "fine"]
"""


async def answer(request: Request) -> str:
    return request.service


def serve(worker: WorkerBase, *names: str) -> None:
    for name in names:
        worker.add(name, answer)


def lines(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    return [
        one.getMessage()
        for one in caplog.records
        if one.name == "majordomus.worker" and part in one.getMessage()
    ]


def test_service_beyond_the_limit_of_a_worker_is_told_once_and_all_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = BrokerSettings(max_worker_services=2)
    with Broker(settings, bind="tcp://127.0.0.1:0") as broker:
        worker = Worker(broker.endpoints[0])
        serve(worker, "one", "two", "three")
        with caplog.at_level(logging.WARNING), worker, Client(broker.endpoints[0]) as client:
            names = ["one", "two", "three"]  # the third has a connection of its own
            assert [client.call(name, timeout=WITHIN).text for name in names] == names
            eventually(lambda: worker.ready, WITHIN)
    assert len(lines(caplog, "no room for 'three': a worker has 2 services")) == 1


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """The endpoint of a broker whose rules know two services."""
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    with Broker(BrokerSettings(acl=str(rules)), bind="tcp://127.0.0.1:0") as broker:
        yield broker.endpoints[0]


def check_others(url: str) -> None:
    with Client(url) as client:
        for name in ("good", "fine"):
            assert client.call(name, timeout=WITHIN).text == name


def test_refused_service_of_a_worker_is_raised_and_logged_once_and_the_others_are_served(
    guarded: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(guarded)
    serve(worker, "good", "bad", "fine")
    with worker:
        with pytest.raises(Unauthenticated, match="may not serve 'bad'"):
            worker.wait_ready(WITHIN)
        check_others(guarded)
    assert len(lines(caplog, "may not serve 'bad'")) == 1


def test_refused_service_of_an_async_worker_is_raised_and_the_others_are_served(
    guarded: str,
) -> None:
    async def scene(check: Callable[[str], None]) -> None:
        worker = AsyncWorker(guarded)
        serve(worker, "good", "bad", "fine")
        async with worker:
            with pytest.raises(Unauthenticated, match="may not serve 'bad'"):
                await worker.wait_ready(WITHIN)
            await asyncio.to_thread(check, guarded)

    asyncio.run(scene(check_others))
