"""`majordomus titanic` at a broker that knows nothing of it: RFC 9 by raw frames of MDP/0.1, over
kill -9 of the worker."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_titanic import PROGRAM, call
from tests.cli.shell import Running, Shell, clean_environment
from tests.peers.mdp01_broker import Mdp01Broker


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path, clean_environment())
    yield made
    made.end()


@pytest.fixture
def broker() -> Iterator[Mdp01Broker]:
    """A broker of MDP/0.1 that shares no code with ours."""
    with contextlib.closing(Mdp01Broker()) as broker:
        threading.Thread(target=broker.run, daemon=True).start()
        yield broker
        broker.stop()


def start(shell: Shell, url: str) -> Running:
    titanic = shell.start(
        "titanic", "--store", "sqlite:store.db", "--broker", url, "--dialect", "mdp01"
    )
    assert titanic.out.next() == f"serving at {url}"
    return titanic


def reply_of(url: str, id: bytes) -> list[bytes]:
    """The answer of titanic.reply, once it is not 300 any more."""
    until = time.monotonic() + 20
    while (found := call(url, "titanic.reply", id.decode())) == [b"300"]:
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def test_request_survives_kill_9_of_the_worker_that_has_stored_it(
    shell: Shell, broker: Mdp01Broker
) -> None:
    url = broker.url
    titanic = start(shell, url)
    status, id = call(url, "titanic.request", "reverse", "abc", "xyz")
    assert (status, len(id)) == (b"200", 32)
    assert call(url, "titanic.reply", id.decode()) == [b"300"]

    titanic.stop(signal.SIGKILL)
    broker.expire_workers()
    start(shell, url)
    assert call(url, "titanic.reply", id.decode()) == [b"300"]
    with subprocess.Popen([sys.executable, "-I", str(PROGRAM), "worker", url, "reverse", "1"]):
        assert reply_of(url, id) == [b"200", b"cba", b"zyx"]
    assert call(url, "titanic.close", id.decode()) == [b"200"]
    assert call(url, "titanic.close", id.decode()) == [b"200"]
    assert call(url, "titanic.reply", id.decode()) == [b"400"]
    assert call(url, "titanic.reply", "nonsense") == [b"400"]
    assert call(url, "titanic.request", "titanic.request", "x") == [b"400"]
