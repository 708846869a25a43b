"""`python -m benchmarks.ledger --calls 1000000 --seed 13`. Ends with status 1 if anything is wrong.

With `--add FILE` the counts are added to those in FILE, so that a run can be made in pieces.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from benchmarks.ledger.run import TASKS, WORKERS, Result, run


def as_data(result: Result) -> dict[str, Any]:
    """Return a result as JSON data."""
    return {
        "seeds": [result.seed],
        "seconds": result.seconds,
        "counts": result.counts,
        "faults": result.faults,
        "control": result.control,
        "problems": result.problems,
        "slowest": result.slowest,
        "held": [f"seed {result.seed}, {k}: {v}" for k, v in result.held.items()],
    }


def added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Add the counts of two results."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for result in (one, other):
        for name, found in result["counts"].items():
            counts[name].update(found)
    return {
        "seeds": one["seeds"] + other["seeds"],
        "seconds": one["seconds"] + other["seconds"],
        "counts": counts,
        "faults": Counter(one["faults"]) + Counter(other["faults"]),
        "control": Counter(one["control"]) + Counter(other["control"]),
        "problems": one["problems"] + other["problems"],
        "slowest": max(one["slowest"], other["slowest"]),
        "held": one["held"] + other["held"],
    }


def show(found: dict[str, Any]) -> None:
    """Print a result."""
    print(f"seeds {found['seeds']}, {found['seconds']:.0f} s")
    for name, counts in found["counts"].items():
        line = ", ".join(f"{key} {count:,}" for key, count in sorted(counts.items()))
        print(f"- {name}: {line}")
    print(
        "- faults:", ", ".join(f"{key} {count}" for key, count in sorted(found["faults"].items()))
    )
    print(f"- latest outcome: {found['slowest']:.2f} s after the timeout of its call")
    print(
        f"- falsified entries: {found['control']['falsified']}, found {found['control']['found']}"
    )
    for line in found["held"]:
        print(f"- held at {line}")
    print(f"- problems: {len(found['problems'])}")
    for line in found["problems"][:50]:
        print(f"  {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--workers", type=int, default=WORKERS, help="worker programs")
    parser.add_argument("--tasks", type=int, default=TASKS, help="asyncio tasks that call")
    parser.add_argument("--between", type=float, default=1.0, help="seconds between two faults")
    parser.add_argument("--add", type=Path, help="add the counts to those of this file")
    asked = parser.parse_args()
    result = run(
        asked.calls, asked.seed, workers=asked.workers, tasks=asked.tasks, between=asked.between
    )
    found = as_data(result)
    if asked.add is not None:
        if asked.add.exists():
            found = added(json.loads(asked.add.read_text()), found)
        asked.add.write_text(json.dumps(found))
    show(found)
    wrong = result.problems or result.control["found"] != result.control["falsified"]
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
