"""Brokers, workers and raw peers for the tests of net/, which wait in real time, but never long."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import zmq

from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import NotFound
from majordomus.net.broker.broker import Broker
from majordomus.net.worker.base import WorkerBase
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from majordomus.net.zmq import sockets
from majordomus.protocol import mdp03, spec
from tests import headers

QUICK = BrokerSettings(worker_interval=0.2, client_interval=0.2, drain_timeout=2.0)
"""Settings with which a silent peer expires within a second."""


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(QUICK, bind=["tcp://127.0.0.1:0"]) as running:
        yield running


@pytest.fixture
def url(broker: Broker) -> str:
    return broker.endpoints[0]


def eventually(condition: Callable[[], object], within: float = 3.0) -> None:
    """Wait until `condition` is true. Fails after `within` seconds."""
    until = time.monotonic() + within
    while not condition():
        assert time.monotonic() < until, f"not within {within} s"
        time.sleep(0.005)


def complaints(stderr: str) -> list[str]:
    """Return the lines of stderr without the warning about libzmq, and without the log lines
    of level INFO with which a worker reports its connections."""
    return [
        line
        for line in stderr.splitlines()
        if "several times slower" not in line and " INFO " not in line
    ]


class RawPeer:
    """A DEALER that speaks MDP/0.3 by hand."""

    def __init__(self, url: str) -> None:
        self.socket = sockets.dealer()
        self.socket.setsockopt(zmq.IMMEDIATE, 0)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(url)

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def ready(self, service: bytes, capacity: int = 1) -> headers.Header:
        """Send READY and return the WELCOME."""
        self.send(mdp03.pack(spec.READY, code=capacity, service=service))
        header, _ = self.receive()
        assert header[0] == spec.WELCOME
        return header

    def request(
        self, service: bytes, *body: bytes, id: int = 1, ttl: int = 5000, flags: int = 0
    ) -> None:
        self.send(mdp03.pack(spec.REQUEST, flags, id=id, ttl=ttl, service=service), *body)

    def final(self, id: int, *body: bytes, status: int = 200) -> None:
        self.send(mdp03.pack(spec.FINAL, code=status, id=id), *body)

    def receive(self, within: float = 3.0) -> tuple[headers.Header, list[bytes]]:
        """Return the next message that is not a HEARTBEAT."""
        until = time.monotonic() + within
        while True:
            left = max(0.0, until - time.monotonic())
            assert self.socket.poll(int(left * 1000)), f"nothing came within {within} s"
            header, *body = self.socket.recv_multipart()
            parsed = headers.parse(header)
            if parsed[0] != spec.HEARTBEAT:
                return parsed, body

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def peers() -> Iterator[Callable[[str], RawPeer]]:
    """Return a function that makes raw peers; they are closed at the end."""
    made: list[RawPeer] = []

    def make(url: str) -> RawPeer:
        made.append(RawPeer(url))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


class Seen:
    """What the handlers of `serve_all` have observed."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.cancelled: list[str] = []
        self.running = threading.Semaphore(0)
        self.release = threading.Event()
        self.requests: list[Request] = []


def serve_all(worker: WorkerBase, seen: Seen) -> None:
    """Add the services that the tests of net/ call."""

    @worker.service("echo")
    async def echo(request: Request) -> list[bytes]:
        return request.frames

    @worker.service("log")
    def log(request: Request) -> None:
        seen.bodies.append(request.body)

    @worker.service("boom")
    def boom(request: Request) -> None:
        raise ValueError(request.text)

    @worker.service("absent")
    async def absent(request: Request) -> None:
        raise NotFound(f"no {request.text} here")

    @worker.service("count")
    def count(request: Request) -> Iterator[bytes]:
        for number in range(int(request.body)):
            yield b"%d" % number

    @worker.service("acount")
    async def acount(request: Request) -> AsyncIterator[list[bytes]]:
        for number in range(int(request.body)):
            yield [b"%d" % number, b"x"]

    @worker.service("trickle")
    async def trickle(request: Request) -> AsyncIterator[bytes]:
        try:
            for number in range(1000):
                yield b"%d" % number
                await asyncio.sleep(0.01)
        except BaseException:
            seen.cancelled.append("trickle")
            raise

    @worker.service("sleep")
    async def sleep(request: Request) -> bytes:
        seen.running.release()
        try:
            await asyncio.sleep(float(request.body))
        except asyncio.CancelledError:
            seen.cancelled.append("sleep")
            raise
        return b"slept"

    @worker.service("block")
    def block(request: Request) -> bytes:
        seen.requests.append(request)
        seen.running.release()
        while not seen.release.wait(0.01):
            if request.cancelled:
                seen.cancelled.append("block")
                break
        return b"released"

    @worker.service("who")
    async def who(request: Request) -> bytes:
        seen.requests.append(request)
        return b"%d" % id(worker)


@pytest.fixture
def seen() -> Iterator[Seen]:
    made = Seen()
    yield made
    made.release.set()


@pytest.fixture
def worker(url: str, seen: Seen) -> Iterator[Worker]:
    """A registered worker with the services of `serve_all`."""
    made = Worker(url, capacity=100, threads=8)
    serve_all(made, seen)
    with made:
        made.wait_ready()
        yield made
        seen.release.set()
