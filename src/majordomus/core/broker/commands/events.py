"""EVENT, SUBSCRIBE, UNSUBSCRIBE and the session of a HELLO (docs/spec/mdp-0.3.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from majordomus.core.broker.commands.dependencies import Commands, Dependencies
from majordomus.core.broker.pubsub import EventRefusal
from majordomus.core.broker.state.access_rules import PUBLISH, SUBSCRIBE
from majordomus.core.broker.state.topics import full_topic
from majordomus.protocol import metadata, spec

if TYPE_CHECKING:
    from majordomus.core.broker.state.peers import Peer
    from majordomus.protocol.mdp03 import Fields
    from majordomus.protocol.spec import Frame

SESSION_SIZE = 16
"""Bytes of a session's name."""

Refuse = Callable[["Peer", int, int, str, float], None]
"""Send FINAL with a status and a text to a peer, for an id that names no open request."""


class EventCommands(Commands):
    """Handlers of the event commands.

    A push needs no right: a handle is random, so that a worker knows only handles that it was
    given.
    """

    def __init__(self, dependencies: Dependencies, refuse: Refuse) -> None:
        super().__init__(dependencies)
        self._refuse = refuse

    def event(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        """Push an event to a handle, or publish it to a topic."""
        flags, id, handle, field = header.flags, header.id, header.address, header.metadata
        # A token is between the sender and the broker. Subscribers must not see it.
        if flags & spec.METADATA and "token" in metadata.unpack(field):
            field = metadata.without(field, "token")
            flags = flags if field else flags & ~spec.METADATA
        if self.admission.too_large(body):
            refusal: EventRefusal | None = EventRefusal(
                spec.TOO_LARGE, "the event is larger than allowed"
            )
        elif handle:
            refusal = self.events.push(handle, body, now, flags, field)
        else:
            refusal = self._publish(peer, header.service, body, now, flags, field)
        self._report(peer, id, refusal, now)

    def _publish(
        self, peer: Peer, topic: bytes, body: list[Frame], now: float, flags: int, field: bytes
    ) -> EventRefusal | None:
        problem = self.events.name_problem(peer, topic, pattern=False)
        if problem:
            return EventRefusal(spec.BAD_REQUEST, problem)
        forbidden = self.authorization.refuses_topic(peer, PUBLISH, topic)
        if forbidden is None:
            self.events.publish(full_topic(peer.prefix, topic), body, now, flags, field)
            return None
        return EventRefusal(*forbidden)

    def subscribe(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        """Subscribe a peer to a pattern."""
        pattern = header.service
        problem = self.events.name_problem(peer, pattern, pattern=True)
        if problem:
            refusal: EventRefusal | None = EventRefusal(spec.BAD_REQUEST, problem)
        else:
            forbidden = self.authorization.refuses_topic(peer, SUBSCRIBE, pattern)
            full = full_topic(peer.prefix, pattern)
            refusal = EventRefusal(*forbidden) if forbidden else self.events.subscribe(peer, full)
        self._report(peer, header.id, refusal, now)

    def unsubscribe(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        """End a subscription. One that does not exist is no error."""
        problem = self.events.name_problem(peer, header.service, pattern=True)
        if problem:
            self._report(peer, header.id, EventRefusal(spec.BAD_REQUEST, problem), now)
        else:
            self.events.unsubscribe(peer, full_topic(peer.prefix, header.service))

    def named_session(self, field: bytes) -> bytes | None:
        """The session that a HELLO with this metadata names: empty for none, None when invalid."""
        session = metadata.unpack(field).get("session", b"") if field else b""
        if not isinstance(session, bytes) or len(session) not in (0, SESSION_SIZE):
            return None
        return session

    def _report(self, peer: Peer, id: int, refusal: EventRefusal | None, now: float) -> None:
        """Send FINAL for a refusal; None is success, which is not answered."""
        if refusal is not None:
            self.registry.count_dropped("event-refused", peer.id, count_only=True)
            self._refuse(peer, id, refusal.status, refusal.text, now)
