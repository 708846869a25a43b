"""An MDP/0.3 client and worker on plain sockets, written only from docs/spec/mdp-0.3.md."""

from __future__ import annotations

import struct
import time
from itertools import count
from typing import NamedTuple

import zmq

from tests.peers.loop import Answer, Client, Frames, Handler, Worker, expect

READY, REQUEST, PARTIAL, FINAL, HEARTBEAT, DISCONNECT, WELCOME = range(1, 8)
HELLO, CANCEL, CAPACITY, EVENT, SUBSCRIBE, UNSUBSCRIBE, REJECT, CREDIT = range(8, 16)
METADATA, ONCE, ONE_WAY, FAIL_FAST, BROKER_METADATA = 0x01, 0x04, 0x08, 0x10, 0x40
UNKNOWN_LOAD = 65535
FIXED = struct.Struct(">4sBBHQI")  # §4.1: "what struct.unpack(">4sBBHQI", header[:20]) reads"


class Header(NamedTuple):
    command: int
    flags: int
    code: int
    id: int
    ttl: int
    service: bytes
    address: bytes
    metadata: bytes


class FailedError(Exception):
    """A FINAL whose status is not 200; its first body frame is 'a sentence for people'."""

    def __init__(self, status: int, body: Frames) -> None:
        super().__init__(status, body)
        self.status, self.body = status, body


def write(
    command: int,
    *,
    flags: int = 0,
    code: int = 0,
    id: int = 0,
    ttl: int = 0,
    service: bytes = b"",
    address: bytes = b"",
    metadata: bytes = b"",
) -> bytes:
    fixed = FIXED.pack(b"MDP\x03", command, flags, code, id, ttl)
    names = bytes([len(service)]) + service + bytes([len(address)]) + address
    return fixed + names + metadata


def read(frames: Frames) -> Header:
    """Decode the header by the rules of §4.3, which the broker must follow too."""
    header = frames[0]
    magic, command, flags, code, id, ttl = FIXED.unpack_from(header)
    expect(magic, b"MDP\x03", "magic and version", frames)
    end = 21 + header[20]
    service, after = header[21:end], end + 1 + header[end]
    address, metadata = header[end + 1 : after], header[after:]
    expect((len(service), len(address)), (header[20], header[end]), "lengths", frames)
    expect(bool(metadata), bool(flags & (METADATA | BROKER_METADATA)), "metadata", frames)
    return Header(command, flags, code, id, ttl, service, address, metadata)


class Mdp03Client(Client):
    """A minimal client: no presence, no metadata; several calls may be open at a time."""

    def __init__(self, endpoint: str, kind: int = zmq.DEALER, **options: int | bytes) -> None:
        super().__init__(endpoint, kind, **options)
        self.ids = count(1)

    def request(self, service: bytes, body: Frames, *, flags: int = 0, ttl: float = 5.0) -> int:
        id = next(self.ids)
        header = write(REQUEST, flags=flags, id=id, ttl=round(ttl * 1000), service=service)
        self.send([header, *body])
        return id

    def next(self, timeout: float = 5.0) -> tuple[Header, Frames]:
        frames = self.receive(timeout)
        return read(frames), frames[1:]

    def call(self, service: bytes, body: Frames, timeout: float = 5.0) -> Answer:
        return self.finish(self.request(service, body, ttl=timeout), timeout)

    def finish(self, id: int, timeout: float = 5.0) -> Answer:
        """Receive the reply to one call; drop the messages of other calls."""
        partials: list[Frames] = []
        while True:
            header, body = self.next(timeout)
            if header.id != id:
                continue
            if header.command == PARTIAL:
                partials.append(body)
            elif header.command == FINAL:
                if header.code != 200:
                    raise FailedError(header.code, body)
                return Answer(partials, body)


class Mdp03ReqClient(Mdp03Client):
    """§13: 'a REQ socket MUST set ZMQ_REQ_CORRELATE'."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint, zmq.REQ, REQ_CORRELATE=1, REQ_RELAXED=1)


class Mdp03Worker(Worker):
    """A minimal worker of one service and `capacity` slots, with the broker's own interval."""

    every_interval = True

    def __init__(
        self,
        endpoint: str,
        service: bytes,
        handler: Handler,
        interval: float = 2.5,
        capacity: int = 1,
    ) -> None:
        self.capacity = capacity
        self.welcome: Header | None = None
        super().__init__(endpoint, service, handler, interval)

    def send_ready(self) -> None:
        self.send([write(READY, code=self.capacity, service=self.service)])

    def send_heartbeat(self) -> None:
        self.send([write(HEARTBEAT, code=UNKNOWN_LOAD)])

    def send_disconnect(self) -> None:
        self.send([write(DISCONNECT)])

    def answer(self, id: int, parts: list[Frames]) -> None:
        for part in parts[:-1]:
            self.send([write(PARTIAL, id=id), *part])
        self.send([write(FINAL, code=200, id=id), *parts[-1]])
        self.served += 1

    def handle(self, frames: Frames) -> None:
        header = read(frames)
        if header.command == REQUEST:
            self.answer(header.id, self.handler(frames[1:]))
        elif header.command == WELCOME:
            self.welcome = header
            self.interval = header.ttl / 1000
        elif header.command == DISCONNECT:
            self.renew()
        elif header.command not in range(1, 16) and header.id:
            self.send([write(FINAL, code=501, id=header.id)])

    def wait_until_welcome(self, seconds: float = 5.0) -> None:
        until = time.monotonic() + seconds
        while self.welcome is None:
            if time.monotonic() > until:
                raise TimeoutError("no WELCOME")
            self.socket.poll(50)
            self.receive()
