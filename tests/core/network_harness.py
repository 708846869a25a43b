"""Brokers, clients and workers joined without a socket, on one virtual clock.

A message takes no time; what is on its way when a connection breaks is lost or not, as the test
says. Every end has the shell that it would have: it connects when its broker is there, hands over
what has arrived before it reports a loss, and changes its "socket" (its routing id) when its
session says so. A broker's invariants are checked after each of its turns.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from majordomus.core.broker import invariants
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.core.client.session import (
    ClientEvent,
    ClientSession,
    ClientSettings,
    Final,
    Lost,
    Part,
)
from majordomus.core.worker.session import Dispatch, WorkerEvent, WorkerSession, WorkerSettings
from majordomus.protocol.spec import Frame

Handler = Callable[["WorkerEnd", Dispatch], None]
MOST_ROUNDS = 10_000


def echo(worker: WorkerEnd, dispatch: Dispatch) -> None:
    """Answers with the body of the request."""
    worker.final(dispatch, *dispatch.frames)


def hold(worker: WorkerEnd, dispatch: Dispatch) -> None:
    """Leaves the dispatch in `held`, for the test to answer."""


def reject(worker: WorkerEnd, dispatch: Dispatch) -> None:
    """Rejects every dispatch."""
    worker.held.remove(dispatch)
    worker.session.reject(dispatch.id, worker.world.now)


class ConnectionDesk:
    """One broker, and the connections that it has."""

    def __init__(self, world: World, settings: dict[str, Any]) -> None:
        self.world = world
        self.settings = settings
        self.alive = True
        self.frozen = False
        self.connections: dict[bytes, End] = {}
        self.inbox: deque[tuple[bytes, list[Frame]]] = deque()
        self.facts: list[tuple[str, dict[str, object]]] = []
        self.machine = self._machine()

    def _machine(self) -> BrokerMachine:
        return BrokerMachine(
            BrokerSettings(**self.settings), random.Random(0).randbytes, self.world.name()
        )

    def turn(self) -> bool:
        """One turn of the broker's loop. True when something happened."""
        if not self.alive or self.frozen:
            return False
        machine, now = self.machine, self.world.now
        moved = bool(self.inbox)
        while self.inbox:
            peer, frames = self.inbox.popleft()
            machine.receive(peer, list(frames), now)
        machine.socket_empty(now)
        machine.tick(now)
        _, sends, facts = machine.take_effects()
        self.facts.extend(facts)
        sent = list(sends)
        for send in sent:
            end = self.connections.get(send[0])
            if end is None:
                machine.refused(send, True, now)
            else:
                end.inbox.append(list(send[1]))
        machine.next_deadline()
        invariants.check(machine)
        return moved or bool(sent)

    def kill(self) -> None:
        """kill -9: the connections break, and the address refuses connections until `restart`."""
        self.alive = False
        self.inbox.clear()
        for end in list(self.connections.values()):
            end.broken()

    def restart(self) -> None:
        """A new broker at the same address."""
        self.machine = self._machine()
        self.alive, self.frozen = True, False

    def drain(self) -> None:
        self.machine.drain(self.world.now)

    def close(self) -> None:
        """The orderly end: DISCONNECT to all whose dialect has it; then as `kill`."""
        self.machine.close(self.world.now)
        self.turn()
        for end in list(self.connections.values()):
            end.turn()
        self.kill()


class End:
    """A client or a worker: its session, and the shell around it."""

    def __init__(self, world: World, session: Any) -> None:
        self.world = world
        self.session = session
        self.routing_id = b""
        """Empty while there is no connection."""
        self.desk: ConnectionDesk | None = None
        self.inbox: deque[list[Frame]] = deque()
        self.alive = True
        self.frozen = False
        self.events: list[Any] = []
        world.ends.append(self)

    def where(self) -> ConnectionDesk:
        """The broker to connect to."""
        return self.world.desks[0]

    def turn(self) -> bool:
        """One turn of the shell's loop. True when something happened."""
        if not self.alive or self.frozen:
            return False
        session, now = self.session, self.world.now
        moved = self._connect()
        moved |= self._receive()
        if session.next_deadline() <= now:
            session.tick(now)
        sends, tags, events, renew = session.take_effects()
        new = list(events)
        for frames, tag in [(list(frames), tag) for frames, tag in zip(sends, tags, strict=True)]:
            moved = True
            self._send(frames, tag)
        if renew:
            moved = True
            self._hang_up()
        for event in new:
            moved = True
            self.take(event)
        return moved

    def take(self, event: Any) -> None:
        self.events.append(event)

    def _connect(self) -> bool:
        desk = self.where()
        if self.routing_id or not desk.alive or desk.frozen:
            return False
        self.routing_id, self.desk = self.world.name().encode(), desk
        desk.connections[self.routing_id] = self
        self.session.connected(self.world.now)
        return True

    def _receive(self) -> bool:
        moved = bool(self.inbox)
        while self.inbox:
            self.session.receive(self.inbox.popleft(), self.world.now)
        return moved

    def _send(self, frames: list[Frame], tag: object) -> None:
        if self.desk is None:
            self.session.refused(frames, tag, self.world.now)
        else:
            self.desk.inbox.append((self.routing_id, frames))

    def _hang_up(self) -> None:
        """Close the socket: what was sent still arrives, what was to be read does not."""
        if self.desk is not None:
            del self.desk.connections[self.routing_id]
            if self.desk.alive:
                self.desk.machine.connection_ended(self.routing_id, self.world.now)
        self.desk, self.routing_id = None, b""
        self.inbox.clear()

    def broken(self) -> None:
        """The broker is gone; what had arrived is read first."""
        self._receive()
        self._hang_up()
        if self.alive:
            self.session.lost(self.world.now)

    def cut(self, *, losing: bool = True, seen: bool = True) -> None:
        """The connection breaks. `losing`: with all that is on its way; `seen`: the broker's
        monitor sees it."""
        desk, routing_id = self.desk, self.routing_id
        if desk is None:
            return
        if losing:
            self.inbox.clear()
            kept = [message for message in desk.inbox if message[0] != routing_id]
            desk.inbox = deque(kept)
        self._receive()
        del desk.connections[routing_id]
        self.desk, self.routing_id = None, b""
        self.session.lost(self.world.now)
        if seen and desk.alive:
            desk.machine.connection_ended(routing_id, self.world.now)

    def kill(self, *, seen: bool = True) -> None:
        """kill -9."""
        self.cut(seen=seen)
        self.alive = False
        self.world.ends.remove(self)

    def close(self) -> None:
        """The orderly end."""
        self.session.close(self.world.now)
        self.turn()
        self._hang_up()
        self.alive = False
        self.world.ends.remove(self)


class ClientEnd(End):
    """A client; `outcomes` and `parts` by call."""

    session: ClientSession

    def __init__(self, world: World, **settings: Any) -> None:
        settings = {"endpoints": len(world.desks), **settings}
        session = ClientSession(
            ClientSettings(**settings), world.random.randbytes, world.random.random
        )
        self.outcomes: dict[int, Final | Lost] = {}
        self.parts: dict[int, list[list[Frame]]] = {}
        super().__init__(world, session)

    def where(self) -> ConnectionDesk:
        return self.world.desks[self.session.endpoint]

    def call(
        self, *body: Frame, service: bytes = b"echo", ttl: float = 10.0, **options: Any
    ) -> int:
        return self.session.call(service, list(body), self.world.now, ttl=ttl, **options)

    def take(self, event: ClientEvent) -> None:
        super().take(event)
        if isinstance(event, Part):
            self.parts.setdefault(event.call, []).append(event.frames)
            return
        if not isinstance(event, Final | Lost):
            return
        assert event.call not in self.outcomes, "a call has two outcomes"
        self.outcomes[event.call] = event

    def answer(self, call: int) -> tuple[int, list[Frame]]:
        """Status and body of the call's end, which must be there and no Lost."""
        outcome = self.outcomes[call]
        assert isinstance(outcome, Final)
        return outcome.status, outcome.frames


class WorkerEnd(End):
    """A worker; `handler` is called for each dispatch; `held`: those without an answer."""

    session: WorkerSession

    def __init__(
        self, world: World, handler: Handler = echo, *, broker: int = 0, **settings: Any
    ) -> None:
        settings = {"services": (b"echo",), "capacity": 4, **settings}
        session = WorkerSession(
            WorkerSettings(**settings), world.random.randbytes, world.random.random
        )
        self.handler = handler
        self.broker = broker
        self.held: list[Dispatch] = []
        self.begun: list[Dispatch] = []
        super().__init__(world, session)

    def where(self) -> ConnectionDesk:
        return self.world.desks[self.broker]

    def take(self, event: WorkerEvent) -> None:
        super().take(event)
        if isinstance(event, Dispatch):
            self.held.append(event)
            self.begun.append(event)
            self.handler(self, event)

    def partial(self, dispatch: Dispatch, *frames: Frame) -> bool:
        return self.session.partial(dispatch.id, list(frames), self.world.now)

    def final(self, dispatch: Dispatch, *frames: Frame, status: int = 200) -> bool:
        self.held.remove(dispatch)
        return self.session.final(dispatch.id, status, list(frames), self.world.now)


class World:
    """Everything, and the time."""

    def __init__(self, brokers: int = 1, seed: int = 0, **settings: Any) -> None:
        self.now = 1000.0
        self.random = random.Random(seed)
        self._names = itertools.count(1)
        self.ends: list[End] = []
        self.desks = [ConnectionDesk(self, settings) for _ in range(brokers)]

    def name(self) -> str:
        """A name that was not used before."""
        return f"peer-{next(self._names)}"

    def client(self, **settings: Any) -> ClientEnd:
        return ClientEnd(self, **settings)

    def worker(self, handler: Handler = echo, **settings: Any) -> WorkerEnd:
        return WorkerEnd(self, handler, **settings)

    def settle(self) -> None:
        """Let everything happen that happens without time passing."""
        for _ in range(MOST_ROUNDS):
            moved = False
            for one in [*self.ends, *self.desks]:
                moved |= one.turn()
            if not moved:
                return
        raise AssertionError("it never comes to rest")

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, from one deadline to the next."""
        end = self.now + seconds
        self.settle()
        rounds = 0
        while (due := self._due()) <= end:
            rounds = rounds + 1 if due <= self.now else 0
            assert rounds < MOST_ROUNDS, "something is due again and again"
            self.now = max(self.now, due)
            self.settle()
        self.now = end
        self.settle()

    def _due(self) -> float:
        ends = [end.session.next_deadline() for end in self.ends if end.alive and not end.frozen]
        desks = [
            desk.machine.next_deadline() for desk in self.desks if desk.alive and not desk.frozen
        ]
        return min(ends + desks, default=float("inf"))
