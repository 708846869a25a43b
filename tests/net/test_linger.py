"""A link of our own ZMTP that is closed before the kernel has taken everything, and one that finds
no descriptor left."""

from __future__ import annotations

import os
import resource
import socket as plain
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import zmq

from majordomus.net.zmq import select as wires
from majordomus.net.zmtp import tcp

if not wires.OWN_ZMTP:
    pytest.skip("our own ZMTP is not built, or another wire was asked for", allow_module_level=True)

from majordomus.net.connection.zmtp_link import ZmtpLink

LARGE = 24 * 1024 * 1024
"""More than the kernel takes at once."""
PROGRAM = f"""
import sys, time
from majordomus.net.zmtp import tcp
from majordomus.net.connection.zmtp_link import ZmtpLink

url = sys.argv[1]
link = ZmtpLink(url, tcp.resolve(url)[0])
while not link.news():
    link.receive(1)
    time.sleep(0.001)
link.send([[bytes({LARGE})]])
link.close()
"""
SCARCE = """
import errno, os, resource, sys
from majordomus.net.zmtp import tcp
from majordomus.net.connection.zmtp_link import ZmtpLink

url, left = sys.argv[1], int(sys.argv[2])
place = tcp.resolve(url)[0]
free = [os.open(os.devnull, os.O_RDONLY) for _ in range(left + 1)]
for fd in free:
    os.close(fd)
before = os.listdir("/proc/self/fd")
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], most))
made = True
try:
    ZmtpLink(url, place).close()
except OSError as error:
    if error.errno != errno.EMFILE:
        raise
    made = False
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
print(made, len(os.listdir("/proc/self/fd")) - len(before))
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


def connected(url: str) -> ZmtpLink:
    link = ZmtpLink(url, tcp.resolve(url)[0])
    until = time.monotonic() + 3
    while not link.news():
        assert time.monotonic() < until, "no handshake"
        link.receive(1)
        time.sleep(0.001)
    return link


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Hold so many descriptors that the next one is beyond the limit of `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip(f"the limit of descriptors is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for fd in held:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def check_all_is_sent(router: zmq.Socket[bytes]) -> None:
    link = connected(url_of(router))
    assert link.send([[bytes(LARGE)]]) == []
    assert link.unsent, "the kernel took everything: nothing is tried here"
    link.close()
    assert len(router.recv_multipart()[1]) == LARGE


def test_closed_link_sends_what_the_kernel_had_not_taken(router: zmq.Socket[bytes]) -> None:
    check_all_is_sent(router)


def test_closed_link_beyond_descriptor_1024_sends_what_the_kernel_had_not_taken(
    router: zmq.Socket[bytes], many_descriptors: None
) -> None:
    check_all_is_sent(router)


def test_program_that_ends_at_once_sends_what_the_kernel_had_not_taken(
    router: zmq.Socket[bytes],
) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, url_of(router)], check=True, timeout=20)
    assert len(router.recv_multipart()[1]) == LARGE


@pytest.mark.parametrize(("left", "made"), [(0, False), (1, False), (2, True)])
def test_connection_that_finds_no_descriptor_left_keeps_none(left: int, made: bool) -> None:
    """A link needs a socket and an epoll. In a process of its own, which opens nothing else."""
    with plain.create_server(("127.0.0.1", 0)) as server:  # it never accepts
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-c", SCARCE, url, str(left)]
        done = subprocess.run(command, check=True, timeout=20, capture_output=True, text=True)
    assert done.stdout.split() == [str(made), "0"]
