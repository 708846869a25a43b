"""What the contracts of many equal workers cost a broker: bytes of READY, and memory.

`python -m benchmarks.ready` registers 10,000 workers of one service at a broker's machine, without
a contract and with one, and prints the bytes that they send and the memory that the broker keeps.
"""

from __future__ import annotations

import gc
import os
import tracemalloc

import msgspec

from majordomus import Worker
from majordomus.contracts import model
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.core.worker import encoding
from majordomus.protocol import spec

WORKERS = 10_000


class Draft(msgspec.Struct):
    title: str
    text: str = ""
    size: int = 0
    done: bool = False
    tags: list[str] = []


def put(draft: Draft) -> Draft:
    """Keep a draft."""
    return draft


def contract() -> bytes:
    worker = Worker()
    worker.add("drafts.put", put)
    return worker.handlers["drafts.put"].contract


def register(data: bytes) -> tuple[int, int, int]:
    """Register all workers. Return the bytes sent, the contracts asked for, and the memory kept."""
    machine = BrokerMachine(BrokerSettings(), os.urandom)
    sent = asked = 0
    gc.collect()
    tracemalloc.start()
    for number in range(WORKERS):
        [header] = encoding.ready(b"drafts.put", 8, 1.0, model.hash_of(data) if data else "")
        sent += len(header)
        peer = b"\1" + number.to_bytes(15, "big")
        machine.receive(peer, [header], 1.0)
        for to, _, command, _ in machine.take_effects()[1]:
            if command == spec.CONTRACT:
                asked += 1
                answer = encoding.contract(b"drafts.put", model.hash_of(data), [data])
                sent += sum(map(len, answer))
                machine.receive(to, answer, 1.0)
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return sent, asked, kept


def main() -> None:
    data = contract()
    plain, typed = register(b""), register(data)
    print(f"{WORKERS} workers of one service; the contract has {len(data)} bytes")
    for name, (sent, asked, kept) in (("without a contract", plain), ("with one", typed)):
        print(f"{name}: {sent} bytes sent, {asked} asked for, {kept} bytes kept by the broker")
    more = (typed[0] - plain[0]) / WORKERS, (typed[2] - plain[2]) / WORKERS
    print(f"a worker more: {more[0]:.0f} bytes sent, {more[1]:.0f} bytes kept")


if __name__ == "__main__":
    main()
