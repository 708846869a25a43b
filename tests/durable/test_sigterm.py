"""SIGTERM of a real broker in each phase of a durable request: nothing acknowledged is lost, there
is one outcome, and the exit code is 0 (docs/durable.md)."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from majordomus import Client, DeadlineExceeded, Request, Worker
from tests.cli.conftest import shell
from tests.cli.shell import LIMIT, Running, Shell

__all__ = ["shell"]

pytestmark = pytest.mark.slow

PROGRAM = str(Path(__file__).with_name("slow_broker.py"))
SLOW = 0.4
QUICK_END = 5.0
"""Seconds in which a broker has to end whose requests nobody runs; it may drain for longer."""


class Series:
    """One broker after the other on one port and one store, and a worker that keeps a ledger.

    runs: the texts of the requests that the worker has begun. release: lets it answer.
    """

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.url = f"tcp://127.0.0.1:{found.getsockname()[1]}"
        self.runs: list[str] = []
        self.begun, self.release = threading.Event(), threading.Event()

    def broker(self, slow: str = "none", drain: float = LIMIT) -> Running:
        """Start the broker; writes with an operation of the kind `slow` take longer."""
        command = [sys.executable, PROGRAM, slow, str(SLOW), "broker", "--bind", self.url]
        extra = ["--verbose", "--store", "sqlite:store.db", "--set", f"drain_timeout={drain}"]
        broker = self.shell.adopt([*command, *extra, "--set", "retry_delay=0.05"])
        assert broker.out.next() == f"listening on {self.url}"
        return broker

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        """Serve `job` until the end of the block."""
        worker = Worker(self.url)

        @worker.service("job")
        def job(request: Request) -> str:
            self.runs.append(request.text)
            self.begun.set()
            self.release.wait(LIMIT)
            return f"{request.text}, run {len(self.runs)}"

        worker.start()
        try:
            worker.wait_ready(LIMIT)
            yield worker
        finally:
            self.release.set()
            worker.stop()

    def outcome(self, id: str) -> str:
        """The outcome after a restart, which is the same each time it is asked for."""
        broker = self.broker()
        with Client(self.url, timeout=LIMIT) as client:
            found = {client.result(id).text for _ in range(2)}
        assert broker.stop() == 0
        assert len(found) == 1
        return found.pop()


@pytest.fixture
def series(shell: Shell) -> Series:
    return Series(shell)


def test_request_that_is_being_stored_is_acknowledged_and_there_after_sigterm(
    series: Series,
) -> None:
    broker = series.broker(slow="Append")
    told: list[str] = []
    with Client(series.url, timeout=LIMIT) as client:
        thread = threading.Thread(target=lambda: told.append(client.submit_durable("job", "a")))
        thread.start()
        broker.err.until("writing")
        assert told == []
        assert broker.stop() == 0
        thread.join()
    series.release.set()
    again = series.broker()
    with series.worker():
        assert series.begun.wait(LIMIT)
    assert again.stop() == 0
    assert series.outcome(told[0]) == "a, run 1"
    assert series.runs == ["a"]


def test_request_that_waits_for_a_worker_does_not_keep_the_broker_from_ending(
    series: Series,
) -> None:
    broker = series.broker()
    with Client(series.url, timeout=LIMIT) as client:
        id = client.submit_durable("job", "a")
        began = time.monotonic()
        assert broker.stop() == 0
    assert time.monotonic() - began < QUICK_END
    again = series.broker()
    with Client(series.url, timeout=LIMIT) as client:
        with pytest.raises(DeadlineExceeded):
            client.result(id, timeout=0)
        series.release.set()
        with series.worker():
            assert client.result(id).text == "a, run 1"
    assert again.stop() == 0
    assert series.outcome(id) == "a, run 1"
    assert series.runs == ["a"]


def test_request_that_runs_ends_before_the_broker_does(series: Series) -> None:
    broker = series.broker()
    with series.worker(), Client(series.url, timeout=LIMIT) as client:
        id = client.submit_durable("job", "a")
        assert series.begun.wait(LIMIT)
        broker.send(signal.SIGTERM)
        broker.err.until("SIGTERM: ")
        series.release.set()
        assert broker.process.wait(LIMIT) == 0
    assert series.outcome(id) == "a, run 1"
    assert series.runs == ["a"]


def test_request_that_runs_for_longer_than_the_drain_runs_again(series: Series) -> None:
    broker = series.broker(drain=0.3)
    with series.worker(), Client(series.url, timeout=LIMIT) as client:
        id = client.submit_durable("job", "a")
        assert series.begun.wait(LIMIT)
        assert broker.stop() == 0
    again = series.broker()
    with series.worker(), Client(series.url, timeout=LIMIT) as client:
        assert client.result(id).text == "a, run 2"
    assert again.stop() == 0
    assert series.outcome(id) == "a, run 2"
    assert series.runs == ["a", "a"]


def test_outcome_that_is_being_stored_reaches_its_caller_and_stays(series: Series) -> None:
    broker = series.broker(slow="Complete")
    told: list[str] = []

    def call() -> None:
        told.append(client.call("job", "a", durable=True, key="k").text)

    series.release.set()
    with series.worker(), Client(series.url, timeout=LIMIT) as client:
        thread = threading.Thread(target=call)
        thread.start()
        broker.err.until("writing")
        assert told == []
        assert broker.stop() == 0
        thread.join()
    assert told == ["a, run 1"]
    again = series.broker()
    with Client(series.url, timeout=LIMIT) as client:
        assert client.call("job", "a", durable=True, key="k").text == "a, run 1"
    assert again.stop() == 0
    assert series.runs == ["a"]


def test_outcome_that_its_caller_has_not_read_yet_is_read_after_the_broker_has_ended(
    series: Series,
) -> None:
    """The caller is a process that is stopped while the answer comes."""
    broker = series.broker()
    command = [sys.executable, "-m", "majordomus.cli", "call", "--broker", series.url, "--durable"]
    command += ["--idempotency-key", "k", "job", "a"]
    with series.worker():
        caller = series.shell.adopt(command)
        assert series.begun.wait(LIMIT)
        caller.send(signal.SIGSTOP)
        series.release.set()
        with Client(series.url, timeout=LIMIT) as client:  # the same outcome for another caller
            assert client.call("job", "a", durable=True, key="k").text == "a, run 1"
        assert broker.stop() == 0
    caller.send(signal.SIGCONT)
    assert caller.process.wait(LIMIT) == 0
    assert caller.out.rest() == ["a, run 1"]
    again = series.broker()
    done = series.shell.run(*command[3:])
    assert (done.code, done.out) == (0, b"a, run 1")
    assert again.stop() == 0
    assert series.runs == ["a"]
