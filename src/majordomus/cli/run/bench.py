"""`majordomus bench` measures requests per second and latencies through a broker.

The load is one process of ordinary Python clients, so the figures include broker, workers and
clients. The benchmark's own workers are processes that end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import select
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from majordomus import system
from majordomus.cli import processes
from majordomus.cli.options import Seconds, json_option
from majordomus.cli.output import complain, emit_json, emit_table
from majordomus.cli.remote import (
    broker_option,
    dialect_option,
    key_flags,
    keys,
    timeout_option,
)
from majordomus.errors import DeadlineExceeded, MajordomusError, StatusError

if TYPE_CHECKING:
    from majordomus.net.client.async_client import AsyncClient

WARM_UP: Final = 0.5
"""Seconds before the measurement begins."""
LOOK: Final = 0.1
"""Seconds between two updates of the progress bar."""
READY: Final = b"ready\n"
CAPACITY: Final = 1000
PERCENTILES: Final = {"p50_us": 0.5, "p99_us": 0.99, "p99_9_us": 0.999}


class BenchLoad(NamedTuple):
    """The load: `clients` × `window` calls in flight, each with `body` bytes, for `seconds`."""

    brokers: tuple[str, ...]
    service: str
    clients: int
    window: int
    body: int
    seconds: float
    timeout: float
    dialect: str


class BenchResults:
    """Latencies and failures. Only replies between `begin` and `end` are counted."""

    def __init__(self) -> None:
        self.times = array("d")
        self.failures: Counter[int] = Counter()
        self.began = math.inf
        self.ended = math.inf

    def begin(self) -> None:
        self.began = time.perf_counter()

    def end(self) -> None:
        self.ended = time.perf_counter()

    @property
    def over(self) -> bool:
        return self.ended < math.inf

    def answered(self, sent: float, now: float) -> None:
        if self.began <= now <= self.ended:
            self.times.append(now - sent)

    def failed(self, status: int) -> None:
        if self.began < math.inf and not self.over:
            self.failures[status] += 1


@click.command(short_help="Measure requests per second and latency through a broker.")
@broker_option
@click.option(
    "--service",
    metavar="NAME",
    help="Call this service. [default: an echo in the benchmark's own workers]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    metavar="N",
    help="Worker processes of the benchmark.",
)
@click.option(
    "--clients",
    type=click.IntRange(1, 10_000),
    default=4,
    show_default=True,
    metavar="N",
    help="Clients, each with one connection.",
)
@click.option(
    "--window",
    type=click.IntRange(1, 10_000),
    default=16,
    show_default=True,
    metavar="N",
    help="Calls that each client has in flight.",
)
@click.option(
    "--body",
    type=click.IntRange(0, 1 << 30),
    default=16,
    show_default=True,
    metavar="BYTES",
    help="Size of a request's body; the echo returns it.",
)
@click.option(
    "--seconds",
    type=Seconds(min=0.1, max=86_400),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Duration, after half a second of warm-up.",
)
@timeout_option(30.0)
@dialect_option
@json_option
@click.option("--serve", hidden=True)
def command(
    brokers: tuple[str, ...],
    service: str | None,
    workers: int,
    clients: int,
    window: int,
    body: int,
    seconds: float,
    timeout: float,
    dialect: str,
    as_json: bool,
    serve: str | None,
) -> int:
    """Call a service as fast as it replies, and print requests per second and latencies.

    Each client keeps --window calls in flight. A terminal shows a progress bar. The exit code is 1
    when a request failed.
    """
    if serve is not None:
        _in_a_loop(_serve(brokers, serve, dialect))
        return 0
    mine = 0 if service else workers
    name = service or f"bench-{os.urandom(4).hex()}"
    load = BenchLoad(brokers, name, clients, window, body, seconds, timeout, dialect)
    with _workers(load, mine), _bar(seconds) as show:
        tally = _in_a_loop(_measure(load, show))
    figures = report(load, mine, tally)
    if as_json:
        emit_json(figures)
    else:
        _print(figures)
    if tally.failures:
        kinds = ", ".join(f"{count} with {status}" for status, count in tally.failures.items())
        complain(f"majordomus bench: requests failed: {kinds}")
    return 1 if tally.failures else 0


def report(load: BenchLoad, workers: int, tally: BenchResults) -> dict[str, Any]:
    """Return the figures for JSON. Raises: MajordomusError when no request was answered."""
    if not tally.times:
        raise MajordomusError(f"no request to {load.service!r} was answered in {load.seconds:g} s")
    times = sorted(tally.times)
    seconds = tally.ended - tally.began
    return {
        "broker": list(load.brokers),
        "service": load.service,
        "dialect": load.dialect,
        "workers": workers,
        "clients": load.clients,
        "window": load.window,
        "body_bytes": load.body,
        "seconds": round(seconds, 3),
        "requests": len(times),
        "failed": sum(tally.failures.values()),
        "requests_per_second": round(len(times) / seconds, 1),
        **{name: round(percentile(times, share) * 1e6, 1) for name, share in PERCENTILES.items()},
        "max_us": round(times[-1] * 1e6, 1),
    }


def percentile(times: Sequence[float], share: float) -> float:
    """Return the smallest of the sorted `times` that `share` of them do not exceed."""
    return times[max(0, math.ceil(share * len(times)) - 1)]


def _print(figures: dict[str, Any]) -> None:
    emit_table(
        ("requests/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "requests", "failed"),
        [
            (
                f"{figures['requests_per_second']:,.0f}",
                *(f"{figures[name] / 1000:.3f}" for name in (*PERCENTILES, "max_us")),
                figures["requests"],
                figures["failed"],
            )
        ],
    )


# ── the load ──────────────────────────────────────────────────────────────────────────────────────


async def _measure(load: BenchLoad, show: Callable[[float, int], None]) -> BenchResults:
    """Run the load. Raises: StatusError when the first request fails."""
    from majordomus.net.client.async_client import AsyncClient

    tally = BenchResults()
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                AsyncClient(
                    list(load.brokers), timeout=load.timeout, dialect=load.dialect, **keys()
                )
            )
            for _ in range(load.clients)
        ]
        body = os.urandom(load.body)
        await clients[0].call(load.service, body, fail_fast=True)
        tasks = [
            asyncio.create_task(_call(client, load.service, body, tally))
            for client in clients
            for _ in range(load.window)
        ]
        try:
            await asyncio.sleep(WARM_UP)
            tally.begin()
            until = tally.began + load.seconds
            while (left := until - time.perf_counter()) > 0:
                await asyncio.sleep(min(LOOK, left))
                show(load.seconds - max(0.0, left), len(tally.times))
            tally.end()
            await asyncio.gather(*tasks)
        finally:  # an interrupt ends the calls before the clients are closed
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return tally


async def _call(client: AsyncClient, service: str, body: bytes, tally: BenchResults) -> None:
    clock = time.perf_counter
    while not tally.over:
        sent = clock()
        try:
            await client.call(service, body)
        except StatusError as error:
            tally.failed(error.status)
        else:
            tally.answered(sent, clock())


@contextlib.contextmanager
def _bar(seconds: float) -> Iterator[Callable[[float, int], None]]:
    """Show a progress bar on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _requests: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        BarColumn(),
        TextColumn("{task.completed:.1f} of {task.total:g} s  {task.fields[rate]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=seconds, rate="warming up")

        def show(done: float, requests: int) -> None:
            rate = f"{requests / max(done, LOOK):,.0f} requests/s"
            progress.update(task, completed=done, rate=rate)

        yield show


def _in_a_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run `work` on an event loop, uvloop's where it is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return system.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


# ── the workers ───────────────────────────────────────────────────────────────────────────────────


async def _serve(brokers: tuple[str, ...], service: str, dialect: str) -> None:
    """Serve the echo. Prints READY when the broker has registered the worker."""
    from majordomus.net.worker.async_worker import AsyncWorker
    from majordomus.net.worker.request import Request

    worker = AsyncWorker(list(brokers), dialect=dialect, capacity=CAPACITY, **keys())

    async def echo(request: Request) -> list[bytes]:
        return request.frames

    worker.add(service, echo)
    serving = asyncio.create_task(worker.run())
    while not worker.ready and not serving.done():
        await asyncio.sleep(0.005)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    await serving


@contextlib.contextmanager
def _workers(load: BenchLoad, count: int) -> Iterator[None]:
    """Run `count` registered worker processes inside.

    Raises: DeadlineExceeded when the broker does not register them within the load's timeout.
    """
    flags = [flag for url in load.brokers for flag in ("--broker", url)]
    flags += [*key_flags(), "--dialect", load.dialect, "--serve", load.service]
    started: list[subprocess.Popen[bytes]] = []
    with processes.terminate_as_interrupt():
        try:
            for _ in range(count):
                started.append(processes.start(["bench", *flags], stdout=subprocess.PIPE))
            until = time.monotonic() + load.timeout
            for process in started:
                _wait_for(process, until, load)
            yield
        finally:
            processes.end_all(started)


def _wait_for(process: subprocess.Popen[bytes], until: float, load: BenchLoad) -> None:
    pipe = process.stdout
    if pipe is None:
        return
    ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
    if not ready:
        where = ", ".join(load.brokers)
        raise DeadlineExceeded(f"no broker at {where} registered a worker in {load.timeout:g} s")
    if pipe.readline() != READY:
        raise MajordomusError("a worker of the benchmark ended before it was ready")
