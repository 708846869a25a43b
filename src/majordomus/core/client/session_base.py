"""The base of a client's session: its state, sending, and how calls end.

`ClientSession` adds the commands of the caller and the messages of the broker.
"""

from __future__ import annotations

from math import inf
from typing import Any, TypeAlias
from typing import Final as Constant

from majordomus.core.client.calls import Call, Calls, Final, Lost, Part
from majordomus.core.client.encoding import (
    DISCONNECT,
    HEARTBEAT,
    ClientEncoder,
    cancel,
    hello,
    probe,
)
from majordomus.core.client.streams import CallCredit, ClientStreams
from majordomus.core.session.backoff import Rng
from majordomus.core.session.connection import CLOSED, DRAINING, OPEN, Change, Connection, Probe
from majordomus.core.session.events import EventReceived, SessionEvents, SubscriptionRefused
from majordomus.core.session.home import IDLE, Home, order
from majordomus.core.session.limits import excess
from majordomus.core.session.machine import Session
from majordomus.core.session.outbox import BATCH, SessionOutbox, Tag
from majordomus.core.session.settings import ClientSettings, IdSource
from majordomus.core.session.transitions import CallState
from majordomus.errors import LocalProtocolError
from majordomus.protocol import spec
from majordomus.protocol.mdp03 import Fields
from majordomus.protocol.spec import Frame

ClientEvent: TypeAlias = Part | Final | Lost | CallCredit | EventReceived | SubscriptionRefused

NO_BROKER: Constant = b"no broker was reachable before the deadline"
NO_ANSWER: Constant = b"no answer came before the deadline"
TOO_MANY: Constant = b"the client has as many open calls as it may"

ID_SIZE: Constant = 16
_SENT: Constant = CallState.SENT
_REQUEST: Constant = spec.REQUEST
_ONE_WAY: Constant = spec.ONE_WAY


class ClientSessionBase(Session):
    """The state of one session. See `ClientSession`."""

    def __init__(self, settings: ClientSettings, ids: IdSource, rng: Rng) -> None:
        self.settings = settings
        self.late = 0
        self.invalid: dict[str, int] = {}
        self.dropped = 0
        self.welcome: dict[str, Any] = {}
        self.peer_id = b""
        self._rng = rng
        self._ids = ids
        self._encoder = ClientEncoder(settings.dialect)
        self._codec = self._encoder.codec
        self._presence = settings.presence and self._codec is None
        self._grace = 0.0 if self._codec else settings.grace
        self._connection = Connection(
            endpoints=settings.endpoints,
            connect_timeout=settings.connect_timeout if settings.endpoints > 1 else inf,
            first=settings.retry_first,
            most=settings.retry_most,
            free=settings.endpoints,
            interval=settings.interval,
            liveness=settings.liveness,
            always=False,
            rng=rng,
            max_received=settings.max_received,
        )
        if settings.endpoints > 1 and settings.home_after < inf:
            self._connection.home = Home(settings.home_after, rng)
        self._home = self._connection.home
        self.renew_id()
        self._outbox = SessionOutbox()
        self._header = Fields()
        self._calls = Calls()
        self._open = self._calls.open
        self.streams = ClientStreams(self._open, self._outbox, self._connection, self._too_large)
        self.events = SessionEvents(self._outbox, self._next_id)
        self._tails = self._encoder.tails
        self._last = 0
        self._most = settings.max_calls
        self._probe = 0  # the id of the last request that probed the connection
        self._blocker: Call | None = None
        self._direct = False  # a call made now may leave at once
        self._leaving = False  # the broker drains, and there is another one
        self._send_at = inf
        self._events: list[ClientEvent] = []
        self._taken: list[ClientEvent] = []

    def renew_id(self) -> None:
        """Choose the id by which the broker recognises the client anew, before the first use: a
        process and its forks must not have the same."""
        self._id = bytes(self._ids(ID_SIZE))
        self._hello = hello(self._id)
        if self.settings.spread:
            self._connection.arrange(order(self._id, self.settings.spread))

    @property
    def connection(self) -> Connection:
        """The state of the connection, for the shell's reports about it."""
        return self._connection

    # ── the connection ────────────────────────────────────────────────────────────────────────────

    def _apply(self, change: Change, now: float, *, notify: bool = False) -> None:
        """Do what a change of the connection requires.

        `notify`: the broker gets a DISCONNECT, because the session ends the connection.
        """
        if change is Change.OPENED:
            if self._presence:
                self._send_hello(now)
            self._send_waiting(now)
        elif change is Change.ENDED:
            self._ended(now)
            if notify and self._presence:
                self._outbox.put([DISCONNECT], spec.DISCONNECT)
        self._update_state()

    def _send_hello(self, now: float) -> None:
        """ "HELLO opens presence for a client: heartbeats both ways" (docs/spec/mdp-0.3.md)."""
        self._put(self._hello, spec.HELLO, now)
        self._connection.begin_presence(now)
        self.events.resubscribe()

    def _heartbeat(self, now: float) -> None:
        if not self._outbox.blocked:
            self._put([HEARTBEAT], spec.HEARTBEAT, now)

    def _ended(self, now: float) -> None:
        """Nothing in flight will be answered: "a client's open calls count as broker lost"."""
        for tag in self._outbox.tags:
            self._take_back(tag)
        self._outbox.clear()
        self.streams.clear()
        self._send_at = inf
        in_flight = [call for call in self._open.values() if call.wire]
        for call in in_flight:
            if not _may_restart(call):
                self._end(call, "lose", Lost(call.number))
        self._calls.restart([call for call in in_flight if call.wire])

    def _leave(self, now: float, *, refused: bool = False) -> None:
        """Leave a broker that drains, when no call is in flight or it `refused` one.

        Not while a call is in flight that may not be sent to another broker.
        """
        if self._calls.in_flight:
            if not refused:
                return
            if self._blocker is None or not self._blocker.wire:
                in_flight = (call for call in self._open.values() if call.wire)
                self._blocker = next((one for one in in_flight if not _may_restart(one)), None)
            if self._blocker is not None:
                return
        self._apply(self._connection.step("move", now), now, notify=True)

    def _home_due(self) -> float:
        """When `_tick_home` is next needed."""
        home = self._home
        if home is None or self._connection.state is CLOSED:
            return inf
        if home.back and self._may_go_home():
            if home.holding:
                return 0.0
            return min(home.due, max(self._connection.received_at, self._connection.sent_at) + IDLE)
        return home.due

    def _may_go_home(self) -> bool:
        """Whether the connection can be given up without a loss: nothing is in flight."""
        return (
            self._connection.state is OPEN
            and not self._calls.in_flight
            and not self._outbox.blocked
            and not self._outbox.sends
        )

    def _tick_home(self, home: Home, now: float) -> None:
        """Return home, or do what is due before that."""
        if home.back and self._may_go_home():
            quiet_at = max(self._connection.received_at, self._connection.sent_at) + IDLE
            if home.holding or now >= quiet_at:
                self._apply(self._connection.go_home(now), now, notify=True)
                return
        if not self._connection.open:
            home.postpone(now)
            return
        held = home.holding
        home.tick(now)
        if held and not home.holding:
            self._send_at = now

    def _withdraw(self, wire: int, now: float) -> None:
        """Cancel a call that ended here and is in flight.

        In a dialect without correlation the connection is renewed, because a late answer could be
        taken for that of another call.
        """
        if self._codec is not None:
            self._apply(self._connection.step("renew", now), now)
            return
        self._put(cancel(wire), spec.CANCEL, now)
        if self._leaving:
            self._leave(now)

    # ── sending ───────────────────────────────────────────────────────────────────────────────────

    def _put(self, frames: list[Frame], tag: Tag, now: float) -> None:
        self._connection.sent_at = now
        self._outbox.put(frames, tag)

    def _accept(self, call: Call, now: float) -> None:
        """Take a call that cannot leave at once."""
        if self._connection.state is CLOSED:
            raise LocalProtocolError("closed", "the session was closed")
        if not call.deadline > -inf:
            raise LocalProtocolError("bad-ttl", f"{call.deadline - now} s")
        if len(self._open) >= self.settings.max_calls:
            self._emit(call, Final(call.number, spec.TOO_MANY, [TOO_MANY], b""))
            return
        self._calls.enter(call)
        self._send_waiting(now)

    def _send_waiting(self, now: float) -> None:
        """Send waiting calls, up to a batch; the rest follows at the next `tick`."""
        self._send_at = inf
        calls, outbox = self._calls, self._outbox
        if not self._connection.open or now < (outbox.due if outbox.blocked else -inf):
            return
        room = BATCH
        if outbox.blocked:
            room -= outbox.retry(now)
            if room == BATCH and not self._may_send():
                outbox.unblock()
        while room > 0 and self._may_send():
            self._send(calls.next(), now)
            room -= 1
        if self._may_send():
            self._send_at = now
        self._update_state()

    def repair(self, now: float) -> None:
        """Make the state consistent after an exception has broken a step off; `lost` has to follow.
        For a shell whose thread runs signal handlers."""
        self._calls.repair()
        self._connection.repair(now)
        if not self._connection.open and self._connection.state is not CLOSED:
            self._ended(now)

    def _may_send(self) -> bool:
        calls = self._calls
        if self._home is not None and self._home.holding:
            return False
        return not calls.idle and calls.current is None and self._connection.open

    def _next_id(self) -> int:
        self._last += 1
        return self._last

    def _send(self, call: Call, now: float) -> None:
        """ "Every dispatch carries what is left": each sending of a call, its own."""
        left = call.deadline - now
        if left <= 0:
            self._expire(call, now)
            return
        most = self._connection.max_message
        if most and (text := excess(call.body, most)):
            self._too_large(call, text)
            return
        wire = call.number
        if call.sends and self._codec is None:
            wire = self._next_id()
        frames = self._encoder.request(call, wire, left)
        self._connection.sent_at = now
        self._outbox.sends.append(frames)
        self._outbox.tags.append(call)
        if call.flags & _ONE_WAY and self._codec is None:
            self._calls.end(call, "send one-way")
            return
        self._calls.mark_sent(call, wire)
        if call.stream is not None:
            self.streams.request_sent(call)
        if self._codec is not None:
            self._calls.current = call

    def _take_back(self, tag: Tag) -> bool:
        """Let the call of a REQUEST that has not left wait again. False for any other message."""
        if not isinstance(tag, Call):
            return tag == _REQUEST  # of a login, which repeats it by itself
        if tag.command != _REQUEST:
            return False
        if tag.flags & _ONE_WAY and self._codec is None:
            self._calls.reopen(tag)
        elif tag.state is _SENT:  # a broker may answer a REQUEST that it never received
            self._calls.refuse(tag)
        return True

    # ── how calls end ─────────────────────────────────────────────────────────────────────────────

    def _handle_timer(self, call: Call, now: float) -> None:
        """Handle the timer of `call`: its deadline, or the end of its rest."""
        limit = call.deadline + self._grace if call.wire else call.deadline
        if now >= limit:
            self._expire(call, now)
        elif now >= call.wake:
            self._calls.wake(call)
            self._send_at = now
        else:
            self._calls.timers.schedule(call, min(limit, call.wake))

    def _expire(self, call: Call, now: float) -> None:
        """End a call at its deadline, with the broker's last answer if there is one, else 408."""
        wire = call.wire
        unsent = not wire and not self._connection.open
        text = NO_BROKER if unsent else NO_ANSWER
        end = call.last or Final(call.number, spec.DEADLINE_EXCEEDED, [text], b"")
        self._end(call, "expire", end)
        if wire and self._codec is not None:
            self._withdraw(wire, now)
            return
        if wire and self._connection.suspect(now) and self._connection.probe is Probe.REQUEST:
            self._probe = self._next_id()
            self._put(probe(self._probe), _REQUEST, now)
        if self._leaving:
            self._leave(now)

    def _too_large(self, call: Call, text: bytes) -> None:
        """End a call whose body, or a part of whose stream, the broker does not take."""
        wire = call.wire
        self._end(call, "expire", Final(call.number, spec.TOO_LARGE, [text], b""))
        if wire:
            self._outbox.put(cancel(wire), spec.CANCEL)

    def _end(self, call: Call, event: str, outcome: Final | Lost) -> None:
        self._calls.end(call, event)
        self._emit(call, outcome)

    def _emit(self, call: Call, event: ClientEvent) -> None:
        if not call.flags & _ONE_WAY:
            self._events.append(event)
        elif isinstance(event, Lost) or (isinstance(event, Final) and event.status != spec.OK):
            self.dropped += 1

    def _update_state(self) -> None:
        """Decide anew whether the next call may leave at once, and whether to leave the broker."""
        connection = self._connection
        free = connection.open and not self._outbox.blocked and self._calls.idle
        if self._home is not None and self._home.holding:
            free = False
        self._direct = free and not self._codec
        self._leaving = connection.state is DRAINING and self.settings.endpoints > 1

    def _count(self, reason: str) -> None:
        self.invalid[reason] = self.invalid.get(reason, 0) + 1


def _may_restart(call: Call) -> bool:
    """Whether `call`, which a broker may have begun, may be given to another one."""
    return call.state is _SENT and call.restart and not call.flags & spec.ONCE
