"""The broker machine: the methods of the contract, and the handler of each incoming message.

No rule of docs/rules.md is here. A message is recognised, its peer is looked up, and the command
handlers of its dialect call the rules, which are in the modules beside this one (see the map in
`majordomus.core.broker`). Errors of peers become DISCONNECT, FINAL or a counted drop in one place,
`_handle_error`.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING

from majordomus.core.broker import encoding
from majordomus.core.broker.accel.prefetch import Prefetcher
from majordomus.core.broker.admission import Admission
from majordomus.core.broker.authorization import Authorization
from majordomus.core.broker.balancing.registry import Strategies
from majordomus.core.broker.balancing.rng import RandomSource
from majordomus.core.broker.commands.dependencies import Dependencies
from majordomus.core.broker.commands.legacy import LegacyCommands
from majordomus.core.broker.commands.mdp03 import Mdp03Commands
from majordomus.core.broker.completion import Completion
from majordomus.core.broker.contract import WorkerInfo
from majordomus.core.broker.dispatch import Dispatcher
from majordomus.core.broker.durable.commands import DurableCommands, report
from majordomus.core.broker.durable.installed import InstalledStore
from majordomus.core.broker.durable.lifecycle import DurableRequests
from majordomus.core.broker.hooks.holding import Holding
from majordomus.core.broker.hooks.installed import InstalledHooks
from majordomus.core.broker.hooks.interface import NoHooks
from majordomus.core.broker.internal_calls import InternalCalls
from majordomus.core.broker.outgoing import (
    READS_TOO_SLOWLY,
    STREAM_COMMANDS,
    Outgoing,
    disconnect_tag,
)
from majordomus.core.broker.presence import Presence
from majordomus.core.broker.pubsub import PubSub
from majordomus.core.broker.registration import Registration, UnknownPeerError
from majordomus.core.broker.retries import Retries
from majordomus.core.broker.settings import merged
from majordomus.core.broker.state.identity import UNPROVED, Identity
from majordomus.core.broker.state.peers import conversation, is_dispatch
from majordomus.core.broker.state.registry import Registry
from majordomus.core.broker.state.requests import AcceptedRequest
from majordomus.core.broker.state.times import TICKS
from majordomus.core.broker.state.transitions import FORGOTTEN, OPEN, PRESENT
from majordomus.errors import LocalProtocolError, RemoteProtocolError, class_name
from majordomus.protocol import delphi, mdp03, metadata, octets, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.recognise import UnsupportedVersion, recognise
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from majordomus.core.broker.balancing.registry import Factory
    from majordomus.core.broker.durable.records import (
        Answer,
        Opened,
        StoredRequest,
        StoreState,
    )
    from majordomus.core.broker.hooks.actions import Action
    from majordomus.core.broker.hooks.interface import Hooks
    from majordomus.core.broker.internal_calls import Done
    from majordomus.core.broker.settings import BrokerSettings
    from majordomus.core.broker.state.access_rules import AccessRules
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Fact, IdSource, Send, Write
    from majordomus.protocol.mdp03 import Fields
    from majordomus.protocol.spec import Frame

MDP03 = Dialect.MDP03
DELPHI = Dialect.DELPHI
VERSION_ANSWERS_PER_SECOND = 10
LATE = 0.001
"""Seconds: a tick that comes later than this is counted as late. No `pause` is shorter."""
WORKER_READS_TOO_SLOWLY = "the worker reads more slowly than the client sends"


class BrokerMachine:
    """All rules of a broker, without a socket, a clock or a thread. One thread may use it at a
    time.

    The methods of the contract are documented in contract.py too. Every `now` is monotonic seconds
    and never goes back. `ids(n)` returns n unpredictable bytes. `strategies` holds custom
    strategies by name.

    settings: the settings in force.
    prefetcher: the index of services, which looks ahead in a batch.
    registry: the tables that all parts share.
    outgoing: sends and outboxes.
    installed: the hooks in force, if there are any.
    store: the durable requests, if there is a store.
    dispatcher: takes slots of workers and gives them back.
    completion: accepts requests and ends them.
    queueing: queues requests and feeds workers.
    retries: tries the requests of lost workers again.
    events: pushes, topics and sessions.
    presence: peers, heartbeats and silence.
    authorization: checks what a peer may do.
    admission: checks new requests.
    calls: requests of the broker itself.
    registration: registers workers for services.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        ids: IdSource,
        name: str = "",
        strategies: Mapping[str, Factory] | None = None,
    ) -> None:
        self.settings = settings
        self.prefetcher = Prefetcher()
        balancing = Strategies(
            settings, RandomSource(ids(8)), strategies or {}, self._strategy_failed
        )
        name = name or settings.name
        self.registry = Registry(settings, ids, name, balancing, self.prefetcher)
        self.outgoing = Outgoing(self.registry)
        self.installed = InstalledHooks()
        self.store = InstalledStore()
        self.dispatcher = Dispatcher(self.registry, self.outgoing)
        self.completion = Completion(
            self.registry, self.outgoing, self.dispatcher, self.installed, self.store
        )
        self.queueing = self.completion.queueing
        self.retries = Retries(self.registry, self.queueing, self.completion)
        self.events = PubSub(self.registry, self.outgoing)
        self.presence = Presence(
            self.registry,
            self.outgoing,
            self.queueing,
            self.completion,
            self.retries,
            self.events,
            self.installed,
        )
        self.authorization = Authorization(
            self.registry, self.presence, self.completion, self.events
        )
        self.admission = Admission(
            self.registry,
            self.queueing,
            self.completion,
            self.authorization,
            self.installed,
            self.store,
        )
        self.calls = InternalCalls(self.registry, self.completion, self.admission, self.outgoing)
        self._next_tick = inf
        self._facts_taken: list[Fact] = []
        self._writes: list[Write] = []
        self._next_version_answer = -inf
        self._codecs = dict(LEGACY)
        if settings.delphi_unverified:
            self._codecs[DELPHI] = delphi.UNVERIFIED
        self.registration = Registration(
            self.registry,
            self.presence,
            self.dispatcher,
            self.queueing,
            self.authorization,
            self.store,
        )
        dependencies = Dependencies(
            self.registry,
            self.outgoing,
            self.dispatcher,
            self.queueing,
            self.completion,
            self.presence,
            self.admission,
            self.authorization,
            self.registration,
            self.events,
            self.installed,
        )
        self._header = self.prefetcher.header
        self._mdp03 = Mdp03Commands(dependencies)
        self._legacy = LegacyCommands(dependencies)

    def begin(
        self,
        version: str,
        wire: str,
        now: float,
        restarts: int = 0,
        buffers: Callable[[], dict[str, int]] = dict,
        process: Callable[[], dict[str, float]] = dict,
    ) -> None:
        """Set what MMI reports: the package's version, the wire, the start, how often a supervisor
        has restarted this broker, the bytes in the buffers of its connections, and what its process
        uses."""
        self.registry.buffers, self.registry.process = buffers, process
        self.registry.version, self.registry.wire, self.registry.started = version, wire, now
        self.registry.restarts = restarts

    # ── the contract ──────────────────────────────────────────────────────────────────────────────

    def receive(self, peer_id: bytes, frames: list[Frame], now: float) -> None:
        """Handle one message of one routing id; the machine owns the list afterwards.

        No bytes of a peer make it raise: an invalid message is counted and dropped.
        """
        try:
            self.handle_message(peer_id, frames, now)
        except Exception as error:
            self._handle_error(peer_id, frames, error, now)

    def receive_all(
        self, batch: list[tuple[bytes, list[Frame]]], now: float
    ) -> list[tuple[bytes, Exception]]:
        """Handle the messages of a batch in order. A fault of the broker costs only the message
        that raised it.

        Returns the routing id and the exception of each such message.
        """
        faults: list[tuple[bytes, Exception]] = []
        peer_id: bytes = b""
        frames: list[Frame] = []
        messages = self.prefetcher.ahead(batch)
        while True:  # the iterator continues behind a fault: one `try` a batch, not one a message
            try:
                for peer_id, frames in messages:
                    self.handle_message(peer_id, frames, now)
            except Exception as error:
                try:
                    self._handle_error(peer_id, frames, error, now)
                except Exception as fault:
                    faults.append((peer_id, fault))
            else:
                return faults

    def tick(self, now: float) -> None:
        """Do what is due. The program calls it at `next_deadline`, and after each batch."""
        late = now - self._next_tick
        if late > LATE:
            self._note_late(late, now)
        if self.outgoing.overflow:
            self._handle_overflow(now)
        for request in self.registry.requests.due(now):
            if request.state in OPEN:
                self.completion.expire(request, now)
        self.presence.tick(now)
        if self.events.away:
            self.events.tick(now)
        holding = self.installed.holding
        if holding is not None:
            holding.tick(now)
            self.authorization.tick(now)
        for peer in self.registry.retries.due(now):
            self.outgoing.flush(peer, now)
        durable = self.store.durable
        if durable is not None:
            durable.tick(now)

    def _note_late(self, late: float, now: float) -> None:
        """Count how late this tick is; after a long pause no peer is lost at once."""
        self.registry.late_seconds += late
        self.registry.late[int(late * TICKS).bit_length()] += 1
        if late > self.settings.pause:
            self.presence.paused(now)
        self._next_tick = inf

    def next_deadline(self) -> float:
        """Return when `tick` is next needed, in monotonic seconds; infinity when nothing is due.

        0 means: receive without waiting, because sends wait, a full outbox has consequences, or
        `socket_empty` has something to decide.
        """
        registry = self.registry
        self._next_tick = min(
            registry.requests.next(), registry.timers.next(), registry.retries.next()
        )
        if self.events.away:
            self._next_tick = min(self._next_tick, self.events.next_deadline())
        holding = self.installed.holding
        if holding is not None:
            hooks, identities = holding.next_deadline(), self.authorization.next_deadline()
            self._next_tick = min(self._next_tick, hooks, identities)
        durable = self.store.durable
        if durable is not None:
            self._next_tick = min(self._next_tick, durable.next_deadline())
        if self.outgoing.sends or self.outgoing.overflow or self.presence.awaits_empty_socket:
            return 0.0
        return self._next_tick

    def take_effects(self) -> tuple[list[Write], list[Send], list[Fact]]:
        """Return writes, sends and facts since the last call. The lists are reused two calls
        later."""
        facts = self.registry.facts
        self.registry.facts, self._facts_taken = self._facts_taken, facts
        self.registry.facts.clear()
        sends = self.outgoing.take()
        if self.calls.pending:
            sends = self.calls.collect(sends)
        durable = self.store.durable
        return self._writes if durable is None else durable.writes.take(), sends, facts

    # ── the store ─────────────────────────────────────────────────────────────────────────────────

    def use_store(self, opened: Opened, now: float) -> None:
        """Serve durable requests from now on. Before the first message, and once."""
        self.store.durable = durable = DurableRequests(
            self.registry, self.outgoing, self.completion, self.queueing, opened, now
        )
        self.admission.commands = DurableCommands(durable, self.authorization)
        self.registry.report_store = partial(report, durable)

    def recover(self, rows: Iterable[StoredRequest], now: float) -> None:
        """Continue with stored requests that have no outcome, in the order of their numbers. May be
        called for each page of them, before the first message."""
        if self.store.durable is not None:
            self.store.durable.recover(rows, now)

    def stored(self, number: int, answers: Sequence[tuple[int, Answer]], now: float) -> None:
        """Act on the report that every write up to `number` is stored."""
        if self.store.durable is not None:
            self.store.durable.stored(number, answers, now)

    def store_state(self, state: StoreState) -> None:
        """Take the state of the store for reports; it decides whether new requests are accepted."""
        if self.store.durable is not None:
            self.store.durable.set_state(state)

    def refused(self, send: Send, gone: bool, now: float) -> None:
        """Act on a send that the socket has refused (rule 9): its peer is `gone` (EHOSTUNREACH), or
        its queue is full (EAGAIN). `send` was returned by `take_effects`.

        Refusals of one batch must be reported in the order of their sends.
        """
        peer_id, frames, command, conversation = send
        if conversation is None:
            conversation = encoding.conversation_of(frames, command)
        peer = self.registry.peers.get(peer_id)
        if peer is None:
            self.registry.count_dropped("unsendable", peer_id)
        elif not gone:
            worker = peer.worker
            if worker is None or self.retries.refused(worker, command, conversation, now):
                self.outgoing.hold(peer, frames, command, conversation, now)
        elif peer.worker is not None:
            self.retries.note_unsent(peer.worker, command, conversation)
            self.presence.suspect(peer, now)
        else:
            self.outgoing.overflow[peer, spec.DISCONNECT, None] = None

    def socket_empty(self, now: float) -> None:
        """Act on the report that every message that had arrived has been received."""
        self.presence.socket_empty(now)

    def connection_ended(self, peer_id: bytes, now: float) -> None:
        """Act on the end of a connection; messages of it may still follow. May be repeated."""
        identified = self.registry.identities.pop(peer_id, None) is not None
        peer = self.registry.peers.get(peer_id)
        if peer is None:
            self.outgoing.drop_refusal(peer_id)
            return
        if identified or peer.identity is not UNPROVED:
            self.presence.gone(peer, now)
        else:
            self.presence.connection_ended(peer, now)

    def connection_over(self, peer_id: bytes, now: float) -> None:
        """Act on the end of a connection of which no message can follow. May be repeated.

        Every send to it has been refused, so the peer is forgotten at once, without a probe.
        """
        self.registry.identities.pop(peer_id, None)
        peer = self.registry.peers.get(peer_id)
        if peer is not None:
            self.presence.forget(peer, "connection lost", now)
        else:
            self.outgoing.drop_refusal(peer_id)

    def identify(
        self, peer_id: bytes, user: str, groups: tuple[str, ...], now: float, key: str = ""
    ) -> bool:
        """Set the identity that a connection has proved. `key` is its CURVE key, "" without one.

        To be called before its first message, and again when its groups change. Returns False when
        the routing id was another user's a moment ago: its messages must be dropped.
        """
        known = self.presence.identify(peer_id, Identity(user, groups, key), now)
        if known and peer_id in self.registry.peers:
            self.authorization.recheck(self.registry.peers[peer_id], now)
        return known

    def unix_peer(self, peer_id: bytes, uid: int, pid: int) -> None:
        """Log the Unix user and process of an ipc connection."""
        self.registry.emit("unix-peer", peer=peer_id, uid=uid, pid=pid)

    def revoke(self, peer_id: bytes, now: float) -> None:
        """Forget a peer that may no longer be connected, and cancel its requests. The program ends
        its connection."""
        self.presence.revoke(peer_id, now)

    def handshake_failed(self, reason: str, **data: object) -> None:
        """Count and log a connection that failed before its first message.

        `reason` is a short key, `data` the fields of the log entry.
        """
        self.registry.counts.handshakes[reason] += 1
        self.registry.emit("handshake-failed", why=reason, **data)

    def cut_off(self, reason: str, address: str) -> None:
        """Count and log a connection that was ended for a broken limit. `reason` is a short key."""
        self.registry.counts.dropped[reason] += 1
        self.registry.emit("cut-off", why=reason, address=address)

    def set_rights(self, rights: AccessRules | None, now: float) -> None:
        """Apply access rules. Workers that may no longer serve are disconnected."""
        self.authorization.set_rights(rights, now)
        self.registry.emit("rights-changed", rules=0 if rights is None else rights.count)

    # ── the broker's own program ──────────────────────────────────────────────────────────────────

    @property
    def hooks(self) -> Holding | None:
        """The part that calls the hooks; None before the first `use`."""
        return self.installed.holding

    def use(self, hooks: Hooks | None) -> None:
        """Pass later requests to `hooks`. Decisions that are pending may still be made."""
        holding = self.installed.holding
        if holding is not None:
            holding.hooks = hooks or NoHooks()
        elif hooks is not None:
            self.installed.holding = Holding(
                self.registry, self.admission, self.completion, self.authorization, self.push, hooks
            )

    def reconfigure(self, settings: BrokerSettings, now: float) -> tuple[str, ...]:
        """Apply settings to what comes from now on; open requests keep their deadlines.

        Returns the names of changed settings that cannot change while a broker runs.
        """
        settings, left = merged(self.settings, settings)
        changed = [
            name
            for name in settings.__struct_fields__
            if getattr(settings, name) != getattr(self.settings, name)
        ]
        self.registry.emit("reload", changed=changed)
        self.settings = self.registry.settings = settings
        self._mdp03.settings = self._legacy.settings = settings
        self.completion.streams.settings = settings
        self.admission.configure(settings)
        self.registry.account.configure(settings)
        return left

    def resume(self, id: int, action: Action, now: float) -> bool:
        """Make the pending decision `id`. Returns False when it is no longer pending."""
        holding = self.installed.holding
        return holding is not None and holding.resume(id, action, now)

    def call(
        self,
        service: bytes,
        body: list[Frame],
        ttl: float,
        now: float,
        done: Done | None = None,
        flags: int = 0,
    ) -> int:
        """Call a service in the broker's own name, past hooks and access rules.

        A later `take_effects` calls `done(status, frames)` once. Without `done` the request is
        one-way. Returns the number that `withdraw_call` takes.
        """
        return self.calls.call(service, body, ttl, now, done, flags)

    def withdraw_call(self, id: int, now: float) -> None:
        """Cancel the call `id`. May be repeated."""
        self.calls.withdraw(id, now)

    def drain(self, now: float) -> None:
        """Refuse new requests (503), and send DRAIN to peers whose dialect has it. Open requests
        are completed."""
        self.registry.draining = True
        self.registry.emit("drain", open=self.registry.open)
        for peer in self.registry.peers.values():
            if self._gets_drain(peer):
                self.outgoing.send(peer, [encoding.DRAIN_03], spec.CAPACITY, None, now)
        if self.store.durable is not None:
            self.store.durable.drain(now)

    @property
    def drained(self) -> bool:
        """Whether every accepted request has ended, and its answer has left (rule 1)."""
        return self.unfinished == (0, 0)

    @property
    def unfinished(self) -> tuple[int, int]:
        """The open requests, and the answers that wait in outboxes."""
        return self.registry.open, self.outgoing.answers_held()

    @property
    def unstored(self) -> int:
        """The writes that are not stored yet."""
        return 0 if self.store.durable is None else self.store.durable.writes.unstored

    def close(self, now: float) -> None:
        """Send DISCONNECT to every worker and every client with presence. Nothing may follow but
        `take_effects` and `refused`."""
        for peer in list(self.registry.peers.values()):
            if peer.worker is not None or peer.state is PRESENT:
                dialect = peer.worker.dialect if peer.worker else MDP03
                message, command = encoding.disconnect(dialect), disconnect_tag(dialect)
                self.outgoing.send(peer, message, command, None, now)

    def push(self, handle: bytes, body: list[Frame], now: float) -> bool:
        """Send an EVENT to the client of a handle, at most once.

        Returns False when the handle is unknown or its client has no presence.
        """
        return self.events.push(handle, body, now) is None

    def publish(self, topic: bytes, body: list[Frame], now: float) -> int:
        """Send an EVENT to every subscriber of a topic; returns their number.

        Raises: LocalProtocolError for an invalid topic.
        """
        problem = self.events.topic_problem(topic, pattern=False)
        if problem:
            raise LocalProtocolError("bad-topic", problem)
        return self.events.publish(topic, body, now)

    # ── incoming messages ─────────────────────────────────────────────────────────────────────────

    def handle_message(self, peer_id: bytes, frames: list[Frame], now: float) -> None:
        """Handle one message, as `receive` does, but raise its errors."""
        if self.outgoing.overflow:
            self._handle_overflow(now)
        at = 0
        if not frames or not octets.is_mdp03(frames[0]):
            dialect, at = recognise(frames)
            if dialect is not MDP03:
                self._receive_legacy(peer_id, dialect, frames, at, now)
                return
        header = self._header
        header.read_recognised(frames[at])
        peer = None
        # The dispatch of a FINAL is found by number, which needs no hash of the routing id.
        if header.command == spec.FINAL:
            peer = self.registry.dispatch_table.answerer(peer_id, header.id)
        if peer is None:
            peer = self.registry.peers.get(peer_id)
        if peer is None:
            peer = self._add_peer(peer_id, MDP03, tuple(frames[:at]), header, now)
            if peer is None:
                return
        peer.last_received = now
        self._mdp03.handle(peer, header, frames, at, now)
        if peer.outbox is not None:
            self.outgoing.flush(peer, now)

    def _add_peer(
        self,
        peer_id: bytes,
        dialect: Dialect,
        envelope: tuple[Frame, ...],
        header: Fields,
        now: float,
    ) -> Peer | None:
        """Add the sender of a message. None at the bound `max_peers`: a message that waits for an
        answer is refused. None too while a repeated refusal of this peer is delayed."""
        if self.outgoing.is_refused(peer_id):
            self.registry.count_dropped("refused-peer", peer_id)
            return None
        peer = self.presence.add_peer(peer_id, dialect, now)
        if peer is None:
            self.registry.count_dropped("too-many-peers", peer_id)
            if header.command in (spec.READY, spec.HELLO):
                message = [*envelope, *encoding.disconnect(dialect)]
                self.outgoing.send_to(peer_id, message, disconnect_tag(dialect), None, now)
            elif header.command == spec.REQUEST and not header.flags & spec.ONE_WAY and header.id:
                text = "this broker has reached its limit of peers"
                self._refuse(peer_id, envelope, header.id, spec.TOO_MANY, text, now)
        return peer

    def _refuse(
        self,
        peer_id: bytes,
        envelope: tuple[Frame, ...],
        id: int,
        status: int,
        text: str,
        now: float,
    ) -> None:
        """Send FINAL to a routing id, which need not be a known peer."""
        self.registry.counts.refused[status] += 1
        message, key = encoding.refusal(envelope, id, status, text), conversation(id, envelope)
        self.outgoing.send_to(peer_id, message, spec.FINAL, key, now)

    def _refuse_long_metadata(self, peer_id: bytes, frames: list[Frame], now: float) -> None:
        """Refuse a request whose metadata exceeds its bound (rule 4)."""
        header = self._header  # `read` raised at the metadata; the fields before it have been read
        id, envelope = header.id, tuple(frames[: recognise(frames)[1]])
        peer = self.registry.peers.get(peer_id)
        is_open = peer is not None and peer.find(conversation(id, envelope)) is not None
        wants_answer = header.command == spec.REQUEST and not header.flags & spec.ONE_WAY and id
        if not wants_answer or is_open:
            self._invalid(peer_id, "long-metadata", now)
            return
        self.registry.count_dropped("long-metadata", peer_id)
        text = f"at most {spec.MAX_METADATA} bytes of metadata are allowed"
        self._refuse(peer_id, envelope, id, spec.TOO_LARGE, text, now)

    def _receive_legacy(
        self, peer_id: bytes, dialect: Dialect, frames: list[Frame], at: int, now: float
    ) -> None:
        """Handle one message of an older dialect."""
        envelope = tuple(frames[:at])
        command = self._codecs[dialect].read_broker(frames[at:] if at else frames)
        peer = self.registry.peers.get(peer_id)
        if peer is None:
            if self.outgoing.is_refused(peer_id):
                self.registry.count_dropped("refused-peer", peer_id)
                return
            peer = self.presence.add_peer(peer_id, dialect, now)
            if peer is None:
                self.registry.count_dropped("too-many-peers", peer_id)
                return
        peer.last_received = now
        self._legacy.handle(peer, dialect, envelope, command, now)
        if peer.outbox is not None:
            self.outgoing.flush(peer, now)

    # ── errors ────────────────────────────────────────────────────────────────────────────────────

    def _handle_error(
        self, peer_id: bytes, frames: list[Frame], error: Exception, now: float
    ) -> None:
        """Act on the exception that a message has raised. A fault of the broker is raised again."""
        if isinstance(error, UnknownPeerError):
            self._disconnect_unknown(peer_id, frames, error, now)
        elif not isinstance(error, RemoteProtocolError):
            raise error
        elif isinstance(error, UnsupportedVersion):
            self._answer_version(peer_id, error.reason, now)
        elif isinstance(error, mdp03.LongMetadataError):
            self._refuse_long_metadata(peer_id, frames, now)
        else:
            self._invalid(peer_id, error.reason, now)

    def _invalid(self, peer_id: bytes, reason: str, now: float) -> None:
        """Count and drop an invalid message. A registered worker also gets DISCONNECT
        (docs/spec/recognition.md).

        A wrong hash is counted and dropped, nothing more (§3).
        """
        self.registry.count_dropped(reason, peer_id)
        peer = self.registry.peers.get(peer_id)
        if peer is not None and peer.worker is not None and reason != "wrong-hash":
            self.presence.forget(peer, f"invalid message: {reason}", now, notify=True)

    def _answer_version(self, peer_id: bytes, reason: str, now: float) -> None:
        """Send DISCONNECT with the supported version for a message of another one. The number of
        such answers per second is limited."""
        self.registry.count_dropped(reason, peer_id)
        answered = now >= self._next_version_answer
        if answered:
            self._next_version_answer = now + 1 / VERSION_ANSWERS_PER_SECOND
            message = [encoding.WRONG_VERSION_03]
            self.outgoing.send_to(peer_id, message, spec.DISCONNECT, None, now)
        peer = self.registry.peers.get(peer_id)
        if peer is not None and peer.worker is not None:
            understood = answered and peer.worker.dialect is MDP03
            self.presence.forget(peer, reason, now, notify=not understood)

    def _disconnect_unknown(
        self, peer_id: bytes, frames: list[Frame], error: UnknownPeerError, now: float
    ) -> None:
        """Send DISCONNECT to a peer in an unknown role, and forget it. Behind an envelope only that
        client gets the DISCONNECT: the peer is a proxy."""
        peer = self.registry.peers[peer_id]
        dialect, at = recognise(frames)
        self.registry.count_dropped(error.reason, peer_id, count_only=error.claim is not None)
        if at:
            message = [*frames[:at], *encoding.disconnect(dialect)]
        else:
            if peer.worker is not None:
                dialect = peer.worker.dialect
            self.presence.forget(peer, error.reason, now)
            message = encoding.disconnect(dialect, *error.notice)
        if self._is_refused_again(peer_id, dialect, error, now):
            envelope = tuple(frames[:at])
            self.outgoing.send_later(peer_id, envelope, message, disconnect_tag(dialect), now)
        else:
            self.outgoing.send_to(peer_id, message, disconnect_tag(dialect), None, now)
        if peer.outbox is not None:
            self.outgoing.flush(peer, now)

    def _is_refused_again(
        self, peer_id: bytes, dialect: Dialect, error: UnknownPeerError, now: float
    ) -> bool:
        """Report a refused READY; whether the same was refused a short time ago. A worker that
        reconnects at once would otherwise do so thousands of times a second."""
        if error.claim is None:
            return False
        times = self.registry.refuse(
            "worker-refused",
            (error.reason, error.claim),
            now,
            peer=peer_id,
            dialect=dialect.value,
            service=error.claim,
            why=error.notice[1] or error.reason,
        )
        return times > 1

    def _strategy_failed(self, service: bytes, error: BaseException) -> None:
        try:
            why = f"{class_name(error)}: {error}"
        except BaseException:  # its text is code of the strategy's author
            why = class_name(error)
        self.registry.emit("strategy-failed", service=service, why=why, instead="least-outstanding")

    # ── full outboxes ─────────────────────────────────────────────────────────────────────────────

    def _handle_overflow(self, now: float) -> None:
        """Act on sends for which an outbox had no space (rule 9).

        A stream that has lost a part ends with 429. A peer that has lost any other message is
        forgotten, as is a client whose connection is gone.
        """
        overflow, self.outgoing.overflow = self.outgoing.overflow, {}
        for peer, command, key in overflow:
            if peer.state is FORGOTTEN:
                continue
            to_worker = is_dispatch(key)
            if command not in STREAM_COMMANDS and not (to_worker and command == spec.FINAL):
                why = "gone" if command == spec.DISCONNECT else "reads too slowly"
                self.presence.forget(peer, why, now)
            elif isinstance(key, int) and to_worker:
                held = self.dispatcher.held_as(peer.worker, key)
                if held is not None:
                    self.completion.fail_if_open(held, spec.TOO_MANY, WORKER_READS_TOO_SLOWLY, now)
            elif (request := peer.find(key)) is not None:
                self.completion.fail(request, spec.TOO_MANY, READS_TOO_SLOWLY, now)

    def _gets_drain(self, peer: Peer) -> bool:
        """Whether the dialect of `peer` has DRAIN, and it is a worker or has presence."""
        if peer.worker is not None:
            return peer.worker.dialect is MDP03
        return peer.state is PRESENT

    # ── state for the program around the machine ──────────────────────────────────────────────────

    def count_dropped(self, reason: str, peer_id: bytes) -> None:
        """Count and log a message that was dropped before it reached the machine."""
        self.registry.count_dropped(reason, peer_id)

    def is_pending(self, id: int) -> bool:
        """Return whether the decision `id` is still pending."""
        return self.hooks is not None and id in self.hooks.pending.open

    def worker_info(self, id: bytes) -> WorkerInfo | None:
        """Return a snapshot of the worker with this routing id. Any thread may call it."""
        worker = self.registry.workers.get(id)
        if worker is None:
            return None
        return WorkerInfo(
            worker.id,
            tuple(service.name.decode() for service in list(worker.order)),
            worker.dialect.value,
            worker.capacity,
            worker.holding,
            worker.load,
            worker.peer.user,
        )

    def find_worker(self, service: bytes, key: bytes = b"") -> WorkerInfo | None:
        """Return the worker that the strategy of `service` chooses for a request with that `key`;
        None when none is free."""
        found = self.registry.services.get(service)
        if found is None:
            return None
        asked = AcceptedRequest().fill(
            self.calls.peer, MDP03, (), 0, 0, found, [b""], 0, 0, b"", 0.0, 0.0
        )
        if key:
            asked.flags, asked.metadata = spec.METADATA, metadata.pack({"key": key})
        chosen = found.choose(asked)
        return None if chosen is None else self.worker_info(chosen.id)

    def end_calls(self, status: int, body: list[Frame]) -> None:
        """End every open call of the broker itself with this status and body, at once."""
        waiting, self.calls.pending = self.calls.pending, {}
        for call in waiting.values():
            call.done(status, body)

    def restore_identity(self, peer_id: bytes, now: float) -> None:
        """Reduce a peer to the identity that its connection proved."""
        peer = self.registry.peers.get(peer_id)
        if peer is not None:
            self.registry.emit("token-revoked", peer=peer_id, user=peer.user)
            self.authorization.restore_identity(peer, now)

    def set_default_rights(self, rights: AccessRules, now: float) -> None:
        """Apply access rules unless some are in force."""
        if self.registry.rights is None:
            self.set_rights(rights, now)
