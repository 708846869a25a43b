"""`majordomus metrics`: /metrics, /healthz and /readyz of brokers that serve, drain and block."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from majordomus.cli.run.http_address import address_of
from majordomus.core.broker.settings import BrokerSettings
from majordomus.durable.sqlite import SqliteStore
from majordomus.errors import ConfigurationError, TooManyRequests
from majordomus.net.broker.broker import Broker
from majordomus.net.client.client import Client
from majordomus.net.worker.worker import Worker
from majordomus.observe import web
from majordomus.observe.web import Brokers, Questions
from tests.cli.conftest import shell
from tests.cli.shell import LIMIT, Running, Shell
from tests.observe.programs import get
from tests.observe.snapshots import STORE, snapshot

__all__ = ["shell"]


class Exporter:
    """`majordomus metrics` for some brokers."""

    def __init__(self, shell: Shell, *urls: str) -> None:
        flags = [flag for url in urls for flag in ("--broker", url)]
        self.running: Running = shell.start("metrics", "--bind", "127.0.0.1:0", *flags)
        self.url = self.running.out.next().removeprefix("listening on ")

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        return get(self.url + path, **headers)

    def until_ready(self, wanted: bool, seconds: float = LIMIT) -> dict[str, str]:
        """Wait until /readyz says so; returns the problems that it names."""
        end = time.monotonic() + seconds
        while True:
            status, text = self.get("/readyz")
            found: dict[str, Any] = json.loads(text)
            assert (status == 200) == found["ready"]
            if found["ready"] == wanted:
                return dict(found["problems"])
            assert time.monotonic() < end, text


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(BrokerSettings(drain_timeout=LIMIT), bind="tcp://127.0.0.1:*") as made:
        yield made


def test_exporter_answers_metrics_and_probes_and_ends_at_sigterm(
    shell: Shell, broker: Broker
) -> None:
    exporter = Exporter(shell, *broker.endpoints)
    assert exporter.get("/healthz") == (200, "ok\n")
    assert exporter.until_ready(True) == {}
    status, text = exporter.get("/metrics")
    assert status == 200
    assert f'majordomus_up{{broker="{broker.endpoints[0]}"}} 1.0' in text.splitlines()
    assert "majordomus_exporter_process_cpu_seconds_total" in text
    status, text = exporter.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert (status, text.splitlines()[-1]) == (200, "# EOF")
    assert exporter.get("/other")[0] == 404
    assert exporter.running.stop() == 0


def test_exporter_of_two_brokers_is_ready_only_while_both_are(shell: Shell, broker: Broker) -> None:
    with Broker(bind="tcp://127.0.0.1:*") as other:
        exporter = Exporter(shell, *broker.endpoints, *other.endpoints)
        exporter.until_ready(True)
        urls = (broker.endpoints[0], other.endpoints[0])
    assert set(exporter.until_ready(False)) == {urls[1]}
    lines = exporter.get("/metrics")[1].splitlines()
    assert [
        f'majordomus_up{{broker="{url}"}} {up}' in lines
        for url, up in zip(urls, ("1.0", "0.0"), strict=True)
    ] == [True, True]


def test_broker_that_drains_is_not_ready_within_one_second(shell: Shell, broker: Broker) -> None:
    """The broker drains for as long as a worker holds a request."""
    exporter = Exporter(shell, *broker.endpoints)
    held, release = threading.Event(), threading.Event()

    def hold(_request: object) -> None:
        held.set()
        release.wait(LIMIT)

    worker = Worker(broker.endpoints)
    worker.add("hold", hold)
    with worker, Client(broker.endpoints, timeout=LIMIT) as client:
        worker.wait_ready()
        call = client.submit("hold")
        assert held.wait(LIMIT)
        exporter.until_ready(True)
        stopping = threading.Thread(target=broker.stop)
        stopping.start()
        try:
            problems = exporter.until_ready(False, 1.0)
            assert list(problems) == broker.endpoints
        finally:
            release.set()
            stopping.join()
        call.result(LIMIT)


class Blocking(Broker):
    """A broker whose hook holds up the loop."""

    def on_request(self, request: Any) -> None:
        if request.service == "block":
            time.sleep(2.0)


def test_broker_whose_hook_holds_its_loop_is_not_ready_within_one_second(shell: Shell) -> None:
    with Blocking(bind="tcp://127.0.0.1:*") as broker:
        exporter = Exporter(shell, *broker.endpoints)
        exporter.until_ready(True)
        with Client(broker.endpoints, timeout=LIMIT) as client:
            client.submit("block")
            (problem,) = exporter.until_ready(False, 1.0).values()
            assert problem == "the broker has not answered within 0.5 s"
            exporter.until_ready(True)


def test_broker_that_is_lost_and_comes_back_is_ready_again(shell: Shell) -> None:
    first = shell.broker()
    exporter = Exporter(shell, first.url)
    exporter.until_ready(True)
    first.end()
    exporter.until_ready(False)
    shell.start("broker", "--bind", first.url)
    exporter.until_ready(True)


@pytest.mark.parametrize(("accepts", "ready"), [(True, True), (False, False)])
def test_broker_is_not_ready_while_the_disk_of_its_store_is_full(
    accepts: bool, ready: bool
) -> None:
    row = snapshot(store=msgspec.structs.replace(STORE, accepts=accepts)).broker

    async def ask(_body: list[bytes]) -> list[bytes]:
        return [b"200", msgspec.json.encode(row)]

    problems = asyncio.run(Brokers({"tcp://b": Questions(ask)}, 5.0).problems())
    assert problems == (
        {} if ready else {"tcp://b": "the disk of the broker's store is almost full"}
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB in memory, which only root can mount."""
    if sys.platform != "linux":
        pytest.skip("only Linux mounts a file system of so many bytes")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.decode(errors='replace').strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_broker_whose_disk_fills_up_says_so_everywhere_within_one_second(
    shell: Shell, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = functools.partial(SqliteStore, ballast=1 << 20)
    monkeypatch.setattr("majordomus.durable.opening.SqliteStore", small)
    settings = BrokerSettings(store=f"sqlite:{small_disk / 'store.db'}")
    with (
        Broker(settings, bind="tcp://127.0.0.1:*") as broker,
        Client(broker.endpoints, timeout=LIMIT) as client,
    ):
        exporter = Exporter(shell, *broker.endpoints)
        exporter.until_ready(True)

        def accepts() -> tuple[bool, bool]:
            """What mmi.stats and /metrics say."""
            _, stats = map(json.loads, client.call("mmi.stats").frames)  # 200, and the counters
            (line,) = (
                line
                for line in exporter.get("/metrics")[1].splitlines()
                if line.startswith("majordomus_store_writable{")
            )
            return stats["durable"]["accepts"], line.endswith(" 1.0")

        assert accepts() == (True, True)
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass
        full = time.monotonic()
        (problem,) = exporter.until_ready(False, 1.0).values()
        assert problem == "the disk of the broker's store is almost full"
        while accepts() != (False, False):
            assert time.monotonic() < full + 1.0
        with pytest.raises(TooManyRequests, match="full"):
            client.submit_durable("job", "a")
        filler.unlink()
        exporter.until_ready(True)
        client.submit_durable("job", "a")


def test_broker_that_is_down_delays_only_the_first_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def answer(reading: Any, seconds: float) -> Any:
        waited.append(seconds)
        reading.close()
        return "no answer"

    async def ask(_body: list[bytes]) -> list[bytes]:
        raise AssertionError

    async def scrape_twice() -> None:
        brokers = Brokers({"tcp://b": Questions(ask)}, 5.0)
        await brokers.update()
        brokers._read = 0.0
        await brokers.update()

    monkeypatch.setattr(web, "_answer", answer)
    asyncio.run(scrape_twice())
    assert waited == [5.0, web.PROBE_WAIT]


@pytest.mark.parametrize("bind", ["9464", "127.0.0.1", "127.0.0.1:", "x:70000", "x:-1", "x:\u0663"])
def test_bind_that_is_no_host_and_port_is_an_error(bind: str) -> None:
    with pytest.raises(ConfigurationError, match="expected HOST:PORT"):
        address_of("--bind", bind)


def test_bind_may_be_a_port_or_an_ipv6_address() -> None:
    assert address_of("--bind", ":9464") == ("127.0.0.1", 9464)
    assert address_of("--bind", "[::1]:0") == ("::1", 0)


def test_command_without_the_extra_says_what_to_install(shell: Shell) -> None:
    shell.write("prometheus_client.py", "raise ImportError('as if it were not installed')")
    code, out, error = shell.run(
        "metrics", PYTHONPATH=f"{shell.folder}:{shell.environment['PYTHONPATH']}"
    )
    assert (code, out) == (2, b"")
    assert error == (
        "majordomus metrics: more packages are needed: pip install 'majordomus[observe]'\n"
    )


def test_address_in_use_is_one_line_and_exit_code_1(shell: Shell, broker: Broker) -> None:
    address = broker.endpoints[0].removeprefix("tcp://")
    code, _, error = shell.run("metrics", "--bind", address)
    assert (code, error) == (
        1,
        f"majordomus metrics: cannot bind {address}: Address already in use\n",
    )
