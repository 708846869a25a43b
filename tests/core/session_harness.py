"""A session on a virtual clock; the test plays the owner of its socket and the broker.

The broker is only the messages that the test hands to the session. What the session sends is read
back into short tuples, so that a test can compare the whole list of outputs.
"""

from __future__ import annotations

import itertools
from math import inf
from typing import Any, Generic, TypeVar

from majordomus.core.client.session import ClientSession, ClientSettings
from majordomus.core.worker.session import WorkerSession, WorkerSettings
from majordomus.protocol import mdp03, octets, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect, Frame
from tests import headers

Word = tuple[Any, ...]
S = TypeVar("S", ClientSession, WorkerSession)

LEGACY_DIALECTS = tuple(LEGACY)
START = 1024.0
FIRST_REST = 0.03125
"""How long a client of ours rests after its first 429 or 503; exact in binary."""
MOST_TURNS = 100
"""Turns that may be due at one moment, one after the other."""


def ids() -> Any:
    """Bytes that are different at every call, and the same in every run."""
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def shortest() -> float:
    """Chance that always chooses the shortest delay: half of the bound."""
    return 0.0


def word(frames: list[Frame]) -> Word:
    """(COMMAND, {fields that are set}, *body) of an MDP/0.3 message; any other as it is."""
    if not octets.is_mdp03(frames[0]):
        return tuple(frames)
    command, flags, code, id, ttl, service, address, metadata = headers.parse(frames[0])
    fields = {
        "flags": flags,
        "code": code,
        "id": id,
        "ttl": ttl,
        "service": service,
        "address": address,
        "metadata": metadata,
    }
    name = spec.COMMAND_NAMES.get(command, str(command))
    return (name, {key: value for key, value in fields.items() if value}, *frames[1:])


class Script(Generic[S]):
    """One session, its shell, and what came out since the last call."""

    def __init__(self, session: S) -> None:
        self.session = session
        self.now = START
        self.full = False
        """The socket refuses everything."""
        self.room = inf
        """Messages that the socket still takes."""
        self.renewals: list[int] = []
        """Endpoints of the sockets that were opened in place of older ones."""
        self._words: list[Word] = []
        self._events: list[Any] = []

    # the shell

    def turn(self) -> None:
        """One turn of a shell's loop."""
        session = self.session
        if session.next_deadline() <= self.now:
            session.tick(self.now)
        renew = True
        while renew:
            sends, tags, events, renew = session.take_effects()
            self._events.extend(list(events))
            self._send([list(frames) for frames in sends], list(tags))
            if renew:
                self.renewals.append(getattr(session, "endpoint", 0))

    def _send(self, sends: list[list[Frame]], tags: list[object]) -> None:
        for frames, tag in zip(sends, tags, strict=True):
            if self.full or self.room <= 0:
                self.session.refused(frames, tag, self.now)
            else:
                self.room -= 1
                self._words.append(word(frames))

    def connect(self) -> None:
        """The monitor sees a connection."""
        self.session.connected(self.now)
        self.turn()

    def cut(self) -> None:
        """The monitor sees the end of the connection."""
        self.session.lost(self.now)
        self.turn()

    def pass_time(self, seconds: float) -> None:
        """As an idle shell does: a turn at each deadline."""
        end, turns = self.now + seconds, 0
        while (due := self.session.next_deadline()) <= end:
            turns = turns + 1 if due <= self.now else 0
            assert turns < MOST_TURNS, "the session has something due again and again"
            self.now = max(self.now, due)
            self.turn()
        self.now = end

    def pause(self, seconds: float) -> None:
        """The process was stopped: time passes, and then there is one turn."""
        self.now += seconds
        self.turn()

    # the broker

    def hear(self, *frames: Frame) -> None:
        """One message from the broker, and the turn that follows it."""
        self.session.receive(list(frames), self.now)
        self.turn()

    def say(self, command: int, *body: Frame, **fields: Any) -> None:
        """One MDP/0.3 message from the broker."""
        self.hear(mdp03.pack(command, **fields), *body)

    # what came out

    def said(self) -> list[Word]:
        """What was sent since the last call."""
        said, self._words = self._words, []
        return said

    def events(self) -> list[Any]:
        """What the session reported since the last call."""
        events, self._events = self._events, []
        return events

    def out(self) -> tuple[list[Word], list[Any], list[int]]:
        """Everything since the last call: sends, events, renewals."""
        renewals, self.renewals = self.renewals, []
        return self.said(), self.events(), renewals


class ClientScript(Script[ClientSession]):
    """A client's session."""

    def __init__(self, **settings: Any) -> None:
        settings = {"retry_first": 2 * FIRST_REST, **settings}
        super().__init__(ClientSession(ClientSettings(**settings), ids(), shortest))

    def call(self, *body: Frame, ttl: float = 5.0, **options: Any) -> int:
        """A call of echo, and the turn that follows it."""
        service = options.pop("service", b"echo")
        number = self.session.call(service, list(body), self.now, ttl=ttl, **options)
        self.turn()
        return number

    def cancel(self, call: int) -> None:
        self.session.cancel(call, self.now)
        self.turn()

    def close(self) -> None:
        self.session.close(self.now)
        self.turn()

    def final(self, id: int, *body: Frame, status: int = 200, **fields: Any) -> None:
        """The broker sends FINAL."""
        self.say(spec.FINAL, *body, id=id, code=status, **fields)


class WorkerScript(Script[WorkerSession]):
    """A worker's session."""

    def __init__(self, **settings: Any) -> None:
        settings = {"services": (b"echo",), **settings}
        super().__init__(WorkerSession(WorkerSettings(**settings), ids(), shortest))

    def request(self, number: int, *body: Frame, ttl: int = 5000, **fields: Any) -> None:
        """The broker sends REQUEST; `number` is its id without bit 63."""
        fields = {"service": b"echo", "address": b"client", **fields}
        self.say(spec.REQUEST, *body, id=spec.BROKER_ID_BIT + number, ttl=ttl, **fields)

    def welcome(self, interval: int = 2500, **fields: Any) -> None:
        """The broker sends WELCOME; `interval` in milliseconds."""
        self.say(spec.WELCOME, ttl=interval, address=b"me", **fields)

    def job(self) -> int:
        """The dispatch_id of the one dispatch that came since the last call."""
        (event,) = self.events()
        return int(event.id)

    def final(self, dispatch_id: int, *body: Frame, status: int = 200) -> bool:
        done = self.session.final(dispatch_id, status, list(body), self.now)
        self.turn()
        return done

    def partial(self, dispatch_id: int, *body: Frame) -> bool:
        done = self.session.partial(dispatch_id, list(body), self.now)
        self.turn()
        return done

    def reject(self, dispatch_id: int) -> bool:
        done = self.session.reject(dispatch_id, self.now)
        self.turn()
        return done

    def drain(self) -> None:
        self.session.drain(self.now)
        self.turn()

    def close(self) -> None:
        self.session.close(self.now)
        self.turn()


# What a broker of an older dialect says, and what it reads: by that dialect's own codec.


def answer(dialect: Dialect, *body: Frame, service: bytes = b"echo") -> list[Frame]:
    """The broker's FINAL to a client."""
    return LEGACY[dialect].b2c_final(service, list(body))


def asked(dialect: Dialect, *body: Frame, service: bytes = b"echo") -> Word:
    """The client's REQUEST."""
    return tuple(LEGACY[dialect].c2b_request(service, list(body)))
