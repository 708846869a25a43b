"""What the clients ask for, and what they note in their ledger.

Most calls are made by tasks of asyncio clients; some by a thread with `call`, some with `submit`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.ledger.worker import PARTS
from majordomus import AsyncClient, Client, MajordomusError, Reply

KINDS: Final = {
    "echo": 700,
    "work": 80,
    "parts": 60,
    "thread-parts": 20,
    "later": 80,
    "dropped": 10,
    "raise": 30,
    "thread-raise": 10,
    "process": 8,
    "process-exit": 2,
}
"""Kind of call → its share, in thousandths."""
NAMES: Final = list(KINDS)
STREAMS: Final = frozenset({"parts", "thread-parts"})
ONCE: Final = 0.25
"""The share of `once` calls."""
CANCELLED: Final = 0.05
"""The share of calls that their callers cancel."""
SOON: Final = 0.01
"""Seconds, on average, after which a caller cancels."""
TIMEOUTS: Final = (3.0, 6.0, 12.0)
WINDOW: Final = 16
"""Futures of `submit` that are open at a time."""


class Ledger:
    """The clients' ledger. For any thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=1 << 16)
        self._keys = itertools.count(1)
        self.ended = 0

    def asked(self, kind: str, once: bool, timeout: float) -> int:
        """Note a new call, and return its key."""
        key = next(self._keys)
        self._file.write(b"asked %d %s %d %.1f\n" % (key, kind.encode(), once, timeout))
        return key

    def cancelled(self, key: int) -> None:
        """Note that the caller cancels."""
        self._file.write(b"cancelled %d\n" % key)

    def got(self, key: int, outcome: str, began: float) -> None:
        """Note the outcome of a call."""
        self.ended += 1
        seconds = time.monotonic() - began
        self._file.write(b"got %d %s %.3f\n" % (key, outcome.encode(), seconds))

    def close(self) -> None:
        """Write the rest."""
        self._file.close()


class Draw:
    """The seeded choices of one caller."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def next(self) -> tuple[str, bool, float, bool]:
        """Draw a call: its kind, `once`, its timeout, and whether its caller cancels it."""
        draw = self.random
        kind = draw.choices(NAMES, KINDS.values())[0]
        return kind, draw.random() < ONCE, draw.choice(TIMEOUTS), draw.random() < CANCELLED


def outcome_of(error: BaseException) -> str:
    """Return the outcome of a call that has raised."""
    if isinstance(error, asyncio.CancelledError | concurrent.futures.CancelledError):
        return "cancelled"
    if isinstance(error, MajordomusError):
        return type(error).__name__
    return f"wrong-{type(error).__name__}"


def outcome(key: int, reply: Reply) -> str:
    """Return the outcome of a call with one reply: it must be that of the key."""
    return "ok" if reply.frames == [b"%d" % key] else "wrong-reply"


def outcome_of_parts(key: int, parts: Sequence[Reply], left: bool) -> str:
    """Return the outcome of a stream: its parts are those of one execution, in order."""
    name = parts[0].frames[1] if parts and len(parts[0].frames) == 3 else b""
    right = [[b"%d" % key, name, b"%d" % number] for number in range(len(parts))]
    if [part.frames for part in parts] != right or len(parts) > PARTS:
        return "wrong-parts"
    if left:
        return "left"
    return "ok" if len(parts) == PARTS else "wrong-parts"


# ── asyncio ───────────────────────────────────────────────────────────────────────────────────────


async def caller(client: AsyncClient, ledger: Ledger, draw: Draw, over: Callable[[], bool]) -> None:
    """Make one call after the other, until `over`."""
    loop = asyncio.get_running_loop()
    while not over():
        kind, once, timeout, cancels = draw.next()
        key, began = ledger.asked(kind, once, timeout), time.monotonic()
        work = one_call(client, key, kind, once, timeout, cancels)
        try:
            if cancels and kind not in STREAMS:
                task = loop.create_task(work)
                await asyncio.sleep(draw.random.expovariate(1 / SOON))
                if not task.done():
                    ledger.cancelled(key)
                    task.cancel()
                found = await task
            else:
                found = await work
        except BaseException as error:
            found = outcome_of(error)
        ledger.got(key, found, began)


async def one_call(
    client: AsyncClient, key: int, kind: str, once: bool, timeout: float, leaves: bool
) -> str:
    """Make one call and return its outcome. Raises: as the client does."""
    if kind not in STREAMS:
        reply = await client.call(kind, b"%d" % key, timeout=timeout, once=once)
        return outcome(key, reply)
    parts: list[Reply] = []
    async with client.stream(kind, b"%d" % key, timeout=timeout, once=once) as stream:
        async for part in stream:
            parts.append(part)
            if leaves and len(parts) == 2:
                return outcome_of_parts(key, parts, left=True)
    return outcome_of_parts(key, parts, left=False)


async def call_all(
    urls: Sequence[str], ledger: Ledger, seed: int, tasks: int, over: Callable[[], bool]
) -> int:
    """Call with four clients, two of which begin at each broker. Return the tasks that are left."""
    clients = [AsyncClient(urls if number % 2 else urls[::-1]) for number in range(4)]
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(tasks):
                draw = Draw(f"{seed}-{number}")
                group.create_task(caller(clients[number % 4], ledger, draw, over))
    finally:
        for client in clients:
            await client.close()
    await asyncio.sleep(0.1)
    return len(asyncio.all_tasks()) - 1


# ── threads ───────────────────────────────────────────────────────────────────────────────────────


def call_in_thread(client: Client, ledger: Ledger, draw: Draw, over: Callable[[], bool]) -> None:
    """Make one call after the other, in this thread."""
    while not over():
        kind, once, timeout, leaves = draw.next()
        key, began = ledger.asked(kind, once, timeout), time.monotonic()
        options: dict[str, Any] = {"timeout": timeout, "once": once}
        try:
            if kind in STREAMS:
                parts: list[Reply] = []
                with client.stream(kind, b"%d" % key, **options) as stream:
                    for part in stream:
                        parts.append(part)
                        if leaves and len(parts) == 2:
                            break
                found = outcome_of_parts(key, parts, leaves and len(parts) == 2)
            else:
                found = outcome(key, client.call(kind, b"%d" % key, **options))
        except BaseException as error:
            found = outcome_of(error)
        ledger.got(key, found, began)


def submit_in_thread(client: Client, ledger: Ledger, draw: Draw, over: Callable[[], bool]) -> None:
    """Keep a window of futures open; each notes its outcome in a callback."""
    window = threading.Semaphore(WINDOW)

    def done(key: int, began: float, future: concurrent.futures.Future[Reply]) -> None:
        try:
            found = outcome(key, future.result())
        except BaseException as error:
            found = outcome_of(error)
        ledger.got(key, found, began)
        window.release()

    def submit() -> None:
        kind, once, timeout, cancels = draw.next()
        kind = "echo" if kind in STREAMS else kind
        key, began = ledger.asked(kind, once, timeout), time.monotonic()
        if cancels:
            ledger.cancelled(key)
        future = client.submit(kind, b"%d" % key, timeout=timeout, once=once)
        future.add_done_callback(lambda ended: done(key, began, ended))
        if cancels:
            future.cancel()

    while not over():
        window.acquire()
        submit()
    for _ in range(WINDOW):
        window.acquire()
