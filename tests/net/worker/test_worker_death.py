"""Real brokers, workers and clients that die or are stopped: how soon the others react, and what
becomes of their calls."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import BrokerLost, WorkerLost
from majordomus.net.broker.broker import Broker
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from tests.net.conftest import QUICK

LONG_INTERVALS = BrokerSettings(worker_interval=60.0, client_interval=60.0, drain_timeout=0.1)
"""A peer that is lost within seconds was not lost for its missing heartbeats."""

WORKER = """
import os, sys, time
from majordomus import Worker

def write_line(word):  # at once and whole, from any thread
    os.write(1, word + b"\\n")

worker = Worker(sys.argv[1].split(","), threads=2, capacity=20)

@worker.service("work")
def work(request):
    write_line(b"working")
    time.sleep(float(request.body))
    return str(os.getpid())

@worker.service("parts")
def parts(request):
    for number in range(1000):
        yield str(os.getpid())
        time.sleep(0.05)

@worker.service("who")
async def who(request):
    return str(os.getpid())

worker.start()
worker.wait_ready()
write_line(b"ready")
time.sleep(600)
"""

QUICK_WORKER = WORKER.replace("float(request.body)", "0")

BROKER = """
import sys
from majordomus import Broker, BrokerSettings
broker = Broker(BrokerSettings(worker_interval=60.0, client_interval=60.0), bind=sys.argv[1])
broker.run(ready=lambda: print("ready", broker.endpoints[0], flush=True))
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program, waits for its line "ready", and kills it at the end."""
    running: list[subprocess.Popen[str]] = []

    def begin(program: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        line(process, "ready")
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str], begins: str) -> list[str]:
    """The words after `begins` in the next line that begins with it."""
    assert process.stdout
    for text in process.stdout:
        words = text.split()
        if words[:1] == [begins]:
            return words[1:]
    raise AssertionError(f"it has ended without a line {begins}")


@pytest.fixture(params=["tcp", "ipc"])
def slow_heartbeats(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    bind = "tcp://127.0.0.1:0" if request.param == "tcp" else f"ipc://{tmp_path / 's'}"
    with Broker(LONG_INTERVALS, bind=bind) as broker:
        yield broker


def test_killed_worker_is_replaced_within_a_second_and_the_client_sees_one_reply(
    slow_heartbeats: Broker, start: Start
) -> None:
    (url,) = slow_heartbeats.endpoints
    with Client(url, timeout=20.0) as client:
        for _ in range(3):
            first = start(WORKER, url)
            future = client.submit("work", b"5")
            line(first, "working")
            second = start(WORKER, url)
            first.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            line(second, "working")
            assert time.monotonic() - killed < 1.0
            second.send_signal(signal.SIGKILL)
            third = start(QUICK_WORKER, url)
            assert future.result().text == str(third.pid)
            third.kill()
        assert client._session.late == 0


def test_once_call_and_open_stream_fail_within_a_second_of_the_workers_death(
    slow_heartbeats: Broker, start: Start
) -> None:
    (url,) = slow_heartbeats.endpoints
    worker = start(WORKER, url)
    with Client(url, timeout=20.0) as client:
        once = client.submit("work", b"30", once=True)
        line(worker, "working")
        parts = client.stream("parts")
        assert next(parts).text == str(worker.pid)
        worker.kill()
        killed = time.monotonic()
        with pytest.raises(WorkerLost):
            once.result()
        with pytest.raises(WorkerLost):
            list(parts)
        assert time.monotonic() - killed < 1.0


def test_stopped_worker_is_expired_and_a_busy_one_is_not(start: Start) -> None:
    with Broker(QUICK, bind="tcp://127.0.0.1:0") as broker:
        (url,) = broker.endpoints
        expiry = QUICK.worker_interval * QUICK.liveness
        with Client(url, timeout=20.0) as client:
            busy = start(WORKER, url)
            long = client.submit("work", b"%.1f" % (3 * expiry))
            line(busy, "working")
            reply = long.result()
            assert reply.text == str(busy.pid)
            future = client.submit("work", b"0")
            line(busy, "working")
            future.result()

            other = start(WORKER, url)
            futures = [client.submit("work", b"0.5") for _ in range(2)]
            line(busy, "working")
            line(other, "working")
            busy.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            assert {future.result().text for future in futures} == {str(other.pid)}
            assert time.monotonic() - stopped < expiry + 2 * 0.5 + 1.0

            busy.send_signal(signal.SIGCONT)  # it comes back as a worker with another id
            found: set[str] = set()
            until = time.monotonic() + 5.0
            while len(found) < 2 and time.monotonic() < until:
                found.add(client.call("who").text)
            assert found == {str(busy.pid), str(other.pid)}


class TestTwoBrokers:
    @pytest.fixture
    def two(self, start: Start) -> Iterator[dict[str, subprocess.Popen[str]]]:
        found = {}
        for _ in range(2):
            process = subprocess.Popen(
                [sys.executable, "-c", BROKER, "tcp://127.0.0.1:0"],
                stdout=subprocess.PIPE,
                text=True,
            )
            found[line(process, "ready")[0]] = process
        yield found
        for process in found.values():
            process.kill()
            process.communicate()

    def test_calls_of_a_killed_broker_are_answered_by_the_other(
        self, two: dict[str, subprocess.Popen[str]], start: Start
    ) -> None:
        urls = list(two)
        worker = start(WORKER, ",".join(urls))
        with Client(urls, timeout=20.0, spread=False) as client:
            assert client.call("who").text == str(worker.pid)
            futures = [client.submit("work", b"0.5") for _ in range(2)]
            for _ in futures:
                line(worker, "working")
            two[urls[0]].kill()
            killed = time.monotonic()
            assert client.call("who").text == str(worker.pid)
            assert time.monotonic() - killed < 1.0
            assert {future.result().text for future in futures} == {str(worker.pid)}

    def test_client_in_a_single_thread_moves_on_in_the_middle_of_its_call(
        self, two: dict[str, subprocess.Popen[str]], start: Start
    ) -> None:
        urls = list(two)
        worker = start(WORKER, ",".join(urls))
        killer = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import time, os; time.sleep(0.5); os.kill({two[urls[0]].pid}, 9)",
            ]
        )
        with Client(urls, timeout=20.0, spread=False) as client:
            assert client.call("work", b"1.0").text == str(worker.pid)
            assert client._session.endpoint == 1
        killer.wait()

    def test_once_call_and_open_stream_are_lost_with_the_broker(
        self, two: dict[str, subprocess.Popen[str]], start: Start
    ) -> None:
        urls = list(two)
        worker = start(WORKER, ",".join(urls))

        async def program() -> None:
            async with AsyncClient(urls, timeout=20.0, spread=False) as client:
                once = asyncio.create_task(client.call("work", b"30", once=True))
                parts = client.stream("parts")
                assert (await anext(parts)).text == str(worker.pid)
                two[urls[0]].kill()
                with pytest.raises(BrokerLost):
                    await once
                with pytest.raises(BrokerLost):
                    async for _ in parts:
                        pass
                assert (await client.call("who")).text == str(worker.pid)

        asyncio.run(program())

    def test_broker_that_comes_back_gets_its_workers_back(
        self, two: dict[str, subprocess.Popen[str]], start: Start
    ) -> None:
        url, _ = two
        worker = start(WORKER, url)
        two[url].kill()
        two[url].wait()
        again = subprocess.Popen(
            [sys.executable, "-c", BROKER, url], stdout=subprocess.PIPE, text=True
        )
        try:
            line(again, "ready")
            with Client(url, timeout=10.0) as client:
                assert client.call("who").text == str(worker.pid)
        finally:
            again.kill()
            again.communicate()


def test_request_of_a_killed_client_is_cancelled(slow_heartbeats: Broker, start: Start) -> None:
    (url,) = slow_heartbeats.endpoints
    program = f"""
import os, sys
from majordomus import Client
client = Client({url!r})
future = client.submit("work", b"0.5")
print("ready", flush=True)
future.result()
"""
    worker = start(WORKER, url)
    caller = start(program)
    line(worker, "working")
    os.kill(caller.pid, signal.SIGKILL)
    with Client(url) as client:
        until = time.monotonic() + 2.0
        while b'"open":0' not in client.call("mmi.services").frames[1].replace(b" ", b""):
            assert time.monotonic() < until
            time.sleep(0.01)
