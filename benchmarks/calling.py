"""Calls as a Python program makes them: so many in flight, for so many seconds, each one timed."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Final

BODY: Final = b"0123456789abcdef"
WARMUP: Final = 0.5
HANDLERS: Final = ("async", "def", "process")
"""Where the worker's handler runs, where the library has a choice."""


def arguments() -> argparse.Namespace:
    """`serve` or `call`, where, and how."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("serve", "call"))
    parser.add_argument("url")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--handler", choices=HANDLERS, default="async", help="of the worker")
    parser.add_argument("--sync", action="store_true", help="the sync client, where there is one")
    return parser.parse_args()


class Times:
    """Counts the calls that end in the measured time. `over` says when it is over."""

    def __init__(self, seconds: float) -> None:
        self.start = time.perf_counter() + WARMUP
        self.end = self.start + seconds
        self.taken: list[float] = []
        self.errors = 0

    def note(self, began: float, answer: bytes) -> bool:
        """False when the time is over."""
        ended = time.perf_counter()
        if answer != BODY:
            self.errors += 1
        elif self.start <= ended < self.end:
            self.taken.append(ended - began)
        return ended < self.end

    def report(self, in_flight: int) -> None:
        """One JSON object on a line. Raises: RuntimeError when no call ended at all."""
        taken = sorted(self.taken)
        if not taken:
            raise RuntimeError("no call has ended")
        seconds = self.end - self.start
        report = {
            "in_flight": in_flight,
            "requests": len(taken),
            "errors": self.errors,
            "per_second": len(taken) / seconds,
            "p50_us": taken[len(taken) // 2] * 1e6,
            "p99_us": taken[len(taken) * 99 // 100] * 1e6,
        }
        print(json.dumps(report), flush=True)


async def measure(
    call: Callable[[bytes], Awaitable[bytes]], in_flight: int, seconds: float
) -> None:
    """`in_flight` tasks that call one after the other."""
    times = Times(seconds)

    async def caller() -> None:
        going = True
        while going:
            began = time.perf_counter()
            going = times.note(began, await call(BODY))

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    times.report(in_flight)


def measure_sync(call: Callable[[bytes], bytes], seconds: float) -> None:
    """One call at a time, from this thread."""
    times = Times(seconds)
    going = True
    while going:
        began = time.perf_counter()
        going = times.note(began, call(BODY))
    times.report(1)
