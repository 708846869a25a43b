"""Replies that no worker may give: forged, late and double ones, in every dialect, between honest
traffic. None of them reaches a client, and every honest answer does, once.

    python -m tests.core.forgery --messages 1000000 [--seed 1]

A forged reply carries a mark of its own, so that one that is delivered, in whatever form, is seen.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, deque
from random import Random
from typing import Final

from majordomus.core.broker import invariants
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.protocol import mdp03, spec
from majordomus.protocol.spec import Dialect, Frame
from tests.core import dialects

MARK: Final = b"FORGED"
WORKERS: Final = {b"worker-%d-%s" % (n, d.value.encode()): d for d in Dialect for n in range(2)}
CLIENTS: Final = {b"client-%d-%s" % (n, d.value.encode()): d for d in Dialect for n in range(2)}
STRANGER: Final = b"stranger"
SERVICE: Final = b"echo"
REMEMBERED: Final = 2000
"""Dispatches that are over, and may be answered once more."""
KINDS: Final = ("other's", "guessed", "double", "late", "stranger", "client", "moved", "enveloped")
COMMANDS: Final = (spec.FINAL, spec.FINAL, spec.PARTIAL, spec.REJECT)
HONEST: Final = 0.1
"""The share of messages that belong to honest traffic."""

Dispatch = tuple[bytes, int, Frame, bytes]
"""Worker, number, address and client."""


class DeliveredError(AssertionError):
    """A client heard what it must not hear, or did not hear what it must."""


class Forge:
    """One run. `sent` counts what was forged, by kind."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        settings = BrokerSettings(default_ttl=5.0, max_ttl=5.0, delphi_capacity=20)
        self.machine = BrokerMachine(settings, self.random.randbytes, "forge")
        self.now = 1000.0
        self.sent: Counter[str] = Counter()
        self.asked = self.answered = self.delivered = 0
        self.expected: dict[bytes, bytes] = {}
        """Body of an honest answer that is on its way → its client."""
        self.open: deque[Dispatch] = deque()
        self.over: deque[Dispatch] = deque(maxlen=REMEMBERED)
        self.expired: deque[Dispatch] = deque(maxlen=REMEMBERED)
        self._forgers = {
            "other's": self._others,
            "guessed": self._guessed,
            "double": self._double,
            "late": self._late,
            "stranger": self._stranger,
            "client": self._client,
            "moved": self._moved,
            "enveloped": self._enveloped,
        }

    def run(self, messages: int, check_every: int = 10_000) -> None:
        """Until `messages` forged ones were sent."""
        while self.sent.total() < messages:
            if self.random.random() < HONEST:
                self._honest()
            else:
                kind = self.random.choice(KINDS)
                if self._forgers[kind]():
                    self.sent[kind] += 1
                    if self.sent.total() % check_every == 0:
                        invariants.check(self.machine)
            self._turn()
        invariants.check(self.machine)
        if self.delivered != self.answered:
            raise DeliveredError(f"{self.answered} honest answers, {self.delivered} were heard")

    # ── honest traffic ────────────────────────────────────────────────────────────────────────────

    def _honest(self) -> None:
        self._enrol()
        if self.open and self.random.random() < 0.6:
            self._answer()
            return
        client = self.random.choice(tuple(CLIENTS))
        dialect = CLIENTS[client]
        self.asked += 1
        self._receive(client, dialects.ask(dialect, SERVICE, [b"question"], self.asked))
        if self.random.random() < 0.02:
            self.now += 6.0  # all that is open expires, and is answered late
            self._receive(client, dialects.ask(dialect, SERVICE, [b"next"], self.asked + 10**9))

    def _enrol(self) -> None:
        for worker, dialect in WORKERS.items():
            if worker not in self.machine.registry.workers:
                self._receive(worker, dialects.ready(dialect, SERVICE, 20))

    def _answer(self) -> None:
        worker, number, address, client = self.open.popleft()
        known = self.machine.registry.workers.get(worker)
        request = known.held.get(number) if known is not None else None
        if request is None:
            self.over.append((worker, number, address, client))
            return
        body = b"honest %d" % number
        if request.peer.open.get(request.key) is request:
            self.expected[body] = client
            self.answered += 1
            self.over.append((worker, number, address, client))
        else:
            self.expired.append((worker, number, address, client))
            return
        dialect = WORKERS[worker]
        if dialect is Dialect.DELPHI and CLIENTS[client] is Dialect.DELPHI:
            oldest = known.handles[bytes(address)][0] if known is not None else number
            if oldest != number:  # a Delphi handle answers its oldest request first
                del self.expected[body]
                self.answered -= 1
                self.over.pop()
                self.open.append((worker, number, address, client))
                return
        self._receive(worker, dialects.end(dialect, SERVICE, address, [body], number))

    # ── forged traffic ────────────────────────────────────────────────────────────────────────────

    def _others(self) -> bool:
        """What another worker holds."""
        if not self.open:
            return False
        owner, number, address, client = self.random.choice(self.open)
        worker = self.random.choice([w for w in WORKERS if w != owner])
        known = self.machine.registry.workers.get(worker)
        if known is not None and bytes(address) in known.handles:
            return False  # a Delphi client's handle, which this one was given too
        if known is not None and known.answered and bytes(address) in known.answered:
            return False  # one that it has answered carries events (docs/spec/delphi.md)
        return self._forged(worker, number, address, client)

    def _guessed(self) -> bool:
        number = spec.BROKER_ID_BIT | self.random.choice(
            (self.random.getrandbits(63), self.machine.registry.last_number + 1)
        )
        address = self.random.choice((number.to_bytes(8, "big"), *CLIENTS, b"", b"\x00"))
        return self._forged(self.random.choice(tuple(WORKERS)), number, address, b"")

    def _double(self) -> bool:
        """What has been answered already, by whom it was given to."""
        if not self.over:
            return False
        worker, number, address, client = self.random.choice(self.over)
        if WORKERS[worker] is CLIENTS[client] is Dialect.DELPHI:
            return False  # such a handle stands for the client, and is given for good
        return self._forged(worker, number, address, client)

    def _late(self) -> bool:
        """What has expired: the worker may say it, and nobody hears it."""
        if not self.expired:
            return False
        worker, number, address, client = self.expired.popleft()
        if WORKERS[worker] is CLIENTS[client] is Dialect.DELPHI:
            return False
        return self._forged(worker, number, address, client)

    def _stranger(self) -> bool:
        if not self.open:
            return False
        _, number, address, _ = self.random.choice(self.open)
        dialect = self.random.choice(tuple(Dialect))
        self._receive(STRANGER, self._reply(dialect, number, address))
        return True

    def _client(self) -> bool:
        """A client answers its own request, or another's."""
        if not self.open:
            return False
        _, number, address, client = self.random.choice(self.open)
        forger = self.random.choice((client, self.random.choice(tuple(CLIENTS))))
        self._receive(forger, self._reply(self.random.choice(tuple(Dialect)), number, address))
        return True

    def _moved(self) -> bool:
        """A worker leaves, registers anew, and answers what it held before."""
        if not self.open or self.random.random() > 0.05:
            return False
        worker, number, address, client = self.open.popleft()
        if WORKERS[worker] is CLIENTS[client] is Dialect.DELPHI:
            self.open.append((worker, number, address, client))
            return False
        self._receive(worker, dialects.leave(WORKERS[worker], SERVICE))
        self._receive(worker, dialects.ready(WORKERS[worker], SERVICE, 20))
        return self._forged(worker, number, address, client)

    def _enveloped(self) -> bool:
        """The right worker and the right number, from behind an envelope."""
        if not self.open:
            return False
        worker, number, address, _ = self.random.choice(self.open)
        dialect = WORKERS[worker]
        if dialect is not Dialect.MDP03 and dialect is not Dialect.MDP02:
            return False
        self._receive(worker, [b"envelope", *self._reply(dialect, number, address)])
        return True

    def _forged(self, worker: bytes, number: int, address: Frame, client: bytes) -> bool:
        self._receive(worker, self._reply(WORKERS[worker], number, address))
        return True

    def _reply(self, dialect: Dialect, number: int, address: Frame) -> list[Frame]:
        command = self.random.choice(COMMANDS)
        if dialect is Dialect.MDP03:
            return [mdp03.pack(command, code=200, id=number), MARK]
        if command == spec.PARTIAL and dialect in dialects.KNOWS_PARTS:
            return dialects.part(dialect, address, [MARK], number)
        return dialects.end(dialect, SERVICE, address, [MARK], number)

    # ── the shell ─────────────────────────────────────────────────────────────────────────────────

    def _receive(self, peer: bytes, frames: list[Frame]) -> None:
        self.machine.receive(peer, frames, self.now)
        self._take_sends()

    def _turn(self) -> None:
        self.now += 0.0005
        self.machine.socket_empty(self.now)
        self.machine.tick(self.now)
        self.machine.next_deadline()
        self._take_sends()

    def _take_sends(self) -> None:
        _, sends, _ = self.machine.take_effects()
        for peer, frames, *_ in list(sends):
            if peer in WORKERS:
                self._given(peer)
                continue
            for frame in frames:
                if MARK in bytes(frame):
                    raise DeliveredError(f"{peer!r} heard a forged reply: {frames!r}")
                client = self.expected.pop(bytes(frame), None)
                if client is not None:
                    self.delivered += 1
                    if client != peer:
                        raise DeliveredError(f"{peer!r} heard the answer to {client!r}")

    def _given(self, worker: bytes) -> None:
        """Note what `worker` holds by now."""
        known = self.machine.registry.workers.get(worker)
        if known is None or not known.held:
            return
        number = next(reversed(known.held))
        request = known.held[number]
        address: Frame = number.to_bytes(8, "big")
        if known.dialect is request.dialect is Dialect.DELPHI:
            address = request.peer.handle
        one = (worker, number, address, request.peer.id)
        if one not in self.open:
            self.open.append(one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    forge = Forge(options.seed)
    started = time.perf_counter()
    forge.run(options.messages)
    seconds = time.perf_counter() - started
    for kind, count in forge.sent.most_common():
        print(f"{count:>12,}  {kind}")
    dropped = forge.machine.registry.counts.dropped
    print(", ".join(f"{count:,} {reason}" for reason, count in dropped.most_common()))
    print(
        f"{forge.sent.total():,} forged, late and double replies in {seconds:.0f} s: none "
        f"delivered; {forge.answered:,} honest ones between them: {forge.delivered:,} delivered"
    )


if __name__ == "__main__":
    main()
