"""What leaves the broker: sends in order, and the bounded outbox of a peer whose socket is full
(rule 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from majordomus.core.peers import Outbox, Peer
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.core.registry import Registry, Send
    from majordomus.protocol.spec import Frame

FIRST_DELAY = 0.005
LONGEST_DELAY = 0.1


def command_of(frames: list[Frame]) -> tuple[int, int]:
    """Command and id of a message of ours; what is not MDP/0.3 counts as a FINAL without an id."""
    for frame in frames[: spec.MAX_ENVELOPE_FRAMES + 2]:
        if frame[:4] == spec.MDP03_MAGIC:
            return frame[4], int.from_bytes(frame[8:16], "big")
        if frame in (spec.MDP02_CLIENT, spec.MDP01_CLIENT):
            break
    return spec.FINAL, 0


class Outgoing:
    """Collects sends. Two lists take turns, so that a shell may read one while the next fills."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.sends: list[Send] = []
        self._taken: list[Send] = []
        self.overflow: list[tuple[Peer, int, int]] = []
        """What found no room in an outbox: peer, command and id. The machine draws the
        consequences."""

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

    def say_to(self, peer_id: bytes, frames: list[Frame]) -> None:
        """Send `frames` to a routing id that is not, or no longer, a known peer."""
        self.sends.append((peer_id, frames))

    def flush(self, peer: Peer, now: float) -> None:
        """Try again what waits for `peer`. If it is refused once more, it comes back by `hold`."""
        outbox = peer.outbox
        if outbox is None:
            return
        peer.outbox = None
        peer.last_delay = outbox.delay
        peer.flushed = now
        self.sends.extend((peer.id, frames) for frames in outbox.messages)

    def hold(self, peer: Peer, frames: list[Frame], now: float) -> None:
        """Keep what a full socket refused; what finds no room goes to `overflow`.

        Tried again after 5, 10, … 100 ms. A heartbeat is dropped: what waits in front of it says as
        much.
        """
        settings = self.registry.settings
        outbox = peer.outbox
        if outbox is None:
            again = now - peer.flushed < LONGEST_DELAY
            delay = min(peer.last_delay * 2, LONGEST_DELAY) if again else FIRST_DELAY
            outbox = peer.outbox = Outbox(delay or FIRST_DELAY)
            self.registry.retries.add(peer, now + outbox.delay)
        command, id = command_of(frames)
        if command == spec.HEARTBEAT:
            return
        room = 1 if command == spec.PARTIAL else 2
        size = sum(map(len, frames))
        if (
            len(outbox.messages) >= settings.max_outbox * room
            or outbox.size + size > settings.max_outbox_bytes * room
        ):
            self.registry.drop("outbox-full", peer.id)
            self.overflow.append((peer, command, id))
            return
        outbox.messages.append(frames)
        outbox.size += size
