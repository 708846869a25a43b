"""EVENT, SUBSCRIBE, UNSUBSCRIBE and the session of a HELLO, as a broker reads them
(docs/spec/mdp-0.3.md)."""

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

Refuse = Callable[["Peer", int, int, str, float], None]
"""FINAL with a status and a sentence to a peer, for an id that is no conversation."""


class EventCommands(Commands):
    """What peers say of events. A push asks for no right: who knows a handle may use it."""

    def __init__(self, rooms: Dependencies, refuse: Refuse) -> None:
        super().__init__(rooms)
        self._refuse = refuse

    def event(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        flags, id, handle, field = header.flags, header.id, header.address, header.metadata
        if flags & spec.METADATA and "token" in metadata.unpack(field):
            field = metadata.without(field, "token")
            flags = flags if field else flags & ~spec.METADATA
        if self.admission.too_large(body):
            refused: EventRefusal | None = EventRefusal(
                spec.TOO_LARGE, "the event is larger than allowed"
            )
        elif handle:
            refused = self.events.push(handle, body, now, flags, field)
        else:
            refused = self._publish(peer, header.service, body, now, flags, field)
        self._answer(peer, id, refused, now)

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
        pattern = header.service
        problem = self.events.name_problem(peer, pattern, pattern=True)
        if problem:
            refused: EventRefusal | None = EventRefusal(spec.BAD_REQUEST, problem)
        else:
            forbidden = self.authorization.refuses_topic(peer, SUBSCRIBE, pattern)
            full = full_topic(peer.prefix, pattern)
            refused = EventRefusal(*forbidden) if forbidden else self.events.subscribe(peer, full)
        self._answer(peer, header.id, refused, now)

    def unsubscribe(
        self,
        peer: Peer,
        header: Fields,
        envelope: tuple[Frame, ...],
        body: list[Frame],
        now: float,
    ) -> None:
        problem = self.events.name_problem(peer, header.service, pattern=True)
        if problem:
            self._answer(peer, header.id, EventRefusal(spec.BAD_REQUEST, problem), now)
        else:
            self.events.unsubscribe(peer, full_topic(peer.prefix, header.service))

    def named_session(self, field: bytes) -> bytes | None:
        """The session of a HELLO with this metadata; empty when it names none, None when what it
        names is no session."""
        session = metadata.unpack(field).get("session", b"") if field else b""
        if not isinstance(session, bytes) or len(session) not in (0, SESSION_SIZE):
            return None
        return session

    def _answer(self, peer: Peer, id: int, refused: EventRefusal | None, now: float) -> None:
        """Success is silent."""
        if refused is not None:
            self.registry.drop("event-refused", peer.id, count_only=True)
            self._refuse(peer, id, refused.status, refused.text, now)
