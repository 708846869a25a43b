"""The broker machine: what comes in, by dialect and command, and the contract with its shell
(docs/rules.md).

Here a message finds the rule that it is subject to; the rules themselves live beside this file:
admission (what may become a request), dispatch (requests and slots), presence (peers and silence),
outgoing (sends).
"""

from __future__ import annotations

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
from majordomus.core.broker.state.transitions import FORGOTTEN, OPEN, PRESENT
from majordomus.errors import LocalProtocolError, RemoteProtocolError, class_name
from majordomus.protocol import delphi, mdp03, octets, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.recognise import UnsupportedVersion, recognise
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from majordomus.core.broker.balancing.registry import Factory
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
WORKER_READS_TOO_SLOWLY = "the worker reads more slowly than the client sends"


class BrokerMachine:
    """All rules of a broker, without a socket, a clock or a thread. Not for several threads at
    once.

    `ids(n)` returns n unpredictable bytes; `strategies` are ways to balance that are not ours, by
    name. Every `now` is monotonic seconds and never goes back.
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
        self.dispatcher = Dispatcher(self.registry, self.outgoing)
        self.completion = Completion(self.registry, self.outgoing, self.dispatcher, self.installed)
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
            self.registry, self.queueing, self.completion, self.authorization, self.installed
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
            self.registry, self.presence, self.dispatcher, self.queueing, self.authorization
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
        self._header = mdp03.Fields()
        self._mdp03 = Mdp03Commands(dependencies)
        self._legacy = LegacyCommands(dependencies)

    def begin(self, version: str, wire: str, now: float, restarts: int = 0) -> None:
        """What MMI tells of this broker: the package's version, the kind of wire, since when, and
        how often it was started again by who watches over it."""
        self.registry.version, self.registry.wire, self.registry.started = version, wire, now
        self.registry.restarts = restarts

    # ── the contract ──────────────────────────────────────────────────────────────────────────────

    def receive(self, peer_id: bytes, frames: list[Frame], now: float) -> None:
        """One message from one routing id; the list is the machine's from here on. Its bytes raise
        nothing: what is wrong is counted."""
        try:
            self.handle_message(peer_id, frames, now)
        except Exception as error:
            self._handle_error(peer_id, frames, error, now)

    def receive_all(
        self, batch: list[tuple[bytes, list[Frame]]], now: float
    ) -> list[tuple[bytes, Exception]]:
        """Receive every message of a batch, in order. A fault of the broker costs only the message
        at which it was raised. Returns the sender of each such message, and what was raised."""
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
        """What time alone causes. The shell calls it at `next_deadline` or whenever it has
        received."""
        if now - self._next_tick > self.settings.pause:
            self.presence.paused(now)
            self._next_tick = inf
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

    def next_deadline(self) -> float:
        """When `tick` is next needed, in monotonic seconds; infinity when nothing is due.

        0 when what the socket said last is still to be acted upon: receive without waiting.
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
        if self.outgoing.sends or self.outgoing.overflow or self.presence.awaits_empty_socket:
            return 0.0
        return self._next_tick

    def take_effects(self) -> tuple[list[Write], list[Send], list[Fact]]:
        """Writes, sends and facts since the last call. The lists are used again two calls later."""
        facts = self.registry.facts
        self.registry.facts, self._facts_taken = self._facts_taken, facts
        self.registry.facts.clear()
        sends = self.outgoing.take()
        if self.calls.pending:
            sends = self.calls.collect(sends)
        return self._writes, sends, facts

    def refused(self, send: Send, gone: bool, now: float) -> None:
        """Act on a send that the socket refused (rule 9): its peer is `gone` (EHOSTUNREACH), or its
        queue is full (EAGAIN). `send` is one that `take_effects` returned.

        Refusals of one batch are reported in the order of their sends.
        """
        peer_id, frames, command, conversation = send
        peer = self.registry.peers.get(peer_id)
        if peer is None:
            self.registry.count_dropped("unsendable", peer_id)
        elif not gone:
            self.outgoing.hold(peer, frames, command, conversation, now)
        elif peer.worker is not None:
            self.retries.note_unsent(peer.worker, command, conversation)
            self.presence.suspect(peer, now)
        else:
            self.outgoing.overflow[peer, spec.DISCONNECT, None] = None

    def socket_empty(self, now: float) -> None:
        """Everything that had arrived has been received."""
        self.presence.socket_empty(now)

    def connection_ended(self, peer_id: bytes, now: float) -> None:
        """The monitor saw the end of the connection that `peer_id` had. May be repeated."""
        identified = self.registry.identities.pop(peer_id, None) is not None
        peer = self.registry.peers.get(peer_id)
        if peer is None:
            return
        if identified or peer.identity is not UNPROVED:
            self.presence.gone(peer, now)
        else:
            self.presence.connection_ended(peer, now)

    def connection_over(self, peer_id: bytes, now: float) -> None:
        """The connection that `peer_id` had has ended, everything that came by it was heard, and
        what was to be sent by it was refused: nothing has to be found out. May be repeated."""
        self.registry.identities.pop(peer_id, None)
        peer = self.registry.peers.get(peer_id)
        if peer is not None:
            self.presence.forget(peer, "connection lost", now)

    def identify(
        self, peer_id: bytes, user: str, groups: tuple[str, ...], now: float, key: str = ""
    ) -> bool:
        """The connection of `peer_id` has proved that it is `user`; `key` is its CURVE key, where
        it has one.

        To be told before its first message, and again when its groups change. False: refuse its
        messages, the routing id was another user's a moment ago.
        """
        known = self.presence.identify(peer_id, Identity(user, groups, key), now)
        if known and peer_id in self.registry.peers:
            self.authorization.recheck(self.registry.peers[peer_id], now)
        return known

    def revoke(self, peer_id: bytes, now: float) -> None:
        """`peer_id` may not be connected any more: what it has open is withdrawn, it is
        forgotten. The shell ends its connection."""
        self.presence.revoke(peer_id, now)

    def handshake_failed(self, reason: str, **data: object) -> None:
        """A connection was refused before it could say anything; `reason` is a short key, `data`
        what is known of it."""
        self.registry.counts.handshakes[reason] += 1
        self.registry.emit("handshake-failed", why=reason, **data)

    def cut_off(self, reason: str, address: str) -> None:
        """A connection from `address` was ended for what it did; `reason` is a short key."""
        self.registry.counts.dropped[reason] += 1
        self.registry.emit("cut-off", why=reason, address=address)

    def set_rights(self, rights: AccessRules | None, now: float) -> None:
        """Who may do what from now on. Workers that may no longer serve are sent off."""
        self.authorization.set_rights(rights, now)

    # ── the broker's own program ──────────────────────────────────────────────────────────────────

    @property
    def hooks(self) -> Holding | None:
        """What asks the hooks; None before the first `use`."""
        return self.installed.holding

    def use(self, hooks: Hooks | None) -> None:
        """Ask `hooks` from now on. Decisions that are pending may still be made."""
        holding = self.installed.holding
        if holding is not None:
            holding.hooks = hooks or NoHooks()
        elif hooks is not None:
            self.installed.holding = Holding(
                self.registry, self.admission, self.completion, self.authorization, self.push, hooks
            )

    def reconfigure(self, settings: BrokerSettings, now: float) -> tuple[str, ...]:
        """These settings hold from now on, for what comes from now on; what is open keeps its
        deadline. Names of those that cannot change while a broker runs, and did not."""
        settings, left = merged(self.settings, settings)
        self.settings = self.registry.settings = settings
        self._mdp03.settings = self._legacy.settings = settings
        self.completion.streams.settings = settings
        self.admission.configure(settings)
        return left

    def resume(self, id: int, action: Action, now: float) -> bool:
        """The answer to question `id` of the hooks; False when nobody waits for it any more."""
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
        """Call `service` in the broker's own name: no hook sees it, no right is asked.

        `done(status, frames)` is called by a later `take_effects`, once; without it nobody hears of
        the answer. The number that is returned is what `withdraw_call` takes.
        """
        return self.calls.call(service, body, ttl, now, done, flags)

    def withdraw_call(self, id: int, now: float) -> None:
        """The answer to call `id` is not wanted any more. May be repeated."""
        self.calls.withdraw(id, now)

    def drain(self, now: float) -> None:
        """Accept nothing new (503); what is open goes on. Told to all that have a word for it."""
        self.registry.draining = True
        for peer in self.registry.peers.values():
            if self._gets_drain(peer):
                self.outgoing.send(peer, [encoding.DRAIN_03], spec.CAPACITY, None, now)

    @property
    def drained(self) -> bool:
        """Whether no accepted request is open any more."""
        return self.registry.open == 0

    def close(self, now: float) -> None:
        """DISCONNECT to every worker and every client with presence. The machine is done after
        this."""
        for peer in list(self.registry.peers.values()):
            if peer.worker is not None or peer.state is PRESENT:
                dialect = peer.worker.dialect if peer.worker else MDP03
                message, command = encoding.disconnect(dialect), disconnect_tag(dialect)
                self.outgoing.send(peer, message, command, None, now)

    def push(self, handle: bytes, body: list[Frame], now: float) -> bool:
        """An EVENT for the client of `handle`, at most once. False: there is no such client, or it
        has no presence."""
        return self.events.push(handle, body, now) is None

    def publish(self, topic: bytes, body: list[Frame], now: float) -> int:
        """An EVENT for everybody who subscribed to `topic`; how many it is on its way to.

        Raises: LocalProtocolError for what is no topic.
        """
        problem = self.events.topic_problem(topic, pattern=False)
        if problem:
            raise LocalProtocolError("bad-topic", problem)
        return self.events.publish(topic, body, now)

    # ── what comes in ─────────────────────────────────────────────────────────────────────────────

    def handle_message(self, peer_id: bytes, frames: list[Frame], now: float) -> None:
        """One message, as `receive` does, but what is wrong with it is raised."""
        if self.outgoing.overflow:
            self._handle_overflow(now)
        at = 0
        if not frames or not octets.is_mdp03(frames[0]):
            dialect, at = recognise(frames)
            if dialect is not MDP03:
                self._receive_legacy(peer_id, dialect, frames, at, now)
                return
        header = self._header
        header.read(frames[at])
        peer = None
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
        peer = self.presence.add_peer(peer_id, dialect, now)
        if peer is None:
            self.registry.count_dropped("too-many-peers", peer_id)
            if header.command in (spec.READY, spec.HELLO):
                message = [*envelope, *encoding.disconnect(dialect)]
                self.outgoing.send_to(peer_id, message, disconnect_tag(dialect), None, now)
            elif header.command == spec.REQUEST and not header.flags & spec.ONE_WAY and header.id:
                text = "the broker knows as many peers as it may"
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
        """FINAL to whoever asked, known or not."""
        self.registry.counts.refused[status] += 1
        message, key = encoding.refusal(envelope, id, status, text), conversation(id, envelope)
        self.outgoing.send_to(peer_id, message, spec.FINAL, key, now)

    def _refuse_long_metadata(self, peer_id: bytes, frames: list[Frame], now: float) -> None:
        """Rule 4: whoever asks with metadata beyond their bound is told so."""
        header = self._header  # `read` raised at the metadata: everything before them is there
        id, envelope = header.id, tuple(frames[: recognise(frames)[1]])
        peer = self.registry.peers.get(peer_id)
        is_open = peer is not None and conversation(id, envelope) in peer.open
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
        envelope = tuple(frames[:at])
        command = self._codecs[dialect].read_broker(frames[at:] if at else frames)
        peer = self.registry.peers.get(peer_id)
        if peer is None:
            peer = self.presence.add_peer(peer_id, dialect, now)
            if peer is None:
                self.registry.count_dropped("too-many-peers", peer_id)
                return
        peer.last_received = now
        self._legacy.handle(peer, dialect, envelope, command, now)
        if peer.outbox is not None:
            self.outgoing.flush(peer, now)

    # ── what is wrong ─────────────────────────────────────────────────────────────────────────────

    def _handle_error(
        self, peer_id: bytes, frames: list[Frame], error: Exception, now: float
    ) -> None:
        """What hearing a message has raised: the peer's fault, or ours, which is raised again."""
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
        """docs/spec/recognition.md: dropped and counted per reason; a peer known as a worker also
        gets
        DISCONNECT.

        A wrong hash is dropped and counted, nothing more (§3).
        """
        self.registry.count_dropped(reason, peer_id)
        peer = self.registry.peers.get(peer_id)
        if peer is not None and peer.worker is not None and reason != "wrong-hash":
            self.presence.forget(peer, f"invalid message: {reason}", now, notify=True)

    def _answer_version(self, peer_id: bytes, reason: str, now: float) -> None:
        """Another version gets one DISCONNECT that names ours, rate-limited."""
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
        """DISCONNECT to a peer that is not what it says; behind an envelope, to that one alone."""
        peer = self.registry.peers[peer_id]
        dialect, at = recognise(frames)
        self.registry.count_dropped(error.reason, peer_id)
        if at:
            message = [*frames[:at], *encoding.disconnect(dialect)]
            self.outgoing.send(peer, message, disconnect_tag(dialect), None, now)
        else:
            known_worker = peer.worker is not None
            self.presence.forget(peer, error.reason, now, notify=known_worker, reason=error.notice)
            if not known_worker:
                message = encoding.disconnect(dialect, *error.notice)
                self.outgoing.send_to(peer_id, message, disconnect_tag(dialect), None, now)
        if peer.outbox is not None:
            self.outgoing.flush(peer, now)

    def _strategy_failed(self, service: bytes, error: BaseException) -> None:
        try:
            why = f"{class_name(error)}: {error}"
        except BaseException:  # its text is code of the strategy's author
            why = class_name(error)
        self.registry.emit("strategy-failed", service=service, why=why, instead="least-outstanding")

    # ── consequences of what the socket said ──────────────────────────────────────────────────────

    def _handle_overflow(self, now: float) -> None:
        """Rule 9: a client that is gone is forgotten; a stream whose part found no room ends with
        429; a peer whose answer found none is lost."""
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
            elif (request := peer.open.get(key)) is not None:
                self.completion.fail(request, spec.TOO_MANY, READS_TOO_SLOWLY, now)

    def _gets_drain(self, peer: Peer) -> bool:
        if peer.worker is not None:
            return peer.worker.dialect is MDP03
        return peer.state is PRESENT

    # ── answers to the program around the machine ─────────────────────────────────────────────────

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

    def find_worker(self, service: bytes) -> WorkerInfo | None:
        """Return the worker with the lowest share of used slots. Any thread may call it."""
        found = self.registry.services.get(service)
        workers = list(found.workers.values()) if found is not None else []
        serving = [worker for worker in workers if worker.free]
        best = min(serving, key=lambda worker: worker.holding / worker.capacity, default=None)
        return self.worker_info(best.id) if best is not None else None

    def end_calls(self, status: int, body: list[Frame]) -> None:
        """End every open call of the broker itself with this status and body, at once."""
        waiting, self.calls.pending = self.calls.pending, {}
        for call in waiting.values():
            call.done(status, body)

    def restore_identity(self, peer_id: bytes, now: float) -> None:
        """Reduce a peer to the identity that its connection proved."""
        peer = self.registry.peers.get(peer_id)
        if peer is not None:
            self.authorization.restore_identity(peer, now)

    def set_default_rights(self, rights: AccessRules, now: float) -> None:
        """Apply access rules unless some are in force."""
        if self.registry.rights is None:
            self.set_rights(rights, now)
