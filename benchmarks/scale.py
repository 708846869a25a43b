"""What size costs: python -m benchmarks.scale.

The core alone, without a socket: what one dispatch costs from 10 workers to 10,000 and from 1
service to 10,000, and what an idle client holds of memory with 100,000 of them. Times are of the
process, medians of interleaved rounds, and of those the median of several processes: where in
memory a process lies decides how much of a fleet a cache holds. JSON goes to
docs/benchmarks/scale.json.
"""

from __future__ import annotations

import gc
import json
import platform
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.core.broker.state.registry import RULES
from majordomus.protocol import mdp03, spec

OUTPUT: Final = Path(__file__).parent.parent / "docs" / "benchmarks" / "scale.json"
ROUNDS: Final = 15
PROCESSES: Final = 9
ONCE: Final = "--once"
REQUESTS: Final = 4_000
"""Dispatched and answered in one measurement."""
IN_FLIGHT: Final = 10
"""Requests at a time, as many as the smallest fleet has workers."""
WORKERS: Final = (10, 100, 1_000, 10_000)
SERVICES: Final = (1, 100, 10_000)
CLIENTS: Final = 100_000
BODY: Final = b"sixteen bytes ok"


def machine() -> BrokerMachine:
    made = iter(range(1, 10_000_000))
    settings = BrokerSettings(max_peers=1_000_000)
    return BrokerMachine(settings, lambda n: next(made).to_bytes(n, "big"), "broker")


def ready(broker: BrokerMachine, worker: bytes, service: bytes) -> None:
    broker.receive(worker, [mdp03.pack(spec.READY, code=100, service=service)], 1.0)


class Fleet:
    """A broker with workers, and a client that asks them."""

    def __init__(self, workers: int, services: int) -> None:
        self.broker = machine()
        self.services = [b"service-%05d" % n for n in range(services)]
        for n in range(max(workers, services)):
            ready(self.broker, b"worker-%010d" % n, self.services[n % services])
        self.broker.take_effects()
        self.id = 0

    def serve(self, requests: int) -> float:
        """Microseconds of the core for one request, its dispatch and its answer."""
        spent = 0.0
        for _ in range(0, requests, IN_FLIGHT):
            batch = []
            for _ in range(IN_FLIGHT):
                self.id += 1
                service = self.services[self.id * 7919 % len(self.services)]
                header = mdp03.pack(spec.REQUEST, id=self.id, ttl=5000, service=service)
                batch.append((b"client", [header, BODY]))
            spent += self._hear(batch)
            spent += self._hear(list(self._answers()))
            self.broker.take_effects()
        return spent / requests * 1e6

    def _hear(self, batch: list[tuple[bytes, list[bytes]]]) -> float:
        start = time.process_time_ns()
        self.broker.receive_all(batch, 2.0)
        return (time.process_time_ns() - start) / 1e9

    def _answers(self) -> Iterator[tuple[bytes, list[bytes]]]:
        for peer, frames, *_ in self.broker.take_effects()[1]:
            id = mdp03.parse(frames[0]).id
            yield peer, [mdp03.pack(spec.FINAL, code=200, id=id), BODY]


def compare(fleets: dict[int, Fleet]) -> dict[int, float]:
    """Medians of interleaved rounds, by size."""
    seen: dict[int, list[float]] = {size: [] for size in fleets}
    for fleet in fleets.values():
        fleet.serve(REQUESTS)
    for _ in range(ROUNDS):
        for size, fleet in fleets.items():
            seen[size].append(fleet.serve(REQUESTS))
    return {size: statistics.median(values) for size, values in seen.items()}


def bytes_per_idle_client() -> float:
    """What a client that said HELLO and asks nothing holds, its routing id included."""
    broker = machine()
    header = mdp03.pack(spec.HELLO)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for n in range(CLIENTS):
        broker.receive(b"\1" + n.to_bytes(15, "big"), [header], 1.0)
        if n % 100 == 0:
            broker.take_effects()
    broker.take_effects()
    broker.take_effects()
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    if len(broker.registry.peers) != CLIENTS:
        raise RuntimeError("not every client was met")
    return held / CLIENTS


def growth(cost: dict[int, float]) -> float:
    """From the smallest to the largest, in percent."""
    return (cost[max(cost)] / cost[min(cost)] - 1) * 100


def once() -> dict[str, dict[int, float]]:
    """What one process measures."""
    gc.set_threshold(50_000, 20, 20)  # as the command `majordomus broker` does
    return {
        "workers": compare({n: Fleet(n, 1) for n in WORKERS}),
        "services": compare({n: Fleet(max(SERVICES), n) for n in SERVICES}),
    }


def medians() -> dict[str, dict[int, float]]:
    """The medians of PROCESSES."""
    command = [sys.executable, "-m", "benchmarks.scale", ONCE]
    told = [
        json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        for _ in range(PROCESSES)
    ]
    return {
        by: {int(size): statistics.median(one[by][size] for one in told) for size in told[0][by]}
        for by in told[0]
    }


def measure() -> dict[str, Any]:
    found = medians()
    workers, services = found["workers"], found["services"]
    print(f"workers of one service: {_said(workers)}", flush=True)
    print(f"services of {max(SERVICES):,} workers: {_said(services)}", flush=True)
    memory = bytes_per_idle_client()
    print(f"an idle client with presence, of {CLIENTS:,}: {memory:,.0f} bytes")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "rules": RULES,
        "microseconds by workers": workers,
        "growth by workers, percent": round(growth(workers), 1),
        "microseconds by services": services,
        "growth by services, percent": round(growth(services), 1),
        "bytes of an idle client": round(memory),
    }


def _said(cost: dict[int, float]) -> str:
    each = ", ".join(f"{size:,}: {value:.2f} µs" for size, value in cost.items())
    return f"{each}; {growth(cost):+.0f} %"


def main() -> None:
    if ONCE in sys.argv[1:]:
        print(json.dumps(once()))
        return
    OUTPUT.write_text(json.dumps(measure(), indent=1) + "\n")
    print(f"→ {OUTPUT}")


if __name__ == "__main__":
    main()
