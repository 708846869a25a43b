"""Connections beyond the limits are ended, and other clients are served meanwhile: by our own ZMTP,
and by libzmq."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from math import inf
from pathlib import Path

import pytest
from benchmarks import siege

from majordomus import Broker, BrokerSettings, Client
from majordomus.net.broker import open_listener
from majordomus.net.broker.security import curve
from majordomus.net.zmq import select as wires
from tests.net.conftest import QUICK, eventually

LIMIT = 20.0


@pytest.fixture(params=["zmtp", "pyzmq"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What serves the endpoints of a broker."""
    if request.param == "pyzmq":
        monkeypatch.setattr(open_listener, "is_own", lambda _, **__: False)
    elif not wires.OWN_ZMTP:
        pytest.skip("our own ZMTP is not built or not wanted")
    return str(request.param)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_ended(peer: socket.socket) -> bool:
    """Whether the broker has ended this connection; its greeting is read first."""
    peer.setblocking(False)
    try:
        while peer.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


def dropped(client: Client) -> dict[str, int]:
    counts: dict[str, int] = json.loads(client.call("mmi.stats").frames[1])["dropped"]
    return counts


def open_silent(stack: ExitStack, broker: Broker, times: int) -> list[socket.socket]:
    """Connections that send nothing."""
    port = int(broker.endpoints[0].rpartition(":")[2])
    return [
        stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(times)
    ]


@pytest.mark.usefixtures("server")
def test_connections_beyond_the_bound_of_an_address_are_ended_and_counted() -> None:
    settings = BrokerSettings(max_address_connections=4)
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(settings, bind="tcp://127.0.0.1:*"))
        client = stack.enter_context(Client(broker.endpoints[0], timeout=LIMIT))
        client.ping()
        peers = open_silent(stack, broker, 6)
        until(lambda: sum(map(is_ended, peers)) == 3)
        assert dropped(client) == {"too-many-connections": 3}


@pytest.mark.usefixtures("server")
def test_silent_connections_beyond_their_bound_are_ended_and_active_ones_stay() -> None:
    settings = BrokerSettings(max_address_handshakes=2)
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(settings, bind="tcp://127.0.0.1:*"))
        for _ in range(5):
            client = stack.enter_context(Client(broker.endpoints[0], timeout=LIMIT))
            client.ping()
        peers = open_silent(stack, broker, 5)
        until(lambda: sum(map(is_ended, peers)) >= 3)
        assert dropped(client) == {"too-many-handshakes": 3}


@pytest.mark.usefixtures("server")
def test_connections_that_left_make_room_for_others() -> None:
    settings = BrokerSettings(max_address_connections=2)
    with Broker(settings, bind="tcp://127.0.0.1:*") as broker:
        for _ in range(6):
            with Client(broker.endpoints[0], timeout=LIMIT) as client:
                client.ping()


@pytest.mark.skipif(not wires.OWN_ZMTP, reason="libzmq bounds one frame alone")
@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_message_without_an_end_is_cut_off_before_it_costs_64_mib(
    transport: str, tmp_path: Path
) -> None:
    """A broker in a process of its own; another client is served before and afterwards."""
    path = str(tmp_path / "socket") if transport == "ipc" else ""
    seen = siege.endless_message(per_second=100e6, limit=LIMIT, path=path)
    assert seen["cut_after_s"] < inf
    assert seen["grown_mib"] < 64


@pytest.mark.skipif(not wires.OWN_ZMTP, reason="libzmq gives no reason")
@pytest.mark.parametrize(
    "text",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01" + bytes(200),
        bytes(range(1, 255)),
    ],
)
def test_other_protocols_at_an_encrypted_port_are_refused_counted_and_logged_in_one_line(
    caplog: pytest.LogCaptureFixture, text: bytes
) -> None:
    caplog.set_level(logging.WARNING, "majordomus.broker")
    pair = curve.make()
    broker = Broker(QUICK, bind="tcp://127.0.0.1:0", curve=pair)
    with broker:
        port = int(broker.endpoints[0].rpartition(":")[2])
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as stray:
                stray.sendall(text)
                try:
                    while stray.recv(4096):
                        pass
                except ConnectionError:
                    pass
        loop = broker._loop
        assert loop is not None
        counts = loop._machine.registry.counts
        eventually(lambda: sum(counts.handshakes.values()) == 3)
        assert dict(counts.handshakes) == {"not-zmtp": 3}
        with Client(broker.endpoints[0], server_key=pair.public) as client:
            client.ping()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert all(line.startswith("handshake-failed why=not-zmtp address=") for line in lines)
