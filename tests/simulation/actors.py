"""Clients and workers of the simulation, as short as MDP/0.3 allows, and the ledger of their deeds.

A request's body is its name, so that the ledger can follow it through any number of workers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.spec import Frame
from majordomus.protocol.topics import agrees
from tests import headers
from tests.simulation.world import World

Name = bytes


class Kind(NamedTuple):
    """How somebody behaves. Rates are per second, `every` is the mean time between requests."""

    every: float = 1.0
    at_once: int = 1
    dies: float = 0.0
    stalls: float = 0.0
    rejects: float = 0.0
    streams: float = 0.0
    drains: float = 0.0
    works: float = 0.02
    hears: tuple[bytes, ...] = ()
    """Patterns that it subscribes to: it has presence, and a session."""


class Ledger:
    """What the peers saw, kept by the name of each request. It raises at the first offence."""

    def __init__(self) -> None:
        self.asked: dict[Name, int] = {}
        self.finals: Counter[Name] = Counter()
        self.statuses: Counter[int] = Counter()
        self.started: Counter[Name] = Counter()
        self.streamed: set[Name] = set()
        self.waits: defaultdict[str, list[float]] = defaultdict(list)
        self.lost_clients: set[Name] = set()
        self.events: Counter[str] = Counter()
        self.heard: Counter[tuple[Name, bytes]] = Counter()
        """Events by who heard them."""
        self.pushed = 0
        self.published = 0
        self.closed = False
        """Nobody asks any more."""

    def final(self, name: Name, status: int) -> None:
        self.finals[name] += 1
        self.statuses[status] += 1
        if self.finals[name] > 1 or self.asked[name] & spec.ONE_WAY:
            raise AssertionError(f"rule 1: {name!r} has {self.finals[name]} answers")

    def event(self, who: Name, kind: Kind, topic: bytes, body: bytes) -> None:
        """An event reaches the client for which it is, at most once."""
        self.heard[who, body] += 1
        self.events["pushes heard" if not topic else "topics heard"] += 1
        if self.heard[who, body] > 1:
            raise AssertionError(f"{who!r} hears {body!r} again")
        if not topic and body.split(b"/")[0] != who:
            raise AssertionError(f"{who!r} hears what is for another: {body!r}")
        if topic and not any(agrees(pattern, topic) for pattern in kind.hears):
            raise AssertionError(f"{who!r} did not subscribe to {topic!r}")
        if not kind.hears:
            raise AssertionError(f"{who!r} has no presence")

    def start(self, name: Name) -> None:
        """A worker begins to work; what it rejects, it has not begun."""
        if name in self.streamed:
            raise AssertionError(f"rule 3: {name!r} is tried again after a part")
        self.started[name] += 1
        if self.started[name] > (1 if self.asked[name] & spec.ONCE else 3):
            raise AssertionError(f"rule 3: {name!r} is tried {self.started[name]} times")


def _successor(id: bytes) -> bytes:
    """The routing id of who comes after `id`: none is used twice."""
    name, _, generation = id.partition(b"~")
    return b"%s~%d" % (name, int(generation or 0) + 1)


class Talk:
    """A client's stream: how many parts it is to have, and how far it has come."""

    def __init__(self, parts: int) -> None:
        self.parts, self.sent, self.credit = parts, 0, spec.FIRST_CREDIT
        self.ended = self.waits = False


class Client:
    """Asks `at_once` requests at a time, waits for each, thinks, asks again."""

    def __init__(self, world: World, ledger: Ledger, id: bytes, kind: Kind, what: str) -> None:
        self.world, self.ledger, self.id, self.kind, self.what = world, ledger, id, kind, what
        self.open: dict[int, tuple[Name, float]] = {}
        self.talks: dict[int, Talk] = {}
        self.last_id = 0
        self.alive = True
        world.join(self)
        if kind.hears:
            self._greet()
        for _ in range(kind.at_once):
            self._think()
        if kind.stalls:
            world.after(world.random.expovariate(kind.stalls), self._stall)

    @property
    def name(self) -> Name:
        """The same for all that come after one another."""
        return self.id.partition(b"~")[0]

    def _greet(self) -> None:
        """HELLO with the session that its predecessor had; only the first one subscribes."""
        field = metadata.pack({"session": self.name.ljust(16, b".")[:16]})
        self.world.say(self.id, mdp03.pack(spec.HELLO, spec.METADATA, metadata=field))
        for pattern in self.kind.hears if self.id == self.name else ():
            self.world.say(self.id, mdp03.pack(spec.SUBSCRIBE, service=pattern))

    def _publish(self) -> None:
        self.ledger.published += 1
        topic = self.world.random.choice((b"prices.eur", b"prices.usd.one", b"news", b"other"))
        body = b"%s/event-%d" % (self.id, self.ledger.published)
        self.world.say(self.id, mdp03.pack(spec.EVENT, service=topic), body)

    def _think(self) -> None:
        self.world.after(self.world.random.expovariate(1 / self.kind.every), self._ask)

    def _ask(self) -> None:
        if not self.alive or self.ledger.closed:
            return
        random = self.world.random
        if random.random() < 0.05:
            self._publish()
        self.last_id += 1
        name = b"%s/%d" % (self.id, self.last_id)
        flags = random.choices((0, spec.ONCE, spec.ONE_WAY, spec.MORE), (8, 2, 1, 2))[0]
        self.ledger.asked[name] = flags
        service = random.choice((b"echo", b"echo", b"time"))
        ttl = random.choice((300, 2000, 20_000))
        header = mdp03.pack(spec.REQUEST, flags, 0, self.last_id, ttl, service)
        self.world.say(self.id, header, name)
        if flags & spec.ONE_WAY:
            self._think()
            return
        self.open[self.last_id] = name, self.world.now
        if flags & spec.MORE:
            talk = self.talks[self.last_id] = Talk(random.choice((0, 3, 40)))
            self._talk(self.last_id, talk)
        if random.random() < 0.03:
            id = self.last_id
            self.world.after(random.random(), lambda: self._cancel(id))
        if random.random() < self.kind.dies:
            self.world.after(random.random() * 0.1, self.die)

    def _talk(self, id: int, talk: Talk) -> None:
        """The next part, if there is credit for it, or the end."""
        if not self.alive or id not in self.open or talk.ended:
            return
        if talk.sent == talk.parts:
            talk.ended = True
            self.world.say(self.id, mdp03.pack(spec.FINAL, code=200, id=id))
            return
        talk.waits = not talk.credit
        if talk.credit:
            talk.credit -= 1
            self.world.say(self.id, mdp03.pack(spec.PARTIAL, id=id), b"%d" % talk.sent)
            talk.sent += 1
            self.world.after(self.world.random.expovariate(200), lambda: self._talk(id, talk))

    def _cancel(self, id: int) -> None:
        if self.alive and id in self.open:
            self.world.say(self.id, mdp03.pack(spec.CANCEL, id=id))

    def _stall(self) -> None:
        if self.alive:
            self.ledger.events["clients stalled"] += 1
            self.world.stall(self.id, self.world.random.uniform(0.5, 3.0))
            self.world.after(self.world.random.expovariate(self.kind.stalls) + 3, self._stall)

    def die(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self.ledger.events["clients died"] += 1
        self.ledger.lost_clients.update(name for name, _ in self.open.values())
        self.world.die(self.id, noticed=True)
        Client(self.world, self.ledger, _successor(self.id), self.kind, self.what)

    def hear(self, frames: list[Frame]) -> None:
        command, _, status, id, _, topic, *_ = headers.parse(frames[0])
        if command == spec.EVENT:
            self.ledger.event(self.name, self.kind, topic, frames[1])
            if topic and self.id != self.name:
                self.ledger.events["topics heard after a return"] += 1
        if command == spec.CREDIT:
            talk = self.talks[id]
            talk.credit += status
            if talk.waits:
                self._talk(id, talk)
        if command == spec.PARTIAL:
            if id not in self.open:
                raise AssertionError(f"{self.id!r} hears a part of {id}, which has ended")
            self.ledger.streamed.add(self.open[id][0])
        if command != spec.FINAL:
            return
        if id not in self.open:
            raise AssertionError(f"{self.id!r} hears a second answer to {id}")
        name, asked = self.open.pop(id)
        said = self.talks.pop(id, None)
        if status == spec.OK and said is not None and frames[2] != b"early":
            if frames[2] != b"%d" % said.sent or not said.ended:
                raise AssertionError(f"of {said.sent} parts of {name!r}, {frames[2]!r} came")
            self.ledger.events["streams heard to their end"] += 1
        if status == spec.OK and frames[1] != name:
            raise AssertionError(f"{name!r} was answered what {frames[1]!r} asked")
        self.ledger.final(name, status)
        self.ledger.waits[self.what].append(self.world.now - asked)
        self._think()


class Worker:
    """Takes `capacity` requests at a time, heartbeats, and sooner or later does something else."""

    def __init__(
        self, world: World, ledger: Ledger, id: bytes, kind: Kind, services: tuple[bytes, ...]
    ) -> None:
        self.world, self.ledger, self.id, self.kind = world, ledger, id, kind
        self.services = services
        self.capacity = world.random.choice((1, 2, 4))
        self.holds: dict[int, Name] = {}
        self.handles: dict[Name, bytes] = {}
        self.heard: dict[int, int] = {}
        """Parts of the streams among them that have come."""
        self.ends: set[int] = set()
        self.alive, self.stopped_until, self.draining = True, 0.0, False
        world.join(self)
        for service in services:
            self._say(spec.READY, service=service, code=self.capacity)
        self._heartbeat()
        for rate, act in ((kind.dies, self.die), (kind.stalls, self._stop)):
            if rate:
                world.after(world.random.expovariate(rate), act)
        if kind.drains:
            world.after(world.random.expovariate(kind.drains), self._drain)

    def _say(self, command: int, *body: Frame, **fields: object) -> None:
        self.world.say(self.id, mdp03.pack(command, **fields), *body)  # type: ignore[arg-type]

    def _heartbeat(self) -> None:
        if self.alive:
            if self.world.now >= self.stopped_until:
                self._say(spec.HEARTBEAT, code=spec.LOAD_UNKNOWN)
            self.world.after(2.5, self._heartbeat)

    def hear(self, frames: list[Frame]) -> None:
        command, flags, _, number, _, _, handle, _ = headers.parse(frames[0])
        if command == spec.REQUEST and flags & spec.MORE:
            self.heard[number] = 0
        if command == spec.PARTIAL and number in self.holds:
            self._part_came(number, frames[1])
        elif command in (spec.FINAL, spec.CANCEL):
            self.ends.add(number)
        if command == spec.DISCONNECT:
            self._begin_again("told to go")
        elif command == spec.REQUEST:
            self.holds[number] = frames[1]
            self.handles[frames[1].partition(b"/")[0].partition(b"~")[0]] = handle
            if len(self.holds) > self.capacity:
                raise AssertionError(f"rule 6: {self.id!r} has more than {self.capacity} requests")
            self._work(number)

    def _part_came(self, number: int, part: bytes) -> None:
        """In order, without a gap, and never behind the end; credit is given for each eight."""
        if part != b"%d" % self.heard[number] or number in self.ends:
            raise AssertionError(f"{self.id!r} hears {part!r} after {self.heard[number]} parts")
        self.heard[number] += 1
        self.ledger.streamed.add(self.holds[number])
        if self.heard[number] % 8 == 0:
            self._say(spec.CREDIT, id=number, code=8)

    def _work(self, number: int) -> None:
        random, name = self.world.random, self.holds[number]
        if random.random() < self.kind.rejects:
            self.world.after(0.001, lambda: self._give_back(number))
            return
        self.ledger.start(name)
        seconds = random.expovariate(1 / self.kind.works)
        if random.random() < self.kind.streams:
            for part in range(3):
                self.world.after(seconds * part / 3, lambda: self._part(number))
        self.world.after(seconds, lambda: self._answer(number))

    def _later_if_stopped(self, act: object) -> bool:
        wait = self.stopped_until - self.world.now
        if wait > 0:
            self.world.after(wait, act)  # type: ignore[arg-type]
        return wait > 0

    def _part(self, number: int) -> None:
        if self._later_if_stopped(lambda: self._part(number)) or number not in self.holds:
            return
        if self.alive:
            self._say(spec.PARTIAL, b"part", id=number)

    def _answer(self, number: int) -> None:
        if self._later_if_stopped(lambda: self._answer(number)) or not self.alive:
            return
        talks = number in self.heard and number in self.holds
        if talks and number not in self.ends and self.world.random.random() < 0.9:
            self.world.after(0.02, lambda: self._answer(number))
            return
        name = self.holds.pop(number, None)
        if name is None:
            return
        if self.world.random.random() < 0.1:
            self._push()
        heard = b"%d" % self.heard.get(number, 0) if number in self.ends else b"early"
        failed = self.world.random.random() < 0.05
        self._say(spec.FINAL, name, heard, id=number, code=500 if failed else 200)
        if self.draining and not self.holds:
            self._say(spec.DISCONNECT)
            self._begin_again("drained")

    def _push(self) -> None:
        """To somebody who has asked at any time, and may have gone and come back meanwhile."""
        who = self.world.random.choice(list(self.handles))
        self.ledger.pushed += 1
        body = b"%s/push-%d" % (who, self.ledger.pushed)
        self._say(spec.EVENT, body, address=self.handles[who], id=self.ledger.pushed)

    def _give_back(self, number: int) -> None:
        if self.alive and self.holds.pop(number, None) is not None:
            self.ledger.events["requests rejected"] += 1
            self._say(spec.REJECT, id=number)

    def _stop(self) -> None:
        """SIGSTOP: neither reads nor works nor heartbeats; sometimes for longer than it may."""
        if self.alive:
            self.ledger.events["workers stopped"] += 1
            seconds = self.world.random.choice((0.5, 3.0, 12.0))
            self.stopped_until = self.world.now + seconds
            self.world.stall(self.id, seconds)
            rate = self.kind.stalls
            self.world.after(seconds + self.world.random.expovariate(rate), self._stop)

    def _drain(self) -> None:
        if self.alive and not self.draining:
            self.draining = True
            self._say(spec.CAPACITY)
            if not self.holds:
                self._say(spec.DISCONNECT)
                self._begin_again("drained")

    def die(self) -> None:
        if self.alive:
            noticed = self.world.random.random() < 0.7
            self._begin_again("died" if noticed else "vanished", noticed)

    def _begin_again(self, why: str, noticed: bool = True) -> None:
        """A new process with a new routing id, a little later."""
        if not self.alive:
            return
        self.alive = False
        self.ledger.events[f"workers {why}"] += 1
        self.world.after(
            0.002 if why == "drained" else 0.0, lambda: self.world.die(self.id, noticed)
        )
        again = _successor(self.id)
        self.world.after(
            self.world.random.uniform(0.1, 1.0),
            lambda: Worker(self.world, self.ledger, again, self.kind, self.services) and None,
        )
