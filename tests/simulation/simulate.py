"""A broker among fleets that die, reject, stall and drain, in virtual time.

    python -m tests.simulation.simulate --seconds 600 --seed 1

Asserted: every request of a client that lives has exactly one answer, and it is its own (rule 1);
nothing runs more often than it may (rule 3); no worker gets more than it takes (rule 6); while a
client's request waits, no other client is served twice (rule 7); the invariants hold. Printed: what
happened.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

from majordomus.core.broker.invariants import story
from majordomus.core.broker.settings import BrokerSettings
from majordomus.core.broker.state.requests import AcceptedRequest
from majordomus.protocol import spec
from majordomus.protocol.spec import Frame
from tests import headers
from tests.simulation.actors import Client, Kind, Ledger, Worker
from tests.simulation.world import World

CLIENTS: dict[str, tuple[int, Kind]] = {
    "modest": (30, Kind(every=0.3)),
    "hearing": (10, Kind(every=0.3, dies=0.05, hears=(b"prices.>", b"prices.*"))),
    "reading": (3, Kind(every=0.3, stalls=0.2, hears=(b"*",))),
    "greedy": (2, Kind(every=0.01, at_once=40)),
    "mortal": (10, Kind(every=0.3, at_once=2, dies=0.02)),
    "slow": (3, Kind(every=0.2, at_once=30, stalls=0.1)),
}
WORKERS: dict[str, tuple[int, Kind, tuple[bytes, ...]]] = {
    "steady": (3, Kind(works=0.03), (b"echo",)),
    "both": (2, Kind(works=0.02, streams=0.2, drains=0.05), (b"echo", b"time")),
    "picky": (2, Kind(works=0.02, rejects=0.3), (b"echo",)),
    "mortal": (3, Kind(works=0.05, dies=0.2, streams=0.1), (b"time",)),
    "frozen": (2, Kind(works=0.02, stalls=0.05), (b"time", b"echo")),
}


class Fairness:
    """Rule 7 as an onlooker sees it. First dispatches are counted; what came back goes first."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.waiting: dict[AcceptedRequest, set[bytes]] = {}
        self.known: set[bytes] = set()
        self.given: set[bytes] = set()
        self.judged = 0

    def look(self) -> None:
        """Note the requests that have begun to wait as the only ones of their client."""
        for service in self.world.machine.registry.services.values():
            for own in service.queue.turns.values():
                request = next(iter(own))
                if request.body[0] not in self.known and len(own) == 1:
                    self.known.add(request.body[0])
                    self.waiting[request] = set()
        self.world.after(0.01, self.look)

    def sent(self, peer: bytes, frames: list[Frame]) -> None:
        """One message of the broker, in the order in which it decided."""
        command, _, _, _, _, service, *_ = headers.parse(frames[0])
        if command != spec.REQUEST or frames[1] in self.given:
            return
        self.given.add(frames[1])
        client = frames[1].split(b"/")[0]
        self.waiting = {r: served for r, served in self.waiting.items() if r.queue is not None}
        for request, served in self.waiting.items():
            if request.service.name != service or request.peer.id == client:
                continue
            self.judged += 1
            if client in served:
                raise AssertionError(
                    f"rule 7: {client!r} is served twice while there waits {story(request)}"
                )
            served.add(client)


class Simulation:
    """One run: everybody comes, `seconds` pass, then nobody asks any more and all has to end."""

    def __init__(self, seed: int) -> None:
        settings = BrokerSettings(
            max_outbox=50, max_queue=3000, max_client_queue=200, client_idle=30.0
        )
        self.world = World(seed, settings)
        self.ledger = Ledger()
        self.fairness = Fairness(self.world)
        self.world.watch = self.fairness.sent
        self.world.after(0.05, self.fairness.look)
        for what, (number, kind) in CLIENTS.items():
            for n in range(number):
                Client(self.world, self.ledger, f"{what}-{n}".encode(), kind, what)
        for what, (number, kind, services) in WORKERS.items():
            for n in range(number):
                Worker(self.world, self.ledger, f"worker-{what}-{n}".encode(), kind, services)

    def run(self, seconds: float) -> None:
        self.world.run(seconds)
        self.ledger.closed = True
        self.world.run(60.0)
        self._settle()

    def _settle(self) -> None:
        """Rule 1, when every deadline has passed."""
        ledger, counts = self.ledger, self.world.machine.registry.counts
        asked = {name for name, flags in ledger.asked.items() if not flags & spec.ONE_WAY}
        expected = asked - ledger.lost_clients
        unanswered = {name for name in expected if not ledger.finals[name]}
        if unanswered:
            raise AssertionError(f"rule 1: no answer to {sorted(unanswered)[:5]}")
        ended = counts.answered + counts.failed + counts.expired + counts.cancelled
        if counts.accepted != ended or not self.world.machine.drained:
            raise AssertionError(f"rule 1: {counts.accepted} accepted, {ended} ended")

    def report(self) -> str:
        counts = self.world.machine.registry.counts
        names = ("accepted", "answered", "failed", "expired", "cancelled", "dispatched", "retried",
                 "rejected", "parts", "pushed", "published", "delivered",
                 "undelivered")  # fmt: skip
        lines = [", ".join(f"{getattr(counts, name):,} {name}" for name in names)]
        lines.append("answers by status: " + _list(self.ledger.statuses))
        lines.append("dropped: " + _list(counts.dropped))
        lines.append("what happened: " + _list(self.ledger.events))
        for what, waits in sorted(self.ledger.waits.items()):
            waits.sort()
            median, late = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
            lines.append(
                f"{what:>8} clients: {len(waits):>8,} answers, "
                f"median {median * 1000:6.0f} ms, 99 % within {late * 1000:6.0f} ms"
            )
        lines.append(f"rule 7 was judged {self.fairness.judged:,} times")
        return "\n".join(lines)


def _list(counts: Counter[int] | Counter[str]) -> str:
    return ", ".join(f"{count:,} × {what}" for what, count in sorted(counts.items())) or "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.perf_counter()
    simulation = Simulation(options.seed)
    simulation.run(options.seconds)
    print(simulation.report())
    print(f"{options.seconds:g} s in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
