"""Clients behind a proxy that delays, stalls, resets and loses bytes (benchmarks/bad_network.py).

What is measured here in seconds of real time is far from each bound: a machine under load does not
fail these tests.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from benchmarks.bad_network import Ledger, Proxy, two_brokers

from majordomus.errors import BrokerLost, DeadlineExceeded
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from tests.net.conftest import eventually

pytestmark = pytest.mark.slow
Proxies = tuple[Proxy, Proxy]
SOON = 5.0
"""Seconds after the first deadline that passed in silence: a call then has an answer."""


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def proxies(ledger: Ledger) -> Iterator[Proxies]:
    with two_brokers(ledger) as made:
        yield made


def urls(proxies: Proxies) -> list[str]:
    return [proxy.url for proxy in proxies]


def delay(proxies: Proxies, seconds: float) -> None:
    for proxy in proxies:
        proxy.delay = seconds


def call(client: Client, body: bytes, timeout: float) -> bytes:
    return client.call("count", body, timeout=timeout).body


def submit(client: Client, body: bytes, timeout: float) -> bytes:
    return client.submit("count", body, timeout=timeout).result(timeout + 5.0).body


@pytest.mark.parametrize("how", [call, submit])
def test_client_of_two_brokers_connects_where_the_round_trip_is_long(
    proxies: Proxies, how: Callable[[Client, bytes, float], bytes]
) -> None:
    delay(proxies, 0.4)
    with Client(urls(proxies), spread=False) as client:
        assert how(client, b"1", 15.0) == b"1"
    assert proxies[0].connections + proxies[1].connections <= 3


def test_async_client_of_two_brokers_connects_where_the_round_trip_is_long(
    proxies: Proxies,
) -> None:
    delay(proxies, 0.4)

    async def run() -> bytes:
        async with AsyncClient(urls(proxies), spread=False) as client:
            return (await client.call("count", b"1", timeout=15.0)).body

    assert asyncio.run(run()) == b"1"


def test_broker_that_refuses_costs_nothing_before_the_next_is_tried(proxies: Proxies) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    with Client([nobody, proxies[0].url], spread=False) as client:
        began = time.monotonic()
        assert call(client, b"1", 10.0) == b"1"
        assert time.monotonic() - began < 0.9


def test_broker_that_resets_each_connection_costs_nothing_either(proxies: Proxies) -> None:
    proxies[0].refuses = True
    with Client(urls(proxies), spread=False) as client:
        began = time.monotonic()
        assert call(client, b"1", 10.0) == b"1"
        assert time.monotonic() - began < 0.9


LOSSES = pytest.mark.parametrize(
    "lose",
    [
        pytest.param(lambda proxy: setattr(proxy, "lost", frozenset(("up",))), id="up"),
        pytest.param(lambda proxy: setattr(proxy, "lost", frozenset(("down",))), id="down"),
        pytest.param(lambda proxy: setattr(proxy, "lost", frozenset(("up", "down"))), id="both"),
        pytest.param(Proxy.forget, id="forgotten"),
    ],
)


@LOSSES
def test_client_that_only_calls_leaves_a_silent_path(
    proxies: Proxies, lose: Callable[[Proxy], None]
) -> None:
    with Client(urls(proxies), spread=False) as client:
        assert call(client, b"before", 5.0) == b"before"
        lose(proxies[0])
        with pytest.raises(DeadlineExceeded):
            call(client, b"silent", 0.5)
        assert call(client, b"after", SOON) == b"after"


@LOSSES
def test_client_with_a_background_thread_leaves_a_silent_path(
    proxies: Proxies, lose: Callable[[Proxy], None]
) -> None:
    with Client(urls(proxies), spread=False) as client:
        assert submit(client, b"before", 5.0) == b"before"
        lose(proxies[0])
        with pytest.raises(DeadlineExceeded):
            submit(client, b"silent", 0.5)
        assert submit(client, b"after", SOON) == b"after"


@LOSSES
def test_async_client_leaves_a_silent_path(proxies: Proxies, lose: Callable[[Proxy], None]) -> None:
    async def run() -> bytes:
        async with AsyncClient(urls(proxies), spread=False) as client:
            await client.call("count", b"before", timeout=5.0)
            lose(proxies[0])
            with pytest.raises(DeadlineExceeded):
                await client.call("count", b"silent", timeout=0.5)
            return (await client.call("count", b"after", timeout=SOON)).body

    assert asyncio.run(run()) == b"after"


def test_client_of_one_broker_connects_again_when_its_connection_was_forgotten(
    proxies: Proxies,
) -> None:
    with Client(proxies[0].url) as client:
        assert call(client, b"before", 5.0) == b"before"
        proxies[0].forget()
        with pytest.raises(DeadlineExceeded):
            call(client, b"silent", 0.5)
        assert call(client, b"after", SOON) == b"after"
    assert proxies[0].connections == 2


def test_client_that_paused_after_a_silent_deadline_leaves_at_once(proxies: Proxies) -> None:
    with Client(urls(proxies), spread=False) as client:
        assert call(client, b"before", 5.0) == b"before"
        proxies[0].forget()
        with pytest.raises(DeadlineExceeded):
            call(client, b"silent", 0.5)
        time.sleep(3.0)
        began = time.monotonic()
        assert call(client, b"after", SOON) == b"after"
        assert time.monotonic() - began < 1.0


def test_client_stays_at_a_broker_that_answers_the_probe(proxies: Proxies) -> None:
    """No worker takes the request, and the client's clock ends it: the path is fine."""
    with Client(urls(proxies), spread=False, timeout=0.3) as client:
        assert call(client, b"before", 5.0) == b"before"
        proxies[0].stall(1.0)
        with pytest.raises(DeadlineExceeded):
            call(client, b"late", 0.3)
        time.sleep(3.5)
        assert call(client, b"after", 5.0) == b"after"
    assert (proxies[0].connections, proxies[1].connections) == (1, 0)


def test_bytes_that_come_one_by_one_make_a_call_slow_and_nothing_else(
    proxies: Proxies, ledger: Ledger
) -> None:
    proxies[0].bytewise = True
    body = bytes(range(256)) * 4
    with Client(urls(proxies), spread=False) as client, ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda n: call(client, b"%d" % n + body, 20.0), range(8)))
    assert replies == [b"%d" % n + body for n in range(8)]
    assert set(ledger.runs.values()) == {1}
    assert (proxies[0].connections, proxies[1].connections) == (1, 0)


def test_calls_through_resets_have_one_outcome_and_run_once_where_asked(
    proxies: Proxies, ledger: Ledger
) -> None:
    with Client(urls(proxies), spread=False, timeout=5.0) as client:
        for number in range(40):
            name = b"%d" % number
            if number % 10 == 9:
                for proxy in proxies:
                    proxy.reset()
            try:
                once = number % 2 == 0
                ledger.end(name, client.call("count", name, once=once).text)
            except BrokerLost as error:
                ledger.end(name, type(error).__name__)
    assert len(ledger.outcomes) == 40
    for name, outcome in ledger.outcomes.items():
        assert outcome in (name.decode(), "BrokerLost")
        assert ledger.runs[name] == 1 or int(name) % 2 or outcome == "BrokerLost"
        assert ledger.runs[name] <= 1 or int(name) % 2


def test_threads_that_call_while_a_path_falls_silent_all_move_to_the_next_broker(
    proxies: Proxies,
) -> None:
    with Client(urls(proxies), spread=False) as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: call(client, b"%d" % n, 5.0), range(8)))
        proxies[0].forget()
        with pytest.raises(DeadlineExceeded):
            call(client, b"silent", 0.5)
        began = time.monotonic()
        assert len(list(pool.map(lambda n: call(client, b"a%d" % n, 10.0), range(8)))) == 8
        assert time.monotonic() - began < SOON
        eventually(lambda: proxies[1].connections == 1)
