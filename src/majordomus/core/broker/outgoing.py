"""What leaves the broker: sends in order, and the bounded outbox of a peer whose socket is full
(rule 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from majordomus.core.broker import encoding as speech
from majordomus.core.broker.state.peers import Peer, PeerOutbox, conversation
from majordomus.protocol import spec
from majordomus.protocol.recognise import recognise
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.core.broker.state.registry import Registry, Send
    from majordomus.protocol.spec import Frame

FIRST_DELAY = 0.005
LONGEST_DELAY = 0.1
READS_TOO_SLOWLY = "the client reads more slowly than the worker sends"
OF_A_STREAM = frozenset((spec.PARTIAL, spec.CREDIT))
"""What ends one conversation when it finds no room, and not its peer."""


def command_of(frames: list[Frame]) -> tuple[int, int, tuple[Frame, ...]]:
    """Command, id and envelope of a message of ours. What is not MDP/0.3 counts as a FINAL without
    an id: a part that an older dialect loses cannot be told of, so it is as grave."""
    dialect, at = recognise(frames)
    if dialect is not Dialect.MDP03:
        return spec.FINAL, 0, ()
    header = frames[at]
    return header[4], int.from_bytes(header[8:16], "big"), tuple(frames[:at])


class Outgoing:
    """Collects sends. Two lists take turns, so that a shell may read one while the next fills."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.sends: list[Send] = []
        self._taken: list[Send] = []
        self.overflow: dict[tuple[Peer, int, object], None] = {}
        """What found no room in an outbox: peer, command and key of the conversation. The machine
        draws the consequences before anything else happens."""

    def take(self) -> list[Send]:
        """The sends since the last call. The list is used again at the call after the next."""
        taken = self.sends
        self.sends, self._taken = self._taken, taken
        self.sends.clear()
        return taken

    def say(self, peer: Peer, frames: list[Frame], now: float) -> None:
        """Send `frames` to `peer`, behind whatever waits for it."""
        peer.last_sent = now
        if peer.outbox is None:
            self.sends.append((peer.id, frames))
        else:
            self.hold(peer, frames, now)

    def say_to(self, peer_id: bytes, frames: list[Frame], now: float) -> None:
        """Send `frames` to a routing id that need not be a known peer."""
        peer = self.registry.peers.get(peer_id)
        if peer is None:
            self.sends.append((peer_id, frames))
        else:
            self.say(peer, frames, now)

    def flush(self, peer: Peer, now: float) -> None:
        """Try again what waits for `peer`. If it is refused once more, it comes back by `hold`."""
        outbox = peer.outbox
        if outbox is None:
            return
        self.empty(peer)
        peer.last_delay = outbox.delay
        peer.flushed = now
        self.sends += [(peer.id, frames) for frames in outbox.messages]

    def empty(self, peer: Peer) -> None:
        """Nothing waits for `peer` any more."""
        if peer.outbox is not None:
            self.registry.outbox_bytes -= peer.outbox.size
            peer.outbox = None

    def has_room(self, peer: Peer, body: list[Frame]) -> bool:
        """Whether an event may still wait for `peer`: answers come first."""
        outbox = peer.outbox
        if outbox is None:
            return True
        if not self._full(outbox, sum(map(len, body)), 1):
            return True
        self.registry.drop("outbox-full", peer.id)
        return False

    def hold(self, peer: Peer, frames: list[Frame], now: float) -> None:
        """Keep what a full socket refused; what finds no room goes to `overflow`.

        Tried again after 5, 10, … 100 ms. A heartbeat is dropped: what waits in front of it says as
        much.
        """
        outbox = peer.outbox
        if outbox is None:
            again = now - peer.flushed < LONGEST_DELAY
            delay = min(peer.last_delay * 2, LONGEST_DELAY) if again else FIRST_DELAY
            outbox = peer.outbox = PeerOutbox(delay or FIRST_DELAY)
            self.registry.retries.add(peer, now + outbox.delay)
        command, id, envelope = command_of(frames)
        if command == spec.HEARTBEAT:
            return
        key = conversation(id, envelope)
        lost_a_part = not id & spec.BROKER_ID_BIT and (peer, spec.PARTIAL, key) in self.overflow
        if command == spec.FINAL and lost_a_part:
            frames = speech.refusal(envelope, id, spec.TOO_MANY, READS_TOO_SLOWLY)
        room = 1 if command in OF_A_STREAM or command == spec.EVENT else 2
        size = sum(map(len, frames))
        if self._full(outbox, size, room):
            self.registry.drop("outbox-full", peer.id)
            if command == spec.EVENT:
                self.registry.counts.delivered -= 1
                self.registry.counts.undelivered += 1
                return
            self.overflow[peer, command, key] = None
            return
        outbox.messages.append(frames)
        outbox.size += size
        self.registry.outbox_bytes += size

    def _full(self, outbox: PeerOutbox, size: int, room: int) -> bool:
        """Whether `size` bytes more break a bound: this peer's, or that of all outboxes."""
        settings = self.registry.settings
        return (
            len(outbox.messages) >= settings.max_outbox * room
            or outbox.size + size > settings.max_outbox_bytes * room
            or self.registry.outbox_bytes + size > settings.max_outboxes_bytes * room
        )
