"""What eager tasks gain an async worker: python -m benchmarks.eager.

The same worker serves the same requests with the eager tasks of net/worker/eager_tasks.py and with
ordinary tasks of asyncio, which take their first step in the loop's next turn. Two handlers: one
that returns at once and one that waits for one turn of the loop. As in
benchmarks/shell_instructions.py there is no socket: a peer in the same process sends 64 requests at
a time. MDP/0.3, 16-byte bodies.

Instructions per call are counted by callgrind; they hardly vary. Calls per second of CPU time are
medians of interleaved rounds, each in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import shell_instructions
from benchmarks.instructions import count_process, kind
from majordomus import Request
from majordomus.net.worker import eager_tasks, serving

TASKS: Final = ("eager", "ordinary")
FEW, MANY = 640, 1_920
TIMED_CALLS: Final = 64 * 1_000
ROUNDS: Final = 5


async def waits(request: Request) -> bytes:
    """Wait for one turn of the loop, then return the body."""
    await asyncio.sleep(0)
    return request.body


HANDLERS: Final[dict[str, Callable[[Request], Awaitable[bytes]]]] = {
    "returns": shell_instructions.echo,
    "waits": waits,
}


def serve(tasks: str, handler: str, calls: int) -> float:
    """Serve the calls. Return the seconds of CPU time that this took."""
    if tasks == "ordinary":
        make: Any = eager_tasks.TaskSpawner
        serving.spawner = make
    began = time.process_time()
    shell_instructions.serve("worker", calls, HANDLERS[handler])
    return time.process_time() - began


def instructions(tasks: str, handler: str, folder: Path) -> float:
    """Instructions of the worker for one call: the difference that more calls make."""
    few, many = (
        count_process(
            ["benchmarks.eager", "--serve", tasks, handler, "--calls", str(calls)],
            folder / f"{tasks}-{handler}-{calls}.callgrind",
        )
        for calls in (FEW, MANY)
    )
    return (many - few) / (MANY - FEW)


def calls_per_second(tasks: str, handler: str) -> float:
    """Calls per second of CPU time, in a new process."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.eager", "--serve", tasks, handler),
            *("--calls", str(TIMED_CALLS)),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return TIMED_CALLS / float(done.stdout)


def report(handler: str, rounds: int) -> None:
    """Measure one handler, and print a line for each figure."""
    timed: dict[str, list[float]] = {tasks: [] for tasks in TASKS}
    for _ in range(rounds):
        for tasks in TASKS:
            timed[tasks].append(calls_per_second(tasks, handler))
    eager, ordinary = (statistics.median(timed[tasks]) for tasks in TASKS)
    name = f"{kind()}, handler {handler}"
    print(
        f"{name}: {eager:,.0f} calls per CPU second eager, {ordinary:,.0f} ordinary,"
        f" ratio {eager / ordinary:.2f}"
    )
    if not shutil.which("valgrind"):
        print("valgrind is not here: no instructions were counted")
        return
    with tempfile.TemporaryDirectory() as folder:
        eager, ordinary = (instructions(tasks, handler, Path(folder)) for tasks in TASKS)
    print(
        f"{name}: {eager:,.0f} instructions per call eager, {ordinary:,.0f} ordinary,"
        f" ratio {eager / ordinary:.2f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", nargs=2, metavar=("TASKS", "HANDLER"), help="be the workload")
    parser.add_argument("--calls", type=int, default=TIMED_CALLS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    if asked.serve is not None:
        print(serve(*asked.serve, asked.calls))
        return 0
    for handler in HANDLERS:
        report(handler, asked.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
