"""What plain TCP costs beside an older state of the project: python -m benchmarks.before.

The package of that commit is taken out of git and built with its rules compiled, in build/bench.
Both brokers are measured in turns, under the same load. JSON goes to docs/benchmarks/before.json,
and from there into docs/performance.md.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

from benchmarks import page, peers
from benchmarks.run import CPU, OUTPUT, ROOT, SHAPES, Case, Comparison, compare, machine

BEFORE_CURVE: Final = "dfca6220"
"""The last commit without CURVE and PLAIN in our own ZMTP (docs/adr/0013)."""


def build_of(commit: str) -> Path:
    """Build the package of `commit`, once. Return the folder to put first in the module path."""
    folder = peers.BUILD / "before" / commit
    built = folder / "built"
    if not built.is_dir():
        archive = subprocess.run(
            ["git", "archive", commit], check=True, capture_output=True, cwd=ROOT
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as source:
            source.extractall(folder, filter="data")
        setup = [sys.executable, "setup.py", "-q", "build", "--build-lib", "being-built"]
        subprocess.run(setup, check=True, cwd=folder)
        (folder / "being-built").rename(built)
    return built


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--commit", default=BEFORE_CURVE, help="the older state")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    asked = parser.parse_args()
    peers.build()
    older = peers.majordomus("zmtp", f"majordomus of {asked.commit}", build_of(asked.commit))
    cases = (Case(peers.NATIVE, "mdp03"), Case(older, "mdp03"))
    about = machine()
    results = [
        compare(Comparison("plain TCP", shape, CPU, cases), asked.rounds, asked.seconds)
        for shape in SHAPES
    ]
    told = {
        "machine": about,
        "commit": asked.commit,
        "rounds": asked.rounds,
        "seconds": asked.seconds,
        "comparisons": results,
    }
    (OUTPUT / "before.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    page.write()


if __name__ == "__main__":
    main()
