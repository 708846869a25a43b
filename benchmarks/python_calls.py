"""Python end to end: a Python client calls a Python worker, each library in its own way.

majordomus and nats-py have a broker between, in a process of its own; grpc.aio and zerorpc none.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import peers
from benchmarks.peers import Peer
from benchmarks.statistics_of import ratios, spread

ROOT: Final = Path(__file__).parent.parent


class Library(NamedTuple):
    """`module` is what serves and calls; `needs` has to be importable."""

    name: str
    module: str
    needs: str
    url: str = "tcp://127.0.0.1:{port}"
    broker: Peer | None = None
    options: tuple[str, ...] = ()
    serving: tuple[str, ...] = ()
    path: Path | None = None
    """Where its package is, instead of the one that is installed."""


MAJORDOMUS: Final = Library("majordomus", "python_majordomus", "majordomus", broker=peers.NATIVE)
PLAIN: Final = MAJORDOMUS._replace(
    name=peers.PLAIN.name, broker=peers.PLAIN, path=peers.PLAIN_BUILD
)
THREADS: Final = MAJORDOMUS._replace(name="majordomus, def handlers", serving=("--handler", "def"))
PROCESSES: Final = MAJORDOMUS._replace(
    name='majordomus, run="process"', serving=("--handler", "process")
)
SYNC: Final = MAJORDOMUS._replace(name="majordomus, sync Client", options=("--sync",))
NATS: Final = Library("nats-py", "python_nats", "nats", "nats://127.0.0.1:{port}", peers.NATS)
GRPC: Final = Library("grpc.aio", "python_grpc", "grpc", "127.0.0.1:{port}")
ZERORPC: Final = Library("zerorpc", "python_zerorpc", "zerorpc")

MANY: Final = (MAJORDOMUS, THREADS, PROCESSES, PLAIN, NATS, GRPC, ZERORPC)
ONE: Final = (MAJORDOMUS, SYNC, PLAIN, NATS, GRPC, ZERORPC)


def python_section(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """64 calls in flight, then one at a time."""
    return [
        _compare("64 calls in flight", MANY, 64, "per_second", "/s", rounds, seconds),
        _compare("one call at a time", ONE, 1, "p50_us", "µs", rounds, seconds),
    ]


def _compare(
    title: str,
    libraries: tuple[Library, ...],
    in_flight: int,
    key: str,
    unit: str,
    rounds: int,
    seconds: float,
) -> dict[str, Any]:
    print(f"\nPython to Python, {title}", flush=True)
    here = [library for library in libraries if _is_here(library)]
    seen: dict[Library, list[dict[str, float]]] = {library: [] for library in here}
    with contextlib.ExitStack() as stack:
        urls = {library: stack.enter_context(_serving(library)) for library in here}
        for _ in range(rounds):
            for library in here:
                seen[library].append(_call(library, urls[library], in_flight, seconds))
    contestants = [_contestant(library, seen, key, unit) for library in here]
    return {
        "title": "Python to Python",
        "shape": {"in_flight": in_flight},
        "shape_text": title,
        "metric": "calls per second" if unit == "/s" else "time of one call, median",
        "unit": unit,
        "contestants": contestants,
    }


def _contestant(
    library: Library, seen: dict[Library, list[dict[str, float]]], key: str, unit: str
) -> dict[str, Any]:
    first = next(iter(seen))
    values = {one: [turn[key] for turn in turns] for one, turns in seen.items()}
    ratio = ratios(values[first], values[library])
    mine = spread(values[library])
    p99 = spread([turn["p99_us"] for turn in seen[library]])
    print(
        f"  {library.name:28} {mine.text(0):>32} {unit:4} p99 {p99.median:>8,.0f} µs"
        f"  {first.name} is {ratio.text()} ×",
        flush=True,
    )
    return {
        "name": library.name,
        "protocol": "Python",
        "metric": mine._asdict(),
        "judged": values[library],
        "per_second": spread([turn["per_second"] for turn in seen[library]])._asdict(),
        "p50_us": spread([turn["p50_us"] for turn in seen[library]])._asdict(),
        "p99_us": p99._asdict(),
        "first_by_this": ratio._asdict(),
        "rounds": seen[library],
    }


def _is_here(library: Library) -> bool:
    lacking = peers.missing(Peer(library.name, lambda *_: [], f"python:{library.needs}"))
    lacking = lacking or (peers.missing(library.broker) if library.broker else "")
    if lacking:
        print(f"  {library.name} is left out: {lacking} is not here")
    return not lacking


@contextlib.contextmanager
def _serving(library: Library) -> Iterator[str]:
    """The broker, if there is one, and one worker. The result is where to call."""
    with contextlib.ExitStack() as stack:
        if library.broker is not None:
            port = stack.enter_context(peers.running(library.broker)).port
        else:
            port = _free_port()
        url = library.url.format(port=port)
        serve = [*_command(library, "serve", url), *library.serving]
        worker = subprocess.Popen(serve, cwd=ROOT, env=_environment(library))
        stack.callback(_end, worker)
        time.sleep(1.5)
        if worker.poll() is not None:
            raise RuntimeError(f"the worker of {library.name} has ended")
        yield url


def _call(library: Library, url: str, in_flight: int, seconds: float) -> dict[str, float]:
    command = [
        *_command(library, "call", url),
        *("--in-flight", str(in_flight), "--seconds", str(seconds)),
        *library.options,
    ]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=_environment(library),
        timeout=seconds + 60,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{library.name}: {done.stderr[-2000:]}")
    seen: dict[str, float] = json.loads(done.stdout)
    if seen["errors"]:
        raise RuntimeError(f"{library.name}: {done.stdout}")
    return seen


def _command(library: Library, role: str, url: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", f"benchmarks.{library.module}", role, url]


def _environment(library: Library) -> dict[str, str]:
    return {**os.environ, **({"PYTHONPATH": str(library.path)} if library.path else {})}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
