"""Measures all systems, round by round, and prints the ratios: python -m benchmarks.durable.

In each round every system has its turn, with all servers up. A round counts only when nothing else
wants a processor: the run queue is looked at before each turn. JSON goes to
docs/benchmarks/durable.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.durable import beside, machine, report, systems
from benchmarks.durable.systems import ROOT, Serving, System
from benchmarks.statistics_of import spread

OUTPUT: Final = ROOT / "docs" / "benchmarks" / "durable.json"
QUIET_WITHIN: Final = 120.0
LEAST_FLUSHES: Final = 0.01
"""Flushes per request that other programs cause at most."""


def produce(system: System, at: Serving, seconds: float, in_flight: int) -> dict[str, float]:
    """One turn of a producer. Raises: RuntimeError when it fails."""
    command = [
        *(sys.executable, "-W", "ignore", "-m", f"benchmarks.durable.{system.module}"),
        *("produce", at.url, "--pid", str(at.pid), "--seconds", str(seconds)),
        *("--in-flight", str(in_flight), *system.options),
    ]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=seconds + 90
    )
    if done.returncode != 0:
        raise RuntimeError(f"{system.name}: {done.stderr[-2000:]}")
    seen: dict[str, float] = json.loads(done.stdout)
    return seen


def all_rounds(chosen: list[System], asked: argparse.Namespace) -> report.Rounds:
    """The rounds that count. Raises: RuntimeError, and when the machine is never quiet."""
    rounds: report.Rounds = {system.name: [] for system in chosen}
    with contextlib.ExitStack() as stack:
        servers = {one: stack.enter_context(systems.serving(one)) for one in chosen}
        for number in range(asked.rounds):
            for system in chosen:
                if not asked.busy and not machine.wait_until_quiet(QUIET_WITHIN):
                    raise RuntimeError(
                        f"the machine was busy for {QUIET_WITHIN:.0f} s: end what else runs"
                    )
                seen = produce(system, servers[system], asked.seconds, asked.in_flight)
                rounds[system.name].append(seen)
                print(
                    f"  {number + 1:2} {system.name:38} {seen['per_second']:>9,.0f}/s"
                    f"  p50 {seen['p50_us'] / 1e3:6.2f} ms  p99 {seen['p99_us'] / 1e3:6.2f} ms"
                    f"  {seen['cpu_us']:6.1f} µs  {seen['flushes']:.3f} flushes",
                    flush=True,
                )
    return rounds


def count_syncs(chosen: list[System], rounds: report.Rounds, in_flight: int) -> None:
    """A turn more of each at a server below strace; its syncs per request go into the rounds.

    The syncs that a server makes at its start and end are counted too, so many requests are sent.
    """
    if not shutil.which("strace"):
        print("strace is not here: syncs are not counted")
        return
    for system in chosen:
        with tempfile.TemporaryDirectory() as folder:
            counted = Path(folder) / "strace"
            with systems.serving(system, counted) as at:
                sent = produce(system, at, 3.0, in_flight)["sent"]
            text = counted.read_text() if counted.exists() else ""
        syncs = sum(
            int(line.split()[3])
            for line in text.splitlines()
            if line.endswith(("fsync", "fdatasync"))
        )
        seen = spread([one["flushes"] for one in rounds[system.name]]).median
        if not syncs and seen > LEAST_FLUSHES:
            print(f"strace has not counted the syncs of {system.name}")
            continue
        for one in rounds[system.name]:
            one["syncs"] = syncs / sent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument(
        "--only", default="", help="modules, with commas: ours,redis,amqp,jetstream"
    )
    parser.add_argument("--busy", action="store_true", help="measure on a busy machine: no proof")
    parser.add_argument("--no-syncs", action="store_true", help="do not count below strace")
    parser.add_argument("--no-beside", action="store_true", help="no plain calls beside")
    return parser.parse_args()


def main() -> int:
    asked = arguments()
    wanted = asked.only.split(",") if asked.only else []
    chosen: list[System] = []
    for system in systems.SYSTEMS:
        lacking = systems.missing(system)
        if lacking:
            print(f"{system.name} is left out: {lacking} is not here")
        elif not wanted or system.module in wanted:
            chosen.append(system)
    from benchmarks.run import machine as about

    made: dict[str, Any] = {"machine": about(), "busy": asked.busy, "in flight": asked.in_flight}
    rounds = all_rounds(chosen, asked)
    if not asked.no_syncs:
        count_syncs(chosen, rounds, asked.in_flight)
    report.table(rounds)
    made["rounds"] = rounds
    made["targets"] = report.verdicts(rounds)
    if not asked.no_beside:
        made["beside"] = beside.measure(asked.rounds, asked.seconds)
    if not wanted and not asked.busy:
        OUTPUT.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
        print(f"\n→ {OUTPUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
