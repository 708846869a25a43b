"""How many instructions the rules spend on one request, and on one worker that only lives:
python -m benchmarks.instructions.

Counted by valgrind, not timed, so no noise of the machine is in the figure: of one build it is the
same to within one percent, wherever in memory the interpreter happens to put things.

A request is two messages received (REQUEST, FINAL) and two made; the sockets are not in it. 16
clients with 32 requests each in flight, 4 workers, 16-byte bodies, MDP/0.3, every rule at its
default. A worker that lives is one HEARTBEAT received, one made, and one look at how long it was
silent, once an interval.

A durable request is what `benchmarks.durable` sends: a caller that waits, without a key. It is two
messages received, two made, two writes and what follows when they are stored; 64 in flight. Counted
alone, with a store that has stored everything at once, and with SQLite, whose calls are then in it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from majordomus.core.broker.durable.records import Opened
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.core.broker.state.registry import RULES
from majordomus.durable.store import write
from majordomus.protocol import mdp03, spec

if TYPE_CHECKING:
    from majordomus.core.broker.durable.records import Answer
    from majordomus.durable.sqlite import SqliteStore

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
MOST_WITH_STORE: Final = 0.01
"""What a store may add to a request that is not durable."""
DURABLE: Final = "a durable request"
DURABLE_AND_SQLITE: Final = "a durable request and its calls of SQLite"
IN_FLIGHT: Final = 64
DURABLE_BODY: Final = bytes(100)
FEW_DURABLE, MANY_DURABLE = 1_024, 3_072

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


def serve(requests: int, with_store: bool = False) -> None:
    """The workload: `MANY` requests are made ready, `requests` of them are served. None of them is
    durable, also at a broker `with_store`."""
    machine = new_machine()
    now = 1.0
    if with_store:
        machine.use_store(Opened("memory", b"secret", 1, now), now)
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


def serve_durable(requests: int, in_file: bool) -> None:
    """The workload of durable requests: `requests` of them, IN_FLIGHT at a time. What a round has
    written is stored before the next one, in a file of SQLite or nowhere."""
    with contextlib.ExitStack() as stack:
        store = None
        if in_file:
            from majordomus.durable.sqlite import SqliteStore

            folder = stack.enter_context(tempfile.TemporaryDirectory())
            store = SqliteStore(Path(folder) / "store.db", ballast=0)
            stack.callback(store.close)
        machine = new_machine()
        now = 1.0
        machine.use_store(Opened("memory", b"secret", 1, now), now)
        worker, client = b"\1worker-of-test1", b"\1client-of-test1"
        machine.receive(worker, [mdp03.pack(spec.READY, code=1000, service=b"echo")], now)
        rounds: list[tuple[list[Message], list[Message]]] = []
        for first in range(1, MANY_DURABLE, IN_FLIGHT):
            asked: list[Message] = []
            done: list[Message] = []
            for n in range(first, first + IN_FLIGHT):
                header = mdp03.pack(
                    spec.REQUEST, flags=spec.DURABLE, id=n, ttl=5000, service=b"echo"
                )
                asked.append((client, [header, DURABLE_BODY]))
                header = mdp03.pack(spec.FINAL, code=200, id=spec.BROKER_ID_BIT | n)
                done.append((worker, [header, DURABLE_BODY]))
            rounds.append((asked, done))
        settle()
        for messages in rounds[: requests // IN_FLIGHT]:
            for batch in messages:
                now += 0.001
                machine.receive_all(batch, now)
                store_all(machine, store, now)
    counts = machine.registry.counts
    if counts.dropped or counts.answered != 2 * requests:
        raise RuntimeError(f"not the traffic that was meant: {counts.answered} are answered")


def store_all(machine: BrokerMachine, store: SqliteStore | None, now: float) -> None:
    """What a shell does until everything is stored. A file gets its checkpoints, as by the thread
    of a store."""
    while True:
        machine.tick(now)
        machine.next_deadline()
        writes: list[Any] = machine.take_effects()[0]
        if not writes:
            return
        answers: list[tuple[int, Answer]] = []
        if store is not None:
            answers = write(store, writes)
            machine.store_state(store.state())
            store.maintain(idle=False)
        machine.stored(writes[-1][0], answers, now)


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


def count_process(module: list[str], profile: Path | None = None) -> int:
    """Instructions of `python -m` with these arguments. Raises: RuntimeError.

    Cachegrind without a simulated cache counts the same instructions in half of callgrind's time.
    Callgrind runs where a profile is wanted.
    """
    tool = ["--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={os.devnull}"]
    if profile is not None:
        tool = ["--tool=callgrind", f"--callgrind-out-file={profile}"]
    command = ["valgrind", *tool, sys.executable, "-m", *module]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    found = re.search(r"(?:Collected|I +refs)\s*:\s*([\d,]+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise RuntimeError(f"valgrind failed: {done.stderr[-2000:]}")
    return int(found[1].replace(",", ""))


def difference(what: str, few: int, many: int, profile: Path | None, *options: str) -> int:
    """How many instructions more a process needs that does a workload `many` times, not `few`.

    Both processes run at once. `profile` gets the profile of the longer one.
    """

    def count(times: int, profile: Path | None) -> int:
        module = ["benchmarks.instructions", *options, f"--{what}", str(times)]
        return count_process(module, profile)

    with ThreadPoolExecutor(2) as pool:
        least = pool.submit(count, few, profile and profile.with_suffix(".few"))
        most = pool.submit(count, many, profile)
        return most.result() - least.result()


def per_request(profile: Path | None = None) -> float:
    """Instructions of the rules for one request: what more requests cost more."""
    return difference("serve", FEW, MANY, profile) / (MANY - FEW)


def per_request_with_store() -> float:
    """The same at a broker that has a store, for requests that are not durable."""
    return difference("serve", FEW, MANY, None, "--with-store") / (MANY - FEW)


def per_durable_request(profile: Path | None = None) -> float:
    """Instructions of the rules for one durable request."""
    more = difference("durable", FEW_DURABLE, MANY_DURABLE, profile)
    return more / (MANY_DURABLE - FEW_DURABLE)


def per_request_in_sqlite(profile: Path | None = None) -> float:
    """The same with the calls of SQLite."""
    more = difference("durable", FEW_DURABLE, MANY_DURABLE, profile, "--in-file")
    return more / (MANY_DURABLE - FEW_DURABLE)


def store_verdict(without: float, with_one: float) -> bool:
    """Says what a store adds to a plain request; False when that is too much."""
    more = with_one / without - 1
    print(
        f"{kind()}: {with_one:,.0f} instructions for a request that is not durable at a broker with"
        f" a store, {more:+.2%}; {MOST_WITH_STORE:.0%} is allowed"
    )
    return more <= MOST_WITH_STORE


def per_interval() -> float:
    """Instructions of the rules for one interval of a worker that only lives."""
    more = difference("live", FEW_INTERVALS, MANY_INTERVALS, None)
    return more / (MANY_INTERVALS - FEW_INTERVALS) / IDLE


def kind() -> str:
    """What a bound holds for: the instructions of an interpreter are another's."""
    version = ".".join(platform.python_version_tuple()[:2])
    return f"{RULES}, {platform.python_implementation()} {version}, {platform.machine()}"


def bound(what: str) -> float | None:
    """The most that may be spent, from instructions.json; None where none was set."""
    known: dict[str, dict[str, float]] = json.loads(BOUNDS.read_text())
    return known.get(what, {}).get(kind())


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
    parser.add_argument("--with-store", action="store_true", help="the broker has a store")
    parser.add_argument("--durable", type=int, metavar="N", help="be the workload that is durable")
    parser.add_argument("--in-file", action="store_true", help="in a file of SQLite")
    parser.add_argument("--only-durable", action="store_true", help="count durable requests alone")
    asked = parser.parse_args()
    if asked.durable is not None:
        serve_durable(asked.durable, asked.in_file)
        return 0
    if asked.serve is not None:
        serve(asked.serve, asked.with_store)
        return 0
    if asked.live is not None:
        live(asked.live)
        return 0
    if not shutil.which("valgrind"):
        print("valgrind is not here: nothing was counted")
        return 0
    if asked.only_durable:
        if asked.in_file:
            return 0 if verdict(DURABLE_AND_SQLITE, per_request_in_sqlite(asked.profile)) else 1
        return 0 if verdict(DURABLE, per_durable_request(asked.profile)) else 1
    spent = per_request(asked.profile)
    good = verdict(REQUEST, spent)
    if asked.with_store:
        return 0 if store_verdict(spent, per_request_with_store()) else 1
    good = verdict(INTERVAL, per_interval()) and good
    good = verdict(DURABLE, per_durable_request()) and good
    good = verdict(DURABLE_AND_SQLITE, per_request_in_sqlite()) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
