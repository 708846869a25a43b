"""A broker machine on a virtual clock, and peers that are only routing ids.

Tests write the frames of a peer by hand, or with the codecs' writers for that side. Messages of the
machine are read back into short tuples, so that a test can compare the whole list of outputs.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

from majordomus.core.broker import invariants
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.core.broker.state.registry import Send
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
    """The dispatch id with the broker's `n`th number."""
    return spec.BROKER_ID_BIT | n


def handle(n: int) -> Frame:
    """The address of the same dispatch at a worker of an older dialect."""
    return b"%016x" % number(n)


def read_03(frames: list[Frame]) -> Message:
    """(COMMAND, fields that are set, body) of an MDP/0.3 message."""
    names = ("flags", "code", "id", "ttl", "service", "address", "metadata")
    command, *values = headers.parse(frames[0])
    known = {name: value for name, value in zip(names, values, strict=True) if value}
    return (spec.COMMAND_NAMES[command], known, frames[1:])


def welcome(peer: bytes, interval: int = 2500, **facts: Any) -> Message:
    """The WELCOME to `peer`."""
    described = {
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
        "metadata": metadata.pack(described),
    }
    return (peer, "WELCOME", fields, [])


def final(
    client: bytes, id: int, *body: Frame, worker: bytes = b"", status: int = 200, **fields: Any
) -> Message:
    """The FINAL to a client."""
    named = {"address": worker} if worker else {}
    return (client, "FINAL", {"code": status, "id": id, **named, **fields}, list(body))


def partial(client: bytes, id: int, *body: Frame, **fields: Any) -> Message:
    """The PARTIAL to a client."""
    return (client, "PARTIAL", {"id": id, **fields}, list(body))


def cancel(worker: bytes, n: int) -> Message:
    """The CANCEL to a worker, for the dispatch with the broker's `n`th number."""
    return (worker, "CANCEL", {"id": number(n)}, [])


def disconnect(peer: bytes, status: int = 0, text: str = "", service: str = "") -> Message:
    """The DISCONNECT to a peer, with its reason if there is one."""
    if not status:
        return (peer, "DISCONNECT", {}, [])
    reason: dict[str, Any] = {"status": status, "reason": text}
    if service:
        reason["service"] = service
    fields = {"flags": spec.BROKER_METADATA, "metadata": metadata.pack(reason)}
    return (peer, "DISCONNECT", fields, [])


def heartbeat(peer: bytes) -> Message:
    """The HEARTBEAT to a peer."""
    return (peer, "HEARTBEAT", {}, [])


class BrokerHarness:
    """A machine and its program.

    now: the time of the virtual clock.
    machine: the machine.
    waiting: messages of the machine that the test has not read yet.
    facts: every fact of the machine.
    unreachable: peers without a connection: every send to them is refused as gone.
    full: peers whose socket is full: every send to them is refused.
    room: for peers with a limited socket, how many more messages it takes.
    handles: the handle of each peer.
    """

    def __init__(self, strategies: Any = None, **settings: Any) -> None:
        self.now = 1000.0
        self.machine = BrokerMachine(BrokerSettings(**settings), ids(), "harness", strategies)
        self.waiting: deque[tuple[bytes, list[Frame]]] = deque()
        self.facts: list[tuple[str, dict[str, object]]] = []
        self.unreachable: set[bytes] = set()
        self.full: set[bytes] = set()
        self.room: dict[bytes, int] = {}
        self.handles: dict[bytes, bytes] = {}

    # the program around the machine

    def receive(self, peer: bytes, *frames: Frame) -> None:
        """Pass one message of `peer` to the machine, and do a turn of the loop."""
        self.machine.receive(peer, list(frames), self.now)
        self._note_handle(peer)
        self.turn()

    def receive_all(self, *messages: tuple[bytes, list[Frame]]) -> None:
        """Pass several messages to the machine, and do one turn after all of them."""
        for peer, frames in messages:
            self.machine.receive(peer, list(frames), self.now)
            self._note_handle(peer)
        self.turn()

    def _note_handle(self, peer: bytes) -> None:
        known = self.machine.registry.peers.get(peer)
        if known is not None:
            self.handles[peer] = known.handle

    def turn(self) -> None:
        """Do the rest of one turn of the loop."""
        self.machine.socket_empty(self.now)
        self.machine.tick(self.now)
        self._send()
        self.machine.next_deadline()

    def _send(self) -> None:
        _, sends, facts = self.machine.take_effects()
        self.facts.extend(facts)
        self._transmit(list(sends))

    def _transmit(self, sends: list[Send]) -> None:
        stuck: set[bytes] = set()
        refused = []
        for send in sends:
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
        """Advance the clock as an idle program does: a turn at each deadline."""
        end = self.now + seconds
        while (due := self.machine.next_deadline()) <= end:
            self.now = max(self.now, due)
            self.turn()
        self.now = end
        self.turn()

    # output of the machine

    def sent(self) -> list[tuple[bytes, list[Frame]]]:
        """Everything that was sent since the last call: (routing id, frames)."""
        sent = list(self.waiting)
        self.waiting.clear()
        return sent

    def messages(self) -> list[Message]:
        """As `sent`, with MDP/0.3 headers read: (routing id, COMMAND, {set fields}, body)."""
        return [self._message(peer, frames) for peer, frames in self.sent()]

    def waiting_messages(self) -> list[Message]:
        """As `messages`, and they are returned again by the next call."""
        return [self._message(peer, frames) for peer, frames in self.waiting]

    def _message(self, peer: bytes, frames: list[Frame]) -> Message:
        if not octets.is_mdp03(frames[0]):
            return (peer, *frames)
        return (peer, *read_03(frames))

    def request_to(
        self, worker: bytes, n: int, client: bytes, *body: Frame, **fields: Any
    ) -> Message:
        """The REQUEST to `worker` with the broker's `n`th number."""
        default = {"ttl": 60000, "service": b"echo", "address": self.handles[client]}
        return (worker, "REQUEST", {"id": number(n), **default, **fields}, list(body))

    def dispatched(self) -> list[tuple[bytes, int]]:
        """(worker, dispatch id) of every MDP/0.3 REQUEST sent since the last call."""
        return [(one[0], one[2]["id"]) for one in self.messages() if one[1] == "REQUEST"]

    def finals(self) -> list[tuple[bytes, int, int, list[Frame]]]:
        """(client, id, status, body) of every MDP/0.3 FINAL sent since the last call."""
        return [
            (one[0], one[2]["id"], one[2]["code"], one[3])
            for one in self.messages()
            if one[1] == "FINAL"
        ]

    # peers of MDP/0.3

    def receive_03(self, peer: bytes, command: int, *body: Frame, **fields: Any) -> None:
        """Pass one MDP/0.3 message of `peer` to the machine."""
        self.receive(peer, mdp03.pack(command, **fields), *body)

    def worker(self, peer: bytes, service: bytes = b"echo", capacity: int = 1) -> None:
        """`peer` sends READY."""
        self.receive_03(peer, spec.READY, service=service, code=capacity)

    def request(self, peer: bytes, id: int, *body: Frame, **fields: Any) -> None:
        """`peer` sends REQUEST, to the service echo by default."""
        self.receive_03(peer, spec.REQUEST, *body, **{"service": b"echo", "id": id, **fields})

    def answer(self, peer: bytes, id: int, *body: Frame, status: int = 200) -> None:
        """`peer` sends FINAL for a dispatch."""
        self.receive_03(peer, spec.FINAL, *body, id=id, code=status)

    def part(self, peer: bytes, id: int, *body: Frame, **fields: Any) -> None:
        """`peer` sends PARTIAL for a dispatch."""
        self.receive_03(peer, spec.PARTIAL, *body, id=id, **fields)

    def reject(self, peer: bytes, id: int) -> None:
        """`peer` sends REJECT for a dispatch."""
        self.receive_03(peer, spec.REJECT, id=id)

    def leave(self, peer: bytes) -> None:
        """`peer` sends DISCONNECT."""
        self.receive_03(peer, spec.DISCONNECT)

    def heartbeat(self, *peers: bytes) -> None:
        for peer in peers:
            self.receive_03(peer, spec.HEARTBEAT)

    def lose_connection(self, peer: bytes) -> None:
        """The connection of `peer` ends, and the monitor reports it."""
        self.unreachable.add(peer)
        self.machine.connection_ended(peer, self.now)
        self.turn()
        self.turn()

    def stories(self) -> list[str]:
        """The state of every open request, as text."""
        peers = self.machine.registry.peers.values()
        return [invariants.story(request) for peer in peers for request in peer.open.values()]

    def check(self) -> None:
        invariants.check(self.machine)

    @property
    def counts(self) -> Any:
        return self.machine.registry.counts


LEGACY_DIALECTS = (Dialect.MDP01, Dialect.MDP02, Dialect.MDP02D, Dialect.DELPHI)
