"""What leaves the broker: sends in order, and the bounded outbox of a peer whose socket is full
(rule 9).

A send carries a tag, because nothing here reads what was encoded: the command, and the conversation
that it belongs to. The conversation is the key that `conversation(id, envelope)` makes, the
dispatch id for a worker, and None for a message of no conversation. The tag of a legacy message is
`LEGACY`, except that of a REQUEST.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from majordomus.core.broker import encoding
from majordomus.core.broker.state.peers import Peer, PeerOutbox, id_and_envelope, is_dispatch
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.core.broker.state.registry import Registry, Send
    from majordomus.protocol.spec import Frame

FIRST_DELAY = 0.005
LONGEST_DELAY = 0.1
READS_TOO_SLOWLY = "the client reads more slowly than the worker sends"
STREAM_COMMANDS = frozenset((spec.PARTIAL, spec.CREDIT))
"""Commands that end one conversation, and not its peer, when an outbox has no room for them."""
LEGACY = spec.FINAL
"""The command in the tag of a legacy message that is no REQUEST. Without room for it the peer is
lost, as without room for a FINAL: an older dialect has no way to tell the peer what is missing."""


def disconnect_tag(dialect: Dialect) -> int:
    """The command in the tag of a DISCONNECT."""
    return spec.DISCONNECT if dialect is Dialect.MDP03 else LEGACY


class Outgoing:
    """Collects sends. Two lists take turns, so that a shell may read one while the next fills."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.sends: list[Send] = []
        self._taken: list[Send] = []
        self.overflow: dict[tuple[Peer, int, object], None] = {}
        """Sends for which an outbox had no room: peer, command and conversation. The machine acts
        on them before it does anything else."""

    def take(self) -> list[Send]:
        """The sends since the last call. The list is used again at the call after the next."""
        taken = self.sends
        self.sends, self._taken = self._taken, taken
        self.sends.clear()
        return taken

    def send(
        self, peer: Peer, frames: list[Frame], command: int, conversation: object, now: float
    ) -> None:
        """Send `frames` to `peer`, behind everything that waits in its outbox."""
        peer.last_sent = now
        if peer.outbox is None:
            self.sends.append((peer.id, frames, command, conversation))
        else:
            self.hold(peer, frames, command, conversation, now)

    def send_to(
        self, peer_id: bytes, frames: list[Frame], command: int, conversation: object, now: float
    ) -> None:
        """Send `frames` to a routing id that need not be a known peer."""
        peer = self.registry.peers.get(peer_id)
        if peer is None:
            self.sends.append((peer_id, frames, command, conversation))
        else:
            self.send(peer, frames, command, conversation, now)

    def flush(self, peer: Peer, now: float) -> None:
        """Send again everything in the outbox of `peer`. What is refused once more comes back by
        `hold`."""
        outbox = peer.outbox
        if outbox is None:
            return
        self.empty(peer)
        peer.last_delay = outbox.delay
        peer.flushed = now
        self.sends += outbox.messages

    def empty(self, peer: Peer) -> None:
        """Drop the outbox of `peer`."""
        if peer.outbox is not None:
            self.registry.outbox_bytes -= peer.outbox.size
            peer.outbox = None

    def has_space(self, peer: Peer, body: list[Frame]) -> bool:
        """Whether an event may be sent to `peer`. False, and counted, when its outbox is full:
        events leave room for answers."""
        outbox = peer.outbox
        if outbox is None:
            return True
        if not self._full(outbox, sum(map(len, body)), 1):
            return True
        self.registry.count_dropped("outbox-full", peer.id)
        return False

    def hold(
        self, peer: Peer, frames: list[Frame], command: int, conversation: object, now: float
    ) -> None:
        """Keep a send that a full socket has refused; without room it goes to `overflow`.

        It is sent again after 5, 10, … 100 ms. A HEARTBEAT is dropped: the sends in front of it
        are traffic, which is as good.
        """
        outbox = peer.outbox
        if outbox is None:
            again = now - peer.flushed < LONGEST_DELAY
            delay = min(peer.last_delay * 2, LONGEST_DELAY) if again else FIRST_DELAY
            outbox = peer.outbox = PeerOutbox(delay or FIRST_DELAY)
            self.registry.retries.add(peer, now + outbox.delay)
        if command == spec.HEARTBEAT:
            return
        if command == spec.FINAL and self._lost_a_part(peer, conversation):
            id, envelope = id_and_envelope(conversation)
            frames = encoding.refusal(envelope, id, spec.TOO_MANY, READS_TOO_SLOWLY)
        room = 1 if command in STREAM_COMMANDS or command == spec.EVENT else 2
        size = sum(map(len, frames))
        if self._full(outbox, size, room):
            self.registry.count_dropped("outbox-full", peer.id)
            if command == spec.EVENT:
                self.registry.counts.delivered -= 1
                self.registry.counts.undelivered += 1
                return
            self.overflow[peer, command, conversation] = None
            return
        outbox.messages.append((peer.id, frames, command, conversation))
        outbox.size += size
        self.registry.outbox_bytes += size

    def _lost_a_part(self, peer: Peer, conversation: object) -> bool:
        """Whether a part for this client found no room a moment ago: its stream has a gap, and may
        not end as if it were whole."""
        lost = (peer, spec.PARTIAL, conversation) in self.overflow
        return lost and not is_dispatch(conversation)

    def _full(self, outbox: PeerOutbox, size: int, room: int) -> bool:
        """Whether `size` more bytes exceed a bound, of this peer or of all outboxes; `room`: how
        many times the bounds count."""
        settings = self.registry.settings
        return (
            len(outbox.messages) >= settings.max_outbox * room
            or outbox.size + size > settings.max_outbox_bytes * room
            or self.registry.outbox_bytes + size > settings.max_outboxes_bytes * room
        )
