"""Peers are added and forgotten: heartbeats, silence, lost connections.

Rule 8 is here, the half of rule 9 about connections that are gone, and the half of rule 10 about
idle peers. A peer has one timer, which is set again when it fires. A message only updates
`Peer.last_received`, so a heartbeat costs O(1), and a busy peer causes no work here.
"""

from __future__ import annotations

from itertools import islice
from math import inf
from typing import TYPE_CHECKING

from majordomus.core.broker import encoding
from majordomus.core.broker.explain import name_of
from majordomus.core.broker.outgoing import LEGACY, disconnect_tag
from majordomus.core.broker.state.identity import Identity, same
from majordomus.core.broker.state.peers import Peer
from majordomus.core.broker.state.transitions import FORGOTTEN, PRESENT
from majordomus.protocol import metadata, spec
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.core.broker.completion import Completion
    from majordomus.core.broker.hooks.installed import InstalledHooks
    from majordomus.core.broker.outgoing import Outgoing
    from majordomus.core.broker.pubsub import PubSub
    from majordomus.core.broker.queueing import Queueing
    from majordomus.core.broker.retries import Retries
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.workers import RegisteredWorker

HANDLE_SIZE = 16
"""Bytes of a handle. They are random and cannot be guessed: any worker that has a handle may push
events to its client."""
MDP03, DELPHI = Dialect.MDP03, Dialect.DELPHI
REVOKED = "revoked"
NAMED = 5
"""Requests of a lost worker that its line in the log names."""
HEARTBEAT = spec.HEARTBEAT
"""The command in the tag of a heartbeat: compiled, one object for all of them."""


class Presence:
    """Adds and forgets peers, and sends heartbeats.

    suspects: workers whose connection is gone. They are lost when all that had arrived of them has
        been received.
    ended: clients whose connection has ended, and when. They are forgotten at the same moment,
        unless a later message has come.
    """

    def __init__(
        self,
        registry: Registry,
        outgoing: Outgoing,
        queueing: Queueing,
        completion: Completion,
        retries: Retries,
        events: PubSub,
        hooks: InstalledHooks,
    ) -> None:
        self.registry = registry
        self.outgoing = outgoing
        self.queueing = queueing
        self.completion = completion
        self.retries = retries
        self.events = events
        self.hooks = hooks
        self.suspects: dict[Peer, None] = {}
        self.ended: list[tuple[Peer, float]] = []
        self._silence_counts_from = -inf
        settings = registry.settings
        self._worker_interval = settings.worker_interval
        self._client_interval = settings.client_interval
        self._liveness = settings.liveness
        self._welcome = metadata.pack(
            {
                "broker": registry.name,
                "liveness": settings.liveness,
                "max_message": settings.max_message,
                "max_part": settings.max_message,
            }
        )

    # ── added and forgotten ───────────────────────────────────────────────────────────────────────

    def add_peer(self, peer_id: bytes, dialect: Dialect, now: float) -> Peer | None:
        """Add the peer of an unknown routing id; None at the bound `max_peers` (rule 4)."""
        registry = self.registry
        if len(registry.peers) >= registry.settings.max_peers:
            return None
        peer = registry.peers[peer_id] = Peer(peer_id, dialect, registry.ids(HANDLE_SIZE), now)
        identity = registry.identities.get(peer_id)
        if identity is not None:
            peer.identity, peer.user, peer.groups = identity, identity.user, identity.groups
            if registry.rights is not None:
                peer.prefix = registry.rights.prefix(peer.groups)
        registry.account.enter(peer)
        self.events.add_peer(peer)
        self._arm(peer, now + registry.settings.client_idle)
        return peer

    def identify(self, peer_id: bytes, identity: Identity, now: float) -> bool:
        """Set the identity that a connection has proved.

        Returns False when another user has this routing id. The connection of that user must have
        ended, so messages are dropped until its peer is forgotten (rule 2).
        """
        registry = self.registry
        peer = registry.peers.get(peer_id)
        if peer is not None and not same(peer.identity, identity):
            registry.count_dropped("another-user", peer_id)
            self.gone(peer, now)
            return False
        registry.identities[peer_id] = identity
        if peer is not None and peer.identity != identity:
            # A token may have set another user; that one stays.
            if (peer.user, peer.groups) == peer.identity[:2]:
                peer.user, peer.groups = identity.user, identity.groups
                if registry.rights is not None:
                    peer.prefix = registry.rights.prefix(peer.groups)
            peer.identity = identity
            registry.account.move(peer)
        return True

    def revoke(self, peer_id: bytes, now: float) -> None:
        """Forget a peer whose user may no longer be connected."""
        registry = self.registry
        registry.identities.pop(peer_id, None)
        peer = registry.peers.get(peer_id)
        if peer is not None:
            registry.emit("revoked", peer=peer_id, user=peer.identity.user)
            self.forget(peer, REVOKED, now)

    def send_welcome(self, peer: Peer, interval: float, now: float) -> None:
        """Send WELCOME, and DRAIN if the broker drains."""
        message = encoding.welcome(peer.id, interval, self._welcome)
        self.outgoing.send(peer, message, spec.WELCOME, None, now)
        if self.registry.draining:
            self.outgoing.send(peer, [encoding.DRAIN_03], spec.CAPACITY, None, now)
        self.watch(peer, now)

    def watch(self, peer: Peer, now: float) -> None:
        """Start to send heartbeats to `peer` and to expect them: it has become a worker or has
        presence now."""
        self._arm(peer, now + self._interval(peer))

    def forget(
        self,
        peer: Peer,
        why: str,
        now: float,
        notify: bool = False,
        reason: tuple[int, str] | tuple[int, str, str] = (0, ""),
    ) -> None:
        """Remove `peer`: its worker is lost, its requests are cancelled, its outbox is dropped.

        `notify`: send it DISCONNECT, with `reason` if there is one: status, text, refused service.
        """
        if peer.state is FORGOTTEN:
            return
        registry = self.registry
        worker = peer.worker
        if worker is not None and peer.outbox is not None:
            for _, _, command, conversation in peer.outbox.messages:
                self.retries.note_unsent(worker, command, conversation)
        self.outgoing.empty(peer)
        was_present = peer.state is PRESENT
        peer.move("forget")
        registry.peers.pop(peer.id, None)
        registry.account.leave(peer)
        self.events.remove_peer(peer, now, for_good=why == REVOKED)
        if peer.timer is not None:
            peer.timer.pop(peer, None)
            peer.timer = None
        self.completion.withdraw(peer.open.values(), now)
        if self.hooks.holding is not None:
            self.hooks.holding.forgotten(peer, why, now)
        if worker is not None:
            self.lose(worker, why, now)
        elif was_present:
            registry.emit("client-lost", peer=peer.id, why=why)
        if notify:
            dialect = worker.dialect if worker else MDP03
            message = encoding.disconnect(dialect, *reason)
            self.outgoing.send(peer, message, disconnect_tag(dialect), None, now)

    def lose(self, worker: RegisteredWorker, why: str, now: float) -> None:
        """Unregister `worker`. Its peer may still be a client."""
        worker.peer.worker = None
        held = worker.holding
        names = [service.name for service in worker.order]
        requests = list(map(name_of, islice(worker.held.values(), NAMED)))
        self.retries.worker_lost(worker, why, now)
        ids = {"requests": requests} if requests else {}
        self.registry.emit(
            "worker-lost", worker=worker.id, services=names, why=why, held=held, **ids
        )

    # ── heartbeats and silence ────────────────────────────────────────────────────────────────────

    def _arm(self, peer: Peer, when: float) -> None:
        """Set the one timer of `peer`."""
        if peer.timer is not None:
            peer.timer.pop(peer, None)
        peer.timer = self.registry.timers.add(peer, when)

    def _interval(self, peer: Peer) -> float:
        """The heartbeat interval of `peer`."""
        worker = peer.worker
        if worker is None:
            return self._client_interval
        if worker.dialect is DELPHI:
            return spec.DELPHI_HEARTBEAT_INTERVAL
        return self._worker_interval

    def paused(self, now: float) -> None:
        """Note that the broker's loop has stood still. Messages that have arrived meanwhile are
        received before silence counts again (rule 8)."""
        self._silence_counts_from = now + self._worker_interval
        self.registry.emit("paused", until=self._silence_counts_from)

    def tick(self, now: float) -> None:
        """Act on the timers that are due: send heartbeats, forget silent and idle peers."""
        for peer in self.registry.timers.due(now):
            peer.timer = None
            if peer.state is FORGOTTEN:
                continue
            expiry = self._expiry(peer)
            if now < expiry:
                self._arm(peer, min(expiry, self._heartbeat_if_due(peer, now)))
            elif now < self._silence_counts_from:
                self._arm(peer, self._silence_counts_from)
            elif peer.worker is None and peer.state is not PRESENT:
                self.forget(peer, "idle", now)
            else:
                self.forget(peer, "expired", now, notify=True)

    def _expiry(self, peer: Peer) -> float:
        """When `peer` is lost if no message of it is received before."""
        worker = peer.worker
        if worker is None:
            if peer.state is PRESENT:
                return peer.last_received + self._client_interval * self._liveness
            return inf if peer.requests else peer.last_received + self.registry.settings.client_idle
        if worker.dialect is DELPHI:
            return peer.last_received + spec.DELPHI_EXPIRY
        if worker.holding and worker.dialect is not MDP03:
            settings, name = self.registry.settings, worker.order[0].name.decode()
            return worker.busy_since + settings.busy_timeouts.get(name, settings.busy_timeout)
        return peer.last_received + self._worker_interval * self._liveness

    def _heartbeat_if_due(self, peer: Peer, now: float) -> float:
        """Send a HEARTBEAT if one is due; returns when to check again."""
        worker = peer.worker
        if worker is None and peer.state is not PRESENT:
            return now + self.registry.settings.client_idle
        interval = self._interval(peer)
        delphi = worker is not None and worker.dialect is DELPHI
        last = worker.last_heartbeat if worker is not None and delphi else peer.last_sent
        if now < last + interval:
            return last + interval
        self.send_heartbeat(peer, now)
        return now + interval

    def send_heartbeat(self, peer: Peer, now: float) -> None:
        """Send HEARTBEAT to a worker or to a client with presence."""
        worker = peer.worker
        if worker is not None:
            worker.last_heartbeat = now
        dialect = worker.dialect if worker is not None else MDP03
        command = HEARTBEAT if dialect is MDP03 else LEGACY
        self.outgoing.send(peer, encoding.heartbeat(dialect), command, None, now)

    # ── lost connections (rule 9) ─────────────────────────────────────────────────────────────────

    def suspect(self, peer: Peer, now: float) -> None:
        """Act on a send to a worker that has no connection any more.

        It gets no more requests. It is lost when all that had arrived of it has been received.
        """
        worker = peer.worker
        if worker is not None:
            worker.move("gone")
            self.queueing.reweigh(worker, now)
            self.suspects[peer] = None

    def connection_ended(self, peer: Peer, now: float) -> None:
        """Act on the end of a connection of `peer`, which may have opened another one: a HEARTBEAT
        is sent as a probe, and is refused when it has none.

        A client of a dialect without heartbeats cannot be probed. It is forgotten unless a message
        of it comes first.
        """
        self.outgoing.flush(peer, now)
        if peer.worker is not None or peer.state is PRESENT:
            self.send_heartbeat(peer, now)
        elif peer.dialect is MDP03:
            self.outgoing.send(peer, [encoding.HEARTBEAT_03], spec.HEARTBEAT, None, now)
        else:
            self.ended.append((peer, now))

    def gone(self, peer: Peer, now: float) -> None:
        """Act on the end of a connection whose routing id may be another user's now.

        Nothing is sent to it, not even a probe. It is forgotten when all that had arrived has been
        received.
        """
        if peer.worker is not None:
            self.suspect(peer, now)
        else:
            self.ended.append((peer, now))

    @property
    def awaits_empty_socket(self) -> bool:
        """Whether `socket_empty` has something to decide."""
        return bool(self.suspects or self.ended)

    def socket_empty(self, now: float) -> None:
        """Act on the report that all that had arrived has been received: suspects are lost, and
        peers of ended connections are forgotten."""
        if self.suspects:
            suspects, self.suspects = self.suspects, {}
            for peer in suspects:
                self.forget(peer, "connection lost", now)
        if self.ended:
            ended, self.ended = self.ended, []
            for peer, when in ended:
                if peer.last_received <= when:
                    self.forget(peer, "connection lost", now)
