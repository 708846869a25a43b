"""What clients, workers and a broker do where tests/platforms/hidden.py has hidden half of POSIX.

test_hidden.py runs this file in a process of its own.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from majordomus import (
    AsyncClient,
    AsyncWorker,
    Broker,
    BrokerSettings,
    Client,
    ConfigurationError,
    Request,
    Worker,
    system,
)
from majordomus.net.zmq import select as wires
from majordomus.security.files import SECRET, create, read_secret
from tests.peers.guide import MdClient, MdWorker

LIMIT = 20.0
HIDDEN = "import tests.platforms.hidden; from majordomus.cli import main; main()"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of majordomus where everything is hidden as well."""
    return subprocess.run(
        [sys.executable, "-c", HIDDEN, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def echo(request: Request) -> bytes:
    return bytes(request.body)


def test_everything_is_hidden_that_windows_lacks() -> None:
    assert wires.MISSING
    assert not wires.OWN_ZMTP
    assert not hasattr(socket, "AF_UNIX")
    assert not hasattr(signal, "SIGHUP")
    for name in ("fcntl", "resource", "termios"):
        with pytest.raises(ImportError):
            __import__(name)
    assert (system.HANGUP, system.CHILD_ENDED, system.HAS_CHILDREN) == ((), (), False)
    assert not system.HAS_MODES


@pytest.fixture
def url() -> str:
    with Broker(bind="tcp://127.0.0.1:0") as broker:
        yield broker.endpoints[0]


def test_sync_client_calls_streams_and_talks(url: str) -> None:
    worker = Worker(url, threads=2)
    worker.add("echo", echo)

    @worker.service("count")
    def count(request: Request):
        for n in range(int(request.text)):
            yield str(n)

    @worker.service("sum")
    def total(request: Request) -> str:
        return str(sum(int(part.body or b"0") for part in request.parts))

    with worker, Client(url, timeout=LIMIT) as client:
        assert client.call("echo", b"hello").body == b"hello"
        assert [part.body for part in client.stream("count", "3")] == [b"0", b"1", b"2"]
        with client.open("sum") as talk:
            for n in range(5):
                talk.send(str(n))
            assert talk.result().body == b"10"


def test_asyncio_client_and_worker(url: str) -> None:
    async def talk() -> None:
        worker = AsyncWorker(url)

        @worker.service("echo")
        async def echo(request: Request) -> bytes:
            await asyncio.sleep(0)
            return bytes(request.body)

        async with worker, AsyncClient(url, timeout=LIMIT) as client:
            replies = await asyncio.gather(*(client.call("echo", str(n)) for n in range(20)))
            assert [reply.text for reply in replies] == [str(n) for n in range(20)]

    asyncio.run(talk())


def test_name_of_a_host_is_resolved(url: str) -> None:
    with Client(url.replace("127.0.0.1", "localhost"), timeout=LIMIT) as client:
        client.ping()


def test_peers_of_the_older_dialects(url: str) -> None:
    worker = MdWorker(url, b"echo", lambda body: [body])
    with MdClient(url) as client:
        client.send([b"MDPC01", b"echo", b"hello"])
        worker.socket.poll(5000)
        worker.receive()
        assert client.receive()[-1] == b"hello"
    worker.close()


def test_events_reach_a_subscriber(url: str) -> None:
    with Client(url, timeout=LIMIT) as one, Client(url, timeout=LIMIT) as other:
        got = one.subscribe("news.*")
        one.ping()
        other.publish("news.a", b"first")
        assert next(iter(got)).body == b"first"


def test_encrypted_broker(tmp_path: Path) -> None:
    settings = BrokerSettings(curve=True, certificate=str(tmp_path / "broker.key"), clients="any")
    with Broker(settings, bind="tcp://127.0.0.1:0") as broker:
        worker = Worker(broker.endpoints[0], server_key=broker.public_key)
        worker.add("echo", echo)
        with (
            worker,
            Client(broker.endpoints[0], server_key=broker.public_key, timeout=LIMIT) as client,
        ):
            assert client.call("echo", b"secret").body == b"secret"


def test_secret_file_is_written_and_read(tmp_path: Path) -> None:
    create(tmp_path / "one", "text", SECRET)
    assert read_secret(tmp_path / "one") == "text"


def test_handler_in_a_process_is_refused_with_the_reason(url: str) -> None:
    with pytest.raises(ConfigurationError, match="run='process' needs POSIX processes"):
        Worker(url).add("echo", echo, run="process")


def test_event_loop_that_cannot_watch_sockets_is_refused_with_the_reason(url: str) -> None:
    class CompletionPorts(asyncio.SelectorEventLoop):
        add_reader = asyncio.AbstractEventLoop.add_reader

    async def talk() -> None:
        async with AsyncClient(url) as client:
            await client.ping()

    refusal = pytest.raises(ConfigurationError, match=r"run on asyncio\.SelectorEventLoop")
    with asyncio.Runner(loop_factory=CompletionPorts) as runner, refusal:
        runner.run(talk())


def test_doctor_reports_this_system() -> None:
    done = command("doctor")
    assert done.returncode == 0, done.stderr
    assert "unlimited" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["demo"], ["bench", "--seconds", "1"], ["worker", "x:y"], ["broker", "--supervise"]],
)
def test_command_that_starts_processes_is_refused_with_the_reason(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode != 0
    assert "needs POSIX processes" in done.stderr
    assert "Traceback" not in done.stderr


def test_broker_and_calls_of_the_command_line() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HIDDEN, "broker", "--bind", "tcp://127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as broker:
        try:
            assert broker.stdout is not None
            at = broker.stdout.readline().split()[-1]
            done = command("services", "--broker", at)
            assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)
        finally:
            broker.terminate()
        assert broker.wait(20) == 0
