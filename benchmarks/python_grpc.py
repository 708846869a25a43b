"""grpc.aio, with bytes for messages and nobody between: python_grpc.py serve|call HOST:PORT."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from benchmarks.calling import arguments, measure


async def serve(url: str) -> None:
    async def echo(body: bytes, _: grpc.aio.ServicerContext) -> bytes:
        return body

    methods = {"echo": grpc.unary_unary_rpc_method_handler(echo)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", methods),))
    server.add_insecure_port(url)
    await server.start()
    await server.wait_for_termination()


async def call(url: str, in_flight: int, seconds: float) -> None:
    async with grpc.aio.insecure_channel(url) as channel:
        echo = channel.unary_unary("/bench/echo")

        async def ask(body: bytes) -> bytes:
            return bytes(await echo(body))

        await measure(ask, in_flight, seconds)


def main() -> None:
    asked = arguments()
    if asked.role == "serve":
        asyncio.run(serve(asked.url))
    else:
        asyncio.run(call(asked.url, asked.in_flight, asked.seconds))


if __name__ == "__main__":
    main()
