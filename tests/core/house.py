"""A broker machine on a virtual clock, and peers that are nothing but a routing id.

Frames are written here by hand or by the codecs' writers for the other side; what the machine sends is
read back into short tuples, so that a test can compare the whole list of outputs.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

from majordomus.core import invariants
from majordomus.core.broker import BrokerMachine
from majordomus.core.settings import BrokerSettings
from majordomus.protocol import mdp03, spec
from majordomus.protocol.spec import Dialect, Frame

Said = tuple[str, str]


def ids() -> Any:
    """Bytes that are different at every call, and the same in every run."""
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


class House:
    """The machine, the time, and everything that it said so far and nobody has looked at yet."""

    def __init__(self, **settings: Any) -> None:
        self.now = 1000.0
        self.machine = BrokerMachine(BrokerSettings(**settings), ids(), "house")
        self.waiting: deque[tuple[bytes, list[Frame]]] = deque()
        self.facts: list[tuple[str, dict[str, object]]] = []
        self.unreachable: set[bytes] = set()
        self.full: set[bytes] = set()

    # what a shell does

    def hear(self, peer: bytes, *frames: Frame) -> None:
        """One message, and the turn of the loop that follows it."""
        self.machine.receive(peer, list(frames), self.now)
        self.turn()

    def turn(self) -> None:
        """The rest of one turn of a shell's loop."""
        self.machine.socket_empty(self.now)
        self.machine.tick(self.now)
        self._send()
        self.machine.next_deadline()

    def _send(self) -> None:
        _, sends, facts = self.machine.take_effects()
        self.facts.extend(facts)
        stuck: set[bytes] = set()
        refused = []
        for peer, frames in list(sends):
            if peer in self.unreachable:
                refused.append((peer, frames, True))
            elif peer in self.full or peer in stuck:
                stuck.add(peer)
                refused.append((peer, frames, False))
            else:
                self.waiting.append((peer, frames))
        for peer, frames, gone in refused:
            self.machine.refused(peer, frames, gone, self.now)

    def pass_time(self, seconds: float) -> None:
        """Let time pass as an idle shell does: a turn at each deadline."""
        end = self.now + seconds
        while (due := self.machine.next_deadline()) <= end:
            self.now = max(self.now, due)
            self.turn()
        self.now = end
        self.turn()

    # what came out

    def said(self) -> list[tuple[bytes, list[Frame]]]:
        """Everything that was sent since the last look: (routing id, frames)."""
        said = list(self.waiting)
        self.waiting.clear()
        return said

    def words(self) -> list[tuple[Any, ...]]:
        """The same, MDP/0.3 headers read: (routing id, COMMAND, {fields that are set}, body)."""
        return [self._word(peer, frames) for peer, frames in self.said()]

    def _word(self, peer: bytes, frames: list[Frame]) -> tuple[Any, ...]:
        if frames[0][:4] != spec.MDP03_MAGIC:
            return (peer, *frames)
        command, flags, code, id, ttl, service, address, metadata = mdp03.parse(frames[0])
        fields = {
            "flags": flags,
            "code": code,
            "id": id,
            "ttl": ttl,
            "service": service,
            "address": address,
            "metadata": metadata,
        }
        known = {name: value for name, value in fields.items() if value}
        return (peer, spec.COMMAND_NAMES[command], known, frames[1:])

    def dispatched(self) -> list[tuple[bytes, int]]:
        """(worker, dispatch number) of every MDP/0.3 REQUEST sent since the last look."""
        return [(word[0], word[2]["id"]) for word in self.words() if word[1] == "REQUEST"]

    def finals(self) -> list[tuple[bytes, int, int, list[Frame]]]:
        """(client, id, status, body) of every MDP/0.3 FINAL sent since the last look."""
        return [
            (word[0], word[2]["id"], word[2]["code"], word[3])
            for word in self.words()
            if word[1] == "FINAL"
        ]

    # peers of MDP/0.3

    def say(self, peer: bytes, command: int, *body: Frame, **fields: Any) -> None:
        """One MDP/0.3 message from `peer`."""
        self.hear(peer, mdp03.pack(command, **fields), *body)

    def worker(self, peer: bytes, service: bytes = b"echo", capacity: int = 1) -> None:
        """`peer` says READY."""
        self.say(peer, spec.READY, service=service, code=capacity)

    def request(self, peer: bytes, id: int, *body: Frame, **fields: Any) -> None:
        """`peer` says REQUEST for echo unless told otherwise."""
        self.say(peer, spec.REQUEST, *body, **{"service": b"echo", "id": id, **fields})

    def answer(self, peer: bytes, number: int, *body: Frame, status: int = 200) -> None:
        """`peer` says FINAL."""
        self.say(peer, spec.FINAL, *body, id=number, code=status)

    def heartbeat(self, *peers: bytes) -> None:
        for peer in peers:
            self.say(peer, spec.HEARTBEAT)

    def check(self) -> None:
        invariants.check(self.machine)

    @property
    def counts(self) -> Any:
        return self.machine.registry.counts


LEGACY_DIALECTS = (Dialect.MDP01, Dialect.MDP02, Dialect.MDP02D, Dialect.DELPHI)
