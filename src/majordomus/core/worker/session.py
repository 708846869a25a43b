"""A worker's registration at one broker: every dialect, one contract.

Every `Dispatch` is answered with exactly one FINAL or REJECT, unless its connection ends first
(`Cancel`). No message of an older connection is sent on a newer one.
"""

from __future__ import annotations

from math import inf
from typing import Final as Constant

from majordomus.core.session.connection import (
    CLOSED,
    DRAINING,
    OPEN,
    read_disconnect,
    take_welcome,
)
from majordomus.core.session.events import (
    EventReceived,
    SubscriptionRefused,
    check_name,
    read_event,
)
from majordomus.core.session.limits import excess, larger
from majordomus.core.session.settings import IdSource, WorkerSettings
from majordomus.core.session.transitions import DISPATCH, DispatchState, TransitionRow
from majordomus.core.worker import encoding
from majordomus.core.worker.session_base import (
    Cancel,
    Disconnected,
    Dispatch,
    LegacyReply,
    WorkerEvent,
    WorkerSessionBase,
    checked_capacity,
    make_dispatch,
)
from majordomus.core.worker.streams import NO_CREDIT, DispatchCredit, Incoming
from majordomus.errors import LocalProtocolError, RemoteProtocolError
from majordomus.protocol import metadata, octets, spec
from majordomus.protocol.command import Codec
from majordomus.protocol.fields import written_service
from majordomus.protocol.mdp03 import NO_NAMES, Fields
from majordomus.protocol.spec import Frame

__all__ = [
    "Cancel",
    "Disconnected",
    "Dispatch",
    "DispatchCredit",
    "EventReceived",
    "IdSource",
    "Incoming",
    "SubscriptionRefused",
    "WorkerEvent",
    "WorkerSession",
    "WorkerSettings",
]

TOO_SLOW: Constant = b"the broker reads more slowly than the worker sends"
DECLINED: Constant = b"the worker declined"

_TRANSITIONS: Constant = {event: TransitionRow(DISPATCH, event) for event in DISPATCH}
_ON_PART: Constant = _TRANSITIONS["part"]
_ON_FINAL: Constant = _TRANSITIONS["final"]
_OPEN: Constant = OPEN
_HELD: Constant = DispatchState.HELD
_CANCELLED: Constant = DispatchState.CANCELLED

_REQUEST: Constant = spec.REQUEST
_PARTIAL: Constant = spec.PARTIAL
_FINAL: Constant = spec.FINAL
_BROKER_ID_BIT: Constant = spec.BROKER_ID_BIT
_NO_NAMES: Constant = NO_NAMES
_SPECIAL: Constant = spec.METADATA | spec.BROKER_METADATA | spec.MORE | spec.CRITICAL
_OF_A_STREAM: Constant = frozenset((spec.PARTIAL, spec.FINAL, spec.CREDIT))


class WorkerSession(WorkerSessionBase):
    """The state machine of one worker, without socket, clock or thread. Not thread-safe.

    ``ready``: the broker has accepted the registration.
    ``worker_id``: the routing id that the broker named.
    ``late``: messages about dispatches that are not held.
    ``invalid``: other messages that were ignored, by reason.
    ``welcome``: the metadata of the broker's WELCOME.
    """

    @property
    def held(self) -> int:
        """Number of dispatches without an answer."""
        return len(self._dispatches)

    @property
    def drained(self) -> bool:
        """Whether `close` loses nothing after `drain`: no dispatch is held or can still arrive, and
        all answers were taken."""
        busy = self._dispatches or self._outbox.sends or self._outbox.blocked
        return self._draining and not busy and self._settle_at == inf

    @property
    def congested(self) -> bool:
        """Whether the socket takes no messages at the moment, so that parts should wait."""
        return self._outbox.blocked

    @property
    def broker_drains(self) -> bool:
        """Whether the broker announced that it takes no new requests."""
        return self._connection.state is DRAINING

    # ── commands of the worker ────────────────────────────────────────────────────────────────────

    def partial(
        self, dispatch_id: int, frames: list[Frame], now: float, metadata: bytes = b""
    ) -> bool:
        """Send one part of the answer, with the packed metadata. False when the dispatch is not
        held any more.

        Nothing is sent for a cancelled dispatch. Where the dialect has no parts, they are joined
        into the FINAL. When the broker does not read, the dispatch ends with 429, and when the part
        is larger than its WELCOME allows, with 413; False is returned.
        Raises: LocalProtocolError where there is no `room`.
        """
        state = self._dispatches.get(dispatch_id)
        if state is None:
            return False
        self._dispatches[dispatch_id] = state = _ON_PART[state]
        if state is _CANCELLED:
            return True
        if self._joining:
            self._legacy_replies[dispatch_id].parts.extend(frames)
            return True
        most = self._connection.max_part
        if most and (text := excess(frames, most)):
            self.final(dispatch_id, spec.TOO_LARGE, [text], now)
            self._events.append(Cancel(dispatch_id))
            return False
        if self._outbox.full:
            self.final(dispatch_id, spec.TOO_MANY, [TOO_SLOW], now)
            self._events.append(Cancel(dispatch_id))
            return False
        if self._codec is not None:
            address = self._legacy_replies[dispatch_id].address
            part = self._codec.w2b_partial(self._service, address, frames)
            self._outbox.put(part, _PARTIAL)
            return True
        self._streams.spend(dispatch_id)
        flags = spec.METADATA if metadata else 0
        head = octets.start(_PARTIAL, flags, 0, dispatch_id - self._base, 0)
        self._outbox.put([head + _NO_NAMES + metadata, *frames], _PARTIAL)
        return True

    def room(self, dispatch_id: int) -> int:
        """Return how many parts of the answer may be sent now.

        Where no credit is counted (the dispatch has ended or is cancelled, or in an older dialect),
        as many as a socket should take at once.
        """
        if self._outbox.blocked:
            return 0
        if self._dispatches.get(dispatch_id, _CANCELLED) is _CANCELLED:
            return spec.FIRST_CREDIT
        return self._streams.room(dispatch_id)

    def was_read(self, dispatch_id: int, parts: int) -> bool:
        """Note that the handler has read `parts` parts of the client's stream.

        True when credit is to be sent for them: it is granted in batches.
        """
        return dispatch_id in self._dispatches and self._streams.was_read(
            dispatch_id, dispatch_id - self._base, parts
        )

    def final(self, dispatch_id: int, status: int, frames: list[Frame], now: float) -> bool:
        """Send the answer, which ends the dispatch. False when the dispatch is not held any more.

        One that is larger than the broker's WELCOME allows becomes a 413.

        Raises: LocalProtocolError for a status out of range; the dispatch is still held.
        """
        state = self._dispatches.get(dispatch_id)
        if state is None:
            return False
        if not 0 < status <= 0xFFFF:
            raise LocalProtocolError("bad-status", str(status))
        if state is not _HELD:
            _ON_FINAL[state]
        most = self._connection.max_message
        if most and status != spec.TOO_LARGE and (text := excess(frames, most)):
            status, frames = spec.TOO_LARGE, [text]
        if self._codec is not None:
            self._legacy_final(self._codec, dispatch_id, status, frames, now)
            return True
        head = octets.header(_FINAL, 0, status, dispatch_id - self._base, 0, b"", b"")
        del self._dispatches[dispatch_id]
        if self._streams.of:
            self._streams.of.pop(dispatch_id, None)
        self._outbox.put([head, frames[0]] if len(frames) == 1 else [head, *frames], _FINAL)
        return True

    def final_with(
        self, dispatch_id: int, status: int, frames: list[Frame], metadata: bytes, now: float
    ) -> bool:
        """`final`, with packed metadata. A dialect without metadata gets the rest of the answer.

        Raises: LocalProtocolError as `final`, and for metadata that are too long.
        """
        state = self._dispatches.get(dispatch_id)
        most = self._connection.max_message
        too_large = most and excess(frames, most)
        if state is None or not metadata or self._codec is not None or too_large:
            return self.final(dispatch_id, status, frames, now)
        head = encoding.final_head(dispatch_id - self._base, status, metadata)
        _ON_FINAL[state]
        del self._dispatches[dispatch_id]
        self._streams.of.pop(dispatch_id, None)
        self._outbox.put([head, *frames], _FINAL)
        return True

    def reject(self, dispatch_id: int, now: float) -> bool:
        """Return a dispatch of which nothing ran: another worker gets it. False as in `final`.

        A dialect without REJECT gets a 503. Raises: LocalProtocolError after a part.
        """
        state = self._dispatches.get(dispatch_id)
        if state is None:
            return False
        _TRANSITIONS["reject"][state]
        if self._codec is not None:
            return self.final(dispatch_id, spec.UNAVAILABLE, [DECLINED], now)
        del self._dispatches[dispatch_id]
        self._streams.of.pop(dispatch_id, None)
        self._outbox.put(encoding.reject(dispatch_id - self._base), spec.REJECT)
        return True

    def publish(self, topic: bytes, frames: list[Frame], now: float, metadata: bytes = b"") -> bool:
        """Send an EVENT to the subscribers of `topic`, at most once.

        False when it is lost here: there is no connection, the broker does not read, or its WELCOME
        allows no such body.
        Raises: LocalProtocolError for a name that is no topic, and in the older dialects.
        """
        self._check_events()
        check_name(topic, pattern=False)
        return self._takes(frames) and self.events.publish(topic, frames, metadata)

    def push(self, client: bytes, frames: list[Frame], now: float, metadata: bytes = b"") -> bool:
        """Send an EVENT to the client of a dispatch, at most once; otherwise as `publish`."""
        self._check_events()
        if not client:
            raise LocalProtocolError("empty-address", "a push needs a client's handle")
        return self._takes(frames) and self.events.push(client, frames, metadata)

    def _takes(self, frames: list[Frame]) -> bool:
        """Whether there is a connection, and the broker takes an event with this body."""
        most = self._connection.max_message
        return self._connection.open and not (most and excess(frames, most))

    def subscribe(self, pattern: bytes, now: float) -> None:
        """Subscribe to `pattern`, on this connection and every later one. Raises: as `publish`."""
        self._check_events()
        self.events.subscribe(pattern, self._connection.present)

    def unsubscribe(self, pattern: bytes, now: float) -> None:
        """Remove the subscription to `pattern`. May be repeated."""
        self.events.unsubscribe(pattern, self._connection.present)

    def _check_events(self) -> None:
        if self._codec is not None:
            raise LocalProtocolError("not-in-dialect", "events")

    def add_service(self, service: bytes, now: float, contract: bytes = b"") -> None:
        """Serve `service` too; while the worker drains, it is registered later.

        `contract`: the canonical bytes of its contract.

        Raises: LocalProtocolError in a dialect with one service.
        """
        if self._codec is not None:
            raise LocalProtocolError("one-service", "the dialect allows no second one")
        self._services[written_service(service)] = None
        self._set_contract(service, contract)
        if self._connection.open and self._draining:
            self._unregistered.append(service)
        elif self._connection.open:
            self._register(service, now)

    def remove_service(self, service: bytes) -> bool:
        """Register `service` no more from the next connection on. False when it is not served, or
        is the only one."""
        if len(self._services) < 2 or service not in self._services:
            return False
        del self._services[service]
        self._called = None
        return True

    def set_capacity(self, capacity: int, now: float) -> None:
        """Take up to `capacity` dispatches at a time from now on; 0 is `drain`.

        The older dialects do not announce it.
        """
        if capacity == 0:
            self.drain(now)
            return
        self._capacity = checked_capacity(capacity)
        if self._codec is not None or self._connection.state is CLOSED:
            return
        self._draining = False
        self._settle_at = inf
        if self._connection.present:
            self._outbox.put(encoding.capacity(capacity), spec.CAPACITY)
            while self._unregistered:
                self._register(self._unregistered.pop(0), now)
        elif self._connection.open:
            self._register_all(now)

    def set_load(self, load: float | None, now: float) -> None:
        """Set the load that the next HEARTBEAT carries; None = unknown."""
        self._load = load

    def drain(self, now: float) -> None:
        """Finish the dispatches that are held, and take no new ones; see `drained`.

        A legacy worker disconnects as soon as it is idle; a Delphi worker first reports a load that
        excludes it. May be repeated.
        """
        if self._draining:
            return
        self._draining = True
        if not self._connection.present:
            self._leave_if_idle(now)
            return
        if self._busy_is_silent:
            self._leave_if_idle(now)
            return
        self._settle_at = now + self.settings.settle
        if self._codec is None:
            self._outbox.put(encoding.capacity(0), spec.CAPACITY)
        else:
            self._load = spec.LOAD_UNREADABLE
            self._heartbeat()

    def close(self, now: float) -> None:
        """Cancel the dispatches that are held, and disconnect. The session cannot be used again."""
        if self._connection.state is CLOSED:
            return
        parting = self._connection.present
        self._drop_dispatches()
        if parting:
            self._outbox.put(self._disconnect(), spec.DISCONNECT)
        self._connection.step("close", now)
        self._settle_at = inf
        self._outbox.unblock()

    # ── messages of the broker ────────────────────────────────────────────────────────────────────

    def received_at(self) -> float:
        """When the last message was received, in monotonic seconds."""
        return self._connection.received_at

    def receive(self, frames: list[Frame], now: float) -> None:
        """Process one message of the socket. The session takes over the list.

        Raises nothing, whatever bytes the message holds.
        """
        connection = self._connection
        connection.received_at = now
        if self._left or (connection.state is not _OPEN and not connection.open):
            self.late += 1
            return
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
        command, flags, id, service = header.command, header.flags, header.id, header.service
        if command != _REQUEST:
            if command in _OF_A_STREAM:
                self._stream_message(header, frames, now)
            elif command == spec.EVENT:
                self._event_received(header, frames)
            else:
                self._control(header, now)
            return
        dispatch_id = self._base + id
        theirs = ours = b""
        called, known = self._called, True
        if called is not None and service == called:
            service = called
        elif service in self._services:
            self._called = service
        else:
            known = False
        if flags & _SPECIAL or id < _BROKER_ID_BIT or dispatch_id in self._dispatches or not known:
            maps = self._check(header)
            if maps is None:
                return
            ours, theirs = maps
            if flags & spec.MORE:
                self._streams.begin(dispatch_id)
        self._dispatches[dispatch_id] = _HELD
        deadline = now + header.ttl / 1000 if header.ttl else inf
        self._events.append(
            make_dispatch(
                dispatch_id, service, frames, header.address, deadline, theirs, ours, flags
            )
        )

    def receive_cut(self, frames: list[Frame], now: float) -> bool:
        """Process a message that is larger than `max_received`, of which the wire has kept the
        beginning. Its dispatch is answered with 413.

        Returns False where the message cannot be assigned: then the connection has to end.
        """
        header = self._header
        self._connection.received_at = now
        if self._codec is not None or len(frames) < 2:
            return False
        try:
            header.read(frames[0])
        except RemoteProtocolError:
            return False
        command, id = header.command, header.id
        dispatch_id, text = self._base + id, larger(self._connection.max_received)
        if self._left or not self._connection.open:
            self.late += 1
        elif command == _REQUEST and id >= _BROKER_ID_BIT and dispatch_id not in self._dispatches:
            self._refuse(id, spec.TOO_LARGE, "too-large", text.decode())
        elif command in (_PARTIAL, _FINAL) and dispatch_id in self._dispatches:
            self.final(dispatch_id, spec.TOO_LARGE, [text], now)
            self._events.append(Cancel(dispatch_id))
        else:
            self._count("too-large")
        return True

    def _check(self, header: Fields) -> tuple[bytes, bytes] | None:
        """Return the broker's and the sender's map of a REQUEST.

        None when the REQUEST is ignored or was answered here.
        """
        flags, id, service = header.flags, header.id, header.service
        if not id:
            self._count("no-id")
        elif id < _BROKER_ID_BIT:
            self._refuse(id, spec.BAD_REQUEST, "wrong-id", "bit 63 of a broker's id is set")
        elif self._base + id in self._dispatches:
            self._count("resend")
        elif flags & spec.CRITICAL:
            self._refuse(id, spec.NOT_IMPLEMENTED, "not-implemented", "not implemented: a flag")
        elif service not in self._services:
            self._count("unknown-service")
            self._outbox.put(encoding.reject(id), spec.REJECT)
        else:
            try:
                return metadata.split_raw(header.metadata, flags)
            except RemoteProtocolError as error:
                self._refuse(id, spec.BAD_REQUEST, error.reason, str(error))
        return None

    def _refuse(self, id: int, status: int, reason: str, text: str) -> None:
        self._count(reason)
        self._outbox.put(encoding.final(id, status, text.encode()), _FINAL)

    def _control(self, header: Fields, now: float) -> None:
        """A command about the connection or a dispatch, or one that no broker sends to a worker."""
        command, id = header.command, header.id
        if header.flags & spec.CRITICAL:
            self._count("critical-flag")
        elif command == spec.CANCEL:
            self._cancel(self._base + id)
        elif command == spec.DISCONNECT:
            told = read_disconnect(header)
            if told is not None:
                self._events.append(Disconnected(*told))
            self._apply(self._connection.step("disconnect", now), now)
        elif command == spec.CAPACITY:
            if header.code == 0:
                self._connection.step("drain", now)
        elif command == spec.WELCOME:
            self._welcomed(header, now)
        elif command == spec.CONTRACT:
            self._contract_asked(header)
        elif command not in spec.COMMAND_NAMES:
            self._unknown(command, id)
        elif command != spec.HEARTBEAT:
            self._count("wrong-direction")

    def _contract_asked(self, header: Fields) -> None:
        """ "A worker answers with the bytes, or without a body if it has no such contract"
        (docs/spec/mdp-0.3.md)."""
        try:
            hash = metadata.unpack(header.metadata).get("contract", "")
        except RemoteProtocolError as error:
            self._count(error.reason)
            return
        if not isinstance(hash, str) or self._outbox.full:
            self._count("bad-contract")
            return
        own, contract = self._contracts.get(header.service, ("", b""))
        body: list[Frame] = [contract] if own == hash and own else []
        self._outbox.put(encoding.contract(header.service, hash, body), spec.CONTRACT)

    def _event_received(self, header: Fields, frames: list[Frame]) -> None:
        if header.flags & spec.CRITICAL:
            self._count("critical-flag")
            return
        try:
            self._events.append(read_event(header, frames))
        except RemoteProtocolError as error:
            self._count(error.reason)

    def _stream_message(self, header: Fields, frames: list[Frame], now: float) -> None:
        """A PARTIAL, FINAL or CREDIT: the client's side of a dispatch, or a refused event."""
        command, code, id = header.command, header.code, header.id
        dispatch_id = self._base + id
        state = self._dispatches.get(dispatch_id)
        if header.flags & spec.CRITICAL:
            self._count("critical-flag")
        elif state is None and command == _FINAL and id < _BROKER_ID_BIT:
            refused = self.events.refused(id, code, frames)
            if refused is None:
                self.late += 1
            else:
                self._events.append(refused)
        elif state is None or state is _CANCELLED:
            self.late += 1
        elif command == spec.CREDIT:
            self._streams.credit_received(dispatch_id, code)
            self._events.append(DispatchCredit(dispatch_id))
        else:
            taken = self._streams.part_received(dispatch_id, command == _FINAL)
            if taken:
                self._events.append(Incoming(dispatch_id, frames, command == _FINAL))
            elif taken is None:
                self.late += 1
            else:
                self._count("no-credit")
                self.final(dispatch_id, spec.TOO_MANY, [NO_CREDIT], now)
                self._events.append(Cancel(dispatch_id))

    def _cancel(self, dispatch_id: int) -> None:
        """ "A worker answers every REQUEST, also a cancelled one": the slot stays held."""
        state = self._dispatches.get(dispatch_id)
        if state is None:
            self.late += 1
            return
        self._dispatches[dispatch_id] = _TRANSITIONS["cancel"][state]
        if state is not _CANCELLED:
            self._events.append(Cancel(dispatch_id))

    def _unknown(self, command: int, id: int) -> None:
        """ "An unknown command is answered FINAL 501 if `id` ≠ 0": it ends a dispatch."""
        self._count("unknown-command")
        if not id:
            return
        dispatch_id = self._base + id
        state = self._dispatches.pop(dispatch_id, None)
        self._streams.of.pop(dispatch_id, None)
        if state is not None and state is not _CANCELLED:
            self._events.append(Cancel(dispatch_id))
        if state is not None or not self._outbox.full:
            text = f"not implemented: command {command}"
            final = encoding.final(id, spec.NOT_IMPLEMENTED, text.encode())
            self._outbox.put(final, _FINAL)

    def _welcomed(self, header: Fields, now: float) -> None:
        try:
            self.welcome = take_welcome(self._connection, header, now)
        except RemoteProtocolError as error:
            self._count(error.reason)
            return
        self.ready = True
        self.worker_id = header.address

    def _receive_legacy(self, codec: Codec, frames: list[Frame], now: float) -> None:
        try:
            command = codec.read_worker(frames)
        except RemoteProtocolError as error:
            self._count(error.reason)
            return
        if command.number == _REQUEST:
            self._last = dispatch_id = self._last + 1
            self._dispatches[dispatch_id] = _HELD
            self._legacy_replies[dispatch_id] = LegacyReply(command.address, [])
            self._events.append(
                Dispatch(
                    dispatch_id, self._service, command.body, command.address, inf, b"", b"", 0
                )
            )
        elif command.number == spec.DISCONNECT:
            self._apply(self._connection.step("disconnect", now), now)
        elif command.number == spec.READY:
            self.ready = True
            self.worker_id = command.address

    def _legacy_final(
        self, codec: Codec, dispatch_id: int, status: int, frames: list[Frame], now: float
    ) -> None:
        slip = self._legacy_replies[dispatch_id]
        body = encoding.legacy_body(status, frames, slip.parts)
        reply = codec.w2b_final(self._service, slip.address, body)
        del self._dispatches[dispatch_id], self._legacy_replies[dispatch_id]
        self._outbox.put(reply, _FINAL)
        if self._busy_is_silent and not self._dispatches:
            self._connection.restart_silence(now)
        if self._settle_at == inf:
            self._leave_if_idle(now)

    def _count(self, reason: str) -> None:
        self.invalid[reason] = self.invalid.get(reason, 0) + 1
