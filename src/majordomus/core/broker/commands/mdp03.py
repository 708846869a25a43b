"""The commands of MDP/0.3, one handler each. docs/spec/mdp-0.3.md defines them.

A handler checks the message and calls the rule. It gets the fields of the header, the envelope
(usually empty), the body frames and the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.contracts.model import is_hash
from majordomus.core.broker import contracts, encoding
from majordomus.core.broker.admission import RefusalError
from majordomus.core.broker.balancing.registry import report_load, set_weight
from majordomus.core.broker.commands.dependencies import Commands, Dependencies
from majordomus.core.broker.commands.events import EventCommands
from majordomus.core.broker.hooks.actions import Reject
from majordomus.core.broker.registration import UnknownPeerError
from majordomus.core.broker.state.peers import conversation
from majordomus.core.broker.state.request_stream import StreamPart
from majordomus.core.broker.state.transitions import DRAINING, PRESENT, SERVING
from majordomus.core.broker.streams import PART_COST
from majordomus.errors import RemoteProtocolError
from majordomus.protocol import metadata, spec
from majordomus.protocol.spec import BROKER_ID_BIT, Dialect

if TYPE_CHECKING:
    from majordomus.core.broker.hooks.actions import Action
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.protocol.mdp03 import Fields
    from majordomus.protocol.spec import Frame

MDP03 = Dialect.MDP03
SERVED_BEHIND_ENVELOPE = frozenset(
    (spec.REQUEST, spec.PARTIAL, spec.FINAL, spec.CANCEL, spec.CREDIT)
)
FREES_A_SLOT = frozenset((spec.FINAL, spec.REJECT))
SENT_BY_BROKERS = frozenset((spec.WELCOME,))
NO_BODY: Final[list[Frame]] = []
"""The body of messages without one. Never changed."""
NEEDS_PRESENCE = frozenset((spec.HELLO, spec.EVENT, spec.SUBSCRIBE, spec.UNSUBSCRIBE))


class Mdp03Commands(Commands):
    """Handlers of the commands of MDP/0.3."""

    def __init__(self, dependencies: Dependencies) -> None:
        super().__init__(dependencies)
        events = self._events = EventCommands(dependencies, self._refuse_event)
        self._commands = {
            spec.READY: self._ready,
            spec.PARTIAL: self._partial,
            spec.HEARTBEAT: self._heartbeat,
            spec.DISCONNECT: self._disconnect,
            spec.HELLO: self._hello,
            spec.CANCEL: self._cancel,
            spec.CAPACITY: self._capacity,
            spec.REJECT: self._reject,
            spec.CREDIT: self._credit,
            spec.CONTRACT: self._contract,
            spec.EVENT: events.event,
            spec.SUBSCRIBE: events.subscribe,
            spec.UNSUBSCRIBE: events.unsubscribe,
        }

    def handle(
        self,
        peer: Peer,
        header: Fields,
        frames: list[Frame],
        at: int,
        now: float,
    ) -> None:
        """Handle one message, whose header is frame `at`. Takes ownership of `frames`.

        Raises:
            UnknownPeerError: the peer must be disconnected.
            RemoteProtocolError: the message is malformed.
        """
        command = header.command
        if command == spec.REQUEST:  # these three are nearly all of the traffic
            self._request(peer, header, frames, at, now)
            return
        if command == spec.FINAL and header.flags < spec.BROKER_METADATA:
            self._final(peer, header, frames, at, now)
            return
        if command == spec.HEARTBEAT and not at and header.flags < spec.BROKER_METADATA:
            self._heartbeat(peer, header, (), NO_BODY, now)
            return
        envelope = tuple(frames[:at])
        if header.flags >= spec.BROKER_METADATA:
            self._critical_flags(peer, envelope, header, now)
        elif (handler := self._commands.get(command)) is None:
            self._unknown(peer, envelope, header, now)
        elif envelope and command not in SERVED_BEHIND_ENVELOPE:
            self._misplaced(peer, envelope, header, now)
        else:
            handler(peer, header, envelope, frames[at + 1 :], now)

    def _misplaced(
        self, peer: Peer, envelope: tuple[Frame, ...], header: Fields, now: float
    ) -> None:
        """Refuse a command that is not allowed behind an envelope.

        A client gets FINAL 501, a worker DISCONNECT.
        """
        if header.command not in NEEDS_PRESENCE:
            claim = header.service if header.command == spec.READY else None
            raise UnknownPeerError("worker-behind-envelope", claim=claim)
        self.registry.count_dropped("behind-envelope", peer.id)
        text = "not served behind an envelope: connect to the broker directly"
        self._not_implemented(peer, envelope, header.id, text, now)

    def _critical_flags(
        self, peer: Peer, envelope: tuple[Frame, ...], header: Fields, now: float
    ) -> None:
        """Refuse a message whose flags cannot be ignored; REQUESTs are checked at admission.

        Only the broker may set 0x40. 0x80: "whoever does not know what it means answers 501"
        (docs/spec/mdp-0.3.md). On a worker's reply it fails the request.
        """
        id = header.id
        if header.flags & spec.BROKER_METADATA:
            raise RemoteProtocolError("forged-metadata")
        self.registry.count_dropped("critical-flag", peer.id)
        text = "not implemented: a flag that this broker does not know"
        worker = peer.worker
        held = None if envelope else self.dispatcher.held_as(worker, id)
        if worker is None or held is None:
            self._not_implemented(peer, envelope, id, text, now)
            return
        self.completion.fail_if_open(held, spec.NOT_IMPLEMENTED, text, now)
        if header.command in FREES_A_SLOT:
            self.dispatcher.release(worker, id)
            self.queueing.feed(worker, now)

    def _unknown(self, peer: Peer, envelope: tuple[Frame, ...], header: Fields, now: float) -> None:
        """Refuse an unknown command.

        "An unknown command is answered FINAL 501 if `id` ≠ 0, and counted" (docs/spec/mdp-0.3.md).
        """
        command = header.command
        if command in SENT_BY_BROKERS:
            raise RemoteProtocolError("wrong-direction", spec.COMMAND_NAMES[command])
        self.registry.count_dropped("unknown-command", peer.id)
        name = spec.COMMAND_NAMES.get(command, f"command {command}")
        self._not_implemented(peer, envelope, header.id, f"not implemented: {name}", now)

    def _not_implemented(
        self, peer: Peer, envelope: tuple[Frame, ...], id: int, text: str, now: float
    ) -> None:
        """Send FINAL 501. When `id` is an open request, this is its one outcome (rule 1)."""
        request = peer.find(conversation(id, envelope))
        if request is None:
            self._refuse(peer, envelope, id, spec.NOT_IMPLEMENTED, text, now)
        else:
            self.completion.fail(request, spec.NOT_IMPLEMENTED, text, now)

    def _refuse(
        self,
        peer: Peer,
        envelope: tuple[Frame, ...],
        id: int,
        status: int,
        text: str,
        now: float,
        flags: int = 0,
    ) -> None:
        """Send FINAL for a message that is not accepted as a request.

        Sends nothing when the message has no id, or when its client wants no answer.
        """
        if flags & spec.ONE_WAY:
            self.registry.counts.unanswered += 1
        elif id:
            self.registry.counts.refused[status] += 1
            message, key = encoding.refusal(envelope, id, status, text), conversation(id, envelope)
            self.outgoing.send(peer, message, spec.FINAL, key, now)

    def _refuse_event(self, peer: Peer, id: int, status: int, text: str, now: float) -> None:
        """Send FINAL for a command that success does not answer.

        Sends nothing when the id is that of an open request or dispatch: the peer would take it
        for the answer to that.
        """
        if peer.find(id) is None and self.dispatcher.held_as(peer.worker, id) is None:
            self._refuse(peer, (), id, status, text, now)

    # ── an MDP/0.3 client ─────────────────────────────────────────────────────────────────────────

    def _request(
        self, peer: Peer, header: Fields, frames: list[Frame], at: int, now: float
    ) -> None:
        flags, id = header.flags, header.id
        envelope = tuple(frames[:at]) if at else ()
        if not id and not flags & spec.ONE_WAY:
            self.registry.count_dropped("no-id", peer.id)
            return
        if id >= BROKER_ID_BIT:
            text = "bit 63 of an id is reserved for the broker"
            self._refuse(peer, envelope, id, spec.BAD_REQUEST, text, now, flags)
            return
        if id and id <= peer.highest_id and peer.find(conversation(id, envelope)) is not None:
            self.registry.count_dropped("resend", peer.id)
            return
        try:
            self.admission.admit(
                peer,
                MDP03,
                envelope,
                id,
                flags,
                header.ttl / 1000,
                header.service,
                header.address,
                header.metadata,
                frames[at:] if at else frames,
                now,
            )
        except RefusalError as error:
            self._refuse(peer, envelope, id, error.status, error.text, now, flags)

    def _hello(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        id, field = header.id, header.metadata
        session = self._events.named_session(field)
        if session is None:
            self.registry.count_dropped("bad-session", peer.id)
            text = "a session must be 16 bytes"
            self._refuse_event(peer, id, spec.BAD_REQUEST, text, now)
            return
        hooks = self.hooks.holding
        if hooks is None:
            self._begin_presence(peer, session, now)
            return

        def then(action: Action, at: float) -> None:
            if isinstance(action, Reject):
                self._refuse(peer, (), id, action.status, action.text, at)
            else:
                self._begin_presence(peer, session, at)

        hooks.hello(peer, metadata.unpack(field) if field else {}, then, now)

    def _begin_presence(self, peer: Peer, session: bytes, now: float) -> None:
        """Begin or renew presence."""
        first = peer.state is not PRESENT
        peer.move("hello")
        if session:
            self.events.open_session(peer, session, now)
            self.authorization.recheck(peer, now)
        interval = self.settings.worker_interval if peer.worker else self.settings.client_interval
        self.presence.send_welcome(peer, interval, now)
        if first:
            self.registry.emit("client-present", peer=peer.id)

    def _cancel(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        request = peer.find(conversation(header.id, envelope))
        if request is None:
            self.registry.count_dropped("late-cancel", peer.id, count_only=True)
        else:
            self.completion.cancel(request, now)

    def _client_part(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        """Handle a part of a client's stream, or its end."""
        flags, field = header.flags, header.metadata
        request = peer.find(conversation(header.id, envelope))
        if request is None:
            self.registry.count_dropped("late-part", peer.id, count_only=True)
            return
        try:
            if flags & spec.METADATA:
                metadata.unpack(field)
        except RemoteProtocolError as error:
            self.completion.fail(request, spec.BAD_REQUEST, f"metadata: {error}", now)
            return
        if self.admission.too_large(body):
            self.completion.fail(request, spec.TOO_LARGE, "a part is larger than allowed", now)
            return
        part = StreamPart(body, flags, field, sum(map(len, body)) + len(field) + PART_COST)
        if header.command == spec.PARTIAL:
            self.completion.streams.client_part(request, part, now)
        else:
            self.completion.streams.client_final(request, part, now)

    # ── an MDP/0.3 worker ─────────────────────────────────────────────────────────────────────────

    def _ready(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        capacity, name, metadata_field = header.code, header.service, header.metadata
        if not capacity:
            raise RemoteProtocolError("no-capacity", "READY needs a capacity of 1 to 65535")
        values = metadata.unpack(metadata_field) if metadata_field else {}
        stated = values.get("contract")
        worker = peer.worker
        if worker is not None and worker.dialect is not MDP03:
            raise UnknownPeerError("changed-dialect")
        if values:
            self.registration.check_durable(values, name)
        name = self.registration.check_claim(peer, worker, name)
        if worker is None:
            worker = self.registration.new_worker(peer, MDP03, capacity, now)
            self.presence.send_welcome(peer, self.settings.worker_interval, now)
        elif worker.capacity != capacity or worker.state is DRAINING:
            self._set_capacity(worker, capacity, now)
        before = worker.metadata.get(name)
        worker.metadata[name] = metadata_field
        self.registry.account.register(worker, len(metadata_field) - len(before or b""))
        if name not in worker.services:
            self.registration.register(worker, name, now, values)
        elif metadata_field != before:
            set_weight(worker, worker.services[name])
            self.registration.declare(worker, worker.services[name], values, now)
            self.queueing.reweigh(worker, now)
        if stated is not None or before is not None:
            hash = stated if isinstance(stated, str) and is_hash(stated) else ""
            contracts.stated(self.registry, self.outgoing, worker, name, hash, now)

    def _contract(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        """Take the contract that this worker was asked for."""
        worker = self._worker(peer, envelope)
        hash = metadata.unpack(header.metadata).get("contract") if header.metadata else None
        contracts.received(self.registry, self.outgoing, worker, hash, body, now)

    def _set_capacity(self, worker: RegisteredWorker, capacity: int, now: float) -> None:
        if capacity:
            worker.capacity = capacity
        served = worker.state is SERVING
        worker.move("capacity" if capacity else "drain")
        self.queueing.reweigh(worker, now)
        if served and worker.state is DRAINING:
            self.queueing.drains(worker, now)

    def _partial(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        flags, dispatch_id, metadata_field = header.flags, header.id, header.metadata
        if not dispatch_id & spec.BROKER_ID_BIT:
            self._client_part(peer, header, envelope, body, now)
            return
        worker = self._worker(peer, envelope)
        request = self.dispatcher.held_as(worker, dispatch_id)
        if request is None:
            self.registry.count_dropped("unasked-reply", peer.id)
            return
        if flags & spec.METADATA:
            metadata.unpack(metadata_field)
        if self.admission.too_large(body):
            self.completion.fail_if_open(
                request, spec.TOO_LARGE, "a part is larger than allowed", now
            )
            return
        self.completion.pass_part(request, body, flags, metadata_field, now)

    def _final(self, peer: Peer, header: Fields, frames: list[Frame], at: int, now: float) -> None:
        flags, dispatch_id, metadata_field = header.flags, header.id, header.metadata
        if dispatch_id < BROKER_ID_BIT:
            self._client_part(peer, header, tuple(frames[:at]), frames[at + 1 :], now)
            return
        worker = peer.worker
        if worker is None or at or worker.dialect is not MDP03:
            raise UnknownPeerError("unknown-worker")
        if flags & spec.METADATA:
            metadata.unpack(metadata_field)
        request = self.dispatcher.release(worker, dispatch_id)
        if request is None:
            self.registry.count_dropped("unasked-reply", peer.id)
            return
        if self.admission.reply_too_large(frames):
            self.completion.fail_if_open(
                request, spec.TOO_LARGE, "the reply is larger than allowed", now
            )
        else:
            self.completion.pass_final(
                request, header.code or spec.HANDLER_FAILED, frames, flags, metadata_field, now
            )
        self.queueing.feed(worker, now)

    def _reject(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        worker = self._worker(peer, envelope)
        request = self.dispatcher.release(worker, header.id)
        if request is None:
            self.registry.count_dropped("unasked-reply", peer.id)
            return
        self.queueing.reject(request, worker, now)
        self.queueing.feed(worker, now)

    def _capacity(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        self._set_capacity(self._worker(peer, envelope), header.code, now)

    def _worker(self, peer: Peer, envelope: tuple[Frame, ...]) -> RegisteredWorker:
        """The worker that `peer` has registered.

        Raises: UnknownPeerError: it has not ("gets DISCONNECT", docs/spec/mdp-0.3.md).
        """
        worker = peer.worker
        if worker is None or envelope or worker.dialect is not MDP03:
            raise UnknownPeerError("unknown-worker")
        return worker

    # ── both sides ────────────────────────────────────────────────────────────────────────────────

    def _heartbeat(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        if peer.worker is None and peer.state is PRESENT:
            return
        load = header.code
        worker = self._worker(peer, envelope)
        if load == spec.LOAD_UNKNOWN and worker.load is None:
            return
        worker.load = None if load == spec.LOAD_UNKNOWN else load / 100
        report_load(worker)

    def _disconnect(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        self.presence.forget(peer, "left", now)

    def _credit(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        """Grant credit to a stream.

        "What is said on an id that is no longer open, CREDIT included, is dropped and counted,
        never answered" (docs/spec/mdp-0.3.md).
        """
        parts, id = header.code, header.id
        streams = self.completion.streams
        if id & spec.BROKER_ID_BIT:
            held = None if envelope else self.dispatcher.held_as(peer.worker, id)
            if held is not None:
                streams.worker_credit(held, parts, now)
                return
        elif (request := peer.find(conversation(id, envelope))) is not None:
            streams.client_credit(request, parts, now)
            return
        self.registry.count_dropped("late-credit", peer.id, count_only=True)
