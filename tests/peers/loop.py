"""The base of all raw peers: a socket and a clock, without the frames of any dialect."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import zmq

Frames = list[bytes]
Handler = Callable[
    [Frames], list[Frames]
]  # the body of a request → the parts of its reply, the last is FINAL
Step = Callable[[], bool]  # called between polls; False ends the loop


class Answer(NamedTuple):
    """The reply to one call: the bodies of its messages, without headers and envelopes."""

    partials: list[Frames]
    """The body of each PARTIAL, in order."""
    final: Frames
    """The body of the FINAL."""


class NotUnderstoodError(Exception):
    """The other side sent a message that the protocol does not allow."""


def expect(found: object, wanted: object, what: str, frames: Frames) -> None:
    """Raise NotUnderstoodError, with the whole message, unless `found` equals `wanted`."""
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
        """Receive the next raw message. Raises TimeoutError after `timeout` seconds."""
        if not self.socket.poll(round(timeout * 1000)):
            raise TimeoutError(f"no message within {timeout} s")
        return self.socket.recv_multipart()

    def rest(self, seconds: float) -> list[Frames]:
        """Receive all messages for `seconds`. A test that expects no message compares with []."""
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
        """Send one request and receive its whole reply. `timeout`, in s, is for each message."""
        raise NotImplementedError


class Worker:
    """One service on one DEALER socket. Subclasses encode and decode the commands.

    `expiry_intervals`: after so many intervals without a message the broker is considered lost.
    `every_interval`: send a heartbeat each interval, even if another message was sent.
    `registrations`: how often the worker has sent its first READY on a new socket.
    `served`: how many requests it has answered.
    `received`, `sent`: the times of the last message received and sent.
    """

    expiry_intervals = 3.0
    every_interval = False

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
        self.received = self.sent = time.monotonic()
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
        """Send a heartbeat when it is due. Reconnect when the broker has been silent too long."""
        now = time.monotonic()
        if now - self.sent >= self.interval:
            self.send_heartbeat()
            self.sent = now
        if now - self.received >= self.interval * self.expiry_intervals:
            self.renew()

    def receive(self) -> None:
        """Handle all messages that have arrived."""
        socket = self.socket
        while socket is self.socket and socket.poll(0):
            frames = socket.recv_multipart()
            self.received = time.monotonic()
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
    """Run workers in this thread until `go_on()` returns False, then disconnect them."""
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
    """Reply with the body of the request."""
    return [body]


def seen(body: Frames) -> list[Frames]:
    """Reply with the number of body frames received, followed by these frames."""
    return [[b"%d" % len(body), *body]]


def void(body: Frames) -> list[Frames]:
    """Reply without body frames."""
    return [[]]


def parts(body: Frames) -> list[Frames]:
    """Reply with a part of two frames for each body frame, then a FINAL of one frame."""
    return [[b"part", frame] for frame in body] + [[b"end"]]


HANDLERS: dict[bytes, Handler] = {b"echo": echo, b"seen": seen, b"void": void, b"parts": parts}
