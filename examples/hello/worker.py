"""Serves three services; start as many of it as you like."""

import asyncio
from collections.abc import Iterator

from majordomus import Request, Worker

worker = Worker("tcp://127.0.0.1:5555")


@worker.service("hello")
def hello(request: Request) -> bytes:
    """A plain function runs in a thread."""
    return b"hello, " + request.body


@worker.service("nap")
async def nap(request: Request) -> bytes:
    """A coroutine runs in the event loop: thousands may wait at once."""
    await asyncio.sleep(float(request.body))
    return b"slept"


@worker.service("count")
def count(request: Request) -> Iterator[bytes]:
    """A generator answers with a stream of parts."""
    for number in range(1, int(request.body) + 1):
        yield b"%d" % number


if __name__ == "__main__":
    worker.run()
