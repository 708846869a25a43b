"""Clients and workers take messages of a bounded size from a broker, and go on after larger
ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from majordomus.core.client.session import ClientSettings
from majordomus.core.session.settings import MAX_RECEIVED
from majordomus.errors import TooLarge
from majordomus.net.broker.broker import Broker
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from majordomus.net.zmq import select as wires
from tests.net.conftest import QUICK

SMALL = 100_000
SMALL_CLIENT = ClientSettings(max_received=SMALL)
TEXT = "larger than the 100000 bytes that this side takes from its broker"

pytestmark = pytest.mark.skipif(not wires.OWN_ZMTP, reason="libzmq ends the connection instead")


@pytest.fixture
def worker(url: str) -> Iterator[Worker]:
    made = Worker(url, max_received=SMALL)

    def grow(request: Request) -> bytes:
        return bytes(int(request.text))

    async def parts(request: Request) -> AsyncIterator[bytes]:
        for size in request.text.split():
            yield bytes(int(size))

    def size(request: Request) -> str:
        return str(len(request.body))

    for handler in (grow, parts, size):
        made.add(handler.__name__, handler)
    with made:
        made.wait_ready()
        yield made


def test_call_with_a_larger_answer_ends_with_413_and_the_connection_stays(
    url: str, worker: Worker
) -> None:
    with Client(url, settings=SMALL_CLIENT, timeout=5.0) as client:
        assert len(client.call("grow", "99000").body) == 99_000
        for body in ("200000", "5000000"):
            with pytest.raises(TooLarge, match=TEXT):
                client.call("grow", body)
        assert len(client.call("grow", "99000").body) == 99_000
        assert client._session.late == 0


def test_stream_with_a_larger_part_ends_with_413(url: str, worker: Worker) -> None:
    with Client(url, settings=SMALL_CLIENT, timeout=5.0) as client:
        stream = client.stream("parts", "10 200000 20")
        assert len(next(stream).body) == 10
        with pytest.raises(TooLarge, match=TEXT):
            next(stream)
        assert len(client.call("parts", "10 20").body) == 30


def test_asyncio_call_with_a_larger_answer_ends_with_413(url: str, worker: Worker) -> None:
    async def use() -> None:
        async with AsyncClient(url, settings=SMALL_CLIENT, timeout=5.0) as client:
            many = [client.call("grow", str(n)) for n in (10, 200_000, 20, 300_000, 30)]
            got = await asyncio.gather(*many, return_exceptions=True)
            assert [type(one) is TooLarge for one in got] == [False, True, False, True, False]

    asyncio.run(use())


def test_worker_answers_a_larger_request_with_413_and_serves_on(url: str, worker: Worker) -> None:
    with Client(url, timeout=5.0) as client:
        for _ in range(2):
            with pytest.raises(TooLarge, match=TEXT):
                client.call("size", bytes(200_000), once=True)
            assert client.call("size", bytes(90_000)).text == "90000"


def test_welcome_lowers_the_bound_and_never_raises_it() -> None:
    settings = msgspec.structs.replace(QUICK, max_message=1_000_000)
    with Broker(settings, bind="tcp://127.0.0.1:*") as broker, Client(broker.endpoints) as client:
        client.ping()
        connection = client._session.connection
        assert connection.max_received == MAX_RECEIVED
        client._runner.receive_events()  # presence, and so a WELCOME
        for _ in range(100):
            client.ping()
            if connection.max_received != MAX_RECEIVED:
                break
        assert connection.max_received == 1_000_000 + 1024 * 1024
