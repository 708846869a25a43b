"""The cloud logger: what a record costs the program that logs it, and how many come through.

``python benchmarks/cloudlog.py`` starts a broker and a collector as processes of their own and
prints, from one run: `logger.info` with this handler and with a NullHandler, by the clock and by
the CPU time of the whole process (the sender's thread included); records per second through
handler, broker and collector, from 1 and 2 programs; how long after the call a viewer has a record.
Every record that a figure counts has arrived in the collector's memory. Run it on a machine that
does nothing else; the load is printed. Options: ``--seconds`` for each measurement, ``--json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from majordomus import AsyncClient, Client
from majordomus.contrib.cloudlog import CloudLogHandler, Query, follow

CALLS = 2000
"""Calls between two looks at the clock."""


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "majordomus.cli", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def harness() -> Iterator[tuple[str, list[int]]]:
    """A broker and a collector; their URL and process ids."""
    broker = start("broker", "--bind", "tcp://127.0.0.1:0")
    assert broker.stdout is not None
    url = broker.stdout.readline().split()[-1]
    collector = start("worker", "majordomus.contrib.cloudlog:collector", "--broker", url)
    try:
        with Client(url) as client:
            client.call("cloudlog.status", timeout=20.0)
        yield url, [broker.pid, *children(collector.pid)]
    finally:
        for process in (collector, broker):
            process.terminate()
            process.wait(20)
            assert process.stdout is not None
            process.stdout.close()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def status(client: Client) -> dict[str, int]:
    counters: dict[str, int] = json.loads(client.call("cloudlog.status", timeout=20.0).body)
    return counters


# ── what a record costs ───────────────────────────────────────────────────────────────────────────


def cost(url: str, seconds: float) -> dict[str, float]:
    """Microseconds of a `logger.info`, both handlers in turns so that both see the same machine."""
    cloud = CloudLogHandler(url, application="cost", capacity=1_000_000)
    loggers = {"null": logger_with(logging.NullHandler()), "cloud": logger_with(cloud)}
    wall: dict[str, list[float]] = {name: [] for name in loggers}
    used: dict[str, list[float]] = {name: [] for name in loggers}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name, logger in loggers.items():
            clock, process = time.perf_counter(), time.process_time()
            for number in range(CALLS):
                logger.info("order %d of customer %s was taken", number, "smith")
            wall[name].append((time.perf_counter() - clock) / CALLS * 1e6)
            cloud.flush()  # what this handler does later belongs to its calls all the same
            used[name].append((time.process_time() - process) / CALLS * 1e6)
    assert cloud.dropped == 0
    cloud.close()
    return {
        f"{name}_{kind}": statistics.median(figures[name])
        for kind, figures in (("wall", wall), ("cpu", used))
        for name in loggers
    }


def logger_with(handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger("shop.orders", logging.INFO)  # noqa: LOG001 - no parents, no others
    logger.addHandler(handler)
    return logger


# ── how many come through ─────────────────────────────────────────────────────────────────────────


def through_handler(handler: CloudLogHandler) -> Callable[[], None]:
    """What `logger.info` gives to a handler, without the time that logging needs to make it."""
    logger = logger_with(handler)
    record = logger.makeRecord(
        "shop.orders", logging.INFO, __file__, 1, "order %d of %s was taken", (7, "smith"), None
    )

    def log() -> None:
        for _ in range(CALLS):
            handler.handle(record)

    return log


def through_logger(handler: CloudLogHandler) -> Callable[[], None]:
    logger = logger_with(handler)

    def log() -> None:
        for number in range(CALLS):
            logger.info("order %d of %s was taken", number, "smith")

    return log


def program(url: str, how: str, seconds: float, results: multiprocessing.Queue[int]) -> None:
    """Logs as fast as the queue is emptied, so that nothing is dropped."""
    handler = CloudLogHandler(url, application=how, capacity=50_000, flush_timeout=30.0)
    log = {"handler": through_handler, "logger": through_logger}[how](handler)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        log()
        while handler.pending > 25_000:
            time.sleep(0.001)
    handler.flush()
    results.put(handler.dropped)
    handler.close()


def rate(url: str, how: str, programs: int, seconds: float, pids: list[int]) -> dict[str, float]:
    """Records per second, from the first that arrives to the last.

    CPU of broker and collector are microseconds a record.
    """
    spawn = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[int] = spawn.Queue()
    with Client(url) as client:
        before = status(client)
        used = [cpu(pid) for pid in pids]
        running = [
            spawn.Process(target=program, args=(url, how, seconds, results))
            for _ in range(programs)
        ]
        for process in running:
            process.start()
        while status(client)["received"] == before["received"]:
            time.sleep(0.01)
        began, first = time.monotonic(), status(client)["received"]
        ended, last = began, first
        while any(process.is_alive() for process in running):
            time.sleep(0.02)
            latest = status(client)["received"]
            if latest > last:
                ended, last = time.monotonic(), latest
        for process in running:
            process.join()
        after = status(client)
        assert sum(results.get() for _ in running) == after["dropped"] - before["dropped"] == 0
        assert after["lost"] == before["lost"]
        arrived = after["received"] - before["received"]
        shares = [(cpu(pid) - one) / arrived * 1e6 for pid, one in zip(pids, used, strict=True)]
    return {
        "rate": (last - first) / (ended - began),
        "broker_cpu": shares[0],
        "collector_cpu": shares[1],
    }


# ── how soon ──────────────────────────────────────────────────────────────────────────────────────


async def latency(url: str, seconds: float) -> dict[str, float]:
    """Milliseconds from the call to the viewer; the handler gathers for 50 ms."""
    handler = CloudLogHandler(url, application="latency")
    logger = logger_with(handler)
    delays: list[float] = []
    async with AsyncClient(url) as client:
        parts = follow(client, Query(follow=True, applications=["latency"]))
        await anext(parts)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(0.03)
            began = time.perf_counter()
            logger.info("now")
            await anext(parts)
            delays.append((time.perf_counter() - began) * 1e3)
        await parts.aclose()
    handler.close()
    return {"median": statistics.median(delays), "most": max(delays)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with harness() as (url, pids):
        load = os.getloadavg()[0]
        figures: dict[str, dict[str, float]] = {"cost": cost(url, options.seconds)}
        figures["latency"] = asyncio.run(latency(url, options.seconds))
        for how in ("handler", "logger"):
            for programs in (1, 2):
                name = f"{how} x {programs}"
                figures[name] = rate(url, how, programs, options.seconds, pids)
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{os.cpu_count()} cores, load {load:.1f} when it began")
    one, delay = figures.pop("cost"), figures.pop("latency")
    for kind in ("wall", "cpu"):
        null, cloud = one[f"null_{kind}"], one[f"cloud_{kind}"]
        print(
            f"logger.info, {kind:4}: NullHandler {null:6.2f} µs, CloudLogHandler {cloud:6.2f} µs: "
            f"+{cloud - null:.2f} µs a record, x {cloud / null:.2f}"
        )
    print(
        f"at the viewer after: {delay['median']:.1f} ms in the median, {delay['most']:.1f} at most"
    )
    for name, figure in figures.items():
        print(
            f"{name:12}: {figure['rate']:9,.0f} records/s; "
            f"broker {figure['broker_cpu']:.2f} µs, collector {figure['collector_cpu']:.2f} µs CPU"
        )


if __name__ == "__main__":
    main()
