"""PyPI's majortomo 0.2.0 as client and worker of our broker, and our peers at its broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from majortomo import Client as TheirClient

from majordomus import Client, Worker
from tests.acceptance.conftest import wait_for_service
from tests.peers.process import PYTHON, run, running
from tests.peers.table import CLIENTS, WORKERS

BODY = (b"one", b"", b"three")


@pytest.fixture
def their_echo(endpoint: str) -> Iterator[bytes]:
    service = "their-echo"
    argv = (*PYTHON, "majortomo.echo", "-b", endpoint, "-n", service, "worker")
    with running(*argv, ready=""):
        wait_for_service(endpoint, service.encode())
        yield service.encode()


@pytest.fixture
def their_parts(endpoint: str) -> Iterator[bytes]:
    with running(*PYTHON, "tests.peers.majortomo_worker", endpoint, "their-parts"):
        wait_for_service(endpoint, b"their-parts")
        yield b"their-parts"


@pytest.mark.parametrize("worker", WORKERS)
def test_their_client_calls_a_worker_of_any_dialect(workers: str, worker: str) -> None:
    with TheirClient(workers) as client:
        client.send(f"echo-{worker}", *BODY)
        assert list(client.recv_all(5.0)) == [list(BODY)]


def test_their_client_program_gets_its_echo(endpoint: str, their_echo: bytes) -> None:
    argv = (
        "-b",
        endpoint,
        "-n",
        their_echo.decode(),
        "client",
        "-m",
        "hello",
        "-d",
        "0",
        "-t",
        "5",
    )
    (line,) = run(*PYTHON, "majortomo.echo", *argv)
    assert "Got response: [b'hello']" in line


@pytest.mark.parametrize("client", CLIENTS)
def test_their_worker_serves_a_client_of_any_dialect(
    endpoint: str, their_echo: bytes, client: str
) -> None:
    with CLIENTS[client](endpoint) as peer:
        for _ in range(3):
            assert peer.call(their_echo, list(BODY)).final == list(BODY)


def test_their_client_gets_the_parts_of_their_worker(endpoint: str, their_parts: bytes) -> None:
    with TheirClient(endpoint) as client:
        client.send(their_parts, b"1", b"2")
        parts = list(client.recv_all(5.0))
    assert parts == [[b"part", b"1"], [b"part", b"2"], [b"end"]]


def test_our_client_gets_the_parts_of_their_worker(endpoint: str, their_parts: bytes) -> None:
    with Client(endpoint) as client:
        frames = [part.frames for part in client.stream(their_parts.decode(), [b"1", b"2"])]
    assert frames == [[b"part", b"1"], [b"part", b"2"], [b"end"]]


@pytest.fixture
def their_broker(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "majortomo"
    with running(*PYTHON, "majortomo.broker", "-b", f"ipc://{path}", "-i", "0.5", ready=""):
        while not path.exists():
            time.sleep(0.02)
        yield f"ipc://{path}"


def test_raw_delimited_peers_understand_their_broker(their_broker: str) -> None:
    """Proves the peers of this test suite, which the other tests then believe."""
    served = ("echo=echo", "parts=parts")
    with (
        running(*PYTHON, "tests.peers.serve", "mdp02d", their_broker, *served),
        CLIENTS["mdp02d"](their_broker) as client,
    ):
        assert client.call(b"echo", list(BODY)) == ([], list(BODY))
        assert client.call(b"parts", [b"1"]) == ([[b"part", b"1"]], [b"end"])


def test_our_client_calls_their_worker_through_their_broker(their_broker: str) -> None:
    argv = (*PYTHON, "majortomo.echo", "-b", their_broker, "-n", "echo", "worker")
    with running(*argv, ready=""), Client(their_broker, dialect="mdp02d") as client:
        assert client.call("echo", list(BODY), timeout=10.0).frames == list(BODY)
        assert client.call("echo", b"again", timeout=5.0).body == b"again"


def test_our_worker_serves_their_client_through_their_broker(their_broker: str) -> None:
    worker = Worker(their_broker, dialect="mdp02d")

    @worker.service("count")
    def count(request):  # type: ignore[no-untyped-def]
        for number in range(int(request.body)):
            yield b"%d" % number

    with worker, TheirClient(their_broker) as client:
        for _ in range(2):
            client.send("count", b"3")
            assert list(client.recv_all(10.0)) == [[b"0"], [b"1"], [b"2"], [b""]]
