"""How many instructions the rules spend on one request, and on one worker that only lives:
python -m benchmarks.instructions.

Counted by callgrind, not timed, so no noise of the machine is in the figure: of one build it is the
same to within one percent, wherever in memory the interpreter happens to put things.

A request is two messages received (REQUEST, FINAL) and two made; the sockets are not in it. 16
clients with 32 requests each in flight, 4 workers, 16-byte bodies, MDP/0.3, every rule at its
default. A worker that lives is one HEARTBEAT received, one made, and one look at how long it was
silent, once an interval.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.core.broker.state.registry import RULES
from majordomus.protocol import mdp03, spec

CLIENTS: Final = 16
WINDOW: Final = 32
WORKERS: Final = 4
BATCH: Final = 256
FEW, MANY = 1_000, 3_000
BODY: Final = b"sixteen bytes ok"
IDLE: Final = 500
"""Workers that only live."""
BEATS_AT_ONCE: Final = 20
FEW_INTERVALS, MANY_INTERVALS = 4, 36
"""Far apart: what 500 READYs cost differs by a quarter million between two processes, with the
places of names in memory, and that is in the difference."""
BOUNDS: Final = Path(__file__).with_name("instructions.json")
TOLERANCE: Final = 0.05
REQUEST: Final = "a request"
INTERVAL: Final = "an interval of a worker that only lives"

Message = tuple[bytes, list[bytes]]


def traffic(requests: int) -> list[Message]:
    """What the broker receives: every worker answers in the order in which it was asked."""
    clients = [b"\1client-of-test%d" % n for n in range(CLIENTS)]
    workers = [b"\1worker-of-test%d" % n for n in range(WORKERS)]
    messages: list[Message] = []
    waiting = CLIENTS * WINDOW
    for n in range(requests + waiting):
        if n < requests:
            header = mdp03.pack(spec.REQUEST, id=n + 1, ttl=5000, service=b"echo")
            messages.append((clients[n % CLIENTS], [header, BODY]))
        if n >= waiting:
            number = n - waiting
            header = mdp03.pack(spec.FINAL, code=200, id=spec.BROKER_ID_BIT | number + 1)
            messages.append((workers[number % WORKERS], [header, BODY]))
    return messages


def new_machine() -> BrokerMachine:
    """Every rule at its default; the same random bytes each time."""
    made = iter(range(1, 1_000_000))
    return BrokerMachine(BrokerSettings(), lambda n: next(made).to_bytes(n, "big"), "broker")


def settle() -> None:
    """As the command `majordomus broker` does, when all that is to be heard has been made."""
    gc.freeze()
    gc.set_threshold(50_000)


def turn(machine: BrokerMachine, batch: list[Message], now: float) -> int:
    """What a shell does once; how many messages were made."""
    machine.receive_all(batch, now)
    machine.tick(now)
    machine.next_deadline()
    return len(machine.take_effects()[1])


def serve(requests: int) -> None:
    """The workload: `MANY` requests are made ready, `requests` of them are served."""
    machine = new_machine()
    now = 1.0
    for n in range(WORKERS):
        ready = mdp03.pack(spec.READY, code=1000, service=b"echo")
        machine.receive(b"\1worker-of-test%d" % n, [ready], now)
    messages = traffic(MANY)[: 2 * requests]
    settle()
    for start in range(0, len(messages), BATCH):
        now += 0.001
        turn(machine, messages[start : start + BATCH], now)
    counts = machine.registry.counts
    if counts.dropped or counts.accepted - counts.answered > CLIENTS * WINDOW:
        raise RuntimeError(f"not the traffic that was meant: {counts.dropped}")


def live(intervals: int) -> None:
    """The other workload: `IDLE` workers that beat in turn. The beats of `MANY_INTERVALS` are made
    ready, so many of them are heard."""
    machine = new_machine()
    ids = [b"\1worker-of-test%d" % n for n in range(IDLE)]
    ready = mdp03.pack(spec.READY, code=1000, service=b"echo")
    beat = mdp03.pack(spec.HEARTBEAT, code=spec.LOAD_UNKNOWN)
    heard: list[Message] = [(id, [ready]) for id in ids]
    heard += [(id, [beat]) for _ in range(MANY_INTERVALS) for id in ids]
    settle()
    now, sent = 1.0, 0
    for start in range(0, IDLE * (1 + intervals), BEATS_AT_ONCE):
        now += machine.settings.worker_interval * BEATS_AT_ONCE / IDLE
        sent += turn(machine, heard[start : start + BEATS_AT_ONCE], now)
    beats = sent - IDLE  # each got a WELCOME
    due = IDLE * int(intervals / (1 + BEATS_AT_ONCE / IDLE))  # a beat is up to a turn late
    if len(machine.registry.workers) != IDLE or beats < due:
        raise RuntimeError(f"not every worker lives: {sent} messages were sent")


def count(what: str, times: int, output: Path) -> int:
    """Instructions of a process that does a workload so many times. Raises: RuntimeError."""
    return count_process(["benchmarks.instructions", f"--{what}", str(times)], output)


def count_process(module: list[str], output: Path) -> int:
    """Instructions of `python -m` with these arguments. Raises: RuntimeError."""
    command = [
        *("valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"),
        *(sys.executable, "-m", *module),
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise RuntimeError(f"valgrind failed: {done.stderr[-2000:]}")
    return int(found[1])


def per_request(folder: Path) -> float:
    """Instructions of the rules for one request: what more requests cost more."""
    few, many = (count("serve", n, folder / f"{n}.callgrind") for n in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def per_interval(folder: Path) -> float:
    """Instructions of the rules for one interval of a worker that only lives."""
    counts = (FEW_INTERVALS, MANY_INTERVALS)
    few, many = (count("live", n, folder / f"live-{n}.callgrind") for n in counts)
    return (many - few) / (MANY_INTERVALS - FEW_INTERVALS) / IDLE


def kind() -> str:
    """What a bound holds for: the instructions of an interpreter are another's."""
    version = ".".join(platform.python_version_tuple()[:2])
    return f"{RULES}, {platform.python_implementation()} {version}, {platform.machine()}"


def bound(what: str) -> float | None:
    """The most that may be spent, from instructions.json; None where none was set."""
    known: dict[str, dict[str, float]] = json.loads(BOUNDS.read_text())
    return known[what].get(kind())


def verdict(what: str, counted: float) -> bool:
    """Says it; False when it is more than its bound."""
    most = bound(what)
    said = "no bound is set for it" if most is None else f"the bound is {most:,.0f}"
    print(f"{kind()}: {counted:,.0f} instructions for {what}; {said}")
    return most is None or counted <= most * (1 + TOLERANCE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=int, metavar="N", help="be the workload")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="keep callgrind's output")
    parser.add_argument("--live", type=int, metavar="N", help="be the other workload")
    asked = parser.parse_args()
    if asked.serve is not None:
        serve(asked.serve)
        return 0
    if asked.live is not None:
        live(asked.live)
        return 0
    if not shutil.which("valgrind"):
        print("valgrind is not here: nothing was counted")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        good = verdict(REQUEST, per_request(Path(folder)))
        good = verdict(INTERVAL, per_interval(Path(folder))) and good
        if asked.profile:
            shutil.copy(Path(folder) / f"{MANY}.callgrind", asked.profile)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
