"""Rubbish on the broker's socket: the mutator of tests/protocol through the whole machine.

    python -m tests.core.fuzz --messages 1000000 [--seed 1]

The messages come from forty routing ids, some of which are workers; time passes, sends are refused,
and now and then somebody says what is right. Nothing may raise, the invariants hold, and what the
machine keeps stays within its settings.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from itertools import islice
from random import Random
from typing import Any, Final

from majordomus.core.broker import invariants
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.core.broker.state.registry import Send
from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect
from tests.protocol.mutator import mutations

PEERS: Final = tuple(b"peer-%02d" % n for n in range(40))
NEW_WORKERS: Final = PEERS[:8]
OLD_WORKERS: Final = {peer: LEGACY[d] for d in LEGACY for peer in [b"peer-old-" + d.value.encode()]}
EVERYONE: Final = (*PEERS, *OLD_WORKERS)
LIMITS: Final = {
    "max_peers": 30,
    "max_services": 12,
    "max_open": 10,
    "max_queue": 40,
    "max_service_queue": 20,
    "max_client_queue": 8,
    "max_outbox": 3,
    "max_outbox_bytes": 4000,
    "max_outboxes_bytes": 9000,
    "max_frames": 5,
    "max_message": 2000,
    "delphi_capacity": 20,
    "max_client_topics": 4,
    "max_topics": 25,
    "max_sessions": 6,
    "max_answered": 5,
}
TURN = 20
"""Messages of one turn of the loop, on average."""


class Fuzz:
    """One run. `seen` counts what was dropped and refused, by reason."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.seed = seed
        settings = BrokerSettings(default_ttl=2.0, max_ttl=10.0, client_idle=5.0, **LIMITS)
        self.machine = BrokerMachine(settings, self.random.randbytes, "fuzz")
        self.now = 0.0
        self.sends = 0
        self.full: set[bytes] = set()

    def run(self, messages: int, check_every: int) -> None:
        """`messages` messages of the mutator, and a few good ones between."""
        for count, frames in enumerate(islice(mutations(self.seed), messages), 1):
            try:
                self.machine.receive(self.random.choice(EVERYONE), frames, self.now)
                if self.random.random() < 1 / TURN:
                    self.turn()
                if count % check_every == 0:
                    self.check()
            except Exception as error:
                shown = [bytes(frame).hex() for frame in frames]
                error.add_note(f"seed {self.seed}, message {count}, frames {shown}")
                raise
        self.turn()
        self.check()

    def turn(self) -> None:
        """Somebody says what is right, time passes, and the socket takes some of what is sent."""
        self._receive_valid()
        self.now += self.random.choice((0.0, 0.001, 0.01, 0.1, 0.1, 3.0))
        if self.random.random() < 0.7:
            self.machine.socket_empty(self.now)
        self.machine.tick(self.now)
        if self.machine.next_deadline() < 0:
            raise AssertionError("a deadline before all time")
        _, sends, _ = self.machine.take_effects()
        self._send(list(sends))
        if self.random.random() < 0.05:
            self.machine.connection_ended(self.random.choice(EVERYONE), self.now)

    def _send(self, sends: list[Send]) -> None:
        self.sends += len(sends)
        if self.random.random() < 0.1:
            self.full = set(self.random.sample(EVERYONE, 3))
        for send in sends:
            if send[0] in self.full:
                self.machine.refused(send, False, self.now)
            elif self.random.random() < 0.01:
                self.machine.refused(send, True, self.now)

    def _receive_valid(self) -> None:
        """A worker registers, or answers something that it has; somebody speaks of events."""
        self._receive_events()
        registry = self.machine.registry
        new, (old, codec) = (
            self.random.choice(NEW_WORKERS),
            self.random.choice(tuple(OLD_WORKERS.items())),
        )
        if old not in registry.workers:
            self.machine.receive(old, codec.w2b_ready(b"echo"), self.now)
        elif registry.workers[old].handles:
            address = self.random.choice(tuple(registry.workers[old].handles))
            self.machine.receive(old, codec.w2b_final(b"echo", address, [b"y"]), self.now)
        if new not in registry.workers or not registry.workers[new].held:
            service, code = self.random.choice((b"echo", b"time")), self.random.randrange(1, 5)
            ready = mdp03.pack(spec.READY, service=service, code=code)
            self.machine.receive(new, [ready], self.now)
            return
        number = self.random.choice(tuple(registry.workers[new].held))
        self._receive_stream()
        command = self.random.choice(
            (spec.FINAL, spec.FINAL, spec.PARTIAL, spec.REJECT, spec.CREDIT)
        )
        self.machine.receive(new, [mdp03.pack(command, id=number, code=200), b"y"], self.now)

    def _receive_stream(self) -> None:
        """A client opens one, or goes on with what it has."""
        client, random = self.random.choice(PEERS), self.random
        peer = self.machine.registry.peers.get(client)
        ids = [key for key in (peer.open if peer else ()) if isinstance(key, int) and key > 0]
        if not ids or random.random() < 0.2:
            head = mdp03.pack(
                spec.REQUEST, spec.MORE, id=random.getrandbits(62) | 1, service=b"echo"
            )
            self.machine.receive(client, [head, b"x"], self.now)
            return
        for _ in range(random.choice((1, 2, 20))):
            command = random.choice((spec.PARTIAL, spec.PARTIAL, spec.CREDIT, spec.FINAL))
            head = mdp03.pack(command, id=random.choice(ids), code=random.randrange(20))
            self.machine.receive(client, [head, b"y" * random.randrange(100)], self.now)

    def _receive_events(self) -> None:
        """Presence, sessions, subscriptions, events, and handles used once more."""
        random, registry = self.random, self.machine.registry
        command = random.choice((spec.HELLO, spec.SUBSCRIBE, spec.UNSUBSCRIBE, spec.EVENT))
        name = random.choice((b"a", b"a.b", b"a.*", b"*.b", b"a.>", b">", b"a..b"))
        fields: dict[str, Any] = {"id": random.choice((0, 0, 1, 2)), "service": name}
        if command == spec.HELLO and random.random() < 0.7:
            session = {"session": bytes((random.randrange(10),)) * 16}
            fields.update(flags=spec.METADATA, metadata=metadata.pack(session))
        if command == spec.EVENT and random.random() < 0.5:
            known = [*registry.handles, *registry.away] or [b"nobody"]
            fields["address"] = random.choice(known)
        message = [mdp03.pack(command, **fields), b"news"]
        self.machine.receive(random.choice(EVERYONE), message, self.now)
        for worker in registry.workers.values():
            if worker.answered and random.random() < 0.2:
                address = random.choice(tuple(worker.answered))
                again = LEGACY[Dialect.DELPHI].w2b_final(b"echo", address, [b"late"])
                self.machine.receive(worker.id, again, self.now)
                break

    def check(self) -> None:
        """The invariants, and that nothing is unbounded (rule 4)."""
        invariants.check(self.machine)
        registry = self.machine.registry
        kept = {
            "peers": (len(registry.peers), LIMITS["max_peers"]),
            "services": (len(registry.services), LIMITS["max_services"]),
            "queued": (registry.queued, LIMITS["max_queue"] + registry.counts.retried),
            "open": (registry.open, LIMITS["max_peers"] * LIMITS["max_open"] + 200),
            "held": (sum(len(w.held) for w in registry.workers.values()), 8 * 65535 + 3 + 20),
            "timers": (len(registry.timers), LIMITS["max_peers"]),
            "retries": (len(registry.retries), 2000),
            "facts": (len(registry.facts), 2000),
            "reasons": (len(registry.counts.dropped), 100),
            "handles": (len(registry.handles), 2 * LIMITS["max_peers"]),
            "subscriptions": (len(registry.topics), LIMITS["max_topics"]),
            "nodes": (registry.topics.nodes, 16 * LIMITS["max_topics"]),
            "sessions": (len(registry.sessions), LIMITS["max_sessions"]),
            "answered": (
                max((len(w.answered or ()) for w in registry.workers.values()), default=0),
                LIMITS["max_answered"],
            ),
            "suspects": (len(self.machine.presence.suspects), 2000),
        }
        beyond = {name: pair for name, pair in kept.items() if pair[0] > pair[1]}
        if beyond:
            raise AssertionError(f"more than allowed: {beyond}")

    @property
    def outcomes(self) -> dict[str, int]:
        """What became of the requests that were accepted."""
        counts = self.machine.registry.counts
        names = ("accepted", "answered", "failed", "expired", "cancelled", "dispatched", "retried",
                 "pushed", "published", "delivered", "undelivered")  # fmt: skip
        return {name: getattr(counts, name) for name in names}

    @property
    def reasons(self) -> Counter[str]:
        """Dropped messages by reason, refused ones by status."""
        counts = self.machine.registry.counts
        refused = {f"refused {status}": n for status, n in counts.refused.items()}
        return Counter(counts.dropped) + Counter(refused)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    fuzz = Fuzz(options.seed)
    fuzz.run(min(options.messages, 10_000), check_every=1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    fuzz.run(options.messages, check_every=1000)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for reason, count in fuzz.reasons.most_common():
        print(f"{count:>12,}  {reason}")
    print(", ".join(f"{count:,} {name}" for name, count in fuzz.outcomes.items()))
    print(
        f"{options.messages:,} messages and {fuzz.sends:,} sends in {seconds:.0f} s: "
        f"{options.messages / seconds:,.0f} messages/s; memory grew by {after - before:,} KiB"
    )


if __name__ == "__main__":
    main()
