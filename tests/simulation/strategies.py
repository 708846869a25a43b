"""How long requests wait under each way to balance: three fleets, in virtual time.

    python -m tests.simulation.strategies

The broker machine itself gives the requests out; clients and workers are a few lines each. A worker
takes `SLOTS` requests and works on one at a time, so a bad choice is a queue at a worker while
another one is idle. The load is 70 % of what the fleet can do. "random" is what a NATS queue group
does: any member, whatever it holds; its workers take any number.

Waiting is from the client's asking to the beginning of the work, in units of the mean time that an
ordinary worker needs for a request.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Final

from majordomus.core.broker.balancing.registry import STRATEGIES
from majordomus.core.broker.balancing.strategy import Strategy
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.core.broker.state.requests import AcceptedRequest
from majordomus.core.broker.state.workers import RegisteredWorker
from majordomus.protocol import mdp03, metadata, spec
from tests import headers

FLEETS: Final[dict[str, Sequence[float]]] = {
    "even": (1.0,) * 10,
    "uneven": (0.5,) * 4 + (1.0,) * 4 + (2.0,) * 2,
    "one slow": (1.0,) * 9 + (0.1,),
}
"""Speeds of the workers."""
SLOTS: Final = 4
USE: Final = 0.7
BEAT: Final = 25.0
"""Time between two heartbeats."""
KEYS: Final = 1000


class AnyOne(Strategy):
    """What is compared with: a worker at random."""

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        workers = list(self.willing(request))
        return workers[self.dice(len(workers))] if workers else None


class Member:
    """A worker: what it works on, and what it has taken and not begun."""

    def __init__(self, id: bytes, speed: float) -> None:
        self.id, self.speed = id, speed
        self.waiting: deque[int] = deque()
        self.busy = False
        self.request_of: dict[int, int] = {}
        self.worked = 0.0
        """Time that it worked since its last heartbeat, without what it works on now."""
        self.since = 0.0
        self.load = 0.0


class Fleet:
    """One run: so many requests to one fleet under one strategy."""

    def __init__(self, strategy: str, speeds: Sequence[float], seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        settings = BrokerSettings(
            balancing=strategy, default_ttl=1e6, max_ttl=1e6, max_open=1_000_000
        )
        own = {"random": AnyOne}
        self.machine = BrokerMachine(settings, self.random.randbytes, "fleet", own)
        self.members = {
            b"worker-%02d" % n: Member(b"worker-%02d" % n, s) for n, s in enumerate(speeds)
        }
        self.every = 1 / (USE * sum(speeds))
        self.waits: list[float] = []
        self._asked: dict[int, float] = {}
        self._events: list[tuple[float, int, str, object]] = []
        self._order = count()
        slots = SLOTS if strategy != "random" else spec.MAX_CAPACITY
        for member in self.members.values():
            self._say(member.id, mdp03.pack(spec.READY, code=slots, service=b"svc"))
            self._after(self.random.random(), "beat", member)
        self._send()

    def run(self, requests: int) -> None:
        """Ask so many, and wait for the last."""
        self._after(0.0, "ask", 1)
        asked = 0
        while len(self.waits) < requests:
            self.now, _, what, which = heappop(self._events)
            if what == "ask":
                asked += 1
                self._ask(asked)
                if asked < requests:
                    self._after(self.random.expovariate(1 / self.every), "ask", asked)
            elif what == "beat":
                self._beat(which)  # type: ignore[arg-type]
            else:
                self._done(which)  # type: ignore[arg-type]
            self._send()

    def _ask(self, id: int) -> None:
        self._asked[id] = self.now
        key = metadata.pack({"key": self.random.randrange(KEYS).to_bytes(2, "big")})
        header = mdp03.pack(spec.REQUEST, spec.METADATA, id=id, service=b"svc", metadata=key)
        self._say(b"client", header, id.to_bytes(8, "big"))

    def _beat(self, member: Member) -> None:
        """The load is the share of the time that it worked, averaged over a few heartbeats."""
        worked = member.worked + (self.now - member.since if member.busy else 0.0)
        member.load += (worked / BEAT - member.load) * 0.3
        member.worked, member.since = 0.0, self.now
        self._say(member.id, mdp03.pack(spec.HEARTBEAT, code=round(100 * member.load)))
        self._after(BEAT, "beat", member)

    def _begin(self, member: Member) -> None:
        if member.busy:
            member.worked += self.now - member.since
        member.busy, member.since = bool(member.waiting), self.now
        if member.busy:
            number = member.waiting.popleft()
            self.waits.append(self.now - self._asked.pop(member.request_of.pop(number)))
            seconds = self.random.expovariate(1.0) / member.speed
            self._after(seconds, "done", (member, number))

    def _done(self, which: tuple[Member, int]) -> None:
        member, number = which
        self._say(member.id, mdp03.pack(spec.FINAL, id=number, code=200), b"")
        self._begin(member)

    def _after(self, seconds: float, what: str, which: object) -> None:
        heappush(self._events, (self.now + seconds, next(self._order), what, which))

    def _say(self, peer: bytes, *frames: bytes) -> None:
        # Time is counted in units of a second here, and no one is judged by its silence.
        self.machine.receive(peer, list(frames), 0.0)

    def _send(self) -> None:
        _, sends, _ = self.machine.take_effects()
        for peer, frames, *_ in list(sends):
            command, _, _, number, *_ = headers.parse(frames[0])
            member = self.members.get(peer)
            if member is not None and command == spec.REQUEST:
                member.request_of[number] = int.from_bytes(frames[1], "big")
                member.waiting.append(number)
                if not member.busy:
                    self._begin(member)


def measure(strategy: str, fleet: str, requests: int, seed: int = 1) -> tuple[float, float]:
    """p50 and p99 of the waiting time."""
    run = Fleet(strategy, FLEETS[fleet], seed)
    run.run(requests)
    waits = sorted(run.waits)
    return waits[len(waits) // 2], waits[len(waits) * 99 // 100]


def table(requests: int, seed: int = 1) -> list[str]:
    """The table of docs/balancing.md."""
    head = " | ".join(f"{fleet}: p50 | p99" for fleet in FLEETS)
    lines = [f"| strategy | {head} |", "|---|" + "---:|---:|" * len(FLEETS)]
    for strategy in (*STRATEGIES, "random"):
        cells = [measure(strategy, fleet, requests, seed) for fleet in FLEETS]
        shown = " | ".join(f"{p50:.2f} | {p99:.1f}" for p50, p99 in cells)
        lines.append(f"| `{strategy}` | {shown} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print("\n".join(table(options.requests, options.seed)))


if __name__ == "__main__":
    main()
