"""nats-py with uvloop, at a nats-server: python_nats.py serve|call URL."""

from __future__ import annotations

import asyncio

import nats
import uvloop
from nats.aio.msg import Msg

from benchmarks.calling import arguments, measure


async def serve(url: str) -> None:
    connection = await nats.connect(url)

    async def echo(message: Msg) -> None:
        await message.respond(message.data)

    await connection.subscribe("echo", queue="workers", cb=echo)
    await asyncio.Event().wait()


async def call(url: str, in_flight: int, seconds: float) -> None:
    connection = await nats.connect(url)

    async def ask(body: bytes) -> bytes:
        return (await connection.request("echo", body, timeout=30)).data

    await measure(ask, in_flight, seconds)
    await connection.close()


def main() -> None:
    asked = arguments()
    if asked.role == "serve":
        uvloop.run(serve(asked.url))
    else:
        uvloop.run(call(asked.url, asked.in_flight, asked.seconds))


if __name__ == "__main__":
    main()
