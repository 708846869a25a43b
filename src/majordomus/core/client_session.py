"""A client's conversation with one broker at a time, out of a list: every dialect, one contract.

What is promised: every call ends with exactly one `Final` or `Lost` (a ONE-WAY one with none), at
the latest when its deadline and the `grace` after it have passed. What is sent again is decided
here and nowhere else: after 429 and 503, and after the loss of a broker; never what is ONCE and may
have run, never what the caller has seen a part of.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, TypeAlias
from typing import Final as Constant

from majordomus.core.backoff import Rng, delay
from majordomus.core.client_calls import MOVES, Call, Calls, Final, Lost, Part
from majordomus.core.client_speech import (
    DISCONNECT,
    HEARTBEAT,
    MOST_TTL,
    ClientSpeech,
    cancel,
    hello,
    one_way_again,
)
from majordomus.core.client_streams import ClientStream, ClientStreams, Credit
from majordomus.core.session_connection import CLOSED, DRAINING, Change, Connection
from majordomus.core.session_events import PUBLISH, Event, Refused, SessionEvents, check_name, heard
from majordomus.core.session_outbox import BATCH, Outbox
from majordomus.core.session_settings import ClientSettings
from majordomus.core.session_states import CallState
from majordomus.core.session_welcome import take_welcome
from majordomus.errors import LocalProtocolError, RemoteProtocolError
from majordomus.protocol import mdp03, spec
from majordomus.protocol.spec import Frame

__all__ = [
    "ClientEvent",
    "ClientSession",
    "ClientSettings",
    "Credit",
    "Event",
    "Final",
    "IdSource",
    "Lost",
    "Part",
    "Refused",
]

IdSource: TypeAlias = Callable[[int], bytes]
"""`ids(n)` returns n unpredictable bytes."""
ClientEvent: TypeAlias = Part | Final | Lost | Credit | Event | Refused

NO_BROKER: Constant = b"no broker was reachable before the deadline"
NO_ANSWER: Constant = b"no answer came before the deadline"
BY_CALLER: Constant = b"cancelled by the caller"
TOO_MANY: Constant = b"the client has as many open calls as it may"
UNREAD: Constant = b"more parts have come than the client reads"
NOT_UNDERSTOOD: Constant = b"the answer carries a critical flag that this client does not know"

_ON_ANSWER: Constant = MOVES["answer"]
_ON_PART: Constant = MOVES["part"]
_SENT: Constant = CallState.SENT
_AT_ONCE: Constant = MOVES["send"][CallState.WAITING]
_MAGIC: Constant = spec.MDP03_MAGIC
_REQUEST: Constant = spec.REQUEST
_FINAL: Constant = spec.FINAL
_ONE_WAY: Constant = spec.ONE_WAY
_INDIRECT: Constant = spec.ONE_WAY | spec.MORE
_CRITICAL: Constant = spec.CRITICAL
_PUT_OFF: Constant = frozenset((spec.TOO_MANY, spec.UNAVAILABLE))
_MOST_SECONDS: Constant = MOST_TTL / 1000
_parse = mdp03.parse
_pack_head = mdp03.HEAD.pack
_new_final = partial(tuple.__new__, Final)


class ClientSession:
    """One client without a socket, a clock or a thread. Not for several threads at once.

    ``late``: answers that no open call waits for. ``invalid``: other messages that were ignored, by
    reason. ``dropped``: one-way messages that came to nothing here. ``welcome``: what the broker
    told of itself, ``peer_id``: how it calls us (presence only).
    """

    def __init__(self, settings: ClientSettings, ids: IdSource, rng: Rng) -> None:
        self.settings = settings
        self.late = 0
        self.invalid: dict[str, int] = {}
        self.dropped = 0
        self.welcome: dict[str, Any] = {}
        self.peer_id = b""
        self._rng = rng
        self._speech = ClientSpeech(settings.dialect)
        self._codec = self._speech.codec
        self._hello = hello(bytes(ids(16)))
        self._presence = settings.presence and self._codec is None
        self._grace = settings.grace if self._codec is None else 0.0
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
        )
        self._outbox = Outbox()
        self._calls = Calls()
        self._open = self._calls.open
        self.streams = ClientStreams(self._open, self._outbox)
        self.events = SessionEvents(self._outbox, self._next_id)
        self._watch = self._calls.timers.watch
        self._tails = self._speech.tails
        self._last = 0
        self._blocker: Call | None = None
        self._direct = False  # a call made now may leave at once
        self._leaving = False  # the broker drains, and there is another one
        self._pump_at = inf
        self._events: list[ClientEvent] = []
        self._taken: list[ClientEvent] = []

    @property
    def endpoint(self) -> int:
        """Index of the endpoint to connect to."""
        return self._connection.endpoint

    @property
    def open_calls(self) -> int:
        """Calls without an outcome, and one-way messages that have not left."""
        return len(self._open)

    def has_left(self, call: int) -> bool:
        """Whether nothing of `call` waits here to be sent: it is on its way, or it has ended."""
        found = self._open.get(call)
        return found is None or found.wire != 0

    def wire(self, call: int) -> int:
        """The id under which `call` is on its way; 0 while it is not, and when it has ended."""
        found = self._open.get(call)
        return 0 if found is None else found.wire

    # ── what the caller asks ──────────────────────────────────────────────────────────────────────

    def call(
        self,
        service: bytes,
        body: list[Frame],
        now: float,
        *,
        ttl: float,
        flags: int = 0,
        to: bytes = b"",
        metadata: bytes = b"",
        restart: bool = True,
    ) -> int:
        """Call `service`; the events of the call carry the number that is returned.

        `ttl`: seconds until the deadline. `body` is kept until the call ends and must not change.
        With the flag MORE the call is a stream of ours as well: see `streams`. `restart` False: it
        is sent once, and neither a 429 or 503 nor a lost broker changes that.
        Raises: LocalProtocolError for a name or flag that may not be sent, for what the dialect
        cannot say, and after `close`.
        """
        tail = self._tails.get(service)
        if tail is None or flags or to or metadata:
            flags, tail = self._speech.tail(service, flags, to, metadata)
        self._last = number = self._last + 1
        deadline = now + ttl
        if (
            not self._direct
            or not 0.0 < ttl < _MOST_SECONDS
            or len(self._open) >= self.settings.max_calls
            or flags & _INDIRECT
        ):
            call = Call(number, tail, body, deadline, flags, restart)
            if flags & spec.MORE:
                call.stream = ClientStream(True)
            self._accept(call, now)
            return number
        self._open[number] = call = Call(
            number, tail, body, deadline, flags, restart, inf, _AT_ONCE, number, 1
        )
        self._watch(number, call, deadline + self._grace)
        self._connection.sent = now
        head = _pack_head(_MAGIC, _REQUEST, flags, 0, number, int(ttl * 1000) or 1)
        self._outbox.sends.append([head + tail, *body])
        return number

    def cancel(self, call: int, now: float) -> None:
        """End a call with 499. Nothing happens when it has ended already."""
        found = self._open.get(call)
        if found is None:
            return
        wire = found.wire
        self._end(found, "cancel", Final(call, spec.CANCELLED, [BY_CALLER], b""))
        if wire:
            self._withdraw(wire, now)
        self._settle()

    def publish(
        self, topic: bytes, body: list[Frame], now: float, *, ttl: float, metadata: bytes = b""
    ) -> int:
        """Publish to `topic` as soon as there is a connection, for `ttl` seconds; see `has_left`.

        At most once: what has left is not sent again. Raises: LocalProtocolError for what is no
        topic, in the older dialects, and after `close`.
        """
        self._check_events()
        check_name(topic, pattern=False)
        flags, tail = self._speech.tail(topic, _ONE_WAY, b"", metadata)
        number = self._next_id()
        self.events.expect(number, PUBLISH, topic)
        self._accept(Call(number, tail, body, now + ttl, flags, False, command=spec.EVENT), now)
        return number

    def subscribe(self, pattern: bytes, now: float) -> None:
        """Hear of `pattern`, on this connection and every later one; it takes on presence.

        Raises: LocalProtocolError for what is no pattern, and in the older dialects.
        """
        self._check_events()
        self.events.subscribe(pattern, self._presence and self._connection.open)
        self.set_presence(now)

    def unsubscribe(self, pattern: bytes, now: float) -> None:
        """Do not hear of `pattern` any more. May be repeated."""
        self.events.unsubscribe(pattern, self._connection.open)

    def _check_events(self) -> None:
        if self._codec is not None:
            raise LocalProtocolError("not-in-dialect", "events")

    def set_presence(self, now: float) -> None:
        """Say HELLO from now on, on this connection and every later one. May be repeated."""
        if self._presence or self._codec is not None:
            return
        self._presence = True
        if self._connection.open:
            self._greet(now)

    def close(self, now: float) -> None:
        """End what is open with 499, and part from the broker. The session is done after this."""
        if self._connection.state is CLOSED:
            return
        in_flight = [call.wire for call in self._open.values() if call.wire]
        for call in list(self._open.values()):
            self._end(call, "cancel", Final(call.number, spec.CANCELLED, [BY_CALLER], b""))
        if self._connection.open and self._codec is None:
            for wire in in_flight:
                self._outbox.put(cancel(wire))
            if self._presence:
                self._outbox.put([DISCONNECT])
        self._connection.step("close", now)
        self._calls.timers.clear()
        self._outbox.unblock()
        self.streams.clear()
        self._pump_at = inf
        self._settle()

    # ── what the shell reports ────────────────────────────────────────────────────────────────────

    def connected(self, now: float) -> None:
        """The socket has a connection to `endpoint`."""
        self._follow(self._connection.step("connected", now), now)

    def lost(self, now: float) -> None:
        """The connection is gone; whatever had arrived on it was handed to `receive` before."""
        self._follow(self._connection.step("lost", now), now)

    def refused(self, frames: list[Frame], now: float) -> None:
        """The socket did not take `frames`, one of the last sends: they are tried again.

        A call among them counts as not sent. To be reported in order, before anything else is done.
        """
        if not self._connection.open:
            return
        if self._take_back(frames, now) or frames[0] == HEARTBEAT:
            self._outbox.block(now)
        else:
            self._outbox.keep(frames, now)
        self._settle()

    def tick(self, now: float) -> None:
        """What time alone causes; to be called when `next_deadline` has come."""
        if now >= self._connection.due:
            change = self._connection.tick(now)
            if change is Change.BEAT:
                self._beat(now)
            else:
                self._follow(change, now, say_so=True)
        if self.streams.due <= now:
            self.streams.tick()
        while (call := self._calls.timers.pop(now)) is not None:
            self._look_at(call, now)
        if now >= self._pump_at or now >= self._outbox.due:
            self._pump(now)
        self._settle()

    def next_deadline(self) -> float:
        """When `tick` is next needed, in monotonic seconds; inf when time changes nothing."""
        calls, streams = self._calls.timers.next(), self.streams.due
        return min(self._connection.due, calls, self._outbox.due, self._pump_at, streams)

    def take_effects(self) -> tuple[list[list[Frame]], list[ClientEvent], bool]:
        """What is to be sent, what happened to calls, and whether the shell is to change its
        socket: close it after these sends, and open a new one, with a new routing id, to
        `endpoint`.

        The lists are good until the next call, which empties them.
        """
        events = self._events
        self._events, self._taken = self._taken, events
        self._events.clear()
        sends = self._outbox.take()
        self.streams.taken()
        renew = self._connection.renew
        if renew:
            self._connection.renewed()
        return sends, events, renew

    # ── what the broker says ──────────────────────────────────────────────────────────────────────

    def receive(self, frames: list[Frame], now: float) -> None:
        """One message, as the socket gave it; the list is taken over. Whatever it holds, nothing is
        raised."""
        self._connection.heard = now
        if self._codec is not None:
            self._receive_legacy(frames, now)
            return
        if not frames:
            self._count("empty")
            return
        try:
            command, flags, code, id, ttl, service, address, field = _parse(frames.pop(0))
        except RemoteProtocolError as error:
            self._count(error.reason)
            return
        call = self._open.get(id)
        if call is None or call.wire != id:
            call = self._calls.aliases.get(id)
        if command == _FINAL:
            if call is None:
                self._stray_final(id, code, frames)
            elif call.wire != call.number or flags >= _CRITICAL or code in _PUT_OFF:
                self._judge(call, flags, Final(call.number, code, frames, address), now)
            else:
                call.state = _ON_ANSWER[call.state]
                del self._open[id]
                call.wire = 0
                self._events.append(_new_final((id, code, frames, address)))
                if self._leaving:
                    self._leave(now)
        elif command == spec.PARTIAL:
            self._part_came(call, flags, frames, now)
        elif command == spec.CREDIT and flags < _CRITICAL:
            self._credit_came(call, code)
        elif flags >= _CRITICAL:
            self._count("critical-flag")
        elif command == spec.EVENT:
            self._event_came(service, flags, field, frames)
        elif command == spec.WELCOME:
            self._welcomed(ttl, flags, address, field, now)
        else:
            self._control(command, code, id, now)

    def _event_came(self, topic: bytes, flags: int, field: bytes, frames: list[Frame]) -> None:
        try:
            self._events.append(heard(topic, frames, flags, field))
        except RemoteProtocolError as error:
            self._count(error.reason)

    def _stray_final(self, id: int, status: int, frames: list[Frame]) -> None:
        """No open call has this id: what we said of events is refused, or it comes late."""
        refused = self.events.refused(id, status, frames)
        if refused is None:
            self.late += 1
        else:
            self._events.append(refused)

    def _judge(self, call: Call, flags: int, final: Final, now: float) -> None:
        """A FINAL that may not be the last word, or that we cannot understand."""
        if flags >= _CRITICAL:
            self._count("critical-flag")
            final = Final(call.number, spec.NOT_IMPLEMENTED, [NOT_UNDERSTOOD], b"")
        if not self._put_off(call, final, now):
            self._end(call, "answer", final)
        if self._leaving:
            self._leave(now, refused=final.status == spec.UNAVAILABLE)

    def _put_off(self, call: Call, final: Final, now: float) -> bool:
        """ "Client libraries send again by themselves, within the deadline: after 429 and 503 (with
        growing, random delay)" (docs/spec/mdp-0.3.md). False when this one may not, or not in
        time."""
        if final.status not in _PUT_OFF or call.state is not _SENT or not call.restart:
            return False
        if final.status == spec.UNAVAILABLE and call.flags & spec.FAIL_FAST:
            return False
        settings = self.settings
        wait = delay(settings.retry_first, settings.retry_most, call.tries, self._rng)
        if now + wait >= call.deadline:
            return False
        self._calls.put_off(call, final, now + wait)
        return True

    def _part_came(self, call: Call | None, flags: int, frames: list[Frame], now: float) -> None:
        if call is None:
            self.late += 1
        elif flags < _CRITICAL:
            call.state = _ON_PART[call.state]
            self._events.append(Part(call.number, frames))
            if self.streams.part_came(call).unread > self.settings.max_unread:
                wire = call.wire
                self._end(call, "answer", Final(call.number, spec.TOO_MANY, [UNREAD], b""))
                self._withdraw(wire, now)
        else:
            wire = call.wire
            self._judge(call, flags, Final(call.number, 0, [], b""), now)
            self._withdraw(wire, now)

    def _credit_came(self, call: Call | None, parts: int) -> None:
        if call is None or not self.streams.credit_came(call, parts):
            self.late += 1
        else:
            self._events.append(Credit(call.number))

    def _control(self, command: int, code: int, id: int, now: float) -> None:
        """What is said of the connection, and what is not for us."""
        if command == spec.HEARTBEAT:
            return
        if command == spec.DISCONNECT:
            self._follow(self._connection.step("disconnect", now), now)
        elif command == spec.CAPACITY:
            if code == 0:
                self._follow(self._connection.step("drain", now), now)
                if self._leaving:
                    self._leave(now)
        elif command in spec.COMMAND_NAMES:
            self._count("wrong-direction")
        else:
            self._count("unknown-command")
            if id and self._connection.open and not self._outbox.full:
                self._outbox.put(self._speech.answer_unknown(command, id))

    def _welcomed(self, ttl: int, flags: int, address: bytes, field: bytes, now: float) -> None:
        try:
            self.welcome = take_welcome(self._connection, ttl, flags, field, now)
        except RemoteProtocolError as error:
            self._count(error.reason)
            return
        self.peer_id = address

    def _receive_legacy(self, frames: list[Frame], now: float) -> None:
        """Without correlation an answer belongs to the one call in flight."""
        assert self._codec is not None  # noqa: S101
        try:
            command = self._codec.read_client(frames)
        except RemoteProtocolError as error:
            self._count(error.reason)
            return
        call = self._calls.current
        if call is None:
            self.late += 1
        elif command.service and command.service != call.tail:
            self._count("wrong-service")
        elif command.number == spec.PARTIAL:
            call.state = _ON_PART[call.state]
            self._tell(call, Part(call.number, command.body))
        else:
            self._end(call, "answer", Final(call.number, spec.OK, command.body, b""))
            self._pump(now)

    # ── the connection's life ─────────────────────────────────────────────────────────────────────

    def _follow(self, change: Change, now: float, *, say_so: bool = False) -> None:
        """Draw the consequences of what became of the connection; `say_so`: by our own will."""
        if change is Change.OPENED:
            if self._presence:
                self._greet(now)
            self._pump(now)
        elif change is Change.ENDED:
            self._ended(now)
            if say_so and self._presence:
                self._outbox.put([DISCONNECT])
        self._settle()

    def _greet(self, now: float) -> None:
        """ "HELLO opens presence for a client: heartbeats both ways" (docs/spec/mdp-0.3.md)."""
        self._say(self._hello, now)
        self._connection.listen(now)
        self.events.greet()

    def _beat(self, now: float) -> None:
        if not self._outbox.blocked:
            self._say([HEARTBEAT], now)

    def _ended(self, now: float) -> None:
        """Nothing in flight will be answered: "a client's open calls count as broker lost"."""
        for frames in self._outbox.sends:
            self._take_back(frames, now)
        self._outbox.clear()
        self.streams.clear()
        self._pump_at = inf
        in_flight = [call for call in self._open.values() if call.wire]
        for call in in_flight:
            if not _may_restart(call):
                self._end(call, "lose", Lost(call.number))
        self._calls.restart([call for call in in_flight if call.wire])

    def _leave(self, now: float, *, refused: bool = False) -> None:
        """The broker drains. We go when it has nothing of ours, or when it `refused` a call; but
        not while it has a call that would be lost with it."""
        if self._calls.in_flight:
            if not refused:
                return
            if self._blocker is None or not self._blocker.wire:
                in_flight = (call for call in self._open.values() if call.wire)
                self._blocker = next((one for one in in_flight if not _may_restart(one)), None)
            if self._blocker is not None:
                return
        self._follow(self._connection.step("move", now), now, say_so=True)

    def _withdraw(self, wire: int, now: float) -> None:
        """A call has ended here that the broker still has: CANCEL, or, where a late answer could be
        taken for another call's, a new connection."""
        if self._codec is not None:
            self._follow(self._connection.step("renew", now), now)
            return
        self._say(cancel(wire), now)
        if self._leaving:
            self._leave(now)

    # ── what goes out ─────────────────────────────────────────────────────────────────────────────

    def _say(self, frames: list[Frame], now: float) -> None:
        self._connection.sent = now
        self._outbox.put(frames)

    def _accept(self, call: Call, now: float) -> None:
        """A call that cannot leave on the spot."""
        if self._connection.state is CLOSED:
            raise LocalProtocolError("closed", "the session was closed")
        if not call.deadline > -inf:
            raise LocalProtocolError("bad-ttl", f"{call.deadline - now} s")
        if len(self._open) >= self.settings.max_calls:
            self._tell(call, Final(call.number, spec.TOO_MANY, [TOO_MANY], b""))
            return
        self._calls.enter(call)
        self._pump(now)

    def _pump(self, now: float) -> None:
        """Send what waits, as far as it may leave now; the rest follows at the next `tick`."""
        self._pump_at = inf
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
            self._pump_at = now
        self._settle()

    def _may_send(self) -> bool:
        calls = self._calls
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
        wire = call.number
        if call.sends and self._codec is None:
            wire = self._next_id()
        frames = self._speech.request(call, wire, left)
        self._connection.sent = now
        self._outbox.sends.append(frames)
        if call.flags & _ONE_WAY and self._codec is None:
            self._calls.end(call, "send one-way")
            return
        self._calls.launch(call, wire)
        if call.stream is not None:
            self.streams.launched(call)
        if self._codec is not None:
            self._calls.current = call

    def _take_back(self, frames: list[Frame], now: float) -> bool:
        """If `frames` are a REQUEST, it has not left: its call waits again. False for any other."""
        if self._codec is not None:
            call = self._calls.current
        elif frames[0][4] != _REQUEST:
            return False
        else:
            call = self._calls.by_wire(int.from_bytes(frames[0][8:16], "big"))
            one_way = one_way_again(frames, now)
            if one_way is not None:
                self._calls.enter_first(one_way)
        if call is not None and call.state is _SENT:  # a broker may answer what it never got
            self._calls.refuse(call)
        return True

    # ── how calls end ─────────────────────────────────────────────────────────────────────────────

    def _look_at(self, call: Call, now: float) -> None:
        """The time of `call` has come: its deadline, or the end of its rest."""
        limit = call.deadline + self._grace if call.wire else call.deadline
        if now >= limit:
            self._expire(call, now)
        elif now >= call.wake:
            self._calls.wake(call)
            self._pump_at = now
        else:
            self._watch(call.number, call, min(limit, call.wake))

    def _expire(self, call: Call, now: float) -> None:
        """The deadline passed here: with the broker's last word if it said one, else with 408."""
        wire = call.wire
        unsent = not wire and not self._connection.open
        text = NO_BROKER if unsent else NO_ANSWER
        end = call.last or Final(call.number, spec.DEADLINE_EXCEEDED, [text], b"")
        self._end(call, "expire", end)
        if wire and self._codec is not None:
            self._withdraw(wire, now)
        elif self._leaving:
            self._leave(now)

    def _end(self, call: Call, event: str, outcome: Final | Lost) -> None:
        self._calls.end(call, event)
        self._tell(call, outcome)

    def _tell(self, call: Call, event: ClientEvent) -> None:
        if not call.flags & _ONE_WAY:
            self._events.append(event)
        elif isinstance(event, Lost) or (isinstance(event, Final) and event.status != spec.OK):
            self.dropped += 1

    def _settle(self) -> None:
        """Whether a call made next may leave at once, and whether we wait for a chance to move."""
        connection = self._connection
        self._direct = (
            self._codec is None
            and connection.open
            and not self._outbox.blocked
            and self._calls.idle
        )
        self._leaving = connection.state is DRAINING and self.settings.endpoints > 1

    def _count(self, reason: str) -> None:
        self.invalid[reason] = self.invalid.get(reason, 0) + 1


def _may_restart(call: Call) -> bool:
    """Whether `call`, which a broker may have begun, may be given to another one."""
    return call.state is _SENT and call.restart and not call.flags & spec.ONCE
