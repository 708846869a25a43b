"""The sends of the broker in order, and the bounded outbox of a peer whose socket is full (rule 9).

A send carries a tag, so that its frames need not be decoded again: the command, and the
conversation that it belongs to. The conversation is the key that `conversation(id, envelope)`
makes, the dispatch id for a worker, and None for a message of no conversation. It is also None in
a REQUEST and in a FINAL of MDP/0.3 whose header has the same number: an object for it would be made
for every call, and is needed only where a socket refuses the send (`encoding.conversation_of`). The
command in the tag of a legacy message is `LEGACY`, except for a REQUEST.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from majordomus.core.broker import encoding
from majordomus.core.broker.state.account import cost_of_message
from majordomus.core.broker.state.peers import Peer, PeerOutbox, id_and_envelope, is_dispatch
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.core.broker.state.registry import Registry, Send
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.protocol.spec import Frame

FIRST_DELAY = 0.005
"""Seconds until a refused send is repeated for the first time; each further delay is doubled."""
LONGEST_DELAY = 0.1
READS_TOO_SLOWLY = "the client reads more slowly than the worker sends"
STREAM_COMMANDS = frozenset((spec.PARTIAL, spec.CREDIT))
"""Commands that end one conversation, and not its peer, when an outbox has no space for them."""
REFUSAL_DELAY = 1.0
"""Seconds that a repeated refusal waits: a peer that tries again at once does so once a second."""
MOST_DELAYED = 10_000
"""Refusals that wait; further ones are sent at once."""
LEGACY = spec.FINAL
"""The command in the tag of a legacy message that is no REQUEST. Without space for it the peer is
lost, as without space for a FINAL: an older dialect cannot report what is missing."""


def disconnect_tag(dialect: Dialect) -> int:
    """The command in the tag of a DISCONNECT."""
    return spec.DISCONNECT if dialect is Dialect.MDP03 else LEGACY


class Outgoing:
    """Collects sends. Two lists alternate: the program reads one while the machine fills the
    other."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.sends: list[Send] = []
        self._taken: list[Send] = []
        self.overflow: dict[tuple[Peer, int, object], None] = {}
        """Sends for which an outbox had no space: peer, command and conversation. The machine acts
        on them before it does anything else."""
        self.delayed: dict[tuple[bytes, tuple[Frame, ...]], Peer] = {}
        """Peers that are not known any more and whose DISCONNECT waits, by routing id and envelope,
        in the order in which they are due. One without an outbox waits no more."""

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

    def send_later(
        self,
        peer_id: bytes,
        envelope: tuple[Frame, ...],
        frames: list[Frame],
        command: int,
        now: float,
    ) -> None:
        """Send a refusal after REFUSAL_DELAY: an outbox that is tried again then."""
        delayed = self.delayed
        while delayed and delayed[next(iter(delayed))].outbox is None:
            del delayed[next(iter(delayed))]
        if len(delayed) >= MOST_DELAYED:
            self.sends.append((peer_id, frames, command, None))
            return
        refused = Peer(peer_id, Dialect.MDP03, b"", now)
        refused.outbox = PeerOutbox(REFUSAL_DELAY)
        refused.outbox.messages.append((peer_id, frames, command, None))
        before = delayed.pop((peer_id, envelope), None)
        if before is not None:
            before.outbox = None
        delayed[peer_id, envelope] = refused
        self.registry.retries.add(refused, now + REFUSAL_DELAY)

    def is_refused(self, peer_id: bytes) -> bool:
        """Whether a refusal for this routing id waits."""
        refused = self.delayed.get((peer_id, ()))
        return refused is not None and refused.outbox is not None

    def drop_refusal(self, peer_id: bytes) -> None:
        """Drop the refusal that waits for this routing id, whose connection has ended."""
        refused = self.delayed.pop((peer_id, ()), None)
        if refused is not None:
            refused.outbox = None

    def flush(self, peer: Peer, now: float) -> None:
        """Send everything in the outbox of `peer` again. A send that is refused again returns by
        `hold`."""
        outbox = peer.outbox
        if outbox is None:
            return
        self.empty(peer)
        peer.last_delay = outbox.delay
        peer.flushed = now
        if peer.worker is None:
            self.sends += outbox.messages
        else:
            self.sends += self._in_time(peer.worker, outbox, now)

    def _in_time(self, worker: RegisteredWorker, outbox: PeerOutbox, now: float) -> list[Send]:
        """What may still leave: each REQUEST with the time that it has left, and nothing of a
        dispatch whose deadline has come before its REQUEST left (rule 5)."""
        table = self.registry.dispatch_table
        late: set[int] = set()
        sends: list[Send] = []
        for peer_id, frames, command, conversation in outbox.messages:
            if command == spec.REQUEST and isinstance(conversation, int):
                request = table.of(worker, conversation)
                if request is None:  # it was answered before it left
                    late.add(conversation)
                elif request.deadline <= now:
                    late.add(conversation)
                    worker.not_delivered(conversation)
                else:
                    frames = encoding.request_again(request, frames, worker.dialect, now)
            if conversation not in late:
                sends.append((peer_id, frames, command, conversation))
        return sends

    def withdraw(self, worker: RegisteredWorker, dispatch_id: int) -> bool:
        """Drop what waits in the outbox of `worker` for a dispatch; False when its REQUEST is not
        there, but on its way or at the worker."""
        outbox = worker.peer.outbox
        if outbox is None:
            return False
        own = [send for send in outbox.messages if send[3] == dispatch_id]
        if not own or own[0][2] != spec.REQUEST:
            return False
        outbox.messages = deque(send for send in outbox.messages if send[3] != dispatch_id)
        for _, frames, _, _ in own:
            size = sum(map(len, frames))
            cost = cost_of_message(frames, size)
            outbox.size -= size
            outbox.cost -= cost
            self.registry.outbox_bytes -= size
            self.registry.account.change_outbox(worker.peer, -cost)
        return True

    def answers_held(self) -> int:
        """How many answers to clients wait in outboxes."""
        if not self.registry.outbox_bytes:
            return 0
        # Not a sum over a generator: Cython 3.3 takes its truth values for pointers.
        held = 0
        for peer in self.registry.peers.values():
            if peer.outbox is None:
                continue
            for _, _, command, conversation in peer.outbox.messages:
                if command != spec.FINAL or is_dispatch(conversation):
                    continue
                if conversation is not None or peer.worker is None:
                    held += 1
        return held

    def empty(self, peer: Peer) -> None:
        """Drop the outbox of `peer`."""
        if peer.outbox is not None:
            self.registry.outbox_bytes -= peer.outbox.size
            self.registry.account.change_outbox(peer, -peer.outbox.cost)
            peer.outbox = None

    def has_space(self, peer: Peer, body: list[Frame]) -> bool:
        """Whether an event may be sent to `peer`. False, and counted, when its outbox is full:
        answers may use twice the space that events may."""
        outbox = peer.outbox
        if outbox is None:
            return True
        size = sum(map(len, body))
        if not self._full(peer, outbox, size, cost_of_message(body, size), 1):
            return True
        self.registry.count_dropped("outbox-full", peer.id)
        return False

    def hold(
        self, peer: Peer, frames: list[Frame], command: int, conversation: object, now: float
    ) -> None:
        """Keep a send that a full socket has refused; without space it goes to `overflow`.

        It is sent again after 5, 10, … 100 ms. A HEARTBEAT is dropped: the sends in front of it
        prove as well that the broker is running.
        """
        if conversation is None:
            conversation = encoding.conversation_of(frames, command)
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
        cost = cost_of_message(frames, size)
        if self._full(peer, outbox, size, cost, room):
            self.registry.count_dropped("outbox-full", peer.id)
            if command == spec.EVENT:
                self.registry.counts.delivered -= 1
                self.registry.counts.undelivered += 1
                return
            self.overflow[peer, command, conversation] = None
            return
        outbox.messages.append((peer.id, frames, command, conversation))
        outbox.size += size
        outbox.cost += cost
        self.registry.outbox_bytes += size
        self.registry.account.change_outbox(peer, cost)

    def _lost_a_part(self, peer: Peer, conversation: object) -> bool:
        """Whether the outbox has had no space for a part of this conversation: its stream has a
        gap, and must not end with status 200."""
        lost = (peer, spec.PARTIAL, conversation) in self.overflow
        return lost and not is_dispatch(conversation)

    def _full(self, peer: Peer, outbox: PeerOutbox, size: int, cost: int, room: int) -> bool:
        """Whether `size` more bytes, or their `cost`, exceed a bound of this peer or of all.
        `room`: the factor on the bounds of outboxes."""
        settings, account = self.registry.settings, self.registry.account
        if room > 1 and account.exceeds_reserve(cost):
            return True
        if room == 1 and account.exceeds(peer, cost):
            return True
        return (
            len(outbox.messages) >= settings.max_outbox * room
            or outbox.size + size > settings.max_outbox_bytes * room
            or self.registry.outbox_bytes + size > settings.max_outboxes_bytes * room
        )
