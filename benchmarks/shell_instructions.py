"""How many instructions a Python client and worker spend on one call: python -m
benchmarks.shell_instructions.

Counted by callgrind as benchmarks/instructions.py does it, from `AsyncClient.call` to its reply and
from a request's frames to its answer's, with the event loop and the caller's tasks and without a
socket: in the place of the line's connection is a peer that answers (or asks) 64 times in one turn
of the loop. The sync client calls from its only thread, one call at a time; in the place of its
link is a peer that has the answer at once. MDP/0.3, 16-byte bodies. What the peer of a client
spends on an answer is counted too, alone: it is in the figure, and is printed beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path
from typing import Any, Final

from benchmarks.instructions import count_process, verdict
from majordomus import AsyncClient, AsyncWorker, Client, Request
from majordomus.core.session.connection import Probe
from majordomus.net.connection import async_link, link
from majordomus.net.zmq.monitor import MonitorEvent, MonitorRecord
from majordomus.protocol import mdp03, spec

IN_FLIGHT: Final = 64
FEW, MANY = 2_560, 7_680
BODY: Final = b"sixteen bytes ok"
CALLS: Final = {
    "client": "a call of an asyncio client",
    "sync": "a call of a sync client",
    "worker": "a call that a worker serves",
}
"""What is counted, by the end that does it: benchmarks/instructions.json has the bounds."""
ENDS: Final = tuple(CALLS)
PEERS: Final = {"client's peer": 16, "sync's peer": 1}
"""The requests that come together to the peer of each client."""
HEAD, TAIL = (mdp03.pack(spec.FINAL, code=200)[part] for part in (slice(8), slice(16, None)))


class Loopback:
    """Takes the place of a `SessionConnection` (net/connection/link.py). `peer` gets what is sent;
    what it returns is received, all together, in the next turn of the loop."""

    peer: Callable[[list[list[bytes]]], list[list[bytes]]]
    last: Loopback

    def __init__(self, session: Any, *_: object) -> None:
        self.session = session
        self.up = True
        self.link = self.refusal = None
        self.stale = False
        self.come: list[list[bytes]] = []
        self.work: Callable[[Callable[[float], object]], None] = lambda _: None
        Loopback.last = self

    def open(self, now: float) -> None:
        self.session.connected(now)

    def close(self) -> None:
        self.session = None

    def put(self, messages: list[list[bytes]]) -> None:
        """They come in the next turn of the loop."""
        if messages and not self.come:
            asyncio.get_running_loop().call_soon(self._come)
        self.come += messages

    def _come(self) -> None:
        self.work(self.receive)

    def receive(self, now: float) -> None:
        come, self.come = self.come, []
        for frames in come:
            self.session.receive(frames, now)

    def flush(self, now: float) -> list[Any]:
        if self.session.next_deadline() <= now:
            self.session.tick(now)
        sends, _, events, _ = self.session.take_effects()
        if sends:
            self.put(Loopback.peer(sends))
        return list(events)

    def next_deadline(self) -> float:
        return float(self.session.next_deadline()) if self.session else inf


class Answering:
    """What a client talks to: every REQUEST is answered with its body."""

    def __call__(self, sends: list[list[bytes]]) -> list[list[bytes]]:
        return [
            [HEAD + frames[0][8:16] + TAIL, *frames[1:]]
            for frames in sends
            if frames[0][4] == spec.REQUEST
        ]


class AnsweringLink:
    """A link (net/connection/link.py, `Link`) whose other end answers at once."""

    edge_triggered = False
    due = inf
    unsent = truncated = received = 0
    fds: tuple[int, ...] = ()
    probe = Probe.NONE

    def __init__(self, url: str, *_: object) -> None:
        self.url = url
        self.up = False
        self._answers = Answering()
        self._come: list[list[bytes]] = []

    def wait_with(self, _fd: int) -> Callable[[int], int]:
        return lambda _milliseconds: 2

    def receive(self, _most: int) -> list[list[bytes]]:
        come, self._come = self._come, []
        return come

    def send(self, batch: list[list[bytes]]) -> list[tuple[int, int]]:
        self._come += self._answers(batch)
        return []

    def bound(self, most: int) -> None:
        pass

    def news(self) -> tuple[MonitorRecord, ...]:
        return () if self.up else (MonitorRecord(MonitorEvent.CONNECTED, 0),)

    def readable(self) -> bool:
        return False

    def close(self) -> None:
        pass


def answers(calls: int, together: int) -> None:
    """The peer of a client alone, for `calls` requests, of which as many come `together`."""
    answer = Answering()
    header = mdp03.pack(spec.REQUEST, id=1, ttl=30_000, service=b"echo")
    batch = [[header, BODY] for _ in range(together)]
    for _ in range(calls // together):
        answer(batch)


def sync(calls: int) -> None:
    """One thread that calls."""
    link.open_link = AnsweringLink  # type: ignore[assignment]
    with Client() as caller:
        for _ in range(calls):
            if caller.call("echo", BODY).body != BODY:
                raise RuntimeError("not what was asked")


async def client(calls: int) -> None:
    """`IN_FLIGHT` tasks that call one after the other."""
    Loopback.peer = staticmethod(Answering())
    async with AsyncClient() as caller:
        Loopback.last.work = caller._runner.connection()._work

        async def ask() -> None:
            for _ in range(calls // IN_FLIGHT):
                if (await caller.call("echo", BODY)).body != BODY:
                    raise RuntimeError("not what was asked")

        await asyncio.gather(*(ask() for _ in range(IN_FLIGHT)))


async def echo(request: Request) -> bytes:
    """Return the body."""
    return request.body


async def worker(calls: int, handler: Callable[[Request], Awaitable[bytes]] = echo) -> None:
    """Requests come `IN_FLIGHT` at a time. `MANY` are made ready, however many are served: to make
    them is no work of the worker's."""
    over = asyncio.Event()
    seen = 0

    def take(sends: list[list[bytes]]) -> list[list[bytes]]:
        nonlocal seen
        finals = 0
        for frames in sends:
            if frames[0][4] == spec.FINAL and frames[1] == BODY:
                finals += 1
        seen += finals
        if seen == calls:
            over.set()
        if seen % IN_FLIGHT or not finals:
            return []
        return messages[seen : min(seen + IN_FLIGHT, calls)]

    Loopback.peer = staticmethod(take)
    serving = AsyncWorker(capacity=1000)
    serving.add("echo", handler)

    async with serving:
        assert serving._active is not None and serving._active._engine is not None
        Loopback.last.work = serving._active._engine._registrations[0].line._work
        messages = [
            [
                mdp03.pack(
                    spec.REQUEST,
                    id=spec.BROKER_ID_BIT | n + 1,
                    ttl=30_000,
                    service=b"echo",
                    address=b"client 1",
                ),
                BODY,
            ]
            for n in range(max(calls, MANY))
        ]
        Loopback.last.put(messages[:IN_FLIGHT])
        await over.wait()


def serve(end: str, calls: int, handler: Callable[[Request], Awaitable[bytes]] = echo) -> None:
    """The workload. `handler` is the worker's."""
    async_link.SessionConnection = Loopback  # type: ignore[assignment,misc]
    gc.freeze()
    if end in PEERS:
        answers(calls, PEERS[end])
        return
    if end == "sync":
        sync(calls)
        return
    work = client(calls) if end == "client" else worker(calls, handler)
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def per_call(end: str, folder: Path) -> float:
    """Instructions of one end for one call: what more calls cost more."""
    few, many = (
        count_process(
            ["benchmarks.shell_instructions", "--serve", end, "--calls", str(n)],
            folder / f"{end}-{n}.callgrind",
        )
        for n in (FEW, MANY)
    )
    return (many - few) / (MANY - FEW)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ends", nargs="*", choices=[*ENDS, []], help="client, sync, worker; all")
    parser.add_argument("--serve", choices=(*ENDS, *PEERS), help="be the workload")
    parser.add_argument("--calls", type=int, default=MANY)
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="keep callgrind's output")
    asked = parser.parse_args()
    if asked.serve is not None:
        serve(asked.serve, asked.calls)
        return 0
    if not shutil.which("valgrind"):
        print("valgrind is not here: nothing was counted")
        return 0
    good = True
    for end in asked.ends or ENDS:
        with tempfile.TemporaryDirectory() as folder:
            counted = per_call(end, Path(folder))
            if asked.profile:
                asked.profile.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path(folder) / f"{end}-{MANY}.callgrind", asked.profile)
            peer = f"{end}'s peer"
            if peer in PEERS:
                theirs = per_call(peer, Path(folder))
                print(f"of the next figure {theirs:,.0f} are the peer's that answers")
        good = verdict(CALLS[end], counted) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
