"""A producer's requests in flight, their times, and what the server has spent meanwhile."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Final

from benchmarks.durable import machine

SIZE: Final = 100
WARMUP: Final = 0.5
PATIENCE: Final = 20.0
"""Seconds for the requests that are in flight at the end."""


def arguments() -> argparse.Namespace:
    """`serve` or `produce`, where, and how."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("serve", "produce"))
    parser.add_argument("url")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--pid", type=int, default=0, help="of the server")
    parser.add_argument("--plain", action="store_true", help="ours: calls that are not durable")
    return parser.parse_args()


class Flight:
    """The requests in flight: `send` gets the bodies that are due; `done` notes what has come back.

    A body is the random name of this run and a number, so that the rest of another run is ignored.
    """

    def __init__(self, asked: argparse.Namespace, send: Callable[[list[bytes]], None]) -> None:
        self.asked = asked
        self.send = send
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.name = os.urandom(8).hex().encode()
        self.begun: dict[bytes, float] = {}
        self.taken: list[float] = []
        self.count = 0
        self.measure = Measure(asked)

    def start(self) -> None:
        """Send the first ones. The measured time is counted from here."""
        self.measure = Measure(self.asked)
        self._more(self.asked.in_flight)

    def _more(self, count: int) -> None:
        now = time.perf_counter()
        bodies = []
        for _ in range(count):
            self.count += 1
            body = (b"%s-%d" % (self.name, self.count)).ljust(SIZE, b".")
            self.begun[body] = now
            bodies.append(body)
        self.send(bodies)

    def done(self, bodies: list[bytes]) -> None:
        """Results that have come together."""
        now = time.perf_counter()
        measure, begun = self.measure, self.begun
        ended = 0
        for body in bodies:
            began = begun.pop(body, None)
            if began is not None:
                ended += 1
                if measure.looks(now):
                    self.taken.append(now - began)
        if ended and now < measure.end:
            self._more(ended)
        elif not begun and not self.over.done():
            self.over.set_result(None)

    async def finish(self) -> None:
        """Wait until all have come back, and report. Raises: TimeoutError."""
        await asyncio.wait_for(self.over, WARMUP + self.asked.seconds + PATIENCE)
        self.measure.report(self.taken, self.count)


class Measure:
    """The measured time, between the warm-up and the end, and what the server spent in it."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.pids = machine.family(asked.pid) if asked.pid else []
        self.seconds = asked.seconds
        self.start = time.perf_counter() + WARMUP
        self.end = self.start + asked.seconds
        self.before: tuple[float, int, float] | None = None
        self.after: tuple[float, int, float] | None = None

    def _now(self, now: float) -> tuple[float, int, float]:
        return machine.processor_seconds(self.pids), machine.flushes(), now

    def looks(self, now: float) -> bool:
        """Whether a request that ends `now` is measured."""
        if self.before is None:
            if now < self.start:
                return False
            self.before = self._now(now)
        if now < self.end:
            return True
        if self.after is None:
            self.after = self._now(now)
        return False

    def report(self, taken: list[float], sent: int) -> None:
        """One JSON object on a line. Raises: RuntimeError when nothing was measured."""
        if not taken or self.before is None:
            raise RuntimeError("no request has ended in the measured time")
        after = self.after or self._now(time.perf_counter())
        taken.sort()
        seconds = after[2] - self.before[2]
        print(
            json.dumps(
                {
                    "requests": len(taken),
                    "sent": sent,
                    "per_second": len(taken) / seconds,
                    "p50_us": taken[len(taken) // 2] * 1e6,
                    "p99_us": taken[len(taken) * 99 // 100] * 1e6,
                    "cpu_us": (after[0] - self.before[0]) / len(taken) * 1e6,
                    "flushes": (after[1] - self.before[1]) / len(taken),
                }
            ),
            flush=True,
        )
