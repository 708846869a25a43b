"""The worker object of the ledger: `majordomus worker benchmarks.ledger.worker:worker`.

The first frame of each request is its key. The first step of each handler is an entry in the file
of its process, in the folder `LEDGER`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Final

from majordomus import Reply, Request, Worker

EXCEPTIONS: Final[tuple[type[BaseException], ...]] = (
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    StopIteration,
    asyncio.CancelledError,
    BaseException,
    ValueError,
)
PARTS: Final = 5
THREADS: Final = 4

_files: dict[int, int] = {}
_numbers = itertools.count()


def note(request: Request) -> bytes:
    """Append the request's key to the ledger of this process, and return the key."""
    key = request.frames[0]
    process = os.getpid()
    file = _files.get(process)
    if file is None:
        path = os.path.join(os.environ["LEDGER"], f"worker-{process}-{time.time_ns()}")  # noqa: PTH118
        file = _files[process] = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(file, key + b"\n")
    return key


def execution() -> bytes:
    """Return the name of one execution, which all of its parts carry."""
    return b"%d-%d" % (os.getpid(), next(_numbers))


worker = Worker(threads=THREADS, processes=1, capacity=64, drain_timeout=2.0, kill_after=1.0)


@worker.service("echo")
async def echo(request: Request) -> bytes:
    return note(request)


@worker.service("work")
def work(request: Request) -> bytes:
    return note(request)


@worker.service("parts")
async def parts(request: Request) -> AsyncIterator[list[bytes]]:
    key, name = note(request), execution()
    for number in range(PARTS):
        yield [key, name, b"%d" % number]
        if number % 2:
            await asyncio.sleep(0.001)


@worker.service("thread-parts")
def thread_parts(request: Request) -> Iterator[list[bytes]]:
    key, name = note(request), execution()
    for number in range(PARTS):
        yield [key, name, b"%d" % number]


@worker.service("later")
async def later(request: Request) -> None:
    key, promise = note(request), request.reply_later()
    asyncio.get_running_loop().call_later(int(key) % 7 / 1000, promise.reply, key)


@worker.service("dropped")
async def dropped(request: Request) -> None:
    note(request)
    request.reply_later()


@worker.service("raise")
async def fail(request: Request) -> None:
    key = int(note(request))
    if key % 2:
        await asyncio.sleep(0)
    raise EXCEPTIONS[key % len(EXCEPTIONS)]("on purpose")


@worker.service("thread-raise")
def thread_fail(request: Request) -> None:
    raise EXCEPTIONS[int(note(request)) % len(EXCEPTIONS)]("on purpose")


_all_threads = threading.Barrier(THREADS)


@worker.service("fill")
def fill(request: Request) -> None:
    """Wait until every thread of the pool runs this: then all of them have been started."""
    _all_threads.wait(10.0)


def process(request: Request) -> bytes:
    return note(request)


def process_exit(request: Request) -> None:
    note(request)
    raise SystemExit(3)


worker.add("process", process, run="process")
worker.add("process-exit", process_exit, run="process")


@worker.service("state")
async def state(request: Request) -> Reply:
    """What this process holds now."""
    found = {
        "pid": os.getpid(),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "files": len(os.listdir("/proc/self/fd")) - 1,  # noqa: PTH208 - listing opens one itself
    }
    return Reply(json.dumps(found).encode())
