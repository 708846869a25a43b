"""`majordomus titanic` at a broker that knows nothing of it: RFC 9 by raw frames of MDP/0.1 and
0.2, over kill -9 of the worker and over restarts of the broker."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_titanic import PROGRAM, call
from tests.cli.shell import Running, Shell, clean_environment
from tests.peers.mdp_broker import Mdp01Broker, Mdp02Broker

BROKERS = {"01": Mdp01Broker, "02": Mdp02Broker}
Start = Callable[..., Mdp01Broker]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path, clean_environment())
    yield made
    made.end()


@contextlib.contextmanager
def serving(dialect: str, port: int = 0) -> Iterator[Mdp01Broker]:
    """A broker that shares no code with ours."""
    with contextlib.closing(BROKERS[dialect](port)) as broker:
        threading.Thread(target=broker.run, daemon=True).start()
        try:
            yield broker
        finally:
            broker.stop()


def start(shell: Shell, url: str, dialect: str, *extra: str) -> Running:
    command = ["titanic", "--store", "sqlite:store.db", "--broker", url]
    titanic = shell.start(*command, "--dialect", f"mdp{dialect}", *extra)
    assert titanic.out.next() == f"serving at {url}"
    return titanic


@contextlib.contextmanager
def worker(url: str, dialect: str, service: str) -> Iterator[None]:
    """A process that serves every request of a service, also those whose client is gone."""
    command = [sys.executable, "-I", str(PROGRAM), "worker", dialect, url, service, "1000"]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


def until(expected: Callable[[], bool]) -> None:
    """Wait until `expected` is true."""
    end = time.monotonic() + 20
    while not expected():
        assert time.monotonic() < end
        time.sleep(0.1)


def reply_of(url: str, id: bytes, dialect: str) -> list[bytes]:
    """The answer of titanic.reply, once it is not 300 any more."""
    found = [b"300"]

    def answered() -> bool:
        found[:] = call(url, "titanic.reply", id.decode(), dialect=dialect)
        return found != [b"300"]

    until(answered)
    return found


@pytest.mark.parametrize("dialect", ["01", "02"])
def test_request_survives_kill_9_of_the_worker_that_has_stored_it(
    shell: Shell, dialect: str
) -> None:
    with serving(dialect) as broker:
        url = broker.url

        def ask(*frames: str) -> list[bytes]:
            return call(url, *frames, dialect=dialect)

        titanic = start(shell, url, dialect)
        status, id = ask("titanic.request", "reverse", "abc", "xyz")
        assert (status, len(id)) == (b"200", 32)
        assert ask("titanic.reply", id.decode()) == [b"300"]

        titanic.stop(signal.SIGKILL)
        broker.expire_workers()
        start(shell, url, dialect)
        assert ask("titanic.reply", id.decode()) == [b"300"]
        with worker(url, dialect, "reverse"):
            assert reply_of(url, id, dialect) == [b"200", b"cba", b"zyx"]
        assert ask("titanic.close", id.decode()) == [b"200"]
        assert ask("titanic.close", id.decode()) == [b"200"]
        assert ask("titanic.reply", id.decode()) == [b"400"]
        assert ask("titanic.reply", "nonsense") == [b"400"]
        assert ask("titanic.request", "titanic.request", "x") == [b"400"]


@pytest.mark.parametrize("dialect", ["01", "02"])
def test_request_survives_a_restart_of_the_broker_while_it_waits_and_while_it_runs(
    shell: Shell, dialect: str
) -> None:
    with serving(dialect) as broker:
        url = broker.url
        titanic = start(shell, url, dialect, "--attempt", "2")
        broker.hold(b"held")  # a worker that takes a request and never answers
        _, held = call(url, "titanic.request", "held", "abc", dialect=dialect)
        _, waits = call(url, "titanic.request", "reverse", "xyz", dialect=dialect)
        until(lambda: broker.held)
    with serving(dialect, int(url.rpartition(":")[2])) as broker:
        until(lambda: broker.serves(b"titanic.reply"))
        assert call(url, "titanic.reply", waits.decode(), dialect=dialect) == [b"300"]
        assert call(url, "titanic.reply", held.decode(), dialect=dialect) == [b"300"]
        with worker(url, dialect, "reverse"):
            assert reply_of(url, waits, dialect) == [b"200", b"zyx"]
        with worker(url, dialect, "held"):
            assert reply_of(url, held, dialect) == [b"200", b"cba"]
    assert titanic.stop() == 0
