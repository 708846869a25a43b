"""Producer and worker of majordomus: python -m benchmarks.durable.ours serve|produce URL."""

from __future__ import annotations

import argparse
import asyncio
import time

import uvloop

from benchmarks.durable.timing import SIZE, Measure, arguments
from majordomus import AsyncClient, AsyncWorker, Request


async def serve(url: str) -> None:
    worker = AsyncWorker(url, capacity=1000)

    @worker.service("echo")
    async def echo(request: Request) -> bytes:
        return request.body

    await worker.run()


async def produce(asked: argparse.Namespace) -> None:
    measure = Measure(asked)
    taken: list[float] = []
    sent = 0
    body = bytes(SIZE)

    async def call(client: AsyncClient) -> None:
        nonlocal sent
        sent += 1
        began = time.perf_counter()
        if asked.plain:
            reply = await client.call("echo", body, timeout=30)
        else:
            reply = await client.call("echo", body, durable=True, timeout=30)
        now = time.perf_counter()
        if len(reply.body) != SIZE:
            raise RuntimeError("another body came back")
        if measure.looks(now):
            taken.append(now - began)

    async def caller(client: AsyncClient) -> None:
        while time.perf_counter() < measure.end:
            await call(client)

    async with AsyncClient(asked.url) as client:
        await asyncio.gather(*(caller(client) for _ in range(asked.in_flight)))
    measure.report(taken, sent)


if __name__ == "__main__":
    asked = arguments()
    uvloop.run(serve(asked.url) if asked.role == "serve" else produce(asked))
