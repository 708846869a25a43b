"""What all raw peers have in common: a socket, a clock, and no idea of any dialect's frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import zmq

Frames = list[bytes]
Handler = Callable[
    [Frames], list[Frames]
]  # a request's body → parts of the answer, the last is final
Step = Callable[[], bool]  # asked between polls: go on?


class Answer(NamedTuple):
    """One call's answer as it came over the wire: bodies only, envelopes checked and cut off."""

    partials: list[Frames]
    final: Frames


class NotUnderstoodError(Exception):
    """The other side sent what its protocol text does not allow."""


def expect(found: object, wanted: object, what: str, frames: Frames) -> None:
    """Raise unless the text of the protocol was kept; shows the whole message."""
    if found != wanted:
        raise NotUnderstoodError(f"{what}: {found!r}, expected {wanted!r}, in {frames!r}")


class Client:
    """A client's socket; subclasses write requests and read replies."""

    def __init__(self, endpoint: str, kind: int = zmq.DEALER, **options: int | bytes) -> None:
        self.socket = zmq.Context.instance().socket(kind)
        self.socket.setsockopt(zmq.LINGER, 500)
        for name, value in options.items():
            self.socket.setsockopt(getattr(zmq, name), value)
        self.socket.connect(endpoint)

    def receive(self, timeout: float = 5.0) -> Frames:
        """Next raw message within `timeout` seconds, or TimeoutError."""
        if not self.socket.poll(round(timeout * 1000)):
            raise TimeoutError(f"no message within {timeout} s")
        return self.socket.recv_multipart()

    def rest(self, seconds: float) -> list[Frames]:
        """Whatever comes within `seconds`; a test that wants silence compares it with []."""
        until = time.monotonic() + seconds
        messages: list[Frames] = []
        while self.socket.poll(max(0, round((until - time.monotonic()) * 1000))):
            messages.append(self.socket.recv_multipart())
        return messages

    def send(self, frames: Frames) -> None:
        self.socket.send_multipart(frames)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, service: bytes, body: Frames, timeout: float = 5.0) -> Answer:
        """One request and all of its answer; `timeout` holds for each message of it."""
        raise NotImplementedError


class Worker:
    """One service on one DEALER socket. Subclasses say what their commands look like."""

    expiry_intervals = 3.0
    every_interval = False  # True: a heartbeat each interval, whatever else was sent

    def __init__(
        self, endpoint: str, service: bytes, handler: Handler, interval: float = 2.5
    ) -> None:
        self.endpoint, self.service, self.handler = endpoint, service, handler
        self.interval = interval
        self.registrations = 0
        self.served = 0
        self.open()

    def open(self) -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 500)
        self.socket.connect(self.endpoint)
        self.heard = self.sent = time.monotonic()
        self.registrations += 1
        self.send_ready()

    def renew(self) -> None:
        """RFC 7: 'it MUST close its socket, and reconnect to the broker on a new socket'."""
        self.socket.close()
        time.sleep(self.interval / 10)
        self.open()

    def close(self) -> None:
        self.send_disconnect()
        self.socket.close()

    def send(self, frames: Frames) -> None:
        self.socket.send_multipart(frames)
        if not self.every_interval:
            self.sent = time.monotonic()

    def tick(self) -> None:
        """Heartbeat when it is due; a broker silent for too long is left and found again."""
        now = time.monotonic()
        if now - self.sent >= self.interval:
            self.send_heartbeat()
            self.sent = now
        if now - self.heard >= self.interval * self.expiry_intervals:
            self.renew()

    def receive(self) -> None:
        """Handle all messages that are there now."""
        socket = self.socket
        while socket is self.socket and socket.poll(0):
            frames = socket.recv_multipart()
            self.heard = time.monotonic()
            self.handle(frames)

    def handle(self, frames: Frames) -> None:
        raise NotImplementedError

    def send_ready(self) -> None:
        raise NotImplementedError

    def send_heartbeat(self) -> None:
        raise NotImplementedError

    def send_disconnect(self) -> None:
        raise NotImplementedError


def serve(workers: Iterable[Worker], go_on: Step, step: float = 0.05) -> None:
    """Run workers in this thread until `go_on()` says no, then sign them off."""
    workers = list(workers)
    try:
        while go_on():
            poller = zmq.Poller()
            for worker in workers:
                poller.register(worker.socket, zmq.POLLIN)
            poller.poll(step * 1000)
            for worker in workers:
                worker.receive()
                worker.tick()
    finally:
        for worker in workers:
            worker.close()


def echo(body: Frames) -> list[Frames]:
    """The body as it came."""
    return [body]


def seen(body: Frames) -> list[Frames]:
    """How many body frames the worker saw, then those frames."""
    return [[b"%d" % len(body), *body]]


def void(body: Frames) -> list[Frames]:
    """An answer of no body frames."""
    return [[]]


def parts(body: Frames) -> list[Frames]:
    """Two frames a part, one part for each frame of the body, then a final of one frame."""
    return [[b"part", frame] for frame in body] + [[b"end"]]


HANDLERS: dict[bytes, Handler] = {b"echo": echo, b"seen": seen, b"void": void, b"parts": parts}
