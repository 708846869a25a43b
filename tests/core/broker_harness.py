"""A broker machine on a virtual clock, and peers that are nothing but a routing id.

Frames are written here by hand or by the codecs' writers for the other side; what the machine sends
is read back into short tuples, so that a test can compare the whole list of outputs.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

from majordomus.core.broker import invariants
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.protocol import mdp03, metadata, octets, spec
from majordomus.protocol.spec import Dialect, Frame
from tests import headers

Message = tuple[Any, ...]
"""One message of the machine: (routing id, COMMAND, fields that are set, body), or (routing id,
*frames) for the older dialects."""


def ids() -> Any:
    """Bytes that are different at every call, and the same in every run."""
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def number(n: int) -> int:
    """The `n`th number that the broker gave."""
    return spec.BROKER_ID_BIT | n


def handle(n: int) -> Frame:
    """The address of the same dispatch for a worker of an older dialect."""
    return number(n).to_bytes(8, "big")


def read_03(frames: list[Frame]) -> Message:
    """(COMMAND, fields that are set, body) of an MDP/0.3 message."""
    names = ("flags", "code", "id", "ttl", "service", "address", "metadata")
    command, *values = headers.parse(frames[0])
    known = {name: value for name, value in zip(names, values, strict=True) if value}
    return (spec.COMMAND_NAMES[command], known, frames[1:])


def welcome(peer: bytes, interval: int = 2500, **facts: Any) -> Message:
    """The word for WELCOME."""
    told = {
        "broker": "harness",
        "liveness": 3,
        "max_message": 16 << 20,
        "max_part": 16 << 20,
        **facts,
    }
    fields = {
        "flags": spec.BROKER_METADATA,
        "ttl": interval,
        "address": peer,
        "metadata": metadata.pack(told),
    }
    return (peer, "WELCOME", fields, [])


def final(
    client: bytes, id: int, *body: Frame, worker: bytes = b"", status: int = 200, **fields: Any
) -> Message:
    """The word for FINAL to a client."""
    named = {"address": worker} if worker else {}
    return (client, "FINAL", {"code": status, "id": id, **named, **fields}, list(body))


def partial(client: bytes, id: int, *body: Frame, **fields: Any) -> Message:
    """The word for PARTIAL to a client."""
    return (client, "PARTIAL", {"id": id, **fields}, list(body))


def cancel(worker: bytes, n: int) -> Message:
    """The word for CANCEL to a worker."""
    return (worker, "CANCEL", {"id": number(n)}, [])


def disconnect(peer: bytes, status: int = 0, text: str = "", service: str = "") -> Message:
    """The word for DISCONNECT, with its reason if there is one."""
    if not status:
        return (peer, "DISCONNECT", {}, [])
    told: dict[str, Any] = {"status": status, "reason": text}
    if service:
        told["service"] = service
    fields = {"flags": spec.BROKER_METADATA, "metadata": metadata.pack(told)}
    return (peer, "DISCONNECT", fields, [])


def heartbeat(peer: bytes) -> Message:
    """The word for HEARTBEAT."""
    return (peer, "HEARTBEAT", {}, [])


class BrokerHarness:
    """The machine, the time, and everything that it said so far and nobody has looked at yet."""

    def __init__(self, strategies: Any = None, **settings: Any) -> None:
        self.now = 1000.0
        self.machine = BrokerMachine(BrokerSettings(**settings), ids(), "harness", strategies)
        self.waiting: deque[tuple[bytes, list[Frame]]] = deque()
        self.facts: list[tuple[str, dict[str, object]]] = []
        self.unreachable: set[bytes] = set()
        self.full: set[bytes] = set()
        self.room: dict[bytes, int] = {}
        self.handles: dict[bytes, bytes] = {}

    # what a shell does

    def receive(self, peer: bytes, *frames: Frame) -> None:
        """One message, and the turn of the loop that follows it."""
        self.machine.receive(peer, list(frames), self.now)
        self._note_handle(peer)
        self.turn()

    def receive_all(self, *messages: tuple[bytes, list[Frame]]) -> None:
        """Several messages, and one turn after them all."""
        for peer, frames in messages:
            self.machine.receive(peer, list(frames), self.now)
            self._note_handle(peer)
        self.turn()

    def _note_handle(self, peer: bytes) -> None:
        known = self.machine.registry.peers.get(peer)
        if known is not None:
            self.handles[peer] = known.handle

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
        for send in list(sends):
            peer, frames = send[:2]
            if peer in self.unreachable:
                refused.append((send, True))
            elif peer in self.full or peer in stuck or self.room.get(peer) == 0:
                stuck.add(peer)
                refused.append((send, False))
            else:
                self.waiting.append((peer, frames))
                if peer in self.room:
                    self.room[peer] -= 1
        for send, gone in refused:
            self.machine.refused(send, gone, self.now)

    def pass_time(self, seconds: float) -> None:
        """Let time pass as an idle shell does: a turn at each deadline."""
        end = self.now + seconds
        while (due := self.machine.next_deadline()) <= end:
            self.now = max(self.now, due)
            self.turn()
        self.now = end
        self.turn()

    # what came out

    def sent(self) -> list[tuple[bytes, list[Frame]]]:
        """Everything that was sent since the last look: (routing id, frames)."""
        said = list(self.waiting)
        self.waiting.clear()
        return said

    def messages(self) -> list[Message]:
        """The same, MDP/0.3 headers read: (routing id, COMMAND, {fields that are set}, body)."""
        return [self._message(peer, frames) for peer, frames in self.sent()]

    def _message(self, peer: bytes, frames: list[Frame]) -> Message:
        if not octets.is_mdp03(frames[0]):
            return (peer, *frames)
        return (peer, *read_03(frames))

    def request_to(
        self, worker: bytes, n: int, client: bytes, *body: Frame, **fields: Any
    ) -> Message:
        """The word for the REQUEST to `worker` that is the broker's `n`th number."""
        default = {"ttl": 60000, "service": b"echo", "address": self.handles[client]}
        return (worker, "REQUEST", {"id": number(n), **default, **fields}, list(body))

    def dispatched(self) -> list[tuple[bytes, int]]:
        """(worker, dispatch number) of every MDP/0.3 REQUEST sent since the last look."""
        return [(word[0], word[2]["id"]) for word in self.messages() if word[1] == "REQUEST"]

    def finals(self) -> list[tuple[bytes, int, int, list[Frame]]]:
        """(client, id, status, body) of every MDP/0.3 FINAL sent since the last look."""
        return [
            (word[0], word[2]["id"], word[2]["code"], word[3])
            for word in self.messages()
            if word[1] == "FINAL"
        ]

    # peers of MDP/0.3

    def receive_03(self, peer: bytes, command: int, *body: Frame, **fields: Any) -> None:
        """One MDP/0.3 message from `peer`."""
        self.receive(peer, mdp03.pack(command, **fields), *body)

    def worker(self, peer: bytes, service: bytes = b"echo", capacity: int = 1) -> None:
        """`peer` says READY."""
        self.receive_03(peer, spec.READY, service=service, code=capacity)

    def request(self, peer: bytes, id: int, *body: Frame, **fields: Any) -> None:
        """`peer` says REQUEST for echo unless told otherwise."""
        self.receive_03(peer, spec.REQUEST, *body, **{"service": b"echo", "id": id, **fields})

    def answer(self, peer: bytes, id: int, *body: Frame, status: int = 200) -> None:
        """`peer` says FINAL for a dispatch."""
        self.receive_03(peer, spec.FINAL, *body, id=id, code=status)

    def part(self, peer: bytes, id: int, *body: Frame, **fields: Any) -> None:
        """`peer` says PARTIAL for a dispatch."""
        self.receive_03(peer, spec.PARTIAL, *body, id=id, **fields)

    def reject(self, peer: bytes, id: int) -> None:
        """`peer` says REJECT for a dispatch."""
        self.receive_03(peer, spec.REJECT, id=id)

    def leave(self, peer: bytes) -> None:
        """`peer` says DISCONNECT."""
        self.receive_03(peer, spec.DISCONNECT)

    def heartbeat(self, *peers: bytes) -> None:
        for peer in peers:
            self.receive_03(peer, spec.HEARTBEAT)

    def lose_connection(self, peer: bytes) -> None:
        """`peer` is there no more: the monitor sees the end of its connection."""
        self.unreachable.add(peer)
        self.machine.connection_ended(peer, self.now)
        self.turn()
        self.turn()

    def stories(self) -> list[str]:
        """Where every open request is."""
        peers = self.machine.registry.peers.values()
        return [invariants.story(request) for peer in peers for request in peer.open.values()]

    def check(self) -> None:
        invariants.check(self.machine)

    @property
    def counts(self) -> Any:
        return self.machine.registry.counts


LEGACY_DIALECTS = (Dialect.MDP01, Dialect.MDP02, Dialect.MDP02D, Dialect.DELPHI)
