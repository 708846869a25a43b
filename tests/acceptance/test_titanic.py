"""RFC 9 by raw frames of MDP/0.1 and 0.2, from processes that share no code with ours, over kill -9
of the broker."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import Running, Shell, clean_environment

PROGRAM = Path(__file__).parents[1] / "peers" / "titanic.py"
OTHER = {"01": "02", "02": "01"}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path, clean_environment())
    yield made
    made.end()


def start(shell: Shell, port: int) -> Running:
    url = f"tcp://127.0.0.1:{port}"
    broker = shell.start("broker", "--bind", url, "--store", "sqlite:store.db")
    assert broker.out.next() == f"listening on {url}"
    broker.url = url
    return broker


def call(url: str, service: str, *body: str, dialect: str = "01") -> list[bytes]:
    """Call a service from a process of its own; returns the frames of the reply."""
    command = [sys.executable, "-I", str(PROGRAM), "client", dialect, url, service, *body]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return [bytes.fromhex(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("worker", ["01", "02"])
@pytest.mark.parametrize("client", ["01", "02"])
def test_request_survives_kill_9_before_and_after_its_outcome(
    shell: Shell, client: str, worker: str
) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    broker = start(shell, port)

    def ask(*frames: str, dialect: str = client) -> list[bytes]:
        return call(broker.url, *frames, dialect=dialect)

    status, id = ask("titanic.request", "reverse", "abc", "xyz")
    assert (status, len(id)) == (b"200", 32)
    assert ask("titanic.reply", id.decode()) == [b"300"]

    broker.stop(signal.SIGKILL)
    broker = start(shell, port)
    assert ask("titanic.reply", id.decode()) == [b"300"]
    served = subprocess.run(
        [sys.executable, "-I", str(PROGRAM), "worker", worker, broker.url, "reverse", "1"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert served.returncode == 0, served.stderr
    assert ask("titanic.reply", id.decode()) == [b"200", b"cba", b"zyx"]

    broker.stop(signal.SIGKILL)
    broker = start(shell, port)
    other = OTHER[client]  # an id does not belong to a dialect
    assert ask("titanic.reply", id.decode(), dialect=other) == [b"200", b"cba", b"zyx"]
    assert ask("titanic.close", id.decode()) == [b"200"]
    assert ask("titanic.reply", id.decode()) == [b"400"]
