"""Events to the client of a handle or to the subscribers of a topic, and the sessions that keep
handles and subscriptions through a reconnect (docs/spec/mdp-0.3.md).

Events are sent at most once: one that cannot be sent now is counted and dropped. Only peers with
presence get events: clients after HELLO, and registered MDP/0.3 workers. An event never has an
envelope, and when a socket is full, events are dropped before all other messages.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from majordomus.core.broker.outgoing import LEGACY
from majordomus.core.broker.state.access_rules import shown_name
from majordomus.core.broker.state.account import ANSWERED, SUBSCRIBER, cost_of_pattern
from majordomus.core.broker.state.subscribers import Subscriber
from majordomus.core.broker.state.topics import full_topic, shown_topic
from majordomus.core.broker.state.transitions import PRESENT
from majordomus.protocol import mdp03, spec
from majordomus.protocol.codecs import LEGACY as CODECS
from majordomus.protocol.spec import Dialect
from majordomus.protocol.topics import name_problem

if TYPE_CHECKING:
    from majordomus.core.broker.outgoing import Outgoing
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.protocol.spec import Frame

MDP03 = Dialect.MDP03
DELPHI = Dialect.DELPHI


class EventRefusal(NamedTuple):
    """Status and text of the FINAL for a command that is refused."""

    status: int
    text: str


class PubSub:
    """Sends events, and keeps subscriptions and sessions.

    handles: peers by handle.
    topics: the subscriptions.
    sessions: the sessions of clients.
    away: sessions without a client by handle; the one that has been away longest comes first.

    All four are tables of the registry.
    """

    def __init__(self, registry: Registry, outgoing: Outgoing) -> None:
        self.registry = registry
        self.outgoing = outgoing
        self.handles = registry.handles
        self.topics = registry.topics
        self.sessions = registry.sessions
        self.away = registry.away

    # ── events ────────────────────────────────────────────────────────────────────────────────────

    def push(
        self, handle: bytes, body: list[Frame], now: float, flags: int = 0, metadata: bytes = b""
    ) -> EventRefusal | None:
        """Send an event to the client of `handle`.

        Returns a refusal when there is no such client, or it has no presence. Otherwise None, also
        when the event is dropped because the client is away or reads too slowly.
        """
        registry = self.registry
        registry.counts.pushed += 1
        peer = self.handles.get(handle)
        if peer is not None and receives_events(peer):
            self._deliver(peer, b"", body, flags, metadata, now)
            return None
        registry.counts.undelivered += 1
        if peer is None and handle in self.away:
            return None
        text = "has no presence" if peer is not None else "is not known"
        return EventRefusal(spec.NOT_FOUND, f"the client of handle {handle.hex()} {text}")

    def publish(
        self, topic: bytes, body: list[Frame], now: float, flags: int = 0, metadata: bytes = b""
    ) -> int:
        """Send an event to every subscriber of `topic`; returns their number.

        The caller checks the topic before, with `topic_problem`.
        """
        counts = self.registry.counts
        counts.published += 1
        delivered = 0
        for subscriber in self.topics.match(topic):
            peer = subscriber.peer
            if peer is None or not receives_events(peer):
                counts.undelivered += 1
            elif self._deliver(peer, topic, body, flags, metadata, now):
                delivered += 1
        return delivered

    def push_late(
        self, worker: RegisteredWorker, handle: bytes, body: list[Frame], now: float
    ) -> None:
        """Send an event for a Delphi worker that uses a handle again after its answer.

        "Each later reply is an EVENT, to Delphi clients and 0.3 clients with presence; to others it
        is counted" (docs/spec/delphi.md).
        """
        registry = self.registry
        client = worker.answered.get(handle) if worker.answered else None
        peer = self.handles.get(client) if client is not None else None
        if client is None or (peer is None and client not in self.away):
            registry.count_dropped("unasked-reply", worker.id)
            return
        registry.counts.pushed += 1
        if peer is not None and peer.dialect is DELPHI and handle == peer.own_handle:
            service = shown_name(peer.prefix, worker.order[0].name)
            if not self.outgoing.has_space(peer, body):
                registry.counts.undelivered += 1
                return
            registry.counts.delivered += 1
            message = CODECS[DELPHI].b2c_final(service, body)
            self.outgoing.send(peer, message, LEGACY, None, now)
        elif peer is not None and receives_events(peer):
            self._deliver(peer, b"", body, 0, b"", now)
        else:
            registry.counts.undelivered += 1
            registry.count_dropped("event-without-presence", worker.id, count_only=True)

    def remember_answered(self, worker: RegisteredWorker, handle: bytes, peer: Peer) -> None:
        """Note that a Delphi worker has answered `peer`: its later replies to `handle` are
        events."""
        known = worker.answered
        if known is None:
            known = worker.answered = {}
        before = len(known)
        known[handle] = handle if handle == peer.own_handle else peer.handle
        if len(known) > self.registry.settings.max_answered:
            del known[next(iter(known))]
        self.registry.account.register(worker, ANSWERED * (len(known) - before))

    def _deliver(
        self, peer: Peer, topic: bytes, body: list[Frame], flags: int, metadata: bytes, now: float
    ) -> bool:
        """Send an EVENT. False when the peer's outbox has no space for an event (rule 9)."""
        counts = self.registry.counts
        if not self.outgoing.has_space(peer, body):
            counts.undelivered += 1
            return False
        counts.delivered += 1
        if peer.prefix:
            topic = shown_topic(peer.prefix, topic)
        header = mdp03.pack(spec.EVENT, flags & spec.METADATA, service=topic, metadata=metadata)
        self.outgoing.send(peer, [header, *body], spec.EVENT, None, now)
        return True

    # ── subscriptions ─────────────────────────────────────────────────────────────────────────────

    def name_problem(self, peer: Peer, called: bytes, *, pattern: bool) -> str:
        """Describe the error in a topic or pattern as `peer` calls it, without its prefix; empty
        for a valid one."""
        problem = self.topic_problem(called, pattern=pattern)
        if problem or not peer.prefix:
            return problem
        return self.topic_problem(full_topic(peer.prefix, called), pattern=pattern)

    def topic_problem(self, name: bytes, *, pattern: bool) -> str:
        """Describe the error in the full name of a topic or pattern; empty for a valid one."""
        settings = self.registry.settings
        return name_problem(
            name,
            settings.max_topic,
            settings.max_topic_tokens,
            pattern=pattern,
            wildest=settings.max_topic_wildcards,
        )

    def subscribe(self, peer: Peer, pattern: bytes) -> EventRefusal | None:
        """Subscribe `peer` to the full name of a pattern. It gets events while it has presence."""
        settings = self.registry.settings
        subscriber = peer.subscriber
        if subscriber is not None and pattern in subscriber.patterns:
            return None
        if subscriber is not None and len(subscriber.patterns) >= settings.max_client_topics:
            had = len(subscriber.patterns)
            return EventRefusal(spec.TOO_MANY, f"this client has {had} subscriptions already")
        if len(self.topics) >= settings.max_topics:
            had = len(self.topics)
            return EventRefusal(spec.TOO_MANY, f"this broker has {had} subscriptions already")
        account, cost = self.registry.account, cost_of_pattern(pattern)
        if peer.account.user and peer.account.topics >= settings.max_user_topics:
            had = peer.account.topics
            return EventRefusal(spec.TOO_MANY, f"this user has {had} subscriptions already")
        if account.exceeds(peer, cost):
            return EventRefusal(spec.TOO_MANY, account.problem(peer, cost))
        if subscriber is None:
            subscriber = self._new_subscriber(peer)
        subscriber.patterns[pattern] = None
        subscriber.account.topics += 1
        account.subscribe(subscriber, cost)
        self.topics.add(pattern, subscriber)
        return None

    def unsubscribe(self, peer: Peer, pattern: bytes) -> None:
        """End the subscription of `peer` to `pattern`. Without one nothing happens."""
        subscriber = peer.subscriber
        if subscriber is None or pattern not in subscriber.patterns:
            return
        self._remove(subscriber, pattern)
        del subscriber.patterns[pattern]
        if not subscriber.patterns and subscriber.key is None:
            peer.subscriber = None
            self._discard(subscriber)

    def _new_subscriber(self, peer: Peer) -> Subscriber:
        subscriber = peer.subscriber = Subscriber(peer)
        self.registry.account.subscribe(subscriber, SUBSCRIBER)
        return subscriber

    def _remove(self, subscriber: Subscriber, pattern: bytes) -> None:
        subscriber.account.topics -= 1
        self.registry.account.subscribe(subscriber, -cost_of_pattern(pattern))
        self.topics.remove(pattern, subscriber)

    # ── peers and sessions ────────────────────────────────────────────────────────────────────────

    def add_peer(self, peer: Peer) -> None:
        """Add the handle of a new peer."""
        self.handles[peer.handle] = peer

    def open_session(self, peer: Peer, session: bytes, now: float) -> None:
        """Open or resume the session that a HELLO has named.

        `peer` gets the handle and the subscriptions that were kept for it, and another peer that
        has the session loses it.
        """
        key = (peer.user, session)
        mine, kept = peer.subscriber, self.sessions.get(key)
        if kept is not None and kept.peer is None and kept.until <= now:
            self._discard(kept)
            kept = None
        if kept is not None:
            if kept is not mine:
                self._resume_session(kept, peer, now)
            return
        if mine is not None and mine.key is not None:
            del self.sessions[mine.key]
        elif len(self.sessions) >= self.registry.settings.max_sessions:
            self.registry.count_dropped("too-many-sessions", peer.id)
            return
        if mine is None:
            if self.registry.account.exceeds(peer, SUBSCRIBER):
                self.registry.count_dropped("too-many-sessions", peer.id)
                return
            mine = self._new_subscriber(peer)
        mine.key, mine.handle = key, peer.handle
        self.sessions[key] = mine

    def _resume_session(self, kept: Subscriber, peer: Peer, now: float) -> None:
        """Give the session `kept` to `peer`.

        A peer that has had it until now gets a new handle. Subscriptions that `peer` has made
        before are added to those of the session.
        """
        before, mine = kept.peer, peer.subscriber
        if before is not None:
            before.subscriber = None
            before.handle = self.registry.ids(len(kept.handle))
            self.handles[before.handle] = before
        if peer.handle != peer.own_handle:
            del self.handles[peer.handle]
        self.away.pop(kept.handle, None)
        kept.peer = peer
        self.registry.account.move_subscriber(kept, peer.account)
        peer.subscriber = kept
        peer.handle = kept.handle
        self.handles[kept.handle] = peer
        if mine is None:
            return
        mine.peer = None
        patterns = list(mine.patterns)
        self._discard(mine)
        for pattern in patterns:
            self.subscribe(peer, pattern)

    def remove_peer(self, peer: Peer, now: float, *, for_good: bool) -> None:
        """Remove the handles of a peer that is forgotten. Its session is kept for a reconnect,
        unless the peer is gone `for_good`."""
        for handle in (peer.own_handle, peer.handle):
            if self.handles.get(handle) is peer:
                del self.handles[handle]
        subscriber, peer.subscriber = peer.subscriber, None
        if subscriber is None:
            return
        subscriber.peer = None
        if subscriber.key is None or for_good:
            self._discard(subscriber)
            return
        subscriber.until = now + self.registry.settings.session_ttl
        self.away[subscriber.handle] = subscriber

    def next_deadline(self) -> float:
        """When the next session expires, in monotonic seconds; infinity when none does."""
        for subscriber in self.away.values():
            return subscriber.until
        return inf

    def tick(self, now: float) -> None:
        """Discard the sessions whose clients have not returned in time."""
        while self.away and (subscriber := next(iter(self.away.values()))).until <= now:
            self._discard(subscriber)

    def _discard(self, subscriber: Subscriber) -> None:
        """Remove the subscriptions and the session of a subscriber that no peer refers to."""
        for pattern in subscriber.patterns:
            self._remove(subscriber, pattern)
        subscriber.patterns.clear()
        self.registry.account.subscribe(subscriber, -SUBSCRIBER)
        self.away.pop(subscriber.handle, None)
        if subscriber.key is not None:
            del self.sessions[subscriber.key]
            subscriber.key = None


def receives_events(peer: Peer) -> bool:
    """Whether EVENTs are sent to `peer`: it has presence, as a client or as a worker."""
    return peer.state is PRESENT or (peer.worker is not None and peer.worker.dialect is MDP03)
