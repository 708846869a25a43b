"""A client or worker that a broker refuses gets the reason and the remedy, in one line."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq

from majordomus.errors import ConfigurationError, DeadlineExceeded, StatusError, Unauthenticated
from majordomus.net import endpoints
from majordomus.net.broker.broker import Broker
from majordomus.net.broker.security import curve
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from majordomus.net.connection.credentials import Access, failure
from majordomus.net.worker.worker import Worker
from majordomus.net.zmq import select as wires
from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import MonitorEvent, MonitorRecord
from majordomus.security import passwords
from majordomus.security.certificates import Certificate
from tests.net.conftest import eventually

SERVER = curve.make()


@pytest.fixture
def encrypted() -> Iterator[str]:
    """A CURVE socket that accepts every key and answers nothing."""
    with sockets.router(1000, 10) as router:
        router.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, SERVER.secret.encode())
        yield sockets.bind(router, "tcp://127.0.0.1:*")


def test_url_carries_any_key_there_and_back() -> None:
    awkward = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
    url = endpoints.with_key("tcp://10.0.0.1:5555", awkward)
    assert url.startswith("majordomus://10.0.0.1:5555?key=")
    assert not set(url.partition("?key=")[2]) & set("&#?/<>{}[]@ \"'")
    assert endpoints.key_of(url) == awkward
    assert endpoints.without_key(url) == "tcp://10.0.0.1:5555"
    for _ in range(200):
        key = curve.make().public
        assert endpoints.key_of(endpoints.with_key("tcp://[::1]:1", key)) == key
        assert endpoints.key_of(f"majordomus://h:1?key={key}") == key, "not escaped by its user"


@pytest.mark.parametrize("url", ["tcp://h:1", "ipc:///x", "majordomus://h:1"])
def test_url_without_a_key_brings_none(url: str) -> None:
    assert endpoints.key_of(url) == ""


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("majordomus://h:1?kex=1", "key=KEY alone"),
        ("majordomus://h:1?key=", "key=KEY alone"),
        ("majordomus://h:1?key=short", "40 characters"),
        ("majordomus://h", "host:port"),
        ("majordomus://*:1?key=" + SERVER.public, "not connected to"),
    ],
)
def test_wrong_url_is_refused_with_the_reason(url: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        Access(url)


def test_majordomus_url_cannot_be_bound() -> None:
    with pytest.raises(ConfigurationError, match="--curve"):
        endpoints.to_bind("majordomus://127.0.0.1:1")


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("tcp://127.0.0.1:5555", True),
        ("tcp://127.3.2.1:*", True),
        ("tcp://localhost:5555", True),
        ("tcp://[::1]:5555", True),
        ("ipc:///tmp/x", True),
        ("inproc://x", True),
        ("tcp://*:5555", False),
        ("tcp://0.0.0.0:5555", False),
        ("tcp://[::]:5555", False),
        ("tcp://10.0.0.1:5555", False),
        ("tcp://eth0:5555", False),
        ("tcp://127.0.0.1.example.com:5555", False),
    ],
)
def test_is_local_tells_endpoints_of_this_machine_from_others(url: str, local: bool) -> None:
    assert endpoints.is_local(url) is local


def test_password_and_key_together_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        Client("tcp://127.0.0.1:1", server_key=SERVER.public, plain=("ann", "x"))


@pytest.fixture
def pair() -> Certificate:
    return curve.make()


def test_client_without_a_key_is_told_that_the_broker_is_encrypted(encrypted: str) -> None:
    with (
        Client(encrypted, timeout=3) as client,
        pytest.raises(StatusError, match=r"is encrypted: give its public key .*--server-key"),
    ):
        client.call("echo")


def test_client_of_a_connected_and_silent_broker_is_not_told_that_none_was_reachable() -> None:
    with sockets.router(1000, 10) as router:
        router.setsockopt(zmq.LINGER, 0)
        url = sockets.bind(router, "tcp://127.0.0.1:*")
        with Client(url, timeout=0.5) as client, pytest.raises(DeadlineExceeded) as raised:
            client.call("echo")
    assert str(raised.value) == "408 no answer came before the deadline"


def test_client_with_the_wrong_key_is_told_at_its_deadline(encrypted: str) -> None:
    """Not earlier: a proxy whose broker is about to start breaks off the handshake as well."""
    wrong = curve.make().public
    with Client(encrypted, timeout=1, server_key=wrong) as client:
        with pytest.raises(DeadlineExceeded, match="probably has another key than") as raised:
            client.call("echo")
        with pytest.raises(DeadlineExceeded, match="probably has another key"):
            client.submit("echo").result(30)
        with pytest.raises(DeadlineExceeded, match="probably has another key"):
            client.send("echo")
    assert str(raised.value).endswith(wrong)
    assert str(raised.value).count("broke off the handshake") == 1
    assert "\n" not in str(raised.value)


def test_asyncio_client_without_a_key_is_told_that_the_broker_is_encrypted(encrypted: str) -> None:
    async def ask() -> None:
        async with AsyncClient(encrypted, timeout=3) as client:
            await client.call("echo")

    with pytest.raises(StatusError, match="is encrypted"):
        asyncio.run(ask())


def test_client_with_a_key_is_told_that_the_broker_has_none(url: str) -> None:
    with (
        Client(url, timeout=3, server_key=SERVER.public) as client,
        pytest.raises(StatusError, match=r"is not encrypted, and a|broke off the handshake"),
    ):
        client.call("echo")


@pytest.mark.parametrize("mechanism", [b"NULL", b"PLAIN"])
def test_client_with_a_key_is_never_advised_to_go_on_without_encryption(mechanism: bytes) -> None:
    """Another party on the path can answer for an encrypted broker with this greeting."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"tcp://127.0.0.1:{listening.getsockname()[1]}"

        def answer() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.sendall(b"\xff" + bytes(8) + b"\x7f\3\1" + mechanism.ljust(52, b"\0"))
                while peer.recv(1000):
                    pass

        with ThreadPoolExecutor(1) as pool, Client(url, server_key=SERVER.public) as client:
            pool.submit(answer)
            with pytest.raises(Unauthenticated) as raised:
                client.call("echo", timeout=5)
    assert str(raised.value) == (
        f"401 {url} is not encrypted, and a server key was given: encrypt the broker (--curve); "
        "without the key everything is sent in plain text"
    )


# ── a timeout tells how the last attempt has ended ────────────────────────────────────────────────


def reason(url: str | list[str], timeout: float = 1.0) -> str:
    """What a call without a broker raises, in the sync and the asyncio client alike."""

    async def ask() -> None:
        async with AsyncClient(url, timeout=timeout) as client:
            await client.call("echo")

    with ThreadPoolExecutor(1) as pool:  # both wait for their deadlines, at once
        asked = pool.submit(asyncio.run, ask())
        with Client(url, timeout=timeout) as client, pytest.raises(DeadlineExceeded) as raised:
            client.call("echo")
        with pytest.raises(DeadlineExceeded) as raised_too:
            asked.result()
    assert str(raised_too.value) == str(raised.value)
    return str(raised.value).removeprefix(f"408 no broker was reachable within {timeout:g} s at ")


@pytest.mark.skipif(not wires.OWN_ZMTP, reason="libzmq does not tell why it cannot connect")
def test_timeout_tells_that_connections_were_refused_at_each_endpoint() -> None:
    several = reason(["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"])
    assert several.startswith("tcp://127.0.0.1:1 (connection refused), tcp://127.0.0.1:2")
    assert reason("tcp://127.0.0.1:1") == "tcp://127.0.0.1:1 (connection refused)"


@pytest.mark.skipif(not wires.OWN_ZMTP, reason="libzmq does not tell why it cannot connect")
def test_timeout_tells_that_a_name_cannot_be_resolved() -> None:
    found = reason("tcp://nowhere.invalid:5555", timeout=2.0)
    assert found.startswith("tcp://nowhere.invalid:5555 (its name ")


def test_timeout_tells_that_connections_are_accepted_and_not_answered() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        assert reason(url) == f"{url} (it accepts connections, and does not answer)"


@pytest.mark.skipif(not wires.OWN_ZMTP, reason="libzmq does not tell why it cannot connect")
def test_timeout_tells_that_something_else_answers() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with other.accept()[0] as accepted:
                        accepted.send(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        url = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        try:
            assert reason(url) == f"{url} (what answers there is no broker)"
        finally:
            other.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_attempt_without_an_answer_is_told_from_one_that_is_refused() -> None:
    assert failure(MonitorRecord(MonitorEvent.FAILED, errno.ETIMEDOUT)) == "no answer"
    assert failure(MonitorRecord(MonitorEvent.FAILED, errno.EHOSTUNREACH)) == "no route to host"
    assert failure(MonitorRecord(MonitorEvent.FAILED, 100)) == "not reachable"  # libzmq's delay


@pytest.mark.skipif(not wires.OWN_ZMTP, reason="libzmq does not tell why it cannot connect")
def test_client_without_a_password_is_told_that_the_broker_wants_one(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    passwords.store(file, "ann", passwords.hashed("correct horse"))
    with (
        Broker(bind="tcp://127.0.0.1:*", passwords=file) as broker,
        Client(broker.endpoints[0], timeout=10) as client,
        pytest.raises(StatusError, match=r"401 .* wants a user and password .*--plain FILE"),
    ):
        client.call("echo")


def test_client_of_several_brokers_goes_on_to_the_next(encrypted: str, worker: Worker) -> None:
    with Client([encrypted, *worker.endpoints], timeout=20) as client:
        assert client.call("echo", b"there").body == b"there"


def test_client_refused_by_all_brokers_gets_the_reason_at_its_deadline(
    encrypted: str,
) -> None:
    with (
        Client([encrypted, encrypted], timeout=1) as client,
        pytest.raises(DeadlineExceeded, match=r"no broker was reachable .*: .* is encrypted"),
    ):
        client.call("echo")


def test_worker_that_is_refused_logs_the_reason_once(
    encrypted: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "majordomus.net")
    worker = Worker(encrypted)
    worker.add("echo", lambda request: request.body)
    with worker:
        eventually(lambda: "is encrypted" in caplog.text)
        threading.Event().wait(0.5)  # it connects again and again
    assert caplog.text.count("is encrypted") == 1


def test_endpoint_without_a_key_is_not_encrypted_beside_one_with_a_key() -> None:
    plain, url = "ipc:///run/broker", "tcp://10.0.0.1:5555"
    access = Access([plain, endpoints.with_key(url, SERVER.public)])
    assert access.urls == [plain, url]
    assert access.keys(plain) is None
    assert access.keys(url) == (SERVER.public, *(access.keys(url) or ())[1:])
