"""Producer and worker of RabbitMQ's quorum queues, with confirms:
python -m benchmarks.durable.amqp serve|produce HOST:PORT.

AMQP 0-9-1, as much of it as is needed. A worker publishes the result, waits for its confirm, and
acknowledges the request; its deliveries and its publications have the same numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
from collections.abc import Callable
from typing import cast

import uvloop

from benchmarks.durable.timing import Flight, arguments

Heard = Callable[["Connection", list[tuple[int, bytes]], int], None]
"""Gets the deliveries of one read, tag and body, and the highest confirm (0 for none)."""
METHOD, HEADER, BODY = 1, 2, 3
PERSISTENT = struct.pack(">HB", 0x1000, 2)
DELIVER, ACK = (60, 60), (60, 80)


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def long(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"%c%s%s\xce" % (kind, struct.pack(">HI", channel, len(payload)), payload)


def method(channel: int, number: tuple[int, int], rest: bytes = b"") -> bytes:
    return frame(METHOD, channel, struct.pack(">HH", *number) + rest)


def publish(queue: bytes, body: bytes) -> bytes:
    """basic.publish to the default exchange, persistent."""
    head = struct.pack(">HHQ", 60, 0, len(body)) + PERSISTENT
    named = method(1, (60, 40), b"\0\0\0" + short(queue) + b"\0")
    return named + frame(HEADER, 1, head) + frame(BODY, 1, body)


def acknowledge(tag: int) -> bytes:
    """basic.ack of this delivery and all before it."""
    return method(1, ACK, struct.pack(">QB", tag, 1))


class Connection(asyncio.Protocol):
    """One connection with one channel. `setup` is answered step by step; then `heard` is called."""

    transport: asyncio.WriteTransport

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.buffer = b""
        self.answers: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.tag = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer + data if self.buffer else data
        at, size = 0, len(buffer)
        deliveries: list[tuple[int, bytes]] = []
        confirmed = 0
        while size - at >= 8:
            kind = buffer[at]
            length = int.from_bytes(buffer[at + 3 : at + 7], "big")
            if size - at < length + 8:
                break
            start, at = at + 7, at + length + 8
            if kind == METHOD:
                number = struct.unpack_from(">HH", buffer, start)
                if number == DELIVER:
                    behind = start + 5 + buffer[start + 4]
                    self.tag = int.from_bytes(buffer[behind : behind + 8], "big")
                elif number == ACK:
                    confirmed = int.from_bytes(buffer[start + 4 : start + 12], "big")
                elif number in ((10, 50), (20, 40), (60, 120)):
                    raise RuntimeError(buffer[start : start + length].decode("latin-1"))
                else:
                    self.answers.put_nowait(number)
            elif kind == BODY:
                deliveries.append((self.tag, buffer[start : start + length]))
        self.buffer = buffer[at:]
        if deliveries or confirmed:
            self.heard(self, deliveries, confirmed)

    async def ask(self, data: bytes, answer: tuple[int, int]) -> None:
        """Send, and wait for the method that answers it. Raises: RuntimeError."""
        self.transport.write(data)
        got = await asyncio.wait_for(self.answers.get(), 20)
        if got != answer:
            raise RuntimeError(f"AMQP method {got} in place of {answer}")


async def connect(url: str, heard: Heard, consumed: bytes) -> Connection:
    """Log in, make both queues, and consume one of them."""
    host, _, port = url.rpartition(":")
    loop = asyncio.get_running_loop()
    _, made = await loop.create_connection(lambda: Connection(heard), host, int(port))
    await made.ask(b"AMQP\0\0\x09\x01", (10, 10))
    login = long(b"") + short(b"PLAIN") + long(b"\0guest\0guest") + short(b"en_US")
    await made.ask(method(0, (10, 11), login), (10, 30))
    made.transport.write(method(0, (10, 31), struct.pack(">HIH", 2047, 131072, 0)))
    await made.ask(method(0, (10, 40), short(b"/") + b"\0\0"), (10, 41))
    await made.ask(method(1, (20, 10), b"\0"), (20, 11))
    kind = long(short(b"x-queue-type") + b"S" + long(b"quorum"))
    for name in (b"requests", b"results"):
        await made.ask(method(1, (50, 10), b"\0\0" + short(name) + b"\2" + kind), (50, 11))
    await made.ask(method(1, (85, 10), b"\0"), (85, 11))
    await made.ask(method(1, (60, 10), struct.pack(">IHB", 0, 1000, 0)), (60, 11))
    consume = b"\0\0" + short(consumed) + short(b"c") + b"\0" + long(b"")
    await made.ask(method(1, (60, 20), consume), (60, 21))
    return made


async def serve(url: str) -> None:
    def work(of: Connection, deliveries: list[tuple[int, bytes]], confirmed: int) -> None:
        parts = [publish(b"results", body) for _, body in deliveries]
        if confirmed:
            parts.append(acknowledge(confirmed))
        of.transport.write(b"".join(parts))

    await connect(url, work, b"requests")
    await asyncio.Event().wait()


async def produce(asked: argparse.Namespace) -> None:
    def send(bodies: list[bytes]) -> None:
        connection.transport.write(b"".join([publish(b"requests", body) for body in bodies]))

    def results(of: Connection, deliveries: list[tuple[int, bytes]], _: int) -> None:
        if deliveries:
            of.transport.write(acknowledge(deliveries[-1][0]))
            flight.done([body for _, body in deliveries])

    flight = Flight(asked, send)
    connection = await connect(asked.url, results, b"results")
    flight.start()
    await flight.finish()


if __name__ == "__main__":
    asked = arguments()
    uvloop.run(serve(asked.url) if asked.role == "serve" else produce(asked))
