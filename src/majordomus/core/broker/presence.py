"""Who is there: peers met and forgotten, heartbeats both ways, silence judged, sockets that went
away.

Rules 8, 9 (gone) and the idle half of rule 10 live here. A peer has one timer, set anew when it
fires: traffic
only writes down when it was, so a heartbeat costs O(1) and a busy peer costs nothing.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from majordomus.core.broker import encoding
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
"""Bytes that nobody guesses: who knows a handle may push to its client."""
MDP03, DELPHI = Dialect.MDP03, Dialect.DELPHI
REVOKED = "revoked"


class Presence:
    """Meets, greets, watches and forgets peers."""

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

    # ── met and forgotten ─────────────────────────────────────────────────────────────────────────

    def add_peer(self, peer_id: bytes, dialect: Dialect, now: float) -> Peer | None:
        """The peer behind a routing id that is new to us; None when there is no room for one more
        (rule 4)."""
        registry = self.registry
        if len(registry.peers) >= registry.settings.max_peers:
            return None
        peer = registry.peers[peer_id] = Peer(peer_id, dialect, registry.ids(HANDLE_SIZE), now)
        identity = registry.identities.get(peer_id)
        if identity is not None:
            peer.identity, peer.user, peer.groups = identity, identity.user, identity.groups
            if registry.rights is not None:
                peer.prefix = registry.rights.prefix(peer.groups)
        self.events.add_peer(peer)
        self._arm(peer, now + registry.settings.client_idle)
        return peer

    def identify(self, peer_id: bytes, identity: Identity, now: float) -> bool:
        """The connection of `peer_id` has proved who it is. False when another user was known by
        this routing id, whose connection must have ended: refuse what comes until that one is
        forgotten (rule 2)."""
        registry = self.registry
        peer = registry.peers.get(peer_id)
        if peer is not None and not same(peer.identity, identity):
            registry.count_dropped("another-user", peer_id)
            self.gone(peer, now)
            return False
        registry.identities[peer_id] = identity
        if peer is not None and peer.identity != identity:
            if (peer.user, peer.groups) == peer.identity[:2]:  # a token may say otherwise
                peer.user, peer.groups = identity.user, identity.groups
                if registry.rights is not None:
                    peer.prefix = registry.rights.prefix(peer.groups)
            peer.identity = identity
        return True

    def revoke(self, peer_id: bytes, now: float) -> None:
        """Who `peer_id` is has no right to be connected any more."""
        registry = self.registry
        registry.identities.pop(peer_id, None)
        peer = registry.peers.get(peer_id)
        if peer is not None:
            registry.emit("revoked", peer=peer_id, user=peer.identity.user)
            self.forget(peer, REVOKED, now)

    def send_welcome(self, peer: Peer, interval: float, now: float) -> None:
        """WELCOME, and what a newcomer must know of a broker that drains."""
        message = encoding.welcome(peer.id, interval, self._welcome)
        self.outgoing.send(peer, message, spec.WELCOME, None, now)
        if self.registry.draining:
            self.outgoing.send(peer, [encoding.DRAIN_03], spec.CAPACITY, None, now)
        self.watch(peer, now)

    def watch(self, peer: Peer, now: float) -> None:
        """`peer` has become a worker or present: from now on silence counts."""
        self._arm(peer, now + self._interval(peer))

    def forget(
        self,
        peer: Peer,
        why: str,
        now: float,
        notify: bool = False,
        reason: tuple[int, str] | tuple[int, str, str] = (0, ""),
    ) -> None:
        """`peer` is no more: its worker is lost, its requests are withdrawn, nothing is held for
        it. It may be told so, by DISCONNECT, with a status, a sentence and the service that is
        refused."""
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
        """`worker` serves no more; its peer may still be a client."""
        worker.peer.worker = None
        held = worker.holding
        names = [service.name for service in worker.order]
        self.retries.worker_lost(worker, why, now)
        self.registry.emit("worker-lost", worker=worker.id, services=names, why=why, held=held)

    # ── heartbeats and silence ────────────────────────────────────────────────────────────────────

    def _arm(self, peer: Peer, when: float) -> None:
        if peer.timer is not None:
            peer.timer.pop(peer, None)
        peer.timer = self.registry.timers.add(peer, when)

    def _interval(self, peer: Peer) -> float:
        worker = peer.worker
        if worker is None:
            return self._client_interval
        if worker.dialect is DELPHI:
            return spec.DELPHI_HEARTBEAT_INTERVAL
        return self._worker_interval

    def paused(self, now: float) -> None:
        """We did not run for a while: hear what has come meanwhile before anyone is judged (rule
        8)."""
        self._silence_counts_from = now + self._worker_interval
        self.registry.emit("paused", until=self._silence_counts_from)

    def tick(self, now: float) -> None:
        """Whatever the peers' timers cause."""
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
        """When the silence of `peer` has been too long."""
        worker = peer.worker
        if worker is None:
            if peer.state is PRESENT:
                return peer.last_received + self._client_interval * self._liveness
            return inf if peer.open else peer.last_received + self.registry.settings.client_idle
        if worker.dialect is DELPHI:
            return peer.last_received + spec.DELPHI_EXPIRY
        if worker.holding and worker.dialect is not MDP03:
            settings, name = self.registry.settings, worker.order[0].name.decode()
            return worker.busy_since + settings.busy_timeouts.get(name, settings.busy_timeout)
        return peer.last_received + self._worker_interval * self._liveness

    def _heartbeat_if_due(self, peer: Peer, now: float) -> float:
        """Send the HEARTBEAT that is due, if one is; returns when to look again."""
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
        """HEARTBEAT to a worker or to a client with presence."""
        worker = peer.worker
        if worker is not None:
            worker.last_heartbeat = now
        dialect = worker.dialect if worker is not None else MDP03
        command = spec.HEARTBEAT if dialect is MDP03 else LEGACY
        self.outgoing.send(peer, encoding.heartbeat(dialect), command, None, now)

    # ── sockets that went away (rule 9) ───────────────────────────────────────────────────────────

    def suspect(self, peer: Peer, now: float) -> None:
        """A send to a worker found no connection: it gets nothing, and is lost when all that it
        sent was heard."""
        worker = peer.worker
        if worker is not None:
            worker.move("gone")
            self.queueing.reweigh(worker, now)
            self.suspects[peer] = None

    def connection_ended(self, peer: Peer, now: float) -> None:
        """The monitor saw the end of the connection recorded for `peer`: a probe tells whether it
        is gone.

        A client of a dialect without heartbeats cannot be probed; it is forgotten unless it speaks
        again first.
        """
        self.outgoing.flush(peer, now)
        if peer.worker is not None or peer.state is PRESENT:
            self.send_heartbeat(peer, now)
        elif peer.dialect is MDP03:
            self.outgoing.send(peer, [encoding.HEARTBEAT_03], spec.HEARTBEAT, None, now)
        else:
            self.ended.append((peer, now))

    def gone(self, peer: Peer, now: float) -> None:
        """The connection of `peer` has ended, and no probe may tell, for its routing id may be
        somebody else's by now: nothing is sent to it, and it is forgotten when all was heard."""
        if peer.worker is not None:
            self.suspect(peer, now)
        else:
            self.ended.append((peer, now))

    @property
    def awaits_empty_socket(self) -> bool:
        """Whether `socket_empty` has something to judge."""
        return bool(self.suspects or self.ended)

    def socket_empty(self, now: float) -> None:
        """Everything that had arrived was heard: suspects are lost now, ended connections
        forgotten."""
        if self.suspects:
            suspects, self.suspects = self.suspects, {}
            for peer in suspects:
                self.forget(peer, "connection lost", now)
        if self.ended:
            ended, self.ended = self.ended, []
            for peer, when in ended:
                if peer.last_received <= when:
                    self.forget(peer, "connection lost", now)
