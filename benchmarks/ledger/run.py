"""One run: programs, clients, faults, audit, and what is left of it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.ledger import books, calls, programs
from benchmarks.ledger.programs import Program
from benchmarks.ledger.worker import THREADS
from majordomus import AsyncClient, Client

WORKERS: Final = 3
"""Worker programs. The first, and the first broker, are only stopped, never killed: at the end they
must hold what they held at the beginning."""
TASKS: Final = 192
QUIET: Final = 40.0
"""Seconds within which everything is whole again after the last fault."""
INTERVAL: Final = 1.0
"""The heartbeat interval. A peer that is stopped for longer than three of them is lost."""
FAULTS: Final = {
    "worker stopped": 8,
    "worker killed": 8,
    "worker program killed": 3,
    "worker ended": 3,
    "worker replaced": 2,
    "handler process killed": 3,
    "broker stopped": 3,
    "broker killed": 3,
}
"""Fault → how often it is chosen."""


@dataclass
class Result:
    """What a run has found. problems: empty if everything is right."""

    seed: int
    seconds: float
    counts: dict[str, Counter[str]]
    faults: Counter[str]
    problems: list[str]
    slowest: float
    control: Counter[str]
    held: dict[str, str] = field(default_factory=dict)


class World:
    """The programs of one run, and the faults that befall them."""

    def __init__(self, folder: Path, seed: int, workers: int) -> None:
        self.random = random.Random(seed)
        self.faults: Counter[str] = Counter()
        intervals = [f"--set={name}_interval={INTERVAL}" for name in ("worker", "client")]
        broker = ["broker", "--supervise", "--bind=tcp://127.0.0.1:*", *intervals]
        self.brokers = [Program(*broker, log=folder / "log") for _ in range(2)]
        self.urls = [one.line().split()[-1] for one in self.brokers]
        flags = [f"--broker={url}" for url in self.urls]
        target = "benchmarks.ledger.worker:worker"
        self.workers = [
            Program("worker", *flags, target, log=folder / "log") for _ in range(workers)
        ]

    def fault(self, over: threading.Event) -> None:
        """Do one fault. One that has an end ends within 4 s, or when `over` is set."""
        draw = self.random
        name = draw.choices(list(FAULTS), FAULTS.values())[0]
        worker = draw.choice(self.workers[1:])
        if name == "worker stopped":
            self._stop(draw.choice(self.workers), draw.choice((0.1, 0.5, 1.5, 4.0)), over)
        elif name == "broker stopped":
            self._stop(draw.choice(self.brokers), draw.choice((0.1, 0.5, 1.5, 4.0)), over)
        elif name == "worker killed":
            worker.signal(signal.SIGKILL)
        elif name == "worker program killed":
            worker.process.kill()
            worker.process.wait()
        elif name == "worker ended":
            worker.process.terminate()
        elif name == "worker replaced":
            worker.process.send_signal(signal.SIGHUP)
        elif name == "handler process killed":
            self._kill_handler(draw.choice(self.workers))
        else:
            self.brokers[1].signal(signal.SIGKILL)
        self.faults[name] += 1

    def _stop(self, program: Program, seconds: float, over: threading.Event) -> None:
        pid = program.signal(signal.SIGSTOP)
        over.wait(seconds)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _kill_handler(self, program: Program) -> None:
        pid = program.serving()
        for child in programs.children(pid) if pid else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def restart(self) -> None:
        """Start the worker programs that have ended."""
        for one in self.workers:
            one.restart()

    def torment(self, over: threading.Event, between: float) -> None:
        """Do faults until `over` is set."""
        while not over.is_set():
            self.fault(over)
            over.wait(self.random.expovariate(1 / between))
            self.restart()

    def end(self) -> list[str]:
        """End every program, workers first. Return what is wrong with their ends."""
        found = []
        for one in [*self.workers, *self.brokers]:
            status = one.end()
            if status:
                found.append(f"{' '.join(one.arguments[:1])} ended with status {status}")
        return found

    def fill(self) -> None:
        """Have every worker start all threads of its pool, which start when they are needed: else
        those that start later look like a leak."""

        async def gather(client: AsyncClient) -> None:
            async for reply in client.gather("fill"):
                reply.body  # noqa: B018 - raises what the call has failed with

        async def fill() -> None:
            async with AsyncClient(self.urls[0], timeout=20.0) as client:
                await asyncio.gather(*(gather(client) for _ in range(THREADS)))

        asyncio.run(fill())

    # ── what must be whole ────────────────────────────────────────────────────────────────────────

    def state(self) -> dict[str, dict[str, int]]:
        """Return what the programs that are never killed hold."""
        found = {"broker": programs.held(self.brokers[0].serving())}
        pid = self.workers[0].serving()
        found["worker"] = programs.held(pid)
        return found

    def unrest(self) -> list[str]:
        """Return what is not at rest: open requests, held slots, workers that are not there. A
        program that has ended meanwhile is started again."""
        self.restart()
        found = []
        for url in self.urls:
            with Client(url, timeout=5.0) as client:
                services = _data(client, "mmi.services")
                waiting = {row["service"]: (row["open"], row["queued"]) for row in services}
                if any(map(any, waiting.values())):
                    found.append(f"requests are open or queued: {waiting}")
                rows = _data(client, "mmi.workers")
                served = {name for row in rows for name in row["services"]}
                counted = Counter(name for row in rows for name in row["services"])
                if any(counted[name] != len(self.workers) for name in served | {"echo"}):
                    found.append(f"{dict(counted)}, not {len(self.workers)} workers")
                held = sum(row["held"] for row in rows)
                if held or any(row["state"] != "serving" for row in rows):
                    states = Counter(row["state"] for row in rows)
                    found.append(f"{held} slots are held, {dict(states)}")
                found += self._states(client)
        return found

    def _states(self, client: Client) -> list[str]:
        states = [json.loads(reply.body) for reply in client.gather("state", timeout=5.0)]
        if len(states) != len(self.workers):
            return [f"{len(states)} workers answer"]
        most = min(state["tasks"] for state in states)
        return [f"{state} has {most} tasks else" for state in states if state["tasks"] > most]


def _data(client: Client, name: str) -> Any:
    return json.loads(client.call(name).frames[1])


def until_empty(look: Callable[[], list[str]], seconds: float) -> list[str]:
    """Look until there is nothing to report; return the last report."""
    until = time.monotonic() + seconds
    while True:
        try:
            found = look()
        except Exception as error:
            found = [f"{type(error).__name__}: {error}"]
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.2)


def call_until(world: World, ledger: calls.Ledger, seed: int, tasks: int, most: int) -> int:
    """Call from all clients until `most` calls have ended. Return the tasks that are left."""

    def over() -> bool:
        return ledger.ended >= most

    with Client(world.urls) as one, Client(world.urls[::-1]) as other:
        threads = [
            threading.Thread(
                target=calls.call_in_thread, args=(one, ledger, calls.Draw(f"{seed}-a"), over)
            ),
            threading.Thread(
                target=calls.submit_in_thread, args=(other, ledger, calls.Draw(f"{seed}-b"), over)
            ),
        ]
        for thread in threads:
            thread.start()
        left = asyncio.run(calls.call_all(world.urls, ledger, seed, tasks, over))
        for thread in threads:
            thread.join()
    return left


def run(
    count: int,
    seed: int,
    *,
    workers: int = WORKERS,
    tasks: int = TASKS,
    between: float = 1.0,
    folder: Path | None = None,
) -> Result:
    """Make `count` calls under faults, and audit them. `between`: seconds between two faults."""
    place = folder or Path(tempfile.mkdtemp(prefix="ledger-"))
    began = time.monotonic()
    problems: list[str] = []
    ledger = calls.Ledger(place / "clients")
    world = World(place, seed, workers)
    try:
        problems += until_empty(world.unrest, QUIET)
        call_until(world, ledger, seed + 1_000_000, tasks, min(2000, count // 4))  # all is warm
        world.fill()
        problems += until_empty(world.unrest, QUIET)
        gc.collect()
        own = programs.held(os.getpid())
        before = world.state()
        over = threading.Event()
        chaos = threading.Thread(target=world.torment, args=(over, between))
        chaos.start()
        try:
            left = call_until(world, ledger, seed, tasks, count)
        finally:
            over.set()
            chaos.join()
        if left:
            problems.append(f"{left} tasks of clients are left")
        problems += until_empty(world.unrest, QUIET)
        problems += until_empty(lambda: _grown(before, world.state()), QUIET)
        problems += until_empty(lambda: _grown_here(own), QUIET)
        after = world.state()
    finally:
        problems += world.end()
    ledger.close()
    read = books.read([place / "clients"], place.glob("worker-*"))
    problems += books.audit(read)
    result = Result(
        seed,
        time.monotonic() - began,
        books.counts(read),
        world.faults,
        problems,
        books.slowest(read),
        control(read),
        {name: f"{before[name]} before, {after[name]} after" for name in before},
    )
    if not problems and folder is None:
        shutil.rmtree(place)
    elif problems:
        problems.append(f"the ledgers are in {place}")
    return result


def control(read: books.Books, times: int = 7) -> Counter[str]:
    """Falsify entries one by one, and count those that the audit found. Changes the ledgers."""
    found: Counter[str] = Counter()
    for number in range(times):
        before = len(books.audit(read))
        books.falsified(read, number)
        found["falsified"] += 1
        found["found"] += len(books.audit(read)) > before
    return found


def _grown(before: dict[str, dict[str, int]], now: dict[str, dict[str, int]]) -> list[str]:
    return [
        f"a {name} has {now[name][what]} {what}, not {before[name][what]}"
        for name in before
        for what in before[name]
        if now[name][what] > before[name][what]
    ]


def _grown_here(before: dict[str, int]) -> list[str]:
    gc.collect()
    now = programs.held(os.getpid())
    return [
        f"the clients' process has {now[k]} {k}, not {before[k]}" for k in now if now[k] > before[k]
    ]
