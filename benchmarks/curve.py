"""What connections cost with CURVE and without: their throughput, and how many a second there are.

    python -m benchmarks.curve [--seconds 3] [--rounds 3] [--connections]

One client, one worker and the broker are processes of their own, over tcp on this machine; client
and worker are bare loops over the wire, so that what is measured is the broker and libzmq. Rounds
of the kinds take turns. Printed are medians: requests a second, what they cost the broker's process
in CPU, its I/O thread (which encrypts) included, and new connections a second up to the first
answer over each, 32 at a time. `--connections` leaves the requests out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import zmq

from benchmarks import peers
from benchmarks.run import machine
from majordomus.net.broker.security import curve
from majordomus.net.connection.credentials import Access
from majordomus.net.zmq import sockets
from majordomus.net.zmq.wire import DealerWire, Wait
from majordomus.protocol import mdp03, spec
from majordomus.security import certificates

OUTPUT: Final = Path(__file__).parent.parent / "docs" / "benchmarks" / "curve_connections.json"
SIZES: Final = {16: 256, 64 * 1024: 16}
"""Bytes of a body → calls in flight."""
BY_LIBZMQ: Final = "CURVE, through libzmq"
KINDS: Final = ("NULL", "CURVE", "CURVE, known keys", BY_LIBZMQ)
AT_A_TIME: Final = 32
WARM_UP: Final = 0.5


class Place:
    """A folder with the broker's pair and a client's."""

    def __init__(self, folder: Path) -> None:
        self.broker = folder / "broker"
        self.clients = folder / "clients"
        self.clients.mkdir()
        self.pair = curve.make({"user": "bench"})
        certificates.write(self.clients / "bench", self.pair)
        certificates.write(self.broker, curve.make())
        self.key = certificates.read_pair(self.broker).public

    def peer(self, kind: str) -> peers.Peer:
        """The broker of that kind."""
        flags = ["--curve", "--certificate", str(self.broker)] if kind != "NULL" else []
        flags += ["--clients", str(self.clients)] if "known" in kind else []
        base = peers.LIBZMQ if kind == BY_LIBZMQ else peers.NATIVE
        return base._replace(name=kind, command=lambda port, _: [*base.command(port, 0), *flags])

    def child(self, kind: str, role: str, port: int, *arguments: object) -> subprocess.Popen[bytes]:
        """This module as the process `role`."""
        keys = ["--server-key", self.key, "--key", str(self.clients / "bench.key")]
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.curve", "--role", role),
                *("--port", str(port), *(keys if kind != "NULL" else [])),
                *(str(one) for one in arguments),
            ],
            stdout=subprocess.PIPE,
        )


# ── the processes ─────────────────────────────────────────────────────────────────────────────────


def line(access: Access) -> tuple[zmq.Socket[bytes], DealerWire, Callable[[int], int]]:
    """A connected socket, its wire, and what waits for it."""
    socket = sockets.dealer()
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IMMEDIATE, 0)
    socket.setsockopt(zmq.SNDHWM, 10_000)
    socket.setsockopt(zmq.RCVHWM, 10_000)
    access.secure(socket, access.urls[0])
    socket.connect(access.urls[0])
    return socket, DealerWire(socket), Wait(socket)


def work(access: Access) -> None:
    """An echo, until it is ended."""
    _socket, wire, wait = line(access)
    wire.send([[mdp03.pack(spec.READY, code=10_000, service=b"echo")]])
    while True:
        wait(1000)
        answers = []
        for header, *body in wire.receive(256):
            request = mdp03.parse(header)
            if request.command == spec.REQUEST:
                answers.append([mdp03.pack(spec.FINAL, code=200, id=request.id), *body])
        wire.send(answers or [[mdp03.pack(spec.HEARTBEAT, code=0)]])


def call(access: Access, size: int, seconds: float, pid: int) -> dict[str, float]:
    """Keeps a window of calls in flight."""
    _socket, wire, wait = line(access)
    body, number = os.urandom(size), 0

    def ask(count: int) -> None:
        nonlocal number
        batch = []
        for _ in range(count):
            number += 1
            header = mdp03.pack(spec.REQUEST, id=number, ttl=60_000, service=b"echo")
            batch.append([header, body])
        wire.send(batch)

    def answered() -> int:
        wait(1000)
        heads = [mdp03.parse(frames[0]) for frames in wire.receive(256)]
        return sum(head.command == spec.FINAL and head.code == spec.OK for head in heads)

    def run(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            count = answered()
            done += count
            ask(count)
        return done

    ask(SIZES[size])
    run(time.perf_counter() + WARM_UP)
    began, cpu = time.perf_counter(), cpu_seconds(pid)
    done = run(began + seconds)
    took = time.perf_counter() - began
    return {
        "requests_per_second": round(done / took, 1),
        "broker_us_per_request": round((cpu_seconds(pid) - cpu) / max(1, done) * 1e6, 2),
    }


def connect(access: Access, seconds: float, pid: int) -> dict[str, float]:
    """Opens connections, AT_A_TIME, asks once over each and closes it."""
    question = mdp03.pack(spec.REQUEST, id=1, ttl=60_000, service=b"mmi.service")
    done, began, cpu = 0, time.perf_counter(), cpu_seconds(pid)
    while time.perf_counter() - began < seconds:
        opened = [line(access) for _ in range(AT_A_TIME)]
        for socket, *_ in opened:
            socket.send_multipart([question, b"echo"])
        for socket, *_ in opened:
            if not socket.poll(10_000):
                raise TimeoutError("a connection gives no answer")
            done += 1
        for socket, *_ in opened:
            socket.close()
    return {
        "connections_per_second": round(done / (time.perf_counter() - began), 1),
        "broker_us_per_connection": round((cpu_seconds(pid) - cpu) / done * 1e6, 1),
    }


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, by its CPU clock: /proc counts in steps of 10 ms."""
    return time.clock_gettime(~pid << 3 | 2)


# ── the run ───────────────────────────────────────────────────────────────────────────────────────


def measure(place: Place, kind: str, seconds: float, sizes: Sequence[int]) -> dict[str, float]:
    """One round of one kind, with a broker of its own."""
    found: dict[str, float] = {}
    with peers.running(place.peer(kind)) as broker:
        worker = place.child(kind, "work", broker.port)
        try:
            for size in sizes:
                arguments = ("--size", size, "--seconds", seconds, "--pid", broker.pid)
                told = _told(place.child(kind, "call", broker.port, *arguments))
                found |= {f"{name}_{size}": value for name, value in told.items()}
            alone = ("--seconds", seconds, "--pid", broker.pid)
            found |= _told(place.child(kind, "connect", broker.port, *alone))
        finally:
            worker.kill()
            worker.communicate()
    return found


def _told(process: subprocess.Popen[bytes]) -> dict[str, float]:
    output, _ = process.communicate(timeout=120)
    if process.returncode:
        raise RuntimeError(f"the load ended with {process.returncode}")
    told: dict[str, float] = json.loads(output)
    return told


def run(seconds: float, rounds: int, sizes: Sequence[int]) -> dict[str, Any]:
    """All kinds in turns; medians, and the processor time of a connection in each round."""
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        seen: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for _ in range(rounds):
            for kind in KINDS:
                seen[kind].append(measure(place, kind, seconds, sizes))
    results = [
        {
            "kind": kind,
            **{name: statistics.median(one[name] for one in all) for name in all[0]},
            "rounds": [one["broker_us_per_connection"] for one in all],
        }
        for kind, all in seen.items()
    ]
    return {"machine": where, "seconds": seconds, "rounds": rounds, "results": results}


def show(told: dict[str, Any]) -> None:
    """One line a kind."""
    for result in told["results"]:
        sizes = "   ".join(
            f"{size:6,} B: {result[f'requests_per_second_{size}']:9,.0f}/s "
            f"{result[f'broker_us_per_request_{size}']:6.1f} µs"
            for size in SIZES
            if f"requests_per_second_{size}" in result
        )
        print(
            f"{result['kind']:18} {sizes}   {result['connections_per_second']:6,.0f} conn/s"
            f" {result['broker_us_per_connection']:6.0f} µs each"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", action="store_true", help="leave the requests out")
    parser.add_argument("--role", choices=("work", "call", "connect"), help=argparse.SUPPRESS)
    for name in ("port", "size", "pid"):
        parser.add_argument(f"--{name}", type=int, default=0, help=argparse.SUPPRESS)
    for name in ("server-key", "key"):
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role is None:
        told = run(given.seconds, given.rounds, () if given.connections else tuple(SIZES))
        show(told)
        OUTPUT.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
        return
    url = f"tcp://127.0.0.1:{given.port}"
    access = Access(url, given.server_key, given.key or None)
    if given.role == "work":
        work(access)
    elif given.role == "call":
        print(json.dumps(call(access, given.size, given.seconds, given.pid)))
    else:
        print(json.dumps(connect(access, given.seconds, given.pid)))


if __name__ == "__main__":
    main()
