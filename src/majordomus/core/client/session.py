"""A client's session with one of several brokers, in every dialect with one contract.

Every call ends with exactly one `Final` or `Lost` (a ONE-WAY call with none), at the latest when
its deadline and the `grace` have passed. Retries are decided here alone: after 429 and 503, and
after the loss of a broker. A call that is ONCE and may have run, or of which the caller has a part,
is not sent again.
"""

from __future__ import annotations

from math import inf
from typing import Final as Constant

from majordomus.core.client.calls import (
    TRANSITIONS,
    Call,
    Final,
    FinalWithMetadata,
    Lost,
    Part,
    make_call,
    make_final,
)
from majordomus.core.client.encoding import (
    DISCONNECT,
    MOST_TTL,
    cancel,
)
from majordomus.core.client.session_base import (
    NO_ANSWER,
    NO_BROKER,
    TOO_MANY,
    ClientEvent,
    ClientSessionBase,
)
from majordomus.core.client.streams import CallCredit, ClientStream
from majordomus.core.session.backoff import delay
from majordomus.core.session.connection import CLOSED, Change, take_welcome
from majordomus.core.session.events import (
    PUBLISH,
    EventReceived,
    SubscriptionRefused,
    check_name,
    read_event,
)
from majordomus.core.session.limits import excess, larger
from majordomus.core.session.outbox import Tag
from majordomus.core.session.settings import ClientSettings, IdSource
from majordomus.core.session.transitions import CallState
from majordomus.errors import LocalProtocolError, RemoteProtocolError
from majordomus.protocol import metadata as packing
from majordomus.protocol import octets, spec
from majordomus.protocol.command import Codec
from majordomus.protocol.mdp03 import Fields
from majordomus.protocol.spec import Frame

__all__ = [
    "NO_ANSWER",
    "NO_BROKER",
    "TOO_MANY",
    "CallCredit",
    "ClientEvent",
    "ClientSession",
    "ClientSettings",
    "EventReceived",
    "Final",
    "IdSource",
    "Lost",
    "Part",
    "SubscriptionRefused",
]

BY_CALLER: Constant = b"cancelled by the caller"
UNREAD: Constant = b"more parts have come than the client reads"
NOT_UNDERSTOOD: Constant = b"the answer carries a critical flag that this client does not know"

_ON_ANSWER: Constant = TRANSITIONS["answer"]
_ON_PART: Constant = TRANSITIONS["part"]
_SENT: Constant = CallState.SENT
_ANSWERED: Constant = _ON_ANSWER[_SENT]
_AT_ONCE: Constant = TRANSITIONS["send"][CallState.WAITING]
_REQUEST: Constant = spec.REQUEST
_FINAL: Constant = spec.FINAL
_OK: Constant = spec.OK
_ONE_WAY: Constant = spec.ONE_WAY
_INDIRECT: Constant = spec.ONE_WAY | spec.MORE
_CRITICAL: Constant = spec.CRITICAL
_PUT_OFF: Constant = frozenset((spec.TOO_MANY, spec.UNAVAILABLE))
_NOT_AT_ONCE: Constant = _PUT_OFF | {spec.UNAUTHENTICATED}
"""Statuses after which a call may be sent again, the last one by a session that logs in."""
_MOST_SECONDS: Constant = MOST_TTL / 1000


class ClientSession(ClientSessionBase):
    """The state machine of one client, without socket, clock or thread. Not thread-safe.

    ``late``: answers to calls that are not open.
    ``invalid``: other messages that were ignored, by reason.
    ``dropped``: one-way messages that failed here.
    ``welcome``: the metadata of the broker's WELCOME (presence only).
    ``peer_id``: the routing id that the broker named (presence only).
    """

    @property
    def endpoint(self) -> int:
        """Index of the endpoint to connect to."""
        return self._connection.endpoint

    @property
    def open_calls(self) -> int:
        """Calls without an outcome, and one-way messages that have not left."""
        return len(self._open)

    def has_left(self, call: int) -> bool:
        """Whether `call` was sent or has ended."""
        found = self._open.get(call)
        return found is None or found.wire != 0

    def wire(self, call: int) -> int:
        """The id under which `call` is in flight; 0 when it is not."""
        found = self._open.get(call)
        return 0 if found is None else found.wire

    # ── commands of the caller ────────────────────────────────────────────────────────────────────

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
        is sent once, and neither a 429 or 503 nor a lost broker changes that. A body that is larger
        than the broker's WELCOME allows ends with 413, and nothing is sent.
        Raises: LocalProtocolError for a name or flag that may not be sent, for what the dialect
        cannot say, and after `close`.
        """
        return self.ask(service, body, now, ttl, flags, to, metadata, restart)

    def ask(
        self,
        service: bytes,
        body: list[Frame],
        now: float,
        ttl: float,
        flags: int,
        to: bytes,
        metadata: bytes,
        restart: bool,
    ) -> int:
        """As `call`, by position, which costs less where this is compiled."""
        tail = self._tails.get(service)
        if tail is None or flags or to or metadata:
            flags, tail = self._encoder.tail(service, flags, to, metadata)
            if flags & spec.DURABLE and not has_key(metadata):
                restart = False  # it may be stored: a second one would be another request
        number = self._next_id()
        deadline = now + ttl
        call = make_call(number, tail, body, deadline, flags, restart)
        most = self._connection.max_message
        if most and (text := excess(body, most)):
            self._emit(call, Final(number, spec.TOO_LARGE, [text], b""))
            return number
        if (
            not self._direct
            or not 0.0 < ttl < _MOST_SECONDS
            or len(self._open) >= self._most
            or flags & _INDIRECT
        ):
            if flags & spec.MORE:
                call.stream = ClientStream(True)
            self._accept(call, now)
            return number
        self._open[number] = call
        call.state = _AT_ONCE
        call.wire = number
        call.sends = 1
        self._calls.timers.schedule(call, deadline + self._grace)
        self._connection.sent_at = now
        head = octets.start_with(_REQUEST, flags, 0, number, octets.ttl(ttl), tail)
        self._outbox.sends.append([head, body[0]] if len(body) == 1 else [head, *body])
        self._outbox.tags.append(call)
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
        self._update_state()

    def publish(
        self, topic: bytes, body: list[Frame], now: float, *, ttl: float, metadata: bytes = b""
    ) -> int:
        """Publish to `topic` as soon as there is a connection, for `ttl` seconds; see `has_left`.

        At most once: what has left is not sent again. Raises: LocalProtocolError for what is no
        topic, in the older dialects, and after `close`.
        """
        self._check_events()
        check_name(topic, pattern=False)
        flags, tail = self._encoder.tail(topic, _ONE_WAY, b"", metadata)
        number = self._next_id()
        most = self._connection.max_message
        if most and (text := excess(body, most)):
            refused = SubscriptionRefused(PUBLISH, topic, spec.TOO_LARGE, [text], number)
            self._events.append(refused)
            return number
        self.events.expect(number, PUBLISH, topic)
        self._accept(Call(number, tail, body, now + ttl, flags, False, spec.EVENT), now)
        return number

    def subscribe(self, pattern: bytes, now: float) -> None:
        """Subscribe to `pattern`, on this and every later connection, with presence.

        Raises: LocalProtocolError for a name that is no pattern, and in the older dialects.
        """
        self._check_events()
        self.events.subscribe(pattern, self._presence and self._connection.open)
        self.set_presence(now)

    def unsubscribe(self, pattern: bytes, now: float) -> None:
        """Remove the subscription to `pattern`. May be repeated."""
        self.events.unsubscribe(pattern, self._connection.open)

    def _check_events(self) -> None:
        if self._codec is not None:
            raise LocalProtocolError("not-in-dialect", "events")

    def set_presence(self, now: float) -> None:
        """Send HELLO on this and every later connection. May be repeated."""
        if self._presence or self._codec is not None:
            return
        self._presence = True
        if self._connection.open:
            self._send_hello(now)

    def close(self, now: float) -> None:
        """End open calls with 499, and disconnect. The session cannot be used again."""
        if self._connection.state is CLOSED:
            return
        in_flight = [call.wire for call in self._open.values() if call.wire]
        for call in list(self._open.values()):
            self._end(call, "cancel", Final(call.number, spec.CANCELLED, [BY_CALLER], b""))
        if self._connection.open and self._codec is None:
            for wire in in_flight:
                self._outbox.put(cancel(wire), spec.CANCEL)
            if self._presence:
                self._outbox.put([DISCONNECT], spec.DISCONNECT)
        self._connection.step("close", now)
        self._calls.timers.clear()
        self._outbox.unblock()
        self.streams.clear()
        self._send_at = inf
        self._update_state()

    # ── reports of the shell ──────────────────────────────────────────────────────────────────────

    def connected(self, now: float) -> None:
        """The socket has a connection to `endpoint`."""
        self._apply(self._connection.step("connected", now), now)

    def lost(self, now: float) -> None:
        """The connection has ended; what had arrived on it was handed to `receive` before."""
        self._apply(self._connection.step("lost", now), now)

    def refused(self, frames: list[Frame], tag: Tag, now: float) -> None:
        """Try `frames`, one of the last sends, again, because the socket did not take them.

        A call among them counts as not sent. The shell reports refusals in order, before it does
        anything else.
        """
        if not self._connection.open:
            return
        if self._take_back(tag) or tag == spec.HEARTBEAT:
            self._outbox.block(now)
        else:
            self._outbox.keep(frames, tag, now)
        self._update_state()

    def tick(self, now: float) -> None:
        """Do what is due at `now`; to be called when `next_deadline` has come."""
        if now >= self._connection.due:
            change = self._connection.tick(now)
            if change is Change.HEARTBEAT:
                self._heartbeat(now)
            else:
                self._apply(change, now, notify=True)
        home = self._home
        if home is not None and now >= self._home_due():
            self._tick_home(home, now)
        if self.streams.due <= now:
            self.streams.tick()
        while (call := self._calls.timers.pop(now)) is not None:
            self._handle_timer(call, now)
        if now >= self._send_at or now >= self._outbox.due:
            self._send_waiting(now)
        self._update_state()

    def next_deadline(self) -> float:
        """When `tick` is next needed, in monotonic seconds; inf when time changes nothing."""
        calls, streams = self._calls.timers.next(), self.streams.due
        due = min(self._connection.due, calls, self._outbox.due, self._send_at, streams)
        return due if self._home is None else min(due, self._home_due())

    def take_effects(self) -> tuple[list[list[Frame]], list[Tag], list[ClientEvent], bool]:
        """Return the sends, their tags, the events, and whether the shell must replace its socket.

        It then closes the socket after these sends, and opens one to `endpoint` with a new routing
        id.

        The lists are good until the next call, which empties them.
        """
        events = self._events
        self._events, self._taken = self._taken, events
        if self._events:
            del self._events[:]
        sends, tags = self._outbox.take()
        self.streams.taken()
        renew = self._connection.renew
        if renew:
            self._connection.renewed()
        return sends, tags, events, renew

    # ── messages of the broker ────────────────────────────────────────────────────────────────────

    def receive(self, frames: list[Frame], now: float) -> None:
        """Process one message of the socket. The session takes over the list.

        Raises nothing, whatever bytes the message holds.
        """
        self._connection.received_at = now
        if self._codec is not None:
            self._receive_legacy(self._codec, frames, now)
            return
        if not frames:
            self._count("empty")
            return
        header = self._header
        try:
            header.read(frames[0])
        except RemoteProtocolError as error:
            self._count(error.reason)
            return
        octets.drop_header(frames)
        command, flags, id, code = header.command, header.flags, header.id, header.code
        if command == _FINAL and not flags and (code == _OK or code not in _NOT_AT_ONCE):
            call = self._open.pop(id, None)
            if call is not None:
                if call.wire == header.id:
                    call.state = _ANSWERED if call.state is _SENT else _ON_ANSWER[call.state]
                    call.wire = 0
                    self._calls.timers.remove(call)
                    self._events.append(make_final(id, code, frames, header.address))
                    if self._leaving:
                        self._leave(now)
                    return
                self._open[id] = call  # this is no answer to its last sending
        call = self._calls.by_wire(id)
        if command == _FINAL:
            if call is None:
                self._stray_final(id, code, frames, now)
            else:
                self._decide_final(call, flags, self._final(call, header, frames), now)
        elif command == spec.PARTIAL:
            self._part_received(call, header, frames, now)
        elif command == spec.CREDIT and flags < _CRITICAL:
            self._credit_received(call, header.code)
        elif flags >= _CRITICAL:
            self._count("critical-flag")
        elif command == spec.EVENT:
            self._event_received(header, frames)
        elif command == spec.WELCOME:
            self._welcomed(header, now)
        else:
            self._control(header, now)

    def receive_cut(self, frames: list[Frame], now: float) -> bool:
        """Process a message that is larger than `max_received`, of which the wire has kept the
        beginning. Its call ends with 413.

        Returns False where the message cannot be assigned: then the connection has to end.
        """
        connection, header = self._connection, self._header
        connection.received_at = now
        if self._codec is not None or len(frames) < 2:
            return False
        try:
            header.read(frames[0])
        except RemoteProtocolError:
            return False
        call = self._calls.by_wire(header.id)
        if call is None or header.command not in (spec.PARTIAL, _FINAL):
            self._count("too-large")
            return True
        wire, text = call.wire, larger(connection.max_received)
        self._end(call, "answer", Final(call.number, spec.TOO_LARGE, [text], header.address))
        if header.command == spec.PARTIAL:
            self._withdraw(wire, now)
        elif self._leaving:
            self._leave(now)
        return True

    def _event_received(self, header: Fields, frames: list[Frame]) -> None:
        try:
            self._events.append(read_event(header, frames))
        except RemoteProtocolError as error:
            self._count(error.reason)

    def _stray_final(self, id: int, status: int, frames: list[Frame], now: float) -> None:
        """A FINAL whose id no open call has: it answers a probe, refuses an event or a
        subscription, or is late."""
        if id and id == self._probe:
            return
        refused = self.events.refused(id, status, frames)
        if refused is None:
            self.late += 1
        else:
            self._events.append(refused)

    def _final(self, call: Call, header: Fields, frames: list[Frame]) -> Final:
        """The end of `call` that a FINAL tells, with its metadata."""
        number, status, worker = call.number, header.code, header.address
        field = self._theirs(header)
        if field:
            return FinalWithMetadata(number, status, frames, worker, field)
        return Final(number, status, frames, worker)

    def _theirs(self, header: Fields) -> bytes:
        """The worker's packed metadata, checked. Malformed metadata are counted, and the message
        counts without them: the call must not wait for another answer (docs/spec/mdp-0.3.md)."""
        if not header.metadata:
            return b""
        try:
            return packing.split_raw(header.metadata, header.flags)[1]
        except RemoteProtocolError as error:
            self._count(error.reason)
            return b""

    def _decide_final(self, call: Call, flags: int, final: Final, now: float) -> None:
        """Handle a FINAL after which the call may be sent again, or with a critical flag."""
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

    def _part_received(
        self, call: Call | None, header: Fields, frames: list[Frame], now: float
    ) -> None:
        flags = header.flags
        if call is None:
            self.late += 1
        elif flags < _CRITICAL:
            call.state = _ON_PART[call.state]
            self._events.append(Part(call.number, frames, self._theirs(header)))
            if self.streams.part_received(call).unread > self.settings.max_unread:
                wire = call.wire
                self._end(call, "answer", Final(call.number, spec.TOO_MANY, [UNREAD], b""))
                self._withdraw(wire, now)
        else:
            wire = call.wire
            self._decide_final(call, flags, Final(call.number, 0, [], b""), now)
            self._withdraw(wire, now)

    def _credit_received(self, call: Call | None, parts: int) -> None:
        if call is None or not self.streams.credit_received(call, parts):
            self.late += 1
        else:
            self._events.append(CallCredit(call.number))

    def _control(self, header: Fields, now: float) -> None:
        """A command about the connection, or one that no broker sends to a client."""
        command, id = header.command, header.id
        if command == spec.HEARTBEAT:
            return
        if command == spec.DISCONNECT:
            self._apply(self._connection.step("disconnect", now), now)
        elif command == spec.CAPACITY:
            if header.code == 0:
                self._apply(self._connection.step("drain", now), now)
                if self._leaving:
                    self._leave(now)
        elif command in spec.COMMAND_NAMES:
            self._count("wrong-direction")
        else:
            self._count("unknown-command")
            if id and self._connection.open and not self._outbox.full:
                self._outbox.put(self._encoder.answer_unknown(command, id), spec.FINAL)

    def _welcomed(self, header: Fields, now: float) -> None:
        try:
            self.welcome = take_welcome(self._connection, header, now)
        except RemoteProtocolError as error:
            self._count(error.reason)
            return
        self.peer_id = header.address

    def _receive_legacy(self, codec: Codec, frames: list[Frame], now: float) -> None:
        """Without correlation an answer belongs to the one call in flight."""
        try:
            command = codec.read_client(frames)
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
            self._emit(call, Part(call.number, command.body))
        else:
            self._end(call, "answer", Final(call.number, spec.OK, command.body, b""))
            self._send_waiting(now)


def has_key(metadata: bytes) -> bool:
    """Whether packed metadata have an idempotency key."""
    return bool(metadata) and "key" in packing.unpack(metadata)
