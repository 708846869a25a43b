"""The connection of a session: links that are made, that end, and that lead nowhere."""

from __future__ import annotations

import random
import socket as plain
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from majordomus.core.client.session import ClientSession, ClientSettings
from majordomus.net.connection.link import LAST_RETRY, Link, SessionConnection
from majordomus.net.zmq import select as wires
from majordomus.net.zmq import sockets

Make = Callable[[str], SessionConnection]


@pytest.fixture(params=[True, False], ids=["zmtp", "libzmq"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes connections, and closes them at the end."""
    if request.param and not wires.OWN_ZMTP:
        pytest.skip("our own ZMTP is not built, or another wire was asked for")
    monkeypatch.setattr(wires, "OWN_ZMTP", request.param)
    made: list[SessionConnection] = []

    def begin(url: str) -> SessionConnection:
        session = ClientSession(ClientSettings(), random.randbytes, random.random)
        made.append(SessionConnection(session, lambda: url, opened.append, closed.append))
        return made[-1]

    opened.clear()
    closed.clear()
    yield begin
    for connection in made:
        connection.close()


opened: list[Link] = []
closed: list[Link] = []


def drive(connection: SessionConnection, until: Callable[[], object], within: float = 3.0) -> None:
    end = time.monotonic() + within
    while not until():
        now = time.monotonic()
        assert now < end, f"not within {within} s"
        connection.open(now)
        link = connection.link
        time.sleep(0.005)
        if link is not None and link.edge_triggered:
            connection.read_monitor(now)
        else:
            connection.receive(now)
        connection.flush(now)


def id_at(router: zmq.Socket[bytes], connection: SessionConnection) -> bytes:
    """Return the routing id that the router has for the connection."""
    assert connection.link is not None
    connection.link.send([[b"hello"]])
    connection.flush(time.monotonic())
    assert router.poll(3000)
    return router.recv_multipart()[0]


def free_port() -> int:
    with plain.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_connection_to_itself_is_closed_at_once(make: Make) -> None:
    here = f"127.0.0.1:{free_port()}"
    connection = make(f"tcp://{here};{here}")  # from that port, to that port
    drive(connection, lambda: len(closed) >= 3)
    assert not connection.up
    assert [link.up for link in closed] == [False] * len(closed)


def test_endpoint_without_a_listener_is_tried_again_soon_with_a_new_socket(
    make: Make,
) -> None:
    port = free_port()
    connection = make(f"tcp://127.0.0.1:{port}")
    drive(connection, lambda: len(opened) >= 4)
    assert len(set(map(id, opened))) == len(opened)
    with sockets.router(1000, 10) as router:
        sockets.bind(router, f"tcp://127.0.0.1:{port}")
        drive(connection, lambda: connection.up, within=4 * LAST_RETRY)


def test_end_of_a_connection_means_a_new_socket_with_a_new_routing_id(make: Make) -> None:
    with sockets.router(1000, 10) as router:
        url = sockets.bind(router, "tcp://127.0.0.1:*")
        connection = make(url)
        drive(connection, lambda: connection.up)
        first = id_at(router, connection)
        router.close(0)
    drive(connection, lambda: not connection.up)
    with sockets.router(1000, 10) as router:
        sockets.bind(router, url)
        drive(connection, lambda: connection.up)
        second = id_at(router, connection)
    assert first != second
    assert closed[0] is opened[0]
