"""The runner of the benchmarks: python -m benchmarks.run [--only section,…] [--rounds N]
[--seconds S].

In each round of a comparison every contestant has its turn (A B A B …), at brokers that stay up all
the while; what is printed are medians over the rounds with their quartiles, and the ratio of the
rounds. JSON and charts go to docs/benchmarks/, and from there into docs/performance.md.

"majordomus" is the package as it is installed, with the rules compiled; what runs beside it as
"plain Python" is built by `make bench`, which is how this wants to be started.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import zmq

from benchmarks import chart, page, peers
from benchmarks.peers import Peer, Running
from benchmarks.python_calls import python_section
from benchmarks.statistics_of import Spread, ratios, spread
from majordomus.core.broker.state.registry import RULES

ROOT: Final = Path(__file__).parent.parent
OUTPUT: Final = ROOT / "docs" / "benchmarks"
MIB: Final = 1 << 20


class Shape(NamedTuple):
    clients: int
    window: int
    workers: int
    body: int = 16

    def text(self) -> str:
        size = f"{self.body // MIB} MiB" if self.body >= MIB else f"{self.body} bytes"
        return f"{self.clients} clients × {self.window} × {self.workers} workers, {size}"


class Case(NamedTuple):
    """A broker, and the load on it. `transport` is the load's (load_secure.h)."""

    peer: Peer
    protocol: str
    transport: str = "plain"

    def text(self) -> str:
        carried = "" if self.transport in ("plain", "tls") else f" by {self.transport}"
        return f"{self.peer.name}, {self.protocol}{carried}"


class Metric(NamedTuple):
    """One number out of what the load says."""

    name: str
    unit: str
    of: Callable[[dict[str, float]], float]


CPU: Final = Metric(
    "CPU of the broker per request", "µs", lambda seen: seen["broker_cpu"] / seen["requests"] * 1e6
)
PER_CPU: Final = Metric(
    "requests per CPU second of the broker",
    "/s",
    lambda seen: seen["requests"] / seen["broker_cpu"],
)
MEGABYTES: Final = Metric(
    "bodies one way", "MB/s", lambda seen: seen["per_second"] * seen["body"] / 1e6
)

SHAPES: Final = (Shape(1, 512, 1), Shape(16, 32, 4), Shape(100, 8, 20))
LEGACY_SHAPE: Final = Shape(16, 4, 16)
LARGE: Final = Shape(4, 4, 2, MIB)


class Comparison(NamedTuple):
    """What is measured: each case's rounds, and the metric that is judged by."""

    title: str
    shape: Shape
    metric: Metric
    cases: tuple[Case, ...]


ROUTING_CASES: Final = (
    Case(peers.NATIVE, "mdp03"),
    Case(peers.PLAIN, "mdp03"),
    Case(peers.LIBZMQ, "mdp03"),
    Case(peers.NATS, "nats"),
    Case(peers.ZMQ_PROXY, "proxy"),
)
ENCRYPTED_CASES: Final = (
    Case(peers.CURVE, "mdp03", "curve"),
    Case(peers.CURVE, "mdp03", "zmq-curve"),
    Case(peers.CURVE_LIBZMQ, "mdp03", "curve"),
    Case(peers.CURVE_LIBZMQ, "mdp03", "zmq-curve"),
    Case(peers.NATS_TLS, "nats", "tls"),
)
IPC_CASES: Final = (
    Case(peers.IPC, "mdp03"),
    Case(peers.IPC, "mdp03", "zmq"),
    Case(peers.IPC_LIBZMQ, "mdp03"),
    Case(peers.IPC_LIBZMQ, "mdp03", "zmq"),
)
ENCRYPTED_SIZES: Final = (16, 256, 1024, 16 * 1024)
LEGACY_CASES: Final = (
    Case(peers.NATIVE, "mdp02"),
    Case(peers.NATIVE, "mdp01"),
    Case(peers.NATIVE, "mdp02d"),
    Case(peers.PLAIN, "mdp02"),
    Case(peers.LIBZMQ, "mdp02"),
    Case(peers.LIBZMQ, "mdp01"),
    Case(peers.PLAIN_TWIN, "mdp02"),
    Case(peers.PLAIN_TWIN, "mdp01"),
    Case(peers.MAJORTOMO, "mdp02d"),
    Case(peers.GEARMAND, "gearman"),
)
LARGE_CASES: Final = (
    Case(peers.NATIVE, "mdp03"),
    Case(peers.PLAIN, "mdp03"),
    Case(peers.ZMQ_PROXY, "proxy"),
)

COMPARISONS: Final = {
    "routing": [Comparison("routing", shape, CPU, ROUTING_CASES) for shape in SHAPES],
    "curve": [
        Comparison("encrypted", shape._replace(body=size), CPU, ENCRYPTED_CASES)
        for size in ENCRYPTED_SIZES
        for shape in SHAPES
    ],
    "ipc": [Comparison("Unix sockets", shape, CPU, IPC_CASES) for shape in SHAPES],
    "legacy": [Comparison("one request per worker", LEGACY_SHAPE, PER_CPU, LEGACY_CASES)],
    "large": [Comparison("large bodies", LARGE, MEGABYTES, LARGE_CASES)],
}
PYTHON: Final = "python"
PROGRAMS: Final = {
    "half_load": ["benchmarks.half_load"],
    "presence": ["benchmarks.presence"],
    "scale": ["benchmarks.scale"],
    "bytes": ["benchmarks.bytes_on_wire"],
    "where": ["benchmarks.where"],
    "records": ["benchmarks.records", "--rounds", "100"],
    "cloudlog": ["benchmarks.cloudlog", "--seconds", "3"],
    "durable": ["benchmarks.durable"],
}
"""Sections that are programs of their own, which write their own JSON."""
SECTIONS: Final = (*COMPARISONS, PYTHON, *PROGRAMS)


def measure(
    broker: Running, case: Case, shape: Shape, seconds: float, more: tuple[str, ...] = ()
) -> dict[str, float]:
    """One turn of the load, with `more` arguments. Raises: RuntimeError when it fails."""
    secure = case.transport != "plain"
    program = peers.SECURE_LOAD if secure or case.peer.load(0) else peers.LOAD
    command = [
        *(str(program), "--protocol", case.protocol, "--port", str(broker.port)),
        *(["--transport", case.transport] if secure else []),
        *case.peer.load(broker.port),
        *("--worker-port", str(broker.worker_port), "--pid", str(broker.pid)),
        *("--clients", str(shape.clients), "--window", str(shape.window)),
        *("--workers", str(shape.workers), "--body", str(shape.body)),
        *("--seconds", str(seconds), *more),
    ]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=seconds + 60
    )
    if done.returncode != 0:
        raise RuntimeError(f"{case.text()}: {done.stderr.strip()}")
    seen: dict[str, float] = json.loads(done.stdout)
    if seen["errors"] or not seen["requests"]:
        raise RuntimeError(f"{case.text()}: {done.stdout} {done.stderr}")
    return seen


def compare(comparison: Comparison, rounds: int, seconds: float) -> dict[str, Any]:
    """All rounds of one comparison. What a machine has not is left out, and said."""
    cases = [case for case in comparison.cases if _is_here(case.peer)]
    seen: dict[Case, list[dict[str, float]]] = {case: [] for case in cases}
    print(f"\n{comparison.title}: {comparison.shape.text()}", flush=True)
    with contextlib.ExitStack() as stack:
        brokers = {
            peer: stack.enter_context(peers.running(peer))
            for peer in dict.fromkeys(case.peer for case in cases)
        }
        for _ in range(rounds):
            for case in cases:
                seen[case].append(measure(brokers[case.peer], case, comparison.shape, seconds))
        memory = {case: peak_memory(brokers[case.peer].pid) for case in cases}
    return _judged(comparison, seen, memory)


def _judged(
    comparison: Comparison,
    seen: dict[Case, list[dict[str, float]]],
    memory: dict[Case, float],
) -> dict[str, Any]:
    metric = comparison.metric
    values = {case: [metric.of(one) for one in rounds] for case, rounds in seen.items()}
    first = next(iter(values))
    contestants: list[dict[str, Any]] = []
    for case, of_case in values.items():
        throughput = spread([one["per_second"] for one in seen[case]])
        slow = spread([one["p99_us"] for one in seen[case]])
        ratio = ratios(values[first], of_case)
        contestants.append(
            {
                "name": case.peer.name,
                "protocol": case.protocol,
                "transport": case.transport,
                "cipher": seen[case][0].get("cipher", ""),
                "metric": spread(of_case)._asdict(),
                "per_second": throughput._asdict(),
                "p50_us": spread([one["p50_us"] for one in seen[case]])._asdict(),
                "p99_us": slow._asdict(),
                "judged": of_case,
                "peak_memory_mib": round(memory[case], 1),
                "first_by_this": ratio._asdict(),
                "rounds": seen[case],
            }
        )
        print(
            f"  {case.text():40} {_number(spread(of_case)):>32} {metric.unit:4}"
            f" {throughput.median:>10,.0f}/s  p99 {slow.median:>8,.0f} µs"
            f"  {first.peer.name} is {ratio.text()} ×",
            flush=True,
        )
    return {
        "title": comparison.title,
        "shape": comparison.shape._asdict(),
        "shape_text": comparison.shape.text(),
        "metric": metric.name,
        "unit": metric.unit,
        "contestants": contestants,
    }


def _number(of: Spread) -> str:
    return of.text(2) if of.median < 1000 else of.text(0)


def _is_here(peer: Peer) -> bool:
    lacking = peers.missing(peer)
    if lacking:
        print(f"  {peer.name} is left out: {lacking} is not here")
    return not lacking


def peak_memory(pid: int) -> float:
    """MiB that the process had in memory at most."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "rules": RULES,
        "processor": model[0] if model else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "pyzmq": zmq.__version__,
        "libzmq of pyzmq": zmq.zmq_version(),
        "nats-server": _version("nats-server", "--version"),
        "openssl": _version("openssl", "version"),
        "libsodium of the load": _version("pkg-config", "--modversion", "libsodium"),
        "libzmq of the load": _version("pkg-config", "--modversion", "libzmq"),
        "gearmand": _version("gearmand", "--version"),
        "load average before": os.getloadavg()[0],
    }


def _version(*command: str) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    except OSError:
        return "not here"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else ""


def draw(section: str, results: list[dict[str, Any]], note: str) -> None:
    """The chart of one section."""
    groups = [
        chart.Group(
            f"{result['title']}: {result['shape_text']}",
            [
                chart.Bar(
                    f"{one['name']}, {one['protocol']}",
                    one["metric"]["median"],
                    one["metric"]["low"],
                    one["metric"]["high"],
                    one["name"].startswith("majordomus"),
                )
                for one in result["contestants"]
            ],
        )
        for result in results
    ]
    first = results[0]
    chart.write(OUTPUT / f"{section}.svg", first["metric"], first["unit"], groups, note)


def _compared(name: str, asked: argparse.Namespace, about: dict[str, Any]) -> None:
    """One section of comparisons, to its JSON and chart."""
    if name == PYTHON:
        results = python_section(asked.rounds, asked.seconds)
    else:
        results = [compare(one, asked.rounds, asked.seconds) for one in COMPARISONS[name]]
    note = f"{about['processor']}, {about['cores']} cores, {about['date']}. {asked.note}".strip()
    written = {
        "machine": about,
        "note": asked.note,
        "rounds": asked.rounds,
        "seconds": asked.seconds,
        "comparisons": results,
    }
    (OUTPUT / f"{name}.json").write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
    draw(name, results, note)
    print(f"  → {OUTPUT / name}.json, .svg", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 1 second")
    parser.add_argument("--plain", action="store_true", help="allow an install of plain Python")
    parser.add_argument("--note", default="", help="what else went on; goes into JSON and charts")
    asked = parser.parse_args()
    asked.sections = asked.only.split(",")
    unknown = set(asked.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if RULES != "compiled" and not asked.plain:
        parser.error("the rules of this install are plain Python: `make bench` installs a wheel")
    if asked.quick:
        asked.rounds, asked.seconds = 3, 1.0
    return asked


def main() -> int:
    asked = _arguments()
    peers.build()
    about = machine()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in asked.sections:
        began = time.monotonic()
        print(f"\n── {name} " + "─" * (80 - len(name)), flush=True)
        try:
            if name in PROGRAMS:
                subprocess.run([sys.executable, "-m", *PROGRAMS[name]], check=True, cwd=ROOT)
            else:
                _compared(name, asked, about)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            failed.append(name)
            print(f"  {name} failed: {error}", flush=True)
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
    page.write()
    print(f"\n→ {page.PAGE}\n\n{page.summary(page.figures())}")
    if failed:
        print(f"failed, and left as they were: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
