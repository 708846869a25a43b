"""Hedged calls: another worker is asked when the first one takes long, and the first answer
counts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from majordomus.errors import (
    BadRequest,
    ConfigurationError,
    DeadlineExceeded,
    LocalProtocolError,
    StatusError,
)
from majordomus.net.bodies import Reply
from majordomus.net.client import hedge
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from tests.net.conftest import eventually

Call = Callable[..., Reply]
FOREVER = 20.0


class Fleet:
    """Workers of "svc" at one broker. Each one answers by a function, or not before `release`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.workers: list[Worker] = []
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        self.release = threading.Event()

    def add(self, name: str, answer: Callable[[Request], Any] | None = None) -> None:
        """Start a worker. Without `answer` it waits for `release` or its cancellation."""
        worker = Worker(self.url, capacity=1)

        @worker.service("svc")
        def svc(request: Request) -> Any:
            self.asked.append(name)
            if answer is not None:
                return answer(request)
            while not (self.release.wait(0.005) or request.cancelled):
                pass
            if request.cancelled:  # also at the deadline, where an answer would come just in time
                self.cancelled.append(name)
                self.release.wait(FOREVER)
            return name

        worker.start()
        worker.wait_ready(FOREVER)
        self.workers.append(worker)

    def when_asked(self, count: int, body: bytes) -> Callable[[Request], bytes]:
        """Return an answer that waits until `count` workers have been asked."""

        def answer(request: Request) -> bytes:
            eventually(lambda: len(self.asked) >= count, within=FOREVER)
            return body

        return answer

    def stop(self) -> None:
        self.release.set()
        for worker in self.workers:
            worker.stop(drain=False)


@pytest.fixture
def fleet(url: str) -> Iterator[Fleet]:
    made = Fleet(url)
    yield made
    made.stop()


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, url: str) -> Iterator[Call]:
    """Return `client.call` of either client."""
    if request.param == "sync":
        with Client(url, timeout=FOREVER) as client:
            yield client.call
        return

    def run(*arguments: Any, **options: Any) -> Reply:
        async def main() -> Reply:
            async with AsyncClient(url, timeout=FOREVER) as client:
                return await client.call(*arguments, **options)

        return asyncio.run(main())

    yield run


def test_answer_of_the_second_worker_counts_when_the_first_takes_long(
    fleet: Fleet, call: Call
) -> None:
    fleet.add("slow")
    fleet.add("fast", lambda request: b"fast")
    began = time.monotonic()
    assert call("svc", hedge_after=0.05).body == b"fast"
    assert time.monotonic() - began >= 0.05
    assert fleet.asked == ["slow", "fast"]
    eventually(lambda: fleet.cancelled == ["slow"], within=FOREVER)


def test_second_worker_is_not_asked_when_the_first_answers_in_time(
    fleet: Fleet, call: Call
) -> None:
    fleet.add("one", lambda request: b"one")
    fleet.add("two", lambda request: b"two")
    assert call("svc", hedge_after=15.0).body == b"one"
    assert fleet.asked == ["one"]


def test_first_answer_counts_when_there_is_no_second_worker(fleet: Fleet, call: Call) -> None:
    def late(request: Request) -> bytes:
        time.sleep(0.2)
        return b"late"

    fleet.add("only", late)
    assert call("svc", hedge_after=0.02).body == b"late"
    assert fleet.asked == ["only"]


def test_error_of_a_worker_is_the_answer_of_a_hedged_call(fleet: Fleet, call: Call) -> None:
    def refuse(request: Request) -> bytes:
        raise BadRequest("no such colour")

    fleet.add("slow")
    fleet.add("strict", refuse)
    with pytest.raises(BadRequest, match="no such colour"):
        call("svc", hedge_after=0.05)


def test_second_attempt_has_the_deadline_of_the_call(fleet: Fleet, call: Call) -> None:
    fleet.add("slow")
    fleet.add("slower")
    with pytest.raises(DeadlineExceeded):
        call("svc", hedge_after=0.05, timeout=0.3)
    assert sorted(fleet.asked) == ["slow", "slower"]
    eventually(lambda: sorted(fleet.cancelled) == ["slow", "slower"], within=FOREVER)


def test_metadata_reaches_both_workers(fleet: Fleet, call: Call) -> None:
    seen: list[Any] = []

    def look(request: Request) -> bytes:
        seen.append(request.metadata)
        return b"fast"

    fleet.add("slow")
    fleet.add("fast", look)
    call("svc", hedge_after=0.05, metadata={"acme.region": "eu"})
    assert [values["acme.region"] for values in seen] == ["eu"]


@pytest.mark.parametrize(
    "options",
    [{"hedge_after": 0}, {"hedge_after": 1, "once": True}, {"hedge_after": 1, "to": b"worker"}],
)
def test_hedged_call_that_may_not_be_sent_twice_is_refused(
    call: Call, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="hedge_after"):
        call("svc", **options)


def test_hedged_call_of_a_service_without_workers_fails_as_any_other(call: Call) -> None:
    with pytest.raises(StatusError):
        call("svc", hedge_after=0.02, fail_fast=True, timeout=1.0)


def test_cancelled_task_cancels_both_attempts(fleet: Fleet, url: str) -> None:
    fleet.add("slow")
    fleet.add("slower")

    async def main() -> None:
        async with AsyncClient(url, timeout=FOREVER) as client:
            task = asyncio.create_task(client.call("svc", hedge_after=0.02))
            async with asyncio.timeout(FOREVER):
                while len(fleet.asked) < 2:
                    await asyncio.sleep(0.005)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                while len(fleet.cancelled) < 2:
                    await asyncio.sleep(0.005)

    asyncio.run(main())


def test_client_that_is_closed_cannot_hedge(url: str) -> None:
    client = Client(url)
    client.close()
    with pytest.raises(LocalProtocolError, match="closed"):
        client.call("svc", hedge_after=0.05)


def test_timer_that_fires_a_little_early_starts_the_second_attempt(
    fleet: Fleet, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hedge, "time", SimpleNamespace(monotonic=lambda: 0.0))
    fleet.add("slow")
    fleet.add("quick", lambda _: b"quick")

    async def main() -> Reply:
        async with AsyncClient(url, timeout=FOREVER) as client:
            return await client.call("svc", hedge_after=0.05)

    assert asyncio.run(main()).body == b"quick"
