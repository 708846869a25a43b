"""What peers without rights cost a broker at a plain TCP endpoint, and what honest callers notice.

Each flood runs in a process of its own against a new broker of default settings. Before and during
it an honest client calls an honest worker 200 times a second. Printed are the latencies of both,
and the memory that the broker held at most. The last row is all of them together.
`python -m benchmarks.floods`; `--only NAME,NAME` and `--seconds` make it short; `--page` prints the
table of docs/proof/floods.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from benchmarks.siege import GREETING, MIB, READY, broker, p99_of, resident
from majordomus import Client, Request, Worker
from majordomus.protocol import mdp03, spec

ROOT: Final = Path(__file__).parent.parent
STATED: Final = 2048 * MIB
"""The size below which a broker of default settings stays (docs/limits.md)."""
GOAL: Final = 5.0
"""How many times as long as in quiet an honest call may take at the median."""
HOUR: Final = 3_600_000
GROWN: Final = 1200 * MIB
"""The growth at which the last row ends early: the account and the buffers are full."""
LONGEST: Final = 30.0
"""Seconds that floods have to make a broker hold what they are meant to."""
SETTLE: Final = 1.0
"""Seconds between the start of a flood and the first honest call that is measured."""

Flood = Callable[[int, float], None]
"""A flood of the broker at a port, for so many seconds."""

LARGEST = 16 * MIB
"""The largest message that the broker takes; `--largest` is for one of other settings."""


# ── a peer by hand ────────────────────────────────────────────────────────────────────────────────


def frame(body: bytes, more: bool = False) -> bytes:
    """One frame of ZMTP."""
    if len(body) < 256:
        return bytes([more, len(body)]) + body
    return bytes([2 | more]) + struct.pack(">Q", len(body)) + body


def message(*frames: bytes) -> bytes:
    """One message of ZMTP."""
    return b"".join(frame(one, n < len(frames) - 1) for n, one in enumerate(frames))


class Peer:
    """A connection of a peer without rights. Its own buffers are small, so that what it does not
    read stays with the broker."""

    def __init__(self, port: int, *, shake: bool = True, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket()
        self.socket.bind((host, 0))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(5.0)
        self.socket.connect(("127.0.0.1", port))
        if shake:
            self.socket.sendall(GREETING + b"\x04" + bytes([len(READY)]) + READY)
            self.read_exactly(64 + 2)
            self.socket.recv(256)

    def read_exactly(self, size: int) -> None:
        while size:
            got = len(self.socket.recv(size))
            if not got:
                raise ConnectionError
            size -= got

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_while(self, data: bytes, until: float) -> None:
        """Send the same bytes again and again, as fast as the broker takes them."""
        while time.monotonic() < until:
            self.socket.sendall(data)

    def drain(self) -> None:
        """Read and drop everything from now on."""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        self.socket.settimeout(None)
        with suppress(OSError):
            while self.socket.recv(1 << 20):
                pass

    def beat(self, until: float) -> None:
        """Send heartbeats of a worker from now on."""

        def run() -> None:
            with suppress(OSError):
                while time.monotonic() < until:
                    self.socket.sendall(message(mdp03.pack(spec.HEARTBEAT, code=0xFFFF)))
                    time.sleep(1.0)

        threading.Thread(target=run, daemon=True).start()


def request(id: int, service: bytes, *body: bytes, ttl: int = HOUR, **fields: object) -> bytes:
    return message(mdp03.pack(spec.REQUEST, id=id, ttl=ttl, service=service, **fields), *body)  # type: ignore[arg-type]


def connected(port: int, count: int, make: Callable[[int], Peer] = Peer) -> list[Peer]:
    """Make so many connections, however often the broker ends one."""
    peers: list[Peer] = []
    while len(peers) < count:
        try:
            peers.append(make(port))
        except OSError:
            time.sleep(0.02)
    return peers


def hello(port: int) -> Peer:
    peer = Peer(port)
    peer.send(message(mdp03.pack(spec.HELLO)))
    peer.socket.recv(4096)
    return peer


def silent_worker(port: int, service: bytes, capacity: int, until: float) -> Peer:
    """A worker that takes requests and never answers."""
    (peer,) = connected(port, 1)
    peer.send(message(mdp03.pack(spec.READY, code=capacity, service=service)))
    peer.drain()
    peer.beat(until)
    return peer


def repeat(until: float, attempt: Callable[[], object]) -> None:
    """Attempt something again and again; a connection that the broker ends is no reason to end."""
    while time.monotonic() < until:
        try:
            attempt()
        except OSError:
            time.sleep(0.02)


# ── floods ────────────────────────────────────────────────────────────────────────────────────────


def empty_frames(port: int, seconds: float) -> None:
    """A message of empty frames without an end."""
    until = time.monotonic() + seconds
    data = b"\x01\x00" * 50_000
    repeat(until, lambda: Peer(port).send_while(data, until))


def empty_messages(port: int, seconds: float) -> None:
    """Messages of one empty frame."""
    until = time.monotonic() + seconds
    data = b"\x00\x00" * 50_000
    repeat(until, lambda: Peer(port).send_while(data, until))


def pings(port: int, seconds: float) -> None:
    """PING commands of ZMTP whose PONGs are not read."""
    until = time.monotonic() + seconds
    data = (b"\x04\x17\x04PING\x00\x00" + b"c" * 16) * 2000
    repeat(until, lambda: Peer(port).send_while(data, until))


def metadata_bombs(port: int, seconds: float) -> None:
    """Requests whose metadata are as deep, and as wide, as they may be."""
    until = time.monotonic() + seconds
    deep = b"\x81\xa1k" + b"\x91" * 4000 + b"\xc0"
    wide = b"\x81\xa1k\xdc\x0f\x00" + b"\xc0" * 3840
    many = b"\xde\x02\x58" + b"".join(b"\xa2" + struct.pack(">H", n) + b"\x90" for n in range(600))
    flags = spec.METADATA | spec.FAIL_FAST
    data = b"".join(
        request(n + 1, b"nosuch", ttl=1000, flags=flags, metadata=one)
        for n, one in enumerate((deep, wide, many) * 8)
    )

    def attempt() -> None:
        peer = Peer(port)
        peer.drain()
        peer.send_while(data, until)

    repeat(until, attempt)


def patterns(port: int, seconds: float) -> None:
    """Subscriptions with as many wildcards as are allowed, and events that match them all."""
    until = time.monotonic() + seconds
    names = [
        ".".join("*" if n >> bit & 1 else "a" for bit in range(10)).encode() + b".>"
        for n in range(1024)
        if n.bit_count() <= 3
    ]
    peers = connected(port, 8, hello)
    for peer in peers:
        peer.drain()
        peer.send(b"".join(message(mdp03.pack(spec.SUBSCRIBE, service=one)) for one in names))
    event = message(mdp03.pack(spec.EVENT, service=b"a.a.a.a.a.a.a.a.a.a.a"), b"x")
    repeat(until, lambda: peers[0].send_while(event * 20, until))


def questions(port: int, seconds: float) -> None:
    """mmi questions, whose answers are read."""
    until = time.monotonic() + seconds
    names = (b"mmi.services", b"mmi.workers", b"mmi.explain", b"mmi.stats", b"mmi.broker")
    data = b"".join(request(n + 1, names[n % 5], ttl=5000) for n in range(100))

    def attempt() -> None:
        peer = Peer(port)
        peer.drain()
        peer.send_while(data, until)

    repeat(until, attempt)


def unread_answers(port: int, seconds: float) -> None:
    """Calls of the flood's own worker with large bodies, whose answers are not read."""
    until = time.monotonic() + seconds
    data = request(1, b"mirror", bytes(60_000), ttl=5000)
    peers = connected(port, 8)
    worker = Worker(f"tcp://127.0.0.1:{port}")
    worker.add("mirror", _mirror)

    def attempt() -> None:
        for n, peer in enumerate(peers):
            try:
                peer.send(data)
            except OSError:
                peers[n] = Peer(port)

    with worker:
        repeat(until, attempt)


async def _mirror(request: Request) -> bytes:
    return request.body


def queued(port: int, seconds: float) -> None:
    """Requests with large bodies that wait for a worker whose one slot is taken."""
    until = time.monotonic() + seconds
    silent_worker(port, b"full", 1, until)
    _fill(port, b"full", until)


def dispatched(port: int, seconds: float) -> None:
    """Requests with large bodies at a worker that takes all of them and answers none."""
    until = time.monotonic() + seconds
    silent_worker(port, b"abyss", 0xFFFF, until)
    _fill(port, b"abyss", until)


def _fill(port: int, service: bytes, until: float) -> None:
    """Clients send what they may; each refusal costs them a new id."""
    peers = connected(port, 8)
    for peer in peers:
        peer.drain()
    body, id = bytes(LARGEST // 16), 0

    def attempt() -> None:
        nonlocal id
        for n, peer in enumerate(peers):
            id += 1
            try:
                peer.send(request(id, service, body))
            except OSError:
                peers[n] = Peer(port)
                peers[n].drain()
        time.sleep(0.005)

    repeat(until, attempt)


def non_readers(port: int, seconds: float) -> None:
    """Subscribers that read nothing, and events for them."""
    until = time.monotonic() + seconds
    peers = connected(port, 100, hello)
    for peer in peers:
        peer.send(message(mdp03.pack(spec.SUBSCRIBE, service=b"flood.>")))
    (publisher,) = connected(port, 1, hello)
    publisher.drain()
    event = message(mdp03.pack(spec.EVENT, service=b"flood.x"), bytes(64 * 1024))
    repeat(until, lambda: publisher.send_while(event, until))


def subscriptions(port: int, seconds: float) -> None:
    """Sessions with as many subscriptions as each may have."""
    until = time.monotonic() + seconds
    held: list[Peer] = []

    def attempt() -> None:
        if len(held) >= 400:
            time.sleep(0.1)
            return
        peer = hello(port)
        peer.drain()
        held.append(peer)
        names = [b"p%d.s%d.%s.>" % (len(held), n, b"x" * 200) for n in range(1000)]
        peer.send(b"".join(message(mdp03.pack(spec.SUBSCRIBE, service=one)) for one in names))

    repeat(until, attempt)


def unfinished(port: int, seconds: float) -> None:
    """Messages of the largest size whose last byte does not come."""
    until = time.monotonic() + seconds
    part = b"\x02" + struct.pack(">Q", LARGEST) + bytes(LARGEST - 1)
    held: list[Peer] = []

    def attempt() -> None:
        peer = Peer(port)
        held.append(peer)
        peer.send(part)

    repeat(until, attempt)


def half_open(port: int, seconds: float) -> None:
    """Connections without a handshake, of an address of their own."""
    until = time.monotonic() + seconds
    held: list[Peer] = []

    def attempt() -> None:
        if len(held) > 4000:
            del held[:1000]
        held.append(Peer(port, shake=False, host="127.0.0.2"))

    repeat(until, attempt)


def endless(port: int, seconds: float) -> None:
    """A message of 64 KiB frames without an end."""
    until = time.monotonic() + seconds
    data = frame(bytes(65_536), more=True)
    repeat(until, lambda: Peer(port).send_while(data, until))


def oversized(port: int, seconds: float) -> None:
    """Requests with bodies of more than twice the largest size."""
    until = time.monotonic() + seconds
    data = request(1, b"echo", bytes(LARGEST * 5 // 2), ttl=5000)

    def attempt() -> None:
        peer = Peer(port)
        peer.drain()
        peer.send_while(data, until)

    repeat(until, attempt)


FLOODS: Final[dict[str, Flood]] = {
    made.__name__.replace("_", "-"): made
    for made in (
        empty_frames,
        empty_messages,
        pings,
        metadata_bombs,
        patterns,
        questions,
        unread_answers,
        queued,
        dispatched,
        non_readers,
        subscriptions,
        unfinished,
        half_open,
        endless,
        oversized,
    )
}
HOLDERS: Final = (
    "queued",
    "dispatched",
    "non-readers",
    "subscriptions",
    "patterns",
    "questions",
    "unread-answers",
    "unfinished",
    "half-open",
)
"""Those that make a broker hold memory: all of them at once are the last row."""


# ── measurement ───────────────────────────────────────────────────────────────────────────────────


class Result:
    """quiet, during: p50 and p99 in milliseconds. before, most: resident bytes of the broker."""

    def __init__(self, name: str, does: str) -> None:
        self.name, self.does = name, does
        self.quiet = self.during = (0.0, 0.0)
        self.before = self.most = 0

    @property
    def ratio(self) -> float:
        return self.during[0] / self.quiet[0] if self.quiet[0] else 0.0

    def row(self) -> str:
        cells = (
            f"`{self.name}`",
            self.does,
            f"{self.before / MIB:.0f}",
            f"{self.most / MIB:.0f}",
            *(f"{p50:.2f} / {p99:.2f}" if p50 else "-" for p50, p99 in (self.quiet, self.during)),
            f"{self.ratio:.1f}" if self.ratio else "-",
        )
        return f"| {' | '.join(cells)} |"


HEAD: Final = (
    "| flood | what it does | MiB before | MiB at most | quiet p50 / p99, ms | during, ms |"
    " p50 × |\n"
    "|---|---|---|---|---|---|---|"
)


class Watch:
    """Samples the memory of a process every 10 ms. ``most``: the largest sample, in bytes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.before = self.most = resident(process)
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        with suppress(OSError):
            while not self._over.wait(0.01):
                self.most = max(self.most, resident(self._process))


def start(
    name: str, port: int, seconds: float, largest: int, *, polite: bool
) -> subprocess.Popen[bytes]:
    """Start a flood in a process of its own, which prints a line when it begins. `polite`: at the
    lowest priority, because it would be another machine's processor."""
    command = [sys.executable, "-m", "benchmarks.floods", "--flood", name]
    command += ["--port", str(port), "--seconds", str(seconds)]
    command += ["--largest", str(largest), *(["--polite"] if polite else [])]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def measure(
    names: Iterable[str],
    seconds: float,
    *flags: str,
    calls: bool = True,
    largest: int = LARGEST,
    grown: int = 0,
) -> Result:
    """Measure some floods at once, against a new broker with these flags.

    Without `calls` there are no honest ones, and the floods go on until the broker has grown by so
    many bytes, for LONGEST at most, and then for `seconds`.
    """
    chosen = list(names)
    one = len(chosen) == 1
    does = (FLOODS[chosen[0]].__doc__ or "").strip().rstrip(".").replace("\n    ", " ")
    made = Result(chosen[0] if one else "all", does if one else "all that hold memory, at once")
    with ExitStack() as stack:
        process, port = stack.enter_context(broker(*flags))
        url = f"tcp://127.0.0.1:{port}"
        worker = Worker(url)

        @worker.service("echo")
        def echo(request: Request) -> bytes:
            return request.body

        stack.enter_context(worker)
        client = stack.enter_context(Client(url, timeout=30))
        client.call("echo", b"x")
        if calls:
            p99_of(client, 0.5)
            made.quiet = p99_of(client, seconds)[:2]
        watch = stack.enter_context(Watch(process))
        made.before = watch.before
        floods = [start(name, port, LONGEST + seconds, largest, polite=calls) for name in chosen]
        try:
            for flood in floods:
                assert flood.stdout is not None
                flood.stdout.readline()
            time.sleep(SETTLE)
            if calls:
                made.during = p99_of(client, seconds)[:2]
            else:
                until = time.monotonic() + LONGEST
                while watch.most - watch.before <= grown and time.monotonic() < until:
                    time.sleep(0.05)
                time.sleep(seconds)
            if process.poll() is not None:
                raise RuntimeError(f"the broker has ended with {process.returncode}")
        finally:
            for flood in floods:
                flood.kill()
            for flood in floods:
                flood.communicate()
        made.most = watch.most
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="names of floods, with commas between them")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--page", action="store_true", help="print the table of the page")
    parser.add_argument("--flood", choices=FLOODS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--largest", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--polite", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if asked.flood:
        os.nice(19 if asked.polite else 0)
        print("begun", flush=True)
        globals()["LARGEST"] = asked.largest
        FLOODS[asked.flood](asked.port, asked.seconds)
        return 0
    chosen = asked.only.split(",") if asked.only else [*FLOODS, "all"]
    print(HEAD, flush=True)
    bad: list[str] = []
    for name in chosen:
        if name == "all":  # until the account is full, or LONGEST has passed
            found = measure(HOLDERS, asked.seconds, calls=False, grown=GROWN)
        else:
            found = measure([name], asked.seconds)
        print(found.row(), flush=True)
        if found.most > STATED:
            bad.append(f"{name}: {found.most / MIB:.0f} MiB")
        if name != "all" and found.ratio > GOAL:
            bad.append(f"{name}: {found.ratio:.1f} times as long as in quiet")
    if bad and not asked.page:
        print("beyond the goals:", "; ".join(bad))
    return 0


if __name__ == "__main__":
    sys.exit(main())
