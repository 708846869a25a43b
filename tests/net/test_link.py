"""A line to a broker: what it does with connections that come, go, or lead nowhere."""

from __future__ import annotations

import random
import socket as plain
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from majordomus.core.client_session import ClientEvent, ClientSession, ClientSettings
from majordomus.net import sockets
from majordomus.net.link import LAST_RETRY, Line, Link

Make = Callable[[str], Line[ClientEvent]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Lines that are closed at the end."""
    made: list[Line[ClientEvent]] = []

    def begin(url: str) -> Line[ClientEvent]:
        session = ClientSession(ClientSettings(), random.randbytes, random.random)
        made.append(Line(session, lambda: url, opened.append, closed.append))
        return made[-1]

    opened.clear()
    closed.clear()
    yield begin
    for line in made:
        line.close()


opened: list[Link] = []
closed: list[Link] = []


def drive(line: Line[ClientEvent], until: Callable[[], object], within: float = 3.0) -> None:
    end = time.monotonic() + within
    while not until():
        now = time.monotonic()
        assert now < end, f"not within {within} s"
        line.open(now)
        if line.link is not None and line.link.monitor.socket.poll(5):
            line.heard_of_connection(now)
        line.flush(now)


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
    assert len({link.socket for link in opened}) == len(opened)
    with sockets.router(1000, 10) as router:
        sockets.bind(router, f"tcp://127.0.0.1:{port}")
        drive(line, lambda: line.up, within=4 * LAST_RETRY)


def test_end_of_a_connection_means_a_new_socket_with_a_new_routing_id(make: Make) -> None:
    with sockets.router(1000, 10) as router:
        url = sockets.bind(router, "tcp://127.0.0.1:*")
        line = make(url)
        drive(line, lambda: line.up)
        first = opened[-1].socket.getsockopt(zmq.ROUTING_ID)
        router.close(0)
    drive(line, lambda: not line.up)
    with sockets.router(1000, 10) as router:
        sockets.bind(router, url)
        drive(line, lambda: line.up)
        second = opened[-1].socket.getsockopt(zmq.ROUTING_ID)
    assert first != second
    assert closed[0].socket.closed
