"""A line to a broker: what it does with connections that come, go, or lead nowhere."""

from __future__ import annotations

import random
import socket as plain
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from majordomus.core.client.session import ClientEvent, ClientSession, ClientSettings
from majordomus.net.connection.link import LAST_RETRY, Link, SessionConnection
from majordomus.net.zmq import select as wires
from majordomus.net.zmq import sockets

Make = Callable[[str], SessionConnection[ClientEvent]]


@pytest.fixture(params=[True, False], ids=["zmtp", "libzmq"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Lines that are closed at the end."""
    if request.param and not wires.OWN_ZMTP:
        pytest.skip("our own ZMTP is not built, or another wire was asked for")
    monkeypatch.setattr(wires, "OWN_ZMTP", request.param)
    made: list[SessionConnection[ClientEvent]] = []

    def begin(url: str) -> SessionConnection[ClientEvent]:
        session = ClientSession(ClientSettings(), random.randbytes, random.random)
        made.append(SessionConnection(session, lambda: url, opened.append, closed.append))
        return made[-1]

    opened.clear()
    closed.clear()
    yield begin
    for line in made:
        line.close()


opened: list[Link] = []
closed: list[Link] = []


def drive(
    line: SessionConnection[ClientEvent], until: Callable[[], object], within: float = 3.0
) -> None:
    end = time.monotonic() + within
    while not until():
        now = time.monotonic()
        assert now < end, f"not within {within} s"
        line.open(now)
        link = line.link
        time.sleep(0.005)
        if link is not None and link.edge_triggered:
            line.read_monitor(now)
        else:
            line.receive(now)
        line.flush(now)


def id_at(router: zmq.Socket[bytes], line: SessionConnection[ClientEvent]) -> bytes:
    """By which routing id the router knows the line."""
    assert line.link is not None
    line.link.send([[b"hello"]])
    line.flush(time.monotonic())
    assert router.poll(3000)
    return router.recv_multipart()[0]


def free_port() -> int:
    with plain.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_connection_that_meets_itself_is_given_up_at_once(make: Make) -> None:
    here = f"127.0.0.1:{free_port()}"
    line = make(f"tcp://{here};{here}")  # from that port, to that port
    drive(line, lambda: len(closed) >= 3)
    assert not line.up
    assert [link.up for link in closed] == [False] * len(closed)


def test_endpoint_where_nobody_listens_is_tried_again_soon_and_with_a_new_socket(
    make: Make,
) -> None:
    port = free_port()
    line = make(f"tcp://127.0.0.1:{port}")
    drive(line, lambda: len(opened) >= 4)
    assert len(set(map(id, opened))) == len(opened)
    with sockets.router(1000, 10) as router:
        sockets.bind(router, f"tcp://127.0.0.1:{port}")
        drive(line, lambda: line.up, within=4 * LAST_RETRY)


def test_end_of_a_connection_means_a_new_socket_with_a_new_routing_id(make: Make) -> None:
    with sockets.router(1000, 10) as router:
        url = sockets.bind(router, "tcp://127.0.0.1:*")
        line = make(url)
        drive(line, lambda: line.up)
        first = id_at(router, line)
        router.close(0)
    drive(line, lambda: not line.up)
    with sockets.router(1000, 10) as router:
        sockets.bind(router, url)
        drive(line, lambda: line.up)
        second = id_at(router, line)
    assert first != second
    assert closed[0] is opened[0]
