"""Producer and worker of NATS JetStream:
python -m benchmarks.durable.jetstream serve|produce HOST:PORT.

Requests and results are two streams in files with the retention of a work queue. A worker publishes
the result, waits until it is stored, and acknowledges the request, which deletes it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable
from typing import cast

import uvloop

from benchmarks.durable.timing import Flight, arguments

Heard = Callable[[list[tuple[bytes, bytes, bytes]]], None]
"""Gets the messages of one read: subject, subject for the reply, body."""


class Connection(asyncio.Protocol):
    """One connection with NATS' own protocol."""

    transport: asyncio.WriteTransport

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by class
        self.transport.write(b'CONNECT {"verbose":false,"pedantic":false,"headers":false}\r\n')

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer + data if self.buffer else data
        at, messages = 0, []
        while (end := buffer.find(b"\r\n", at)) >= 0:
            line = buffer[at:end]
            if line.startswith(b"MSG "):
                words = line.split()
                size = int(words[-1])
                if len(buffer) < end + 4 + size:
                    break
                reply = words[3] if len(words) == 5 else b""
                messages.append((words[1], reply, buffer[end + 2 : end + 2 + size]))
                at = end + 4 + size
                continue
            if line == b"PING":
                self.transport.write(b"PONG\r\n")
            elif line.startswith(b"-ERR"):
                raise RuntimeError(line.decode())
            at = end + 2
        self.buffer = buffer[at:]
        if messages:
            self.heard(messages)


def publish(subject: bytes, reply: bytes, body: bytes) -> bytes:
    return b"PUB %s %s %d\r\n%s\r\n" % (subject, reply, len(body), body)


def subscribe(subject: bytes, number: int) -> bytes:
    return b"SUB %s %d\r\n" % (subject, number)


async def connect(url: str, heard: Heard) -> Connection:
    host, _, port = url.rpartition(":")
    loop = asyncio.get_running_loop()
    _, made = await loop.create_connection(lambda: Connection(heard), host, int(port))
    return made


async def prepare(connection: Connection, stream: bytes, consumer: bytes) -> None:
    """Make the streams, and this side's consumer of one of them, unless they are there."""
    write = connection.transport.write
    write(subscribe(b"to." + consumer, 1) + subscribe(b"stored.%s.>" % consumer, 2))
    for name in (b"requests", b"results"):
        config = {"name": name.decode(), "subjects": [name.decode()], "storage": "file"}
        asked = json.dumps({**config, "retention": "workqueue", "num_replicas": 1}).encode()
        write(publish(b"$JS.API.STREAM.CREATE." + name, b"", asked))
    await asyncio.sleep(0.3)
    config = {
        "durable_name": consumer.decode(),
        "deliver_subject": f"to.{consumer.decode()}",
        "ack_policy": "explicit",
        "max_ack_pending": 10_000,
    }
    asked = json.dumps({"stream_name": stream.decode(), "config": config}).encode()
    write(publish(b"$JS.API.CONSUMER.DURABLE.CREATE.%s.%s" % (stream, consumer), b"", asked))
    await asyncio.sleep(0.3)


async def serve(url: str) -> None:
    open_acks: dict[bytes, bytes] = {}
    number = 0

    def work(messages: list[tuple[bytes, bytes, bytes]]) -> None:
        nonlocal number
        parts = []
        for subject, reply, body in messages:
            if subject.startswith(b"stored."):
                parts.append(publish(open_acks.pop(subject), b"", b"+ACK"))
            elif subject == b"requests":
                number += 1
                stored = b"stored.worker.%d" % number
                open_acks[stored] = reply
                parts.append(publish(b"results", stored, body))
        connection.transport.write(b"".join(parts))

    connection = await connect(url, work)
    await prepare(connection, b"requests", b"worker")
    await asyncio.Event().wait()


async def produce(asked: argparse.Namespace) -> None:
    def send(bodies: list[bytes]) -> None:
        parts = [publish(b"requests", b"stored.producer.1", body) for body in bodies]
        connection.transport.write(b"".join(parts))

    def results(messages: list[tuple[bytes, bytes, bytes]]) -> None:
        found = [(reply, body) for subject, reply, body in messages if subject == b"results"]
        connection.transport.write(b"".join([publish(reply, b"", b"+ACK") for reply, _ in found]))
        flight.done([body for _, body in found])

    flight = Flight(asked, send)
    connection = await connect(asked.url, results)
    await prepare(connection, b"results", b"producer")
    flight.start()
    await flight.finish()


if __name__ == "__main__":
    asked = arguments()
    uvloop.run(serve(asked.url) if asked.role == "serve" else produce(asked))
