"""Builds our own ZMTP with AddressSanitizer and UBSan, and runs `fuzz` on it; see `make sanitize`.

    python -m tests.net.zmtp.sanitize --connections 500000 --seed 1

Each run adds its counts to docs/proof/sanitize.json, from which docs/proof/sanitize.md is written.
A report of a sanitizer ends the process, and then nothing is added.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[3]
BUILD: Final = ROOT / "build" / "sanitize"
PROOF: Final = ROOT / "docs" / "proof"
FLAGS: Final = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
LIBRARIES: Final = ("libasan.so", "libubsan.so")


def build() -> None:
    """Compile the extensions; only what has changed."""
    environment = {
        **os.environ,
        "CFLAGS": FLAGS,
        "LDFLAGS": FLAGS,
        "MAJORDOMUS_RULES": "python",
        "MAJORDOMUS_DEBUG": "1",
    }
    subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "setup.py", "-q", "build"),
            *("--build-lib", str(BUILD), "--build-temp", str(BUILD) + "-temp"),
        ],
        check=True,
        cwd=ROOT,
        env=environment,
    )


def fuzz(connections: int, seed: int, seconds: float) -> dict[str, Any]:
    """Run the fuzzer on what was built. Raises: CalledProcessError after a report."""
    libraries = [
        subprocess.run(
            ["cc", f"-print-file-name={name}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in LIBRARIES
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONPATH": str(BUILD),
        "PYTHONMALLOC": "malloc",  # so that an object of Python is a block of its own as well
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.net.zmtp.fuzz", "--connections", str(connections)),
            *("--seed", str(seed), "--seconds", str(seconds)),
        ],
        check=True,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def note(told: dict[str, Any]) -> None:
    """Add a run to the record, and write the page."""
    path = PROOF / "sanitize.json"
    runs = json.loads(path.read_text("utf-8")) if path.exists() else []
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout.strip()
    compiler = subprocess.run(
        ["cc", "-dumpfullversion"], check=True, capture_output=True, text=True
    ).stdout.strip()
    about = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit,
        "gcc": compiler,
        "python": platform.python_version(),
    }
    runs.append(about | told)
    path.write_text(json.dumps(runs, indent=1) + "\n", "utf-8")
    (PROOF / "sanitize.md").write_text(page(runs), "utf-8")


def page(runs: list[dict[str, Any]]) -> str:
    """Return the page of these runs."""
    outcomes = Counter[str]()
    for run in runs:
        outcomes.update(run["outcomes"])
    connections = sum(run["connections"] for run in runs)
    rows = "\n".join(
        f"| {run['date']} | {run['commit']} | {run['seed']} | {run['connections']:,} |"
        f" {run['seconds']:,.0f} |"
        for run in runs
    )
    reasons = "\n".join(
        f"| {name or 'closed by us'} | {count:,} |" for name, count in outcomes.items()
    )
    return f"""# Mutated peers under AddressSanitizer and UBSan

`make sanitize` builds the extensions of `net/zmtp` with `{FLAGS}`
(gcc {runs[-1]["gcc"]}), and opens connections whose greetings, handshakes and frames are mutated:
bits, lengths, pieces removed, repeated, moved and taken from other connections, and noise. The
peers are clients of routers with NULL, PLAIN and CURVE, and routers of our dealers. Every seventh
peer is left as it is, and its messages must arrive whole and in order. A report of a sanitizer ends
the run.

**{connections:,} connections, {sum(run["seconds"] for run in runs):,.0f} seconds, no report.**

| begun | commit | seed | connections | seconds |
|---|---|---|---|---|
{rows}

What became of them, by the reason of the router, and whether the peer saw its handshake done:

| outcome | connections |
|---|---|
{reasons}

`make test` opens a few thousand of these connections without the sanitizers.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--connections", type=int, default=2_000_000)
    parser.add_argument("--seconds", type=float, default=7200.0)
    parser.add_argument("--seed", type=int, default=int(datetime.now(UTC).timestamp()))
    parser.add_argument("--try", dest="trial", action="store_true", help="add nothing to the page")
    given = parser.parse_args()
    build()
    told = fuzz(given.connections, given.seed, given.seconds)
    print(json.dumps(told, indent=1))
    if not given.trial:
        note(told)


if __name__ == "__main__":
    main()
