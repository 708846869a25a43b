"""Connections by their descriptors."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from majordomus.net.broker.limits.descriptors import mark_of, shut

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of a TCP connection; the second one is the accepted one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        yield near, far


def test_connection_is_known_by_its_other_end(pair: Pair) -> None:
    near, far = pair
    mark = mark_of(far.fileno())
    assert mark is not None
    assert mark.address == near.getsockname()
    assert mark.host == "127.0.0.1"


def test_connection_that_is_shut_is_at_its_end(pair: Pair) -> None:
    near, far = pair
    mark = mark_of(far.fileno())
    assert mark is not None
    assert shut(far.fileno(), mark)
    near.settimeout(10)
    assert near.recv(1) == b""
    assert far.fileno() >= 0


def test_descriptor_that_another_connection_has_got_is_left_alone(pair: Pair) -> None:
    _near, far = pair
    mark = mark_of(far.fileno())
    assert mark is not None
    with socket.create_server(("127.0.0.1", 0)) as server:
        other = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    with other, accepted:
        os.dup2(accepted.fileno(), far.fileno())
        assert not shut(far.fileno(), mark)
        other.sendall(b"still here")
        assert accepted.recv(100) == b"still here"


def test_what_is_no_connection_has_no_mark() -> None:
    reader, writer = os.pipe()
    try:
        assert mark_of(reader) is None
    finally:
        os.close(reader)
        os.close(writer)
    assert mark_of(reader) is None


def test_connection_of_this_machine_has_no_host() -> None:
    near, far = socket.socketpair()
    with near, far:
        mark = mark_of(far.fileno())
        assert mark is not None
        assert mark.host == ""
