"""Typed calls per second beside FastStream on NATS and grpc.aio: five fields, both ways.

`python -m benchmarks.typed` needs majordomus, benchmarks/requirements.txt and nats-server.
In each round every side runs once, in turn: one server process, and one client process with 64
concurrent calls. It prints the median of each side, and its ratio to majordomus.

majordomus and FastStream decode and check the message by its annotation (a msgspec Struct there, a
pydantic model here, which is what FastStream uses), grpc by the compiled protobuf message.

`--ready` prints instead what 10,000 workers with one contract send and hold at the broker.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

CONCURRENT = 64
PROTO = """
syntax = "proto3";
package typed;
message Order {
  string item = 1; int64 count = 2; double price = 3; bool paid = 4; string note = 5;
}
service Orders { rpc Put(Order) returns (Order); }
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def measure(call: Callable[[], Awaitable[Any]], seconds: float) -> float:
    """Calls per second, after a warm-up of half a second."""
    counts = [0]
    until = time.perf_counter() + 0.5

    async def caller() -> None:
        while time.perf_counter() < until:
            await call()
            counts[0] += 1

    await asyncio.gather(*[caller() for _ in range(CONCURRENT)])
    counts[0] = 0
    began = time.perf_counter()
    until = began + seconds
    await asyncio.gather(*[caller() for _ in range(CONCURRENT)])
    return counts[0] / (time.perf_counter() - began)


# -- majordomus


def majordomus_order() -> Any:
    import msgspec

    class Order(msgspec.Struct):
        item: str
        count: int
        price: float
        paid: bool
        note: str

    return Order


def majordomus_server(port: int) -> None:
    from majordomus import AsyncWorker

    Order = majordomus_order()  # noqa: N806 - it is a class
    worker = AsyncWorker(f"tcp://127.0.0.1:{port}")

    async def put(order: Any) -> Any:
        return Order(order.item, order.count + 1, order.price, True, order.note)

    put.__annotations__ = {"order": Order, "return": Order}
    worker.add("orders.put", put)
    asyncio.run(worker.run())


def majordomus_broker(port: int) -> None:
    from majordomus import Broker

    Broker(bind=f"tcp://127.0.0.1:{port}").run()


async def majordomus_client(port: int, seconds: float) -> float:
    from majordomus import AsyncClient

    Order = majordomus_order()  # noqa: N806 - it is a class
    async with AsyncClient(f"tcp://127.0.0.1:{port}") as client:
        order = Order("tea", 1, 2.5, False, "no sugar")
        return await measure(lambda: client.call("orders.put", order, returns=Order), seconds)


# -- FastStream on NATS


def faststream_server(port: int) -> None:
    from faststream import FastStream
    from faststream.nats import NatsBroker
    from pydantic import BaseModel

    class Order(BaseModel):
        item: str
        count: int
        price: float
        paid: bool
        note: str

    broker = NatsBroker(f"nats://127.0.0.1:{port}", logger=None)

    async def put(order: Any) -> Any:
        return order.model_copy(update={"count": order.count + 1, "paid": True})

    put.__annotations__ = {"order": Order, "return": Order}
    broker.subscriber("orders.put", max_workers=CONCURRENT)(put)
    asyncio.run(FastStream(broker, logger=None).run())


async def faststream_client(port: int, seconds: float) -> float:
    from faststream.nats import NatsBroker
    from pydantic import BaseModel

    class Order(BaseModel):
        item: str
        count: int
        price: float
        paid: bool
        note: str

    order = Order(item="tea", count=1, price=2.5, paid=False, note="no sugar")
    async with NatsBroker(f"nats://127.0.0.1:{port}", logger=None) as broker:

        async def call() -> Order:
            reply = await broker.request(order, "orders.put", timeout=5)
            return Order.model_validate(await reply.decode())

        for _ in range(100):
            with contextlib.suppress(Exception):
                await call()
                break
            await asyncio.sleep(0.05)
        return await measure(call, seconds)


# -- grpc.aio


def grpc_code() -> Any:
    folder = Path(tempfile.mkdtemp())
    (folder / "orders.proto").write_text(PROTO, "utf-8")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{folder}",
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            str(folder / "orders.proto"),
        ],
        check=True,
    )
    sys.path.insert(0, str(folder))
    import orders_pb2
    import orders_pb2_grpc

    return orders_pb2, orders_pb2_grpc


def grpc_server(port: int) -> None:
    import grpc

    pb2, pb2_grpc = grpc_code()

    class Orders(pb2_grpc.OrdersServicer):  # type: ignore[misc, name-defined]
        async def Put(self, request: Any, context: Any) -> Any:  # noqa: N802
            return pb2.Order(
                item=request.item,
                count=request.count + 1,
                price=request.price,
                paid=True,
                note=request.note,
            )

    async def serve() -> None:
        server = grpc.aio.server()
        pb2_grpc.add_OrdersServicer_to_server(Orders(), server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()

    asyncio.run(serve())


async def grpc_client(port: int, seconds: float) -> float:
    import grpc

    pb2, pb2_grpc = grpc_code()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
        stub = pb2_grpc.OrdersStub(channel)
        order = pb2.Order(item="tea", count=1, price=2.5, paid=False, note="no sugar")
        return await measure(lambda: stub.Put(order), seconds)


SIDES: dict[str, tuple[list[Callable[[int], None]], Callable[[int, float], Awaitable[float]]]] = {
    "majordomus": ([majordomus_broker, majordomus_server], majordomus_client),
    "faststream": ([faststream_server], faststream_client),
    "grpc": ([grpc_server], grpc_client),
}


def round_of(side: str, seconds: float) -> float:
    """One measurement of a side, in processes of its own."""
    port = free_port()
    programs = [
        [sys.executable, "-m", "benchmarks.typed", "--serve", one.__name__, "--port", str(port)]
        for one in SIDES[side][0]
    ]
    if side == "faststream":
        programs.insert(0, ["nats-server", "-a", "127.0.0.1", "-p", str(port)])
    running = [
        subprocess.Popen(one, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for one in programs
    ]
    try:
        time.sleep(2)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.typed",
                "--measure",
                side,
                "--port",
                str(port),
                "--seconds",
                str(seconds),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60 + 2 * seconds,
        )
        if done.returncode:
            raise SystemExit(f"{side}: {done.stderr.strip().splitlines()[-1:]}")
        return float(done.stdout)
    finally:
        for one in running:
            one.kill()
            one.wait()


# -- READY of many workers


def ready_of(workers: int) -> None:
    """Print the bytes that equal workers send at their registration, and the broker's memory."""
    import tracemalloc

    from majordomus import Worker
    from majordomus.contracts import model
    from majordomus.core.broker.machine import BrokerMachine
    from majordomus.core.broker.settings import BrokerSettings
    from majordomus.protocol import mdp03, metadata, spec

    order = majordomus_order()

    def put(order: Any) -> Any:
        """Put an order."""

    put.__annotations__ = {"order": order, "return": order}
    worker = Worker()
    worker.add("orders.put", put)
    contract = worker.handlers["orders.put"].contract
    hash = model.hash_of(contract)
    fields = metadata.pack({"contract": hash})
    answer = mdp03.pack(spec.CONTRACT, service=b"orders.put", flags=spec.METADATA, metadata=fields)
    held = {}
    for stated in (b"", fields):
        flags = spec.METADATA if stated else 0
        ready = mdp03.pack(spec.READY, code=1, service=b"orders.put", flags=flags, metadata=stated)
        machine = BrokerMachine(BrokerSettings(), os.urandom, "benchmark")
        sent = contracts = 0
        tracemalloc.start()
        for number in range(workers):
            peer = b"\1" + number.to_bytes(15, "big")
            machine.receive(peer, [bytes(bytearray(ready))], 0.0)
            sent += len(ready)
            for send in machine.take_effects()[1]:
                if send[1][0][4] == spec.CONTRACT:
                    machine.receive(peer, [answer, contract], 0.0)
                    sent += len(answer) + len(contract)
                    contracts += 1
        held[bool(stated)] = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        kind = "with a contract" if stated else "without one"
        print(
            f"{workers} workers {kind}: READY has {len(ready)} bytes; {sent} bytes sent in all, "
            f"{contracts} contract of {len(contract) if stated else 0} bytes among them; "
            f"{held[bool(stated)] / workers:.0f} bytes of memory for each worker"
        )
    print(f"a contract adds {(held[True] - held[False]) / workers:.0f} bytes for each worker")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--ready", action="store_true", help="READY of 10,000 workers instead")
    parser.add_argument("--serve")
    parser.add_argument("--measure")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    if given.ready:
        ready_of(10_000)
        return
    if given.serve:
        globals()[given.serve](given.port)
        return
    if given.measure:
        client: Any = SIDES[given.measure][1]
        print(asyncio.run(client(given.port, given.seconds)))
        return
    figures: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(given.rounds):
        for side, measured in figures.items():
            measured.append(round_of(side, given.seconds))
    ours = statistics.median(figures["majordomus"])
    for side, measured in figures.items():
        median = statistics.median(measured)
        print(f"{side}: {median:.0f} calls/s (majordomus / {side} = {ours / median:.2f})")


if __name__ == "__main__":
    main()
