"""A fault of the session itself: every waiting call raises it, and no call stays open."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from majordomus.core.client.session import ClientSession
from majordomus.core.worker.session import WorkerSession
from majordomus.errors import LocalProtocolError
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from majordomus.net.worker.worker import Worker
from tests.net.conftest import eventually

FAULT = "a fault of the core"


def fail(*_: object) -> None:
    raise RuntimeError(FAULT)


@pytest.fixture
def broken_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClientSession, "receive", fail)


def test_call_in_its_own_thread_raises_the_fault(url: str, broken_client: None) -> None:
    with Client(url) as client, pytest.raises(RuntimeError, match=FAULT):
        client.call("mmi.service")


def test_calls_in_the_background_raise_the_fault(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    all_asked = threading.Event()

    def fail_when_all_are_asked(*_: object) -> None:
        all_asked.wait(5)
        fail()

    monkeypatch.setattr(ClientSession, "receive", fail_when_all_are_asked)
    with Client(url) as client:
        futures = [client.submit("mmi.service") for _ in range(3)]
        all_asked.set()
        for future in futures:
            with pytest.raises(RuntimeError, match=FAULT):
                future.result(2)
        eventually(lambda: client._runner.driver.ended)
        with pytest.raises(LocalProtocolError, match="closed"):
            client.call("mmi.service")


def test_awaited_calls_raise_the_fault(url: str, broken_client: None) -> None:
    async def program() -> None:
        async with AsyncClient(url) as client:
            results = await asyncio.gather(
                *(client.call("mmi.service") for _ in range(3)), return_exceptions=True
            )
            assert [str(result) for result in results] == [FAULT] * 3
            began = time.monotonic()
            with pytest.raises(LocalProtocolError, match="closed"):
                await client.call("mmi.service")
            assert time.monotonic() - began < 0.1

    asyncio.run(program())


def test_worker_ends_and_raises_the_fault(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerSession, "receive", fail)
    worker = Worker(url)
    worker.add("echo", lambda request: request.body)
    with pytest.raises(RuntimeError, match=FAULT):
        worker.run()
    worker.start()
    time.sleep(0.2)
    with pytest.raises(RuntimeError, match=FAULT):
        worker.stop()
