"""The bytes of an encrypted connection, captured by a relay, contain no plain text."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from majordomus.net.broker.broker import Broker
from majordomus.net.broker.security import curve
from majordomus.net.client.client import Client
from majordomus.net.worker.worker import Worker
from tests.net.conftest import QUICK

SERVICE = "payroll-of-everybody"
BODY = b"the-body-of-the-request" * 50
ANSWER = b"the-body-of-the-answer" * 5000
TOKEN = "token-that-nobody-may-see"  # noqa: S105
SECRETS = (SERVICE.encode(), BODY[:23], ANSWER[:22], TOKEN.encode())


class Relay:
    """Relays connections to one port and keeps the bytes of both directions."""

    def __init__(self, port: int) -> None:
        self.bytes = bytearray()
        self._to = port
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._run(self._accept)

    def _run(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._listener.accept()
                other = socket.create_connection(("127.0.0.1", self._to))
                self._sockets += [one, other]
                self._run(self._pass, one, other)
                self._run(self._pass, other, one)

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.bytes += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for one in self._sockets:
            one.close()


@contextlib.contextmanager
def relay_to(broker: Broker) -> Iterator[Relay]:
    relay = Relay(int(broker.endpoints[0].rpartition(":")[2]))
    try:
        yield relay
    finally:
        relay.close()


@pytest.mark.parametrize("encrypted", [True, False])
def test_capture_of_an_encrypted_run_holds_no_body_name_or_token(encrypted: bool) -> None:
    """The run without encryption proves that the capture contains them."""
    pair = curve.make() if encrypted else None
    with (
        Broker(QUICK, bind="tcp://127.0.0.1:0", curve=pair) as broker,
        relay_to(broker) as relay,
    ):
        worker = Worker(relay.url, server_key=broker.public_key)
        worker.add(SERVICE, lambda request: ANSWER)
        with worker:
            worker.wait_ready(10)
            with Client(relay.url, server_key=broker.public_key) as client:
                reply = client.call(SERVICE, BODY, metadata={"token": TOKEN})
                assert reply.body == ANSWER
        captured = bytes(relay.bytes)
    assert len(captured) > len(BODY) + len(ANSWER)
    assert [secret in captured for secret in SECRETS] == [not encrypted] * len(SECRETS)
    assert (b"MDP\x03" in captured) is (not encrypted)
