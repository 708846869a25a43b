"""The load in a worker's heartbeats: where it comes from, and that measuring it blocks nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable

import pytest

from majordomus.errors import ConfigurationError
from majordomus.net.broker.broker import Broker
from majordomus.net.worker import load
from majordomus.net.worker.async_worker import AsyncWorker
from majordomus.net.worker.load import LoadMeter, host_load
from majordomus.net.worker.worker import Worker
from majordomus.protocol import metadata
from tests.net.conftest import eventually


@pytest.fixture
def metered() -> Callable[..., list[float | None]]:
    """Runs a meter until it has reported `count` times; returns the reports."""

    def run(measure: load.Measure, count: int, interval: float = 0.01) -> list[float | None]:
        async def main() -> list[float | None]:
            reports: list[float | None] = []
            enough = asyncio.Event()

            def report(value: float | None) -> None:
                reports.append(value)
                if len(reports) >= count:
                    meter.stop()
                    enough.set()

            meter = LoadMeter(measure, report, asyncio.get_running_loop(), interval)
            meter.start()
            async with asyncio.timeout(20):
                await enough.wait()
            return reports

        return asyncio.run(main())

    return run


@pytest.mark.skipif(not hasattr(os, "getloadavg"), reason="a load average is Unix's")
def test_load_of_this_machine_is_the_load_average_per_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (6.0, 1.0, 1.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert host_load() == 1.5


@pytest.mark.skipif(not hasattr(os, "getloadavg"), reason="a load average is Unix's")
def test_load_is_unknown_where_the_system_does_not_know_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails() -> None:
        raise OSError("no /proc")

    monkeypatch.setattr(os, "getloadavg", fails)
    assert host_load() is None


def test_measure_is_made_in_a_thread_of_its_own(
    metered: Callable[..., list[float | None]],
) -> None:
    threads: list[str] = []

    def measure() -> float:
        threads.append(threading.current_thread().name)
        return 0.25 * len(threads)

    assert metered(measure, 3) == [0.25, 0.5, 0.75]
    assert set(threads) == {"majordomus-load"}


def test_load_is_reported_at_once_and_not_again_before_the_interval_is_over(
    metered: Callable[..., list[float | None]],
) -> None:
    assert load.REFRESH == 10.0
    assert metered(lambda: 1.0, 1, interval=3600.0) == [1.0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (-1.0, "ValueError: a load is a number from 0, not -1.0"),
        (float("nan"), "ValueError: a load is a number from 0, not nan"),
        ("high", "TypeError"),
        (ZeroDivisionError("no cores"), "ZeroDivisionError: no cores"),
    ],
)
def test_measure_that_fails_is_an_unknown_load_and_logged_once(
    metered: Callable[..., list[float | None]],
    caplog: pytest.LogCaptureFixture,
    wrong: object,
    words: str,
) -> None:
    def measure() -> float:
        if isinstance(wrong, Exception):
            raise wrong
        return wrong  # type: ignore[return-value]

    with caplog.at_level(logging.WARNING, "majordomus.worker"):
        assert metered(measure, 3) == [None, None, None]
    assert [words in record.getMessage() for record in caplog.records] == [True]


def test_meter_that_was_stopped_reports_nothing() -> None:
    async def main() -> list[float | None]:
        reports: list[float | None] = []
        done = threading.Event()

        def measure() -> float:
            done.set()
            return 1.0

        meter = LoadMeter(measure, reports.append, asyncio.get_running_loop())
        meter.start()
        meter.stop()
        await asyncio.to_thread(done.wait, 20)
        await asyncio.sleep(0.01)
        return reports

    assert asyncio.run(main()) == []


def known_loads(broker: Broker) -> list[float | None]:
    """The loads that the broker has received. Its thread may change them while they are read here:
    each is one attribute."""
    loop = broker._loop
    assert loop is not None
    return [worker.load for worker in list(loop._machine.registry.workers.values())]


def test_heartbeats_of_a_worker_carry_the_result_of_its_load_function(
    broker: Broker, url: str
) -> None:
    worker = Worker(url, load=lambda: 0.42)
    worker.add("echo", lambda request: request.body)
    with worker:
        eventually(lambda: known_loads(broker) == [0.42], within=10)


def test_heartbeats_of_a_worker_carry_the_load_of_this_machine(broker: Broker, url: str) -> None:
    async def main() -> None:
        worker = AsyncWorker(url)
        worker.add("echo", lambda request: request.body)
        async with worker, asyncio.timeout(10):
            while known_loads(broker) in ([], [None]):
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_ready_of_a_worker_carries_its_weight(broker: Broker, url: str) -> None:
    worker = Worker(url, weight=2.5)
    worker.add("echo", lambda request: request.body)
    with worker:
        worker.wait_ready()
        loop = broker._loop
        assert loop is not None
        (known,) = loop._machine.registry.workers.values()
        assert metadata.unpack(known.metadata[b"echo"]) == {"weight": 2.5}


@pytest.mark.parametrize("weight", [0, -1, 1000, float("nan")])
def test_weight_out_of_its_bounds_is_refused(url: str, weight: float) -> None:
    with pytest.raises(ConfigurationError, match=r"a weight is 0\.01 to 100"):
        Worker(url, weight=weight)


def test_measure_that_raises_system_exit_is_unknown_and_measured_again(
    metered: Callable[..., list[float | None]], caplog: pytest.LogCaptureFixture
) -> None:
    def exits() -> float:
        raise SystemExit(2)

    assert metered(exits, 2) == [None, None]
    assert [record.message for record in caplog.records] == ["the load is unknown: SystemExit: 2"]
