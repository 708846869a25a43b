"""What half-open and garbage CURVE handshakes cost a broker, and what honest callers notice.

`python -m benchmarks.handshakes` holds 10,000 half-open handshakes, then sends a million garbage
ones, and prints a table for each: docs/proof/handshakes.md. `--half-open` and `--garbage` make it
short. The peers come from 64 addresses of loopback. They have the lowest priority, since they would
be another machine's processor.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from zmq.utils import z85

from benchmarks.siege import HANDSHAKE, MIB, ROOT, broker, p99_of, resident
from majordomus import Client, Request, Worker
from majordomus.net.zmq import key_pairs
from majordomus.net.zmtp.mechanisms import CurveClient
from majordomus.security import certificates

ADDRESSES: Final = 64
WINDOW: Final = 32
"""Garbage handshakes that are open at once."""
ANSWER: Final = 5.0
"""Seconds within which the broker answers or ends a garbage handshake."""
_LINGER: Final = struct.pack("ii", 1, 0)
IP_BIND_ADDRESS_NO_PORT: Final = 24


def greeting(mechanism: bytes = b"CURVE") -> bytes:
    return b"\xff" + bytes(8) + b"\x7f\x03\x01" + mechanism.ljust(20, b"\0") + bytes(32)


def command(body: bytes) -> bytes:
    """A command frame of ZMTP."""
    if len(body) < 256:
        return bytes([4, len(body)]) + body
    return b"\x06" + len(body).to_bytes(8) + body


def hello(server_key: bytes) -> bytes:
    """Greeting and HELLO of a client that has no right to connect. It may be sent again and again:
    the broker cannot know, and has to open its box each time."""
    pair = key_pairs.make()
    public, secret = (z85.decode(key.encode()) for key in (pair.public, pair.secret))
    return greeting() + bytes(CurveClient(server_key, public, secret, b"DEALER", b"").begin())


# ── the peers, in a process of their own ──────────────────────────────────────────────────────────


def connected(port: int, number: int) -> socket.socket:
    peer = socket.socket()
    peer.settimeout(ANSWER)
    peer.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    peer.bind((f"127.1.0.{1 + number % ADDRESSES}", 0))
    peer.connect(("127.0.0.1", port))
    return peer


def hold(port: int, server_key: bytes, connections: int) -> None:
    """Hold so many half-open handshakes until the process is killed. Each is opened anew when its
    time is over: connections that come and go at once are the matter of `scatter`."""
    said = hello(server_key)
    held: deque[tuple[float, socket.socket]] = deque()
    number = told = 0
    while True:
        now = time.monotonic()
        while held and held[0][0] < now - HANDSHAKE - 0.5:
            held.popleft()[1].close()
        if len(held) >= connections:
            time.sleep(0.001)
            continue
        peer = connected(port, number)
        peer.sendall(said)
        held.append((now, peer))
        number += 1
        if number >= connections and not told:
            told = 1
            print("held", flush=True)


def garbage_of(rng: random.Random, said: bytes) -> tuple[bytes, bool]:
    """What one peer sends, and whether the broker ends the connection for it."""
    kind = rng.randrange(7)
    head = len(greeting())
    if kind == 0:
        return b"\x01" + rng.randbytes(rng.randrange(64, 400)), True
    if kind == 1:
        return greeting() + b"\x04" + rng.randbytes(rng.randrange(260, 400)), True
    if kind == 2:
        forged = bytearray(said)
        forged[rng.randrange(len(said) - 80, len(said))] ^= 1 << rng.randrange(8)
        return bytes(forged), True
    if kind == 3:
        return said, False
    if kind == 4:
        return said + command(b"\x08INITIATE" + rng.randbytes(rng.randrange(248, 600))), True
    if kind == 5:
        return greeting(rng.choice((b"NULL", b"PLAIN"))) + said[head:], True
    return said[: rng.randrange(12, head)], False


def scatter(port: int, server_key: bytes, count: int, seed: int) -> None:
    """Open `count` garbage handshakes, WINDOW at a time; print a line when they have begun, and how
    many the broker has ended at the end."""
    rng = random.Random(seed)
    said = hello(server_key)
    waiting: deque[tuple[socket.socket, bool]] = deque()
    ended = 0

    def finish() -> None:
        nonlocal ended
        peer, ends = waiting.popleft()
        with peer:
            with suppress(ConnectionError, TimeoutError):
                while True:
                    if not peer.recv(4096):
                        ended += ends
                        break
                    if not ends:
                        break
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)

    print("begun", flush=True)
    for number in range(count):
        if len(waiting) >= WINDOW:
            finish()
        sent, ends = garbage_of(rng, said)
        peer = connected(port, number)
        with suppress(ConnectionError):
            peer.sendall(sent)
        waiting.append((peer, ends))
    while waiting:
        finish()
    print(ended, flush=True)


# ── measurement ───────────────────────────────────────────────────────────────────────────────────


class Seen(NamedTuple):
    """Latencies are in milliseconds, memory in bytes."""

    calm: tuple[float, float, int]
    during: tuple[float, float, int]
    before: int
    memory: list[tuple[float, int, int]]
    """Seconds since the beginning, resident bytes, and descriptors of the broker."""
    seconds: float

    @property
    def ratio(self) -> float:
        return self.during[1] / self.calm[1]

    @property
    def most(self) -> int:
        return max(bytes_ for _, bytes_, _ in self.memory)

    @property
    def connections(self) -> int:
        return max(descriptors for _, _, descriptors in self.memory)


@contextmanager
def honest() -> Iterator[tuple[subprocess.Popen[bytes], int, bytes, Client]]:
    """An encrypted broker, its port and key, and a client that calls an honest worker."""
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory()), "broker")
        pair = key_pairs.make()
        certificates.write(path, pair)
        process, port = stack.enter_context(broker("--curve", "--certificate", str(path)))
        url = f"tcp://127.0.0.1:{port}"
        worker = Worker(url, server_key=pair.public)

        @worker.service("echo")
        def echo(request: Request) -> bytes:
            return request.body

        stack.enter_context(worker)
        client = stack.enter_context(Client(url, server_key=pair.public, timeout=30))
        p99_of(client, 0.5)
        yield process, port, z85.decode(pair.public.encode()), client


def attack(kind: str, count: int, seed: int, seconds: float, on_end: Callable[[str], None]) -> Seen:
    """Measure honest calls without and with such peers: until the peers have ended; for `seconds`
    where they hold on."""
    with honest() as (process, port, key, client):
        calm = p99_of(client, seconds)
        before = resident(process)
        argv = [sys.executable, "-m", "benchmarks.handshakes", "--attack", kind]
        argv += ["--port", str(port), "--key", key.hex()]
        argv += ["--count", str(count), "--seed", str(seed)]
        memory: list[tuple[float, int, int]] = []
        taken: list[tuple[float, float, int]] = []
        with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) as peers:
            try:
                assert peers.stdout is not None
                peers.stdout.readline()
                began = time.monotonic()
                until = began + seconds
                while peers.poll() is None and (kind != "hold" or time.monotonic() < until):
                    taken.append(p99_of(client, max(0.5, min(seconds, 5.0))))
                    memory.append(
                        (time.monotonic() - began, resident(process), descriptors(process))
                    )
                passed = time.monotonic() - began
                if kind != "hold":
                    on_end(peers.stdout.read().decode().strip())
            finally:
                peers.kill()
    ranked = sorted(taken, key=lambda one: one[1])
    middle = ranked[len(ranked) // 2]
    during = (middle[0], middle[1], sum(one[2] for one in taken))
    return Seen(calm, during, before, memory, passed)


def descriptors(process: subprocess.Popen[bytes]) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))  # noqa: PTH208 - names alone are counted


def line(what: str, seen: Seen) -> str:
    p50s = f"{seen.calm[0]:.2f} / {seen.calm[1]:.2f} | {seen.during[0]:.2f} / {seen.during[1]:.2f}"
    return (
        f"| {what} | {seen.seconds:.0f} | {seen.before / MIB:.1f} | {seen.most / MIB:.1f}"
        f" | {p50s} | {seen.ratio:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--half-open", type=int, default=10_000)
    parser.add_argument("--garbage", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--attack", choices=("hold", "scatter"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--key", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if asked.attack:
        os.nice(19)
        key = bytes.fromhex(asked.key)
        if asked.attack == "hold":
            hold(asked.port, key, asked.count)
        else:
            scatter(asked.port, key, asked.count, asked.seed)
        return
    print("| peers | s | MiB before | MiB at most | quiet p50 / p99, ms | during, ms | p99 × |")
    print("|---|---|---|---|---|---|---|")
    if asked.half_open:
        seen = attack("hold", asked.half_open, asked.seed, asked.seconds, print)
        print(line(f"{seen.connections:,} half-open", seen))
        each = (seen.most - seen.before) / max(1, seen.connections)
        print(f"\n{each:,.0f} bytes of the broker for each half-open handshake\n")
    if asked.garbage:
        ended: list[str] = []
        seen = attack("scatter", asked.garbage, asked.seed, asked.seconds, ended.append)
        print(line(f"{asked.garbage:,} garbage", seen))
        print(f"\n{ended[0]} of them were ended by the broker. Its memory:\n")
        print("| s | MiB |\n|---|---|")
        step = max(1, len(seen.memory) // 10)
        for at, bytes_, _ in seen.memory[::step]:
            print(f"| {at:.0f} | {bytes_ / MIB:.1f} |")


if __name__ == "__main__":
    main()
