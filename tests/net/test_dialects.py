"""Clients and workers of every pair of dialects, through one broker."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import pytest

from majordomus.errors import DeadlineExceeded
from majordomus.net.broker.broker import Broker
from majordomus.net.client.client import Client
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from majordomus.protocol.spec import Dialect
from tests.net.conftest import QUICK, eventually

DIALECTS = [dialect.value for dialect in Dialect]
LEGACY = [name for name in DIALECTS if name != Dialect.MDP03]
WITHOUT_PARTS = {Dialect.MDP01, Dialect.DELPHI}


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(QUICK, bind="tcp://127.0.0.1:0") as running:
        yield running


@pytest.fixture(scope="module", params=DIALECTS)
def worker(request: pytest.FixtureRequest, broker: Broker) -> Iterator[str]:
    """Start a worker of a dialect. Yields the dialect, with which its services' names begin."""
    dialect: str = request.param
    made = Worker(broker.endpoints, dialect=dialect)

    @made.service(f"{dialect}.echo")
    def echo(request: Request) -> list[bytes]:
        return request.frames

    @made.service(f"{dialect}.count")
    async def count(request: Request) -> AsyncIterator[bytes]:
        for number in range(int(request.body)):
            yield b"%d" % number

    @made.service(f"{dialect}.sleep")
    def sleep(request: Request) -> bytes:
        time.sleep(float(request.body))
        return b"slept"

    with made:
        made.wait_ready()
        yield dialect


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_client_calls_every_worker(broker: Broker, worker: str, dialect: str) -> None:
    with Client(broker.endpoints, dialect=dialect, timeout=5.0) as client:
        for body in ([b"x"], [b"a", b"", b"b" * 10_000], []):
            nothing = [b""] if {dialect, worker} & set(LEGACY) else []
            assert client.call(f"{worker}.echo", body).frames == (body or nothing)
        futures = [client.submit(f"{worker}.echo", b"%d" % number) for number in range(20)]
        assert [int(future.result().body) for future in futures] == list(range(20))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_parts_reach_every_client_as_its_dialect_allows(
    broker: Broker, worker: str, dialect: str
) -> None:
    joined = {dialect, worker} & WITHOUT_PARTS
    with Client(broker.endpoints, dialect=dialect, timeout=5.0) as client:
        parts = [part.frames for part in client.stream(f"{worker}.count", b"3")]
        frames = [[b"0"], [b"1"], [b"2"]]
        empty = [frame for part in parts[3:] for frame in part]
        if joined:
            assert [f for part in parts for f in part if f] == [b"0", b"1", b"2"]
        else:
            assert (parts[:3], empty) == (frames, [])


@pytest.mark.parametrize("dialect", LEGACY)
def test_late_answer_of_a_legacy_call_is_never_the_answer_of_the_next_call(
    broker: Broker, dialect: str
) -> None:
    worker = Worker(broker.endpoints)
    name = f"late.{dialect}"

    @worker.service(name)
    def late(request: Request) -> bytes:
        time.sleep(0.3 if request.body == b"slow" else 0)
        return request.body

    with worker, Client(broker.endpoints, dialect=dialect, timeout=5.0) as client:
        assert client.call(name, b"first").body == b"first"
        with pytest.raises(DeadlineExceeded):
            client.call(name, b"slow", timeout=0.1)
        for number in range(10):
            assert client.call(name, b"%d" % number).body == b"%d" % number
            time.sleep(0.05)


@pytest.mark.parametrize("dialect", LEGACY)
def test_busy_legacy_worker_of_ours_is_not_expired(broker: Broker, dialect: str) -> None:
    worker = Worker(broker.endpoints, dialect=dialect)
    calls = []

    @worker.service(f"busy.{dialect}")
    def busy(request: Request) -> bytes:
        calls.append(request)
        time.sleep(QUICK.worker_interval * QUICK.liveness * 2)
        return b"done"

    with worker, Client(broker.endpoints, timeout=10.0) as client:
        worker.wait_ready()
        assert client.call(f"busy.{dialect}").body == b"done"
    assert len(calls) == 1


@pytest.mark.parametrize("dialect", LEGACY)
def test_legacy_worker_leaves_when_it_is_stopped(broker: Broker, dialect: str) -> None:
    worker = Worker(broker.endpoints, dialect=dialect)
    worker.add(f"gone.{dialect}", lambda request: request.body)
    with Client(broker.endpoints) as client:
        with worker:
            eventually(lambda: client.serves(f"gone.{dialect}"))
            assert client.call(f"gone.{dialect}", b"x").body == b"x"
        eventually(lambda: not client.serves(f"gone.{dialect}"), within=1.0)
