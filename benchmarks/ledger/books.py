"""The entries of both ledgers, and the audit of them: pure functions over entries.

A client writes two lines for each call: `asked KEY KIND ONCE TIMEOUT` before it is sent, and
`got KEY OUTCOME SECONDS` when its caller has an outcome. A worker appends `KEY` to its own file at
the first step of each execution, by one system call; what the system call has taken survives a
SIGKILL.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

LATE: Final = 5.0
"""Seconds beyond its timeout in which a caller on a busy machine has its outcome."""

LOST: Final = frozenset(
    {"BrokerLost", "WorkerLost", "DeadlineExceeded", "TooManyRequests", "Unavailable"}
)
"""Outcomes that any call may have while brokers and workers are killed and stopped."""
OUTCOMES: Final = {
    "echo": frozenset({"ok"}),
    "work": frozenset({"ok"}),
    "parts": frozenset({"ok", "left"}),
    "thread-parts": frozenset({"ok", "left"}),
    "later": frozenset({"ok"}),
    "dropped": frozenset({"HandlerFailed"}),
    "raise": frozenset({"HandlerFailed", "Cancelled"}),
    "thread-raise": frozenset({"HandlerFailed", "Cancelled"}),
    "process": frozenset({"ok", "HandlerFailed"}),
    "process-exit": frozenset({"HandlerFailed"}),
}
"""Kind of call → its own outcomes. `left`: the caller has left the stream. `raise` includes
CancelledError. HandlerFailed of `process`: its handler process was killed."""
EXECUTED: Final = frozenset({"ok", "left", "HandlerFailed"})
"""Outcomes that follow from an execution, unless a handler process was killed before it began."""


@dataclass(slots=True)
class Call:
    """One call: what was asked, and what its caller got, in the order of the entries."""

    kind: str
    once: bool
    timeout: float
    cancelled: bool = False
    """Its caller has cancelled it, or has tried to."""
    got: list[tuple[str, float]] = field(default_factory=list)
    executions: int = 0


@dataclass
class Books:
    """Both ledgers. faults: entries that cannot be, one line each."""

    calls: dict[int, Call] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def asked(self, key: int, kind: str, once: bool, timeout: float) -> None:
        if key in self.calls:
            self.faults.append(f"call {key} was asked twice")
        self.calls[key] = Call(kind, once, timeout)

    def cancelled(self, key: int) -> None:
        self.calls[key].cancelled = True

    def got(self, key: int, outcome: str, seconds: float) -> None:
        call = self.calls.get(key)
        if call is None:
            self.faults.append(f"an outcome of call {key}, which was not asked")
        else:
            call.got.append((outcome, seconds))

    def executed(self, key: int) -> None:
        call = self.calls.get(key)
        if call is None:
            self.faults.append(f"an execution of call {key}, which was not asked")
        else:
            call.executions += 1


def read(clients: Iterable[Path], workers: Iterable[Path]) -> Books:
    """Read the ledgers of all clients and of all worker processes."""
    books = Books()
    for path in clients:
        with path.open(encoding="ascii") as lines:
            for line in lines:
                what, key, *words = line.split()
                if what == "asked":
                    books.asked(int(key), words[0], words[1] == "1", float(words[2]))
                elif what == "got":
                    books.got(int(key), words[0], float(words[1]))
                else:
                    books.cancelled(int(key))
    for path in workers:
        for line in path.read_bytes().split(b"\n"):
            if line:
                books.executed(int(line))
    return books


def audit(books: Books) -> list[str]:
    """Return what is wrong, one line each; an empty list if each call has one right outcome."""
    found = list(books.faults)
    for key, call in books.calls.items():
        name = f"call {key} ({call.kind}{', once' if call.once else ''})"
        if len(call.got) != 1:
            found.append(f"{name} has {len(call.got)} outcomes")
            continue
        outcome, seconds = call.got[0]
        if seconds > call.timeout + LATE:
            found.append(f"{name} has its outcome after {seconds:.1f} s of {call.timeout:.1f} s")
        allowed = OUTCOMES[call.kind] | LOST
        if outcome not in allowed and not (call.cancelled and outcome == "cancelled"):
            found.append(f"{name} has the outcome {outcome}")
        killed = outcome == "HandlerFailed" and call.kind.startswith("process")
        if outcome in EXECUTED and not (call.executions or killed):
            found.append(f"{name} has the outcome {outcome} and was not executed")
        if call.once and call.executions > 1:
            found.append(f"{name} was executed {call.executions} times")
    return found


def counts(books: Books) -> dict[str, collections.Counter[str]]:
    """Return the counts of a report: calls by kind and outcome, executions of one call."""
    found: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for call in books.calls.values():
        outcome = call.got[0][0] if call.got else "none"
        found["calls"]["all"] += 1
        found["calls"]["once"] += call.once
        found["calls"]["cancelled by their callers"] += call.cancelled
        found["kinds"][call.kind] += 1
        found["outcomes"][outcome] += 1
        found["executions"][str(call.executions)] += 1
        if call.once:
            found["executions of once"][str(call.executions)] += 1
    return found


def slowest(books: Books) -> float:
    """Return the most seconds beyond its timeout after which a call had its outcome."""
    return max((s - call.timeout for call in books.calls.values() for _, s in call.got), default=0)


# ── the negative control ──────────────────────────────────────────────────────────────────────────


def falsified(books: Books, number: int) -> str:
    """Make entry `number` of the ledgers wrong, each time in another way. Return the way.

    `audit` must find it.
    """
    keys = sorted(books.calls)
    key = keys[number % len(keys)]
    call = books.calls[key]
    ways = (
        "no outcome",
        "two outcomes",
        "late",
        "once twice",
        "not asked",
        "wrong",
        "not executed",
    )
    way = ways[number % len(ways)]
    if way == "no outcome":
        call.got.clear()
    elif way == "two outcomes":
        call.got.append(("ok", 0.0))
        call.got.append(("ok", 0.0))
    elif way == "late":
        call.got = [(outcome, call.timeout + LATE + 1.0) for outcome, _ in call.got]
    elif way == "once twice":
        call.once, call.executions = True, 2
    elif way == "not asked":
        books.executed(keys[-1] + 1)
    elif way == "wrong":
        call.got = [("NotFound", 0.0)]
    else:
        call.got, call.executions = [("ok", 0.0)], 0
    return way
