"""majordomus, Python to Python: python_majordomus.py serve|call URL."""

from __future__ import annotations

import uvloop

from benchmarks.calling import arguments, measure, measure_sync
from majordomus import AsyncClient, AsyncWorker, Client, Request


async def echo(request: Request) -> bytes:
    """Return the body, on the event loop."""
    return request.body


def echo_beside(request: Request) -> bytes:
    """Return the body, in a thread of the pool or in another process."""
    return request.body


async def serve(url: str, handler: str) -> None:
    worker = AsyncWorker(url, capacity=1000)
    if handler == "async":
        worker.add("echo", echo)
    elif handler == "def":
        worker.add("echo", echo_beside)
    else:
        worker.add("echo", echo_beside, run="process")
    await worker.run()


async def call(url: str, in_flight: int, seconds: float) -> None:
    async with AsyncClient(url) as client:

        async def ask(body: bytes) -> bytes:
            return (await client.call("echo", body)).body

        await measure(ask, in_flight, seconds)


def call_sync(url: str, seconds: float) -> None:
    with Client(url) as client:
        measure_sync(lambda body: client.call("echo", body).body, seconds)


def main() -> None:
    asked = arguments()
    if asked.role == "serve":
        uvloop.run(serve(asked.url, asked.handler))
    elif asked.sync:
        call_sync(asked.url, asked.seconds)
    else:
        uvloop.run(call(asked.url, asked.in_flight, asked.seconds))


if __name__ == "__main__":
    main()
