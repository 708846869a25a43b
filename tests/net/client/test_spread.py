"""Clients of several brokers spread over them, and return to their first one."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from majordomus.core.client.session import ClientSettings
from majordomus.core.session.home import order
from majordomus.net.broker.broker import Broker
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from tests.net.conftest import QUICK, eventually

SOON = ClientSettings(home_after=0.2)
LONGEST = 15.0
"""Seconds in which a client has to be back."""


class Site:
    """A broker that can be stopped and started again, and a worker of its own.

    ran: the bodies of the calls that were executed here.
    """

    def __init__(self, url: str = "tcp://127.0.0.1:*") -> None:
        self.ran: list[bytes] = []
        self.release = threading.Event()
        self._running = contextlib.ExitStack()
        self.url = url
        self.start()

    def start(self) -> None:
        broker = self._running.enter_context(Broker(QUICK, bind=self.url))
        (self.url,) = broker.endpoints
        worker = Worker(self.url, capacity=4)
        worker.add("where", self._where)
        worker.add("wait", self._wait)
        self._running.enter_context(worker)
        worker.wait_ready()

    def stop(self) -> None:
        self.release.set()
        self._running.close()

    def _where(self, request: Request) -> str:
        self.ran.append(request.body)
        return self.url

    def _wait(self, request: Request) -> str:
        self.ran.append(request.body)
        self.release.wait(20)
        return self.url


@pytest.fixture
def sites() -> Iterator[list[Site]]:
    made = [Site(), Site(), Site()]
    yield made
    for site in made:
        site.stop()


def ordered(client: Client | AsyncClient, sites: list[Site]) -> list[Site]:
    """The brokers in the order of a client."""
    return [sites[n] for n in client._session.connection.order]


def test_clients_with_one_list_spread_over_its_brokers(sites: list[Site]) -> None:
    urls = [site.url for site in sites]
    homes: Counter[str] = Counter()
    for _ in range(24):
        with Client(urls) as client:
            homes[client.call("where", timeout=5.0).text] += 1
    assert len(homes) > 1
    assert max(homes.values()) < 24


def test_client_that_is_not_to_spread_uses_the_first_of_the_list(sites: list[Site]) -> None:
    urls = [site.url for site in sites]
    for _ in range(8):
        with Client(urls, spread=False) as client:
            assert client.call("where", timeout=5.0).text == urls[0]


def test_order_of_a_client_is_that_of_its_id(sites: list[Site]) -> None:
    urls = [site.url for site in sites]
    with Client(urls) as client:
        names = [url.encode() for url in urls]
        assert client._session.connection.order == order(client._session._id, names)
        assert client.call("where", timeout=5.0).text == ordered(client, sites)[0].url


def test_sync_client_returns_and_every_call_runs_once(sites: list[Site]) -> None:
    with Client([site.url for site in sites], settings=SOON) as client:
        home, other, _ = ordered(client, sites)
        assert client.call("where", b"0", timeout=5.0).text == home.url
        home.stop()
        assert client.call("where", b"1", timeout=5.0).text == other.url
        waiting = client.submit("wait", b"2", once=True, timeout=30.0)
        eventually(lambda: b"2" in other.ran)
        home.start()
        until, number, there = time.monotonic() + 1.5, 3, ""
        while time.monotonic() < until:  # it does not return while a call is in flight
            there = client.call("where", b"%d" % number, once=True, timeout=5.0).text
            number += 1
            assert there == other.url
            time.sleep(0.05)
        other.release.set()
        assert waiting.result(5).text == other.url
        until = time.monotonic() + LONGEST
        while there != home.url:
            assert time.monotonic() < until
            there = client.call("where", b"%d" % number, once=True, timeout=5.0).text
            number += 1
            time.sleep(0.15)
        ran = Counter(home.ran + other.ran)
        assert ran == Counter(b"%d" % n for n in range(number))


def test_sync_client_without_a_thread_returns_between_its_calls(sites: list[Site]) -> None:
    with Client([site.url for site in sites], settings=SOON) as client:
        home, other, _ = ordered(client, sites)
        assert client.call("where", timeout=5.0).text == home.url
        home.stop()
        assert client.call("where", timeout=5.0).text == other.url
        home.start()
        until = time.monotonic() + LONGEST
        while client.call("where", once=True, timeout=5.0).text != home.url:
            assert time.monotonic() < until
            time.sleep(0.5)
        names = [thread.name for thread in threading.enumerate()]
        assert "majordomus-client" not in names


def test_asyncio_client_returns_and_every_call_runs_once(sites: list[Site]) -> None:
    async def use() -> None:
        async with AsyncClient([site.url for site in sites], settings=SOON) as client:
            home, other, _ = ordered(client, sites)
            assert (await client.call("where", b"0", timeout=5.0)).text == home.url
            await asyncio.to_thread(home.stop)
            assert (await client.call("where", b"1", timeout=5.0)).text == other.url
            waiting = asyncio.create_task(client.call("wait", b"2", once=True, timeout=30.0))
            await asyncio.to_thread(eventually, lambda: b"2" in other.ran)
            await asyncio.to_thread(home.start)
            number, there = 3, ""
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                there = (await client.call("where", b"%d" % number, once=True, timeout=5.0)).text
                number += 1
                assert there == other.url
                await asyncio.sleep(0.02)
            other.release.set()
            assert (await waiting).text == other.url
            until = time.monotonic() + LONGEST
            while there != home.url:
                assert time.monotonic() < until
                bodies = [b"%d" % n for n in range(number, number + 20)]
                calls = [client.call("where", one, once=True, timeout=5.0) for one in bodies]
                number += 20
                there = (await asyncio.gather(*calls))[-1].text
                await asyncio.sleep(0.15)
            ran = Counter(home.ran + other.ran)
            assert ran == Counter(b"%d" % n for n in range(number))

    asyncio.run(use())


def test_client_that_is_never_idle_returns_too(sites: list[Site]) -> None:
    with Client([site.url for site in sites], settings=SOON) as client:
        home, other, _ = ordered(client, sites)
        client.call("where", timeout=5.0)
        home.stop()
        assert client.call("where", timeout=5.0).text == other.url
        home.start()
        until, number = time.monotonic() + LONGEST, 0
        while client.call("where", b"%d" % number, once=True, timeout=5.0).text != home.url:
            assert time.monotonic() < until
            number += 1
            time.sleep(0.01)
        ran = Counter(home.ran + other.ran)
        assert all(ran[b"%d" % n] == 1 for n in range(number))
