"""The log of a worker's connections: one line for each change of state, at a fake clock."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from majordomus.net.broker.broker import Broker
from majordomus.net.worker.broker_log import BURST, LOOK, SLOW, BrokerLog
from majordomus.net.worker.worker import Worker
from tests.cli.shell import LIMIT, Running, clean_environment
from tests.net.conftest import eventually

URL = "tcp://127.0.0.1:5555"


class Registration:
    """One registration, in the state that a test gives it."""

    def __init__(self, *services: str) -> None:
        self.services = list(services)
        self.ready = self.refused = False
        self.problem = ""

    def registered(self) -> None:
        self.refused = False


class Fixture:
    """A log with two registrations; `lines` are what it has logged since the last call."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.now = 0.0
        self.caplog = caplog
        self.one, self.two = Registration("hello"), Registration("count", "sum")
        self.loop = asyncio.new_event_loop()
        self.log = BrokerLog(URL, self.loop, lambda: self.now)
        self.log.add(self.one)
        self.log.add(self.two)

    def lines(self, seconds: float = LOOK) -> list[str]:
        self.caplog.clear()
        self.now += seconds
        self.log.look()
        return [f"{one.levelname} {one.getMessage()}" for one in self.caplog.records]

    def set(self, *, ready: bool = False, problem: str = "") -> None:
        for one in (self.one, self.two):
            one.ready, one.problem = ready, problem


@pytest.fixture
def fixture(caplog: pytest.LogCaptureFixture) -> Iterator[Fixture]:
    caplog.set_level(logging.INFO, "majordomus.worker")
    made = Fixture(caplog)
    yield made
    made.log.stop()
    made.loop.close()


def test_each_change_of_state_has_one_line(fixture: Fixture) -> None:
    assert fixture.lines() == [f"INFO connecting to {URL}"]
    assert fixture.lines() == []
    fixture.one.ready = True
    assert fixture.lines() == []
    fixture.set(ready=True)
    assert fixture.lines() == [f"INFO registered at {URL}: count, hello, sum"]
    fixture.set()
    assert fixture.lines() == [f"WARNING lost the broker at {URL}; connecting again"]
    fixture.set(problem="connection refused")
    refused = f"WARNING cannot connect to {URL} (connection refused); trying again"
    assert fixture.lines() == [refused]
    assert fixture.lines(60.0) == []
    fixture.set(ready=True)
    assert fixture.lines() == [f"WARNING registered at {URL}: count, hello, sum"]


def test_connection_without_a_registration_is_told_after_three_seconds(fixture: Fixture) -> None:
    fixture.lines()
    assert fixture.lines(SLOW) == [f"WARNING no broker at {URL} has registered this worker yet"]


def test_refusal_has_its_own_line_and_its_end_one_too(fixture: Fixture) -> None:
    fixture.lines()
    fixture.one.refused = True
    assert fixture.lines() == []
    fixture.set(ready=True)
    assert fixture.lines() == [f"WARNING registered at {URL}: count, hello, sum"]
    assert not fixture.one.refused


def test_service_that_is_added_does_not_count_as_a_loss(fixture: Fixture) -> None:
    fixture.set(ready=True)
    fixture.lines()
    fixture.log.add(added := Registration("more"))
    fixture.lines()
    added.ready = True
    assert fixture.lines() == [f"INFO registered at {URL}: count, hello, more, sum"]


def test_worker_that_is_lost_again_and_again_logs_a_bounded_number_of_lines(
    fixture: Fixture,
) -> None:
    count = 0
    for turn in range(1000):
        fixture.set(ready=turn % 2 == 0)
        count += len(fixture.lines(0.01))
    assert count <= BURST + 10.0 / 5.0
    fixture.set(ready=True)
    fixture.lines(10.0)
    fixture.set()
    assert fixture.lines(10.0) == [f"WARNING lost the broker at {URL}; connecting again"]


def test_worker_logs_the_life_of_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "majordomus.worker")

    def said(text: str) -> bool:
        return any(text in one.getMessage() for one in caplog.records)

    broker = Broker(bind="tcp://127.0.0.1:*")
    broker.start()
    (url,) = broker.endpoints
    worker = Worker(url)
    worker.add("hello", lambda request: request.body)
    with worker:
        eventually(lambda: said(f"registered at {url}: hello"), within=10)
        assert said(f"connecting to {url}")
        broker.stop()
        eventually(lambda: said(f"lost the broker at {url}"), within=10)
        eventually(lambda: said(f"cannot connect to {url}"), within=10)
        caplog.clear()
        with Broker(bind=url):
            eventually(lambda: said(f"registered at {url}: hello"), within=20)
            assert not said("lost")


PROGRAM = """
from majordomus import Worker

worker = Worker("tcp://127.0.0.1:1")

@worker.service("hello")
def hello(request):
    return request.body

worker.run()
"""


def test_program_without_logging_has_the_lines_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(PROGRAM, "utf-8")
    process = subprocess.Popen(
        [sys.executable, "worker.py"],
        cwd=tmp_path,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    running = Running(process)
    try:
        assert running.err.next().endswith("INFO connecting to tcp://127.0.0.1:1")
        assert "cannot connect to tcp://127.0.0.1:1" in running.err.next()
        assert running.stop() == 0
    finally:
        process.kill()
        process.wait(LIMIT)
        running.out.rest()
        running.err.rest()
