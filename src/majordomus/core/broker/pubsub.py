"""EVENTs: to the client of a handle, or to whoever subscribed to a topic; and the sessions that
keep handles and subscriptions through a reconnect (docs/spec/mdp-0.3.md).

At most once: an event that cannot be handed on now is counted and forgotten. It goes only to who
has presence (a client that said HELLO, a registered MDP/0.3 worker), never behind an envelope, and
makes way for everything else when a socket is full.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from majordomus.core.broker.outgoing import LEGACY
from majordomus.core.broker.state.access_rules import shown_name
from majordomus.core.broker.state.subscribers import Subscriber
from majordomus.core.broker.state.topics import full_topic, name_problem, shown_topic
from majordomus.core.broker.state.transitions import PRESENT
from majordomus.protocol import mdp03, spec
from majordomus.protocol.codecs import LEGACY as CODECS
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.core.broker.outgoing import Outgoing
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.protocol.spec import Frame

MDP03 = Dialect.MDP03
DELPHI = Dialect.DELPHI


class EventRefusal(NamedTuple):
    """Why something is not done, as its FINAL would say it."""

    status: int
    text: str


class PubSub:
    """Hands events on, and knows who is to hear them."""

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
        """An event for the client of `handle` alone. What is returned says why there is no such
        client; who is only away, or reads too slowly, misses it without a word."""
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
        """An event for everybody who subscribed to `topic`; how many it is on its way to.

        Nobody is told of a topic that is none: see `topic_problem`.
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
        """A Delphi worker uses a handle again that it has answered: "each later reply is an EVENT,
        to Delphi clients and 0.3 clients with presence; to others it is counted"
        (docs/spec/delphi.md)."""
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
        """A Delphi `worker` has answered `peer`: from now on `handle` carries events."""
        known = worker.answered
        if known is None:
            known = worker.answered = {}
        known[handle] = handle if handle == peer.own_handle else peer.handle
        if len(known) > self.registry.settings.max_answered:
            del known[next(iter(known))]

    def _deliver(
        self, peer: Peer, topic: bytes, body: list[Frame], flags: int, metadata: bytes, now: float
    ) -> bool:
        """False when the peer's outbox has no room for an event (rule 9)."""
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
        """What is wrong with what `peer` calls a topic or a pattern; empty when nothing is."""
        problem = self.topic_problem(called, pattern=pattern)
        if problem or not peer.prefix:
            return problem
        return self.topic_problem(full_topic(peer.prefix, called), pattern=pattern)

    def topic_problem(self, name: bytes, *, pattern: bool) -> str:
        """What is wrong with a topic or a pattern; empty when nothing is."""
        settings = self.registry.settings
        return name_problem(name, settings.max_topic, settings.max_topic_tokens, pattern=pattern)

    def subscribe(self, peer: Peer, pattern: bytes) -> EventRefusal | None:
        """`peer` hears of `pattern`, in full, from now on, as long as it has presence."""
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
        if subscriber is None:
            subscriber = peer.subscriber = Subscriber(peer)
        subscriber.patterns[pattern] = None
        self.topics.add(pattern, subscriber)
        return None

    def unsubscribe(self, peer: Peer, pattern: bytes) -> None:
        """`peer` does not hear of `pattern` any more; what it never subscribed to is no fault."""
        subscriber = peer.subscriber
        if subscriber is None or pattern not in subscriber.patterns:
            return
        del subscriber.patterns[pattern]
        self.topics.remove(pattern, subscriber)
        if not subscriber.patterns and subscriber.key is None:
            peer.subscriber = None

    # ── peers come, return and go ─────────────────────────────────────────────────────────────────

    def add_peer(self, peer: Peer) -> None:
        """A new peer can be reached by its handle."""
        self.handles[peer.handle] = peer

    def open_session(self, peer: Peer, session: bytes, now: float) -> None:
        """HELLO named a session: what belongs to it outlives the connection, and what was kept for
        it comes back. Another connection that had it loses it."""
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
            mine = peer.subscriber = Subscriber(peer)
        mine.key, mine.handle = key, peer.handle
        self.sessions[key] = mine

    def _resume_session(self, kept: Subscriber, peer: Peer, now: float) -> None:
        """The client of `kept` is back, as `peer`."""
        before, mine = kept.peer, peer.subscriber
        if before is not None:
            before.subscriber = None
            before.handle = self.registry.ids(len(kept.handle))
            self.handles[before.handle] = before
        if peer.handle != peer.own_handle:
            del self.handles[peer.handle]
        self.away.pop(kept.handle, None)
        kept.peer = peer
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
        """`peer` is known no more. What belongs to a session waits for it, unless it left
        `for_good`."""
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
        """When the next session has waited long enough."""
        for subscriber in self.away.values():
            return subscriber.until
        return inf

    def tick(self, now: float) -> None:
        """Sessions whose clients did not come back in time are forgotten."""
        while self.away and (subscriber := next(iter(self.away.values()))).until <= now:
            self._discard(subscriber)

    def _discard(self, subscriber: Subscriber) -> None:
        """Free everything that is held for `subscriber`, whose peer does not know it any more."""
        for pattern in subscriber.patterns:
            self.topics.remove(pattern, subscriber)
        subscriber.patterns.clear()
        self.away.pop(subscriber.handle, None)
        if subscriber.key is not None:
            del self.sessions[subscriber.key]
            subscriber.key = None


def receives_events(peer: Peer) -> bool:
    """Whether EVENTs are sent to `peer`: it has presence, as a client or as a worker."""
    return peer.state is PRESENT or (peer.worker is not None and peer.worker.dialect is MDP03)
