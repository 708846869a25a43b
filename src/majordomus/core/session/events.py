"""What a client's or a worker's session says and hears of events: subscriptions that every new
connection is told of, and what a broker refuses.

At most once: what cannot leave on this connection is not said on the next one. A subscription is a
wish, though, and lasts until it is taken back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from majordomus.core.broker.state.topics import name_problem
from majordomus.core.session.outbox import SessionOutbox
from majordomus.errors import LocalProtocolError
from majordomus.protocol import mdp03, metadata, spec
from majordomus.protocol.mdp03 import Fields
from majordomus.protocol.spec import Frame

MOST_ASKED: Final = 1024
"""Messages whose refusal can still be told apart; of older ones it is only late."""
SUBSCRIBE: Final = "subscribe"
PUBLISH: Final = "publish"
PUSH: Final = "push"


class EventReceived(NamedTuple):
    """An EVENT: of a topic, or pushed to us alone (no topic). ``metadata``: the sender's map,
    packed and checked."""

    topic: bytes
    frames: list[Frame]
    metadata: bytes


class SubscriptionRefused(NamedTuple):
    """The broker did not do what we said: ``what`` is "subscribe", "publish" or "push", ``name``
    the pattern, topic or handle. ``frames``: a sentence. ``id``: under which we said it."""

    what: str
    name: bytes
    status: int
    frames: list[Frame]
    id: int = 0


class SessionEvents:
    """The events of one session. `next_id` makes ids that the session never used before."""

    def __init__(self, outbox: SessionOutbox, next_id: Callable[[], int]) -> None:
        self.patterns: dict[bytes, None] = {}
        """What is subscribed to, or is to be as soon as there is a connection."""
        self._sent_patterns: dict[bytes, None] = {}  # patterns that a broker may have of us
        self._outbox = outbox
        self._next_id = next_id
        self._asked: dict[int, tuple[str, bytes]] = {}

    # ── what we say ───────────────────────────────────────────────────────────────────────────────

    def subscribe(self, pattern: bytes, connected: bool) -> None:
        """Hear of `pattern`, now and on every later connection.

        Raises: LocalProtocolError for what is no pattern.
        """
        check_name(pattern, pattern=True)
        self.patterns[pattern] = None
        if connected:
            self._send(spec.SUBSCRIBE, SUBSCRIBE, pattern)

    def unsubscribe(self, pattern: bytes, connected: bool) -> None:
        """Do not hear of `pattern` any more. Nothing happens when it was not subscribed to."""
        if pattern in self.patterns:
            del self.patterns[pattern]
            if connected:
                self._send(spec.UNSUBSCRIBE, SUBSCRIBE, pattern)

    def resubscribe(self) -> None:
        """A broker knows us now, perhaps from before, and is told what we want to hear of."""
        for pattern in [one for one in self._sent_patterns if one not in self.patterns]:
            self._send(spec.UNSUBSCRIBE, SUBSCRIBE, pattern)
        for pattern in self.patterns:
            self._send(spec.SUBSCRIBE, SUBSCRIBE, pattern)

    def publish(self, topic: bytes, frames: list[Frame], field: bytes) -> bool:
        """An EVENT for a topic. False when the socket takes nothing: it is lost then."""
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

    # ── what the broker says ──────────────────────────────────────────────────────────────────────

    def expect(self, id: int, what: str, name: bytes) -> None:
        """A FINAL for `id` says that `what` was refused."""
        self._asked[id] = what, name
        if len(self._asked) > MOST_ASKED:
            del self._asked[next(iter(self._asked))]

    def refused(self, id: int, status: int, frames: list[Frame]) -> SubscriptionRefused | None:
        """What a FINAL for `id` refuses; None when it is none of ours. A refused subscription is
        not tried again."""
        asked = self._asked.pop(id, None)
        if asked is None:
            return None
        if asked[0] == SUBSCRIBE:
            self.patterns.pop(asked[1], None)
        return SubscriptionRefused(*asked, status, frames, id)


def read_event(header: Fields, frames: list[Frame]) -> EventReceived:
    """The event of an EVENT with the body `frames`.

    Raises: RemoteProtocolError for metadata that cannot be read.
    """
    field = metadata.split_raw(header.metadata, header.flags)[1] if header.metadata else b""
    return EventReceived(header.service, frames, field)


def check_name(name: bytes, *, pattern: bool) -> None:
    """Raises: LocalProtocolError for what no broker would take as a topic or a pattern."""
    problem = name_problem(name, spec.MAX_NAME, spec.MAX_NAME, pattern=pattern)
    if problem:
        raise LocalProtocolError("bad-topic", problem)
