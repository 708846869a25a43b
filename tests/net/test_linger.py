"""A connection of our own ZMTP that is closed while the kernel has not taken everything, and one
that cannot be made for want of descriptors."""

from __future__ import annotations

import errno
import os
import resource
import socket as plain
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from majordomus.net import tcp, wires

if not wires.OWN_ZMTP:
    pytest.skip("our own ZMTP is not built, or another wire was asked for", allow_module_level=True)

from majordomus.net.tcp_link import TcpLink

LARGE = 24 * 1024 * 1024
"""More than the kernel takes at once."""
NEEDED = 2
"""Descriptors of a connection: its socket and what waits for it."""
PROGRAM = f"""
import sys, time
from majordomus.net import tcp
from majordomus.net.tcp_link import TcpLink

url = sys.argv[1]
link = TcpLink(url, tcp.look_up(url))
while not link.news():
    link.receive(1)
    time.sleep(0.001)
link.send([[bytes({LARGE})]])
link.close()
"""


@pytest.fixture
def router() -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 5000)
        socket.bind("tcp://127.0.0.1:0")
        yield socket


def url_of(router: zmq.Socket[bytes]) -> str:
    return router.getsockopt_string(zmq.LAST_ENDPOINT)


def connected(url: str) -> TcpLink:
    link = TcpLink(url, tcp.look_up(url))
    until = time.monotonic() + 3
    while not link.news():
        assert time.monotonic() < until, "no handshake"
        link.receive(1)
        time.sleep(0.001)
    return link


def descriptors() -> set[str]:
    return {one.name for one in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As a program has whose next one is beyond what `select` can watch."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip(f"the limit of descriptors is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for fd in held:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def check_all_leaves(router: zmq.Socket[bytes]) -> None:
    link = connected(url_of(router))
    assert link.send([[bytes(LARGE)]]) == []
    assert link.unsent, "the kernel took everything: nothing is tried here"
    link.close()
    assert len(router.recv_multipart()[1]) == LARGE


def test_what_the_kernel_did_not_take_leaves_after_the_close(router: zmq.Socket[bytes]) -> None:
    check_all_leaves(router)


def test_so_it_does_beyond_descriptor_1024(
    router: zmq.Socket[bytes], many_descriptors: None
) -> None:
    check_all_leaves(router)


def test_so_it_does_when_the_program_ends_at_once(router: zmq.Socket[bytes]) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, url_of(router)], check=True, timeout=20)
    assert len(router.recv_multipart()[1]) == LARGE


@pytest.mark.parametrize("left", [0, 1, 2])
def test_connection_that_finds_no_descriptor_left_keeps_none(left: int) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with plain.create_server(("127.0.0.1", 0)) as server:  # it never accepts
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        place = tcp.look_up(url)
        before = descriptors()
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + left, limits[1]))
        try:
            if left < NEEDED:
                with pytest.raises(OSError) as raised:
                    TcpLink(url, place)
                assert raised.value.errno == errno.EMFILE
            else:
                TcpLink(url, place).close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert descriptors() == before
