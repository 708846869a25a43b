"""What a request waits for at half load: python -m benchmarks.half_load [--rounds N] [--seconds S].

Requests are sent at a fixed rate, whatever comes back, and a latency begins when its request was
due (`load.c --pace`): what waits behind a pause of the broker counts, though nobody had sent it.

The rate is the same for all brokers of a shape: half of what the slower one can do, measured first.
At half of its own rate each a faster broker would be judged at more requests, which are another
task for the machine, the load and the kernel. The load has the rest of a machine's cores, so on two
of them a broker of several threads and the load get in each other's way; how late the load itself
was is printed too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import peers
from benchmarks.peers import Running
from benchmarks.run import SHAPES, Case, Shape, machine, measure
from benchmarks.statistics_of import ratios, spread

OUTPUT: Final = Path(__file__).parent.parent / "docs" / "benchmarks" / "half_load.json"
CASES: Final = (Case(peers.NATIVE, "mdp03"), Case(peers.NATS, "nats"))
OPEN: Final = 4096
"""Requests that a client may have open; more wait in the load, and their latencies count that."""
PROBES: Final = 2
"""Measurements of what each broker can do."""
TIMES: Final = ("p50_us", "p99_us", "p999_us", "most_us", "late_p999_us")


def half_of_the_slower(
    brokers: dict[Case, Running], shape: Shape, seconds: float
) -> tuple[int, dict[Case, float]]:
    """The rate for all of them, a second, and what each can do."""
    seen: dict[Case, list[float]] = {case: [] for case in brokers}
    for _ in range(PROBES):
        for case, broker in brokers.items():
            seen[case].append(measure(broker, case, shape, seconds)["per_second"])
    most = {case: median(of_case) for case, of_case in seen.items()}
    return int(min(most.values()) / 2), most


def compare(cases: tuple[Case, ...], shape: Shape, rounds: int, seconds: float) -> dict[str, Any]:
    """All rounds of one shape, in turns. Raises: RuntimeError when the load fails, as it does when
    a request is not answered at all."""
    seen: dict[Case, list[dict[str, float]]] = {case: [] for case in cases}
    with contextlib.ExitStack() as stack:
        brokers = {case: stack.enter_context(peers.running(case.peer)) for case in cases}
        rate, most = half_of_the_slower(brokers, shape, seconds)
        print(f"\n{shape.text()}: {rate:,} requests a second", flush=True)
        paced = ("--pace", str(rate), "--window", str(OPEN))
        for _ in range(rounds):
            for case, broker in brokers.items():
                seen[case].append(measure(broker, case, shape, seconds, paced))
    return {
        "shape": shape._asdict(),
        "shape_text": f"{shape.clients} clients, {shape.workers} workers, {shape.body} bytes",
        "rate": rate,
        "contestants": [_judged(case, most[case], seen[case], seen[cases[0]]) for case in cases],
    }


def _judged(
    case: Case, most: float, rounds: list[dict[str, float]], first: list[dict[str, float]]
) -> dict[str, Any]:
    times = {name: spread([one[name] for one in rounds]) for name in TIMES}
    judged = [one["p999_us"] for one in rounds]
    by_this = ratios([one["p999_us"] for one in first], judged)
    cpu = spread([one["broker_cpu"] / one["requests"] * 1e6 for one in rounds])
    print(
        f"  {case.text():24} of {most:>9,.0f}/s at most: p50 {times['p50_us'].median:,.0f} µs,"
        f" p99 {times['p99_us'].median:,.0f}, p99.9 {times['p999_us'].text(0)};"
        f" the load was late by {times['late_p999_us'].median:,.0f} (p99.9);"
        f" {cpu.median:.2f} µs of CPU; the first is {by_this.text()} ×",
        flush=True,
    )
    return {
        "name": case.peer.name,
        "protocol": case.protocol,
        "most_per_second": round(most),
        **{name: of._asdict() for name, of in times.items()},
        "cpu_us": cpu._asdict(),
        "judged": judged,
        "first_by_this": by_this._asdict(),
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--shapes", default="0,1,2", help="which of 1, 16 and 100 clients")
    parser.add_argument("--note", default="")
    parser.add_argument("--dry", action="store_true", help="write no JSON")
    asked = parser.parse_args()
    peers.build()
    about = machine()
    lacking = [peers.missing(case.peer) for case in CASES]
    cases = tuple(case for case, needs in zip(CASES, lacking, strict=True) if not needs)
    shapes = [SHAPES[int(n)] for n in asked.shapes.split(",")]
    results = [compare(cases, shape, asked.rounds, asked.seconds) for shape in shapes]
    written = {
        "machine": about,
        "note": asked.note,
        "rounds": asked.rounds,
        "seconds": asked.seconds,
        "comparisons": results,
    }
    if not asked.dry:
        OUTPUT.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
        print(f"→ {OUTPUT}")


if __name__ == "__main__":
    main()
