"""What a broker does under siege: half-open connections by the thousand, and messages without an
end.

Prints what honest callers notice, and how soon and at what cost of memory the others are cut off.
`python -m benchmarks.siege`; `--connections` and `--seconds` make it short.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from majordomus import Client, Request, Worker

ROOT: Final = Path(__file__).parent.parent
GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY: Final = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
FRAME: Final = b"\x03" + (65536).to_bytes(8, "big") + bytes(65536)
"""One part of a message that has more."""
MIB: Final = 1024 * 1024
HANDSHAKE: Final = 3.0
"""Seconds that libzmq gives a handshake."""
CALLS_PER_SECOND: Final = 200


@contextmanager
def broker(*flags: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A broker in a process of its own, and its port."""
    command = [sys.executable, "-m", "majordomus.cli", "broker", "--bind", "tcp://127.0.0.1:*"]
    process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        yield process, int(line.rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def resident(process: subprocess.Popen[bytes]) -> int:
    """Bytes of the process that are in memory."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


# ── a message without an end ──────────────────────────────────────────────────────────────────────


def connected(port: int, path: str) -> socket.socket:
    """A connection to the Unix socket at `path`; to the port without one."""
    if not path:
        return socket.create_connection(("127.0.0.1", port))
    made = socket.socket(socket.AF_UNIX)
    made.connect(path)
    return made


def endless(port: int, per_second: float, limit: float, path: str) -> tuple[float, int]:
    """Sends one at so many bytes a second. Seconds until the broker cut it off, and bytes sent."""
    with connected(port, path) as peer:
        peer.settimeout(limit)
        peer.sendall(GREETING)
        got = b""
        while len(got) < len(GREETING):
            got += peer.recv(len(GREETING) - len(got))
        peer.sendall(b"\x04" + bytes([len(READY)]) + READY)
        peer.recv(4096)
        began, sent = time.monotonic(), 0
        try:
            while time.monotonic() - began < limit:
                peer.sendall(FRAME)
                sent += len(FRAME)
                ahead = sent / per_second - (time.monotonic() - began)
                if ahead > 0:
                    time.sleep(ahead)
        except OSError:
            return time.monotonic() - began, sent
        return float("inf"), sent


def endless_message(
    per_second: float = 100e6, limit: float = 5.0, path: str = ""
) -> dict[str, float]:
    """One broker, one attacker, who comes by the Unix socket `path` if there is one; memory is
    looked at every 5 ms."""
    with broker(*(["--bind", f"ipc://{path}"] if path else [])) as (process, port):
        with Client(f"tcp://127.0.0.1:{port}", timeout=10) as client:
            client.ping()
            before = resident(process)
            most = before
            over = threading.Event()

            def look() -> None:
                nonlocal most
                while not over.wait(0.005):
                    most = max(most, resident(process))

            looker = threading.Thread(target=look)
            looker.start()
            try:
                took, sent = endless(port, per_second, limit, path)
            finally:
                over.set()
                looker.join()
            client.ping()
        return {"cut_after_s": took, "sent_mib": sent / MIB, "grown_mib": (most - before) / MIB}


# ── half-open connections ─────────────────────────────────────────────────────────────────────────


def besiege(port: int, connections: int) -> None:
    """Runs in a process of its own: holds so many connections that never say a word, as far as the
    broker lets it. Each is opened anew when a handshake's time is over, evenly spread."""
    os.nice(19)  # it would be another machine's processor
    held: deque[socket.socket] = deque()
    began, opened, told = time.monotonic(), 0, False
    while True:
        due = int((time.monotonic() - began) * connections / HANDSHAKE) + 1
        if opened * HANDSHAKE >= connections and not told:
            told = True
            print("a second's worth is open", flush=True)
        while opened < due:
            opened += 1
            peer = socket.socket()
            try:
                peer.bind(("127.0.0.2", 0))
                peer.setblocking(False)
                peer.connect_ex(("127.0.0.1", port))
            except OSError:
                peer.close()
                continue
            held.append(peer)
            if len(held) > connections:
                held.popleft().close()
        time.sleep(0.005)


def p99_of(client: Client, seconds: float) -> tuple[float, float, int]:
    """Of honest calls, 200 a second, in milliseconds: median, 99th percentile; how many. They leave
    the machine's processors to those whose work is to be judged."""
    taken: list[float] = []
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        time.sleep(max(0.0, len(taken) / CALLS_PER_SECOND - passed))
        sent = time.perf_counter()
        client.call("echo", b"0123456789abcdef")
        taken.append((time.perf_counter() - sent) * 1000)
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98], len(taken)


def half_open(connections: int, seconds: float, *flags: str) -> dict[str, float]:
    """The same calls before and during the siege, of a broker with these flags."""
    with ExitStack() as stack:
        _, port = stack.enter_context(broker(*flags))
        url = f"tcp://127.0.0.1:{port}"
        worker = Worker(url)

        @worker.service("echo")
        def echo(request: Request) -> bytes:
            return request.body

        stack.enter_context(worker)
        client = stack.enter_context(Client(url, timeout=30))
        p99_of(client, 0.5)
        calm = p99_of(client, seconds)
        attack = [sys.executable, "-m", "benchmarks.siege", "--besiege", str(port)]
        attack += ["--connections", str(connections)]
        with subprocess.Popen(attack, cwd=ROOT, stdout=subprocess.PIPE) as attacker:
            try:
                assert attacker.stdout is not None
                attacker.stdout.readline()
                siege = p99_of(client, seconds)
            finally:
                attacker.kill()
        stats = json.loads(client.call("mmi.stats").frames[1])
    cut = stats.get("dropped", {}).get("too-many-handshakes", 0)
    return {
        "calm_p50_ms": calm[0],
        "calm_p99_ms": calm[1],
        "siege_p50_ms": siege[0],
        "siege_p99_ms": siege[1],
        "p99_ratio": siege[1] / calm[1],
        "cut": cut,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--besiege", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if asked.besiege:
        besiege(asked.besiege, asked.connections)
        return
    print("a message without an end, 100 MB/s")
    for name, value in endless_message().items():
        print(f"  {name:14} {value:8.3f}")
    print(f"{asked.connections} half-open connections of one address")
    for name, value in half_open(asked.connections, asked.seconds).items():
        print(f"  {name:14} {value:8.3f}")


if __name__ == "__main__":
    main()
