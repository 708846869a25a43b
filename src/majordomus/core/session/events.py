"""Events of a client's or a worker's session: subscriptions, and events that are sent and received.

Events are sent at most once: one that cannot leave on this connection is not sent on the next. A
subscription is repeated on every new connection until it is removed.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple

from majordomus.core.session.outbox import SessionOutbox
from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.mdp03 import Fields
from majordomus.protocol.spec import Frame
from majordomus.protocol.topics import name_problem

AGAIN_AFTER: Final = 60.0
"""Seconds after which a subscription that is refused with 401 is sent again once more."""
MOST_EXPECTED: Final = 1024
"""Messages whose refusal is still recognised; the refusal of an older one counts as late."""
SUBSCRIBE: Final = "subscribe"
PUBLISH: Final = "publish"
PUSH: Final = "push"


class EventReceived(NamedTuple):
    """An EVENT, of a topic or pushed to this peer alone.

    ``topic``: empty for a push. ``frames``: the body.
    ``metadata``: the sender's map, packed and checked.
    """

    topic: bytes
    frames: list[Frame]
    metadata: bytes


class SubscriptionRefused(NamedTuple):
    """The broker refused a subscription or an event.

    ``what``: "subscribe", "publish" or "push". ``name``: the pattern, topic or handle.
    ``status``, ``frames``: of the FINAL; the first frame is a sentence.
    ``id``: of the message that was refused.
    """

    what: str
    name: bytes
    status: int
    frames: list[Frame]
    id: int = 0


class SessionEvents:
    """The events of one session.

    ``patterns``: subscribed, or to be subscribed on the next connection.
    ``_sent_patterns``: patterns that the broker may hold for this session.
    ``_expected``: what was sent under an id, and its name.
    ``_next_id``: makes ids that the session never used before.
    """

    def __init__(self, outbox: SessionOutbox, next_id: Callable[[], int]) -> None:
        self.patterns: dict[bytes, None] = {}
        self._sent_patterns: dict[bytes, None] = {}
        self._outbox = outbox
        self._next_id = next_id
        self._expected: dict[int, tuple[str, bytes]] = {}
        self._again: dict[bytes, float] = {}

    # ── sending ───────────────────────────────────────────────────────────────────────────────

    def subscribe(self, pattern: bytes, connected: bool) -> None:
        """Subscribe to `pattern`, now and on every later connection.

        Raises: LocalProtocolError for a name that is no pattern.
        """
        check_name(pattern, pattern=True)
        self.patterns[pattern] = None
        if connected:
            self._send(spec.SUBSCRIBE, SUBSCRIBE, pattern)

    def unsubscribe(self, pattern: bytes, connected: bool) -> None:
        """Remove the subscription to `pattern`. May be repeated."""
        if pattern in self.patterns:
            del self.patterns[pattern]
            self._again.pop(pattern, None)
            if connected:
                self._send(spec.UNSUBSCRIBE, SUBSCRIBE, pattern)

    def resubscribe(self) -> None:
        """Send all subscriptions, because a broker has accepted this session.

        The broker may hold older ones, which are removed first.
        """
        for pattern in [one for one in self._sent_patterns if one not in self.patterns]:
            self._send(spec.UNSUBSCRIBE, SUBSCRIBE, pattern)
        for pattern in self.patterns:
            self._send(spec.SUBSCRIBE, SUBSCRIBE, pattern)

    def publish(self, topic: bytes, frames: list[Frame], field: bytes) -> bool:
        """Send an EVENT for a topic. False when the outbox is full: the event is lost."""
        return self._event(PUBLISH, topic, frames, field, service=topic)

    def push(self, handle: bytes, frames: list[Frame], field: bytes) -> bool:
        """An EVENT for the client of `handle`. False as in `publish`."""
        return self._event(PUSH, handle, frames, field, address=handle)

    def _event(
        self,
        what: str,
        name: bytes,
        frames: list[Frame],
        field: bytes,
        *,
        service: bytes = b"",
        address: bytes = b"",
    ) -> bool:
        if self._outbox.full:
            return False
        flags, id = spec.METADATA if field else 0, self._next_id()
        header = mdp03.pack(spec.EVENT, flags, 0, id, 0, service, address, field)
        self.expect(id, what, name)
        self._outbox.put([header, *frames], spec.EVENT)
        return True

    def _send(self, command: int, what: str, pattern: bytes) -> None:
        if command == spec.SUBSCRIBE:
            self._sent_patterns[pattern] = None
        else:
            self._sent_patterns.pop(pattern, None)
        id = self._next_id()
        self.expect(id, what, pattern)
        self._outbox.put([mdp03.pack(command, id=id, service=pattern)], command)

    # ── receiving ──────────────────────────────────────────────────────────────────────

    def expect(self, id: int, what: str, name: bytes) -> None:
        """Remember what was sent under `id`: a FINAL with this id refuses it."""
        self._expected[id] = what, name
        if len(self._expected) > MOST_EXPECTED:
            del self._expected[next(iter(self._expected))]

    def subscribes_again(self, id: int, now: float) -> bool:
        """Whether the SUBSCRIBE that was sent under `id`, and refused with 401, is kept, to be sent
        again with a new token: once in `AGAIN_AFTER` seconds, so that a broker that always refuses
        it is not asked for ever."""
        what, pattern = self._expected.get(id, ("", b""))
        if what != SUBSCRIBE or pattern not in self.patterns:
            return False
        if now < self._again.get(pattern, -inf) + AGAIN_AFTER:
            return False
        del self._expected[id]
        self._again[pattern] = now
        return True

    def refused(self, id: int, status: int, frames: list[Frame]) -> SubscriptionRefused | None:
        """Return what a FINAL for `id` refuses; None when nothing was sent under `id`.

        A refused subscription is not tried again.
        """
        expected = self._expected.pop(id, None)
        if expected is None:
            return None
        if expected[0] == SUBSCRIBE:
            self.patterns.pop(expected[1], None)
        return SubscriptionRefused(*expected, status, frames, id)


def read_event(header: Fields, frames: list[Frame]) -> EventReceived:
    """Return the event of an EVENT with the body `frames`.

    Raises: RemoteProtocolError for metadata that cannot be read.
    """
    field = metadata.split_raw(header.metadata, header.flags)[1] if header.metadata else b""
    return EventReceived(header.service, frames, field)


def check_name(name: bytes, *, pattern: bool) -> None:
    """Raises: LocalProtocolError for a name that no broker accepts as topic or pattern."""
    problem = name_problem(name, spec.MAX_NAME, spec.MAX_NAME, pattern=pattern)
    if problem:
        raise LocalProtocolError("bad-topic", problem)
