"""Virtual time, a network with delays and failures, and the shell of a broker in the middle of it.

Nothing here waits: the clock jumps from event to event. A peer that dies is refused by the socket
at the next send (its machine is up) or swallows everything (it is not). A peer that stalls reads
nothing: beyond `SOCKET` messages the socket is full.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Protocol

from majordomus.core.broker import invariants
from majordomus.core.broker.machine import BrokerMachine
from majordomus.core.broker.settings import BrokerSettings
from majordomus.core.broker.state.registry import Send
from majordomus.protocol.spec import Frame

DELAY = 0.0005
SOCKET = 20


class Actor(Protocol):
    """Somebody with a routing id."""

    id: bytes

    def hear(self, frames: list[Frame]) -> None:
        """One message of the broker."""


class World:
    """Peers, the broker, and time. `watch` sees every message that the broker sends, in order."""

    def __init__(self, seed: int, settings: BrokerSettings) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.machine = BrokerMachine(settings, self.random.randbytes, "simulation")
        self.watch: Callable[[bytes, list[Frame]], None] = lambda peer, frames: None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._actors: dict[bytes, Actor] = {}
        self._unreachable: set[bytes] = set()
        self._stalled: dict[bytes, deque[list[Frame]]] = {}
        self._on_the_way: Counter[bytes] = Counter()
        self._turns = 0

    # for actors

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do `action` later."""
        heappush(self._events, (self.now + seconds, next(self._order), action))

    def join(self, actor: Actor) -> None:
        self._actors[actor.id] = actor

    def say(self, peer: bytes, *frames: Frame) -> None:
        """A message on its way to the broker; it arrives even if its sender dies meanwhile."""
        self.after(DELAY, lambda: self.machine.receive(peer, list(frames), self.now))

    def die(self, peer: bytes, noticed: bool) -> None:
        """`peer` is no more. If that is `noticed`, its connection ends, and the monitor says so."""
        self._actors.pop(peer, None)
        self._stalled.pop(peer, None)
        if noticed:
            self._unreachable.add(peer)
            self.after(DELAY, lambda: self.machine.connection_ended(peer, self.now))

    def stall(self, peer: bytes, seconds: float) -> None:
        """`peer` reads nothing for a while; what the socket holds for it comes then."""
        self._stalled.setdefault(peer, deque())
        self.after(seconds, lambda: self._resume(peer))

    def _resume(self, peer: bytes) -> None:
        """What waited is older than what is on its way: heard later, it would be out of order."""
        for frames in self._stalled.pop(peer, ()):
            self._hear(peer, frames)

    # the broker's shell

    def run(self, seconds: float, check_every: int = 500) -> None:
        """Let `seconds` pass. The invariants are checked at the end and every so many turns."""
        end = self.now + seconds
        while True:
            due = self.machine.next_deadline()
            at = min(due, self._events[0][0] if self._events else end, end)
            self.now = max(self.now, at)
            if self.now >= end:
                break
            while self._events and self._events[0][0] <= self.now:
                heappop(self._events)[2]()
            self.machine.socket_empty(self.now)
            self.machine.tick(self.now)
            self._send()
            self._turns += 1
            if self._turns % check_every == 0:
                invariants.check(self.machine)
        invariants.check(self.machine)

    def _send(self) -> None:
        _, sends, _ = self.machine.take_effects()
        refused: list[tuple[Send, bool]] = []
        full: set[bytes] = set()
        for send in sends:
            peer, frames = send[:2]
            self.watch(peer, frames)
            waiting = self._stalled.get(peer)
            if peer in self._unreachable:
                refused.append((send, True))
            elif peer in full or (
                waiting is not None and len(waiting) + self._on_the_way[peer] >= SOCKET
            ):
                full.add(peer)
                refused.append((send, False))
            else:
                self._deliver(peer, frames)
        for send, gone in refused:
            self.machine.refused(send, gone, self.now)

    def _deliver(self, peer: bytes, frames: list[Frame]) -> None:
        def arrive() -> None:
            self._on_the_way[peer] -= 1
            waiting = self._stalled.get(peer)
            if waiting is not None:
                waiting.append(frames)
            else:
                self._hear(peer, frames)

        self._on_the_way[peer] += 1
        self.after(DELAY, arrive)

    def _hear(self, peer: bytes, frames: list[Frame]) -> None:
        actor = self._actors.get(peer)
        if actor is not None:
            actor.hear(frames)
