"""Producer and worker of Redis streams: python -m benchmarks.durable.redis serve|produce HOST:PORT.

A request is an entry of the stream `requests`; a worker of a consumer group reads it, adds the
result to the stream `results`, and acknowledges the request behind it, in one write. Both streams
are trimmed by their length, which costs Redis less than to delete each entry.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from typing import Any, cast

import hiredis
import uvloop

from benchmarks.durable.timing import Flight, arguments

TRIM = (b"MAXLEN", b"~", b"20000")
MOST = b"256"


class Connection(asyncio.Protocol):
    """One connection; `heard` gets each reply."""

    transport: asyncio.WriteTransport

    def __init__(self, heard: Callable[[Any], None]) -> None:
        self.heard = heard
        self.reader = hiredis.Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            if isinstance(reply, hiredis.ReplyError) and "BUSYGROUP" not in str(reply):
                raise reply
            self.heard(reply)

    def send(self, *commands: tuple[bytes, ...]) -> None:
        self.transport.write(b"".join([hiredis.pack_command(command) for command in commands]))


async def connect(url: str, heard: Callable[[Any], None]) -> Connection:
    host, _, port = url.rpartition(":")
    loop = asyncio.get_running_loop()
    _, made = await loop.create_connection(lambda: Connection(heard), host, int(port))
    return made


async def serve(url: str) -> None:
    read = (b"XREADGROUP", b"GROUP", b"g", b"w", b"COUNT", MOST)
    read += (b"BLOCK", b"0", b"STREAMS", b"requests", b">")

    def work(reply: Any) -> None:
        if not isinstance(reply, list):
            return  # XGROUP CREATE
        [[_, entries]] = reply
        commands = [(b"XADD", b"results", *TRIM, b"*", b"b", fields[1]) for _, fields in entries]
        acknowledge = (b"XACK", b"requests", b"g", *(id for id, _ in entries))
        writer.send(*commands, acknowledge)
        reader.send(read)

    writer = await connect(url, lambda _: None)
    reader = await connect(url, work)
    reader.send((b"XGROUP", b"CREATE", b"requests", b"g", b"$", b"MKSTREAM"), read)
    await asyncio.Event().wait()


async def produce(asked: argparse.Namespace) -> None:
    def send(bodies: list[bytes]) -> None:
        writer.send(*[(b"XADD", b"requests", *TRIM, b"*", b"b", body) for body in bodies])

    def read_from(last: bytes) -> None:
        command = (b"XREAD", b"COUNT", MOST, b"BLOCK", b"0", b"STREAMS", b"results", last)
        reader.send(command)

    def results(reply: Any) -> None:
        [[_, entries]] = reply
        flight.done([fields[1] for _, fields in entries])
        read_from(entries[-1][0])

    flight = Flight(asked, send)
    writer = await connect(asked.url, lambda _: None)
    reader = await connect(asked.url, results)
    read_from(b"$")
    await asyncio.sleep(0.1)
    flight.start()
    await flight.finish()


if __name__ == "__main__":
    asked = arguments()
    uvloop.run(serve(asked.url) if asked.role == "serve" else produce(asked))
