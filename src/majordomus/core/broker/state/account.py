"""One account of the memory that peers make the broker hold, in bytes (rule 4).

Whatever a peer can make the broker keep beyond a turn is charged here when it is kept, and credited
when it is let go: open requests with their bodies, metadata, envelopes and waiting parts, wherever
they are; slots of requests that have ended; outboxes; subscriptions and sessions; registrations of
workers; known peers; stories. The costs of objects are constants, upper bounds of what was
measured. Bytes in the buffers of connections belong to the listener, which has bounds of its own.

There are three sums: of one peer, of one user, in all. `exceeds` compares all three. Requests,
parts, events and subscriptions stay below the bounds. Answers and registrations may use a quarter
more in all: they are what empties a full broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from majordomus.core.broker.state.user_account import UNBOUNDED, UserAccount

if TYPE_CHECKING:
    from majordomus.core.broker.settings import BrokerSettings
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.subscribers import Subscriber
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.protocol.spec import Frame

FRAME: Final = 64
"""One frame beside its bytes: an object and its place in a list."""
REQUEST: Final = 1024
"""An open request, or the slot of one that has ended."""
MESSAGE: Final = 256
"""A message in an outbox."""
PEER: Final = 1024
"""A known peer."""
WORKER: Final = 1024
"""The record of a worker."""
REGISTRATION: Final = 512
"""One service of a worker, beside its name and its metadata."""
ANSWERED: Final = 192
"""An answered handle of a Delphi worker."""
SUBSCRIBER: Final = 1024
"""A subscriber, with its session."""
SUBSCRIPTION: Final = 256
"""A pattern of a subscriber, beside its name."""
TOKEN: Final = 512
"""Each token of a pattern: a node of the tree of patterns."""
DURABLE_ROW: Final = 2048
"""A durable request without an outcome, beside its run."""
STORY: Final = 1024
"""An ended request that is kept."""
NOTE: Final = 256
"""One past dispatch in a story."""
_REQUEST, _FRAME = REQUEST, FRAME


class Account:
    """The account of one broker.

    held: bytes in all.
    users: the accounts of users by name, as long as a peer, a request or a session refers to them.
    anonymous: the account of peers without a user.
    outboxes, subscriptions, registrations, stories: shares of `held`, of which the rest is
        requests and peers.
    peers: known peers.
    most, most_peer, most_user: the bounds, in all, of a peer and of a user.
    """

    __slots__ = (
        "anonymous",
        "held",
        "most",
        "most_peer",
        "most_user",
        "outboxes",
        "peers",
        "registrations",
        "stories",
        "subscriptions",
        "users",
    )

    def __init__(self, settings: BrokerSettings) -> None:
        self.held = 0
        self.users: WeakValueDictionary[str, UserAccount] = WeakValueDictionary()
        self.anonymous = UserAccount("", UNBOUNDED)
        self.outboxes = 0
        self.subscriptions = 0
        self.registrations = 0
        self.stories = 0
        self.peers = 0
        self.most = self.most_peer = self.most_user = 0
        self.configure(settings)

    def configure(self, settings: BrokerSettings) -> None:
        """Apply the bounds of `settings` to what comes from now on."""
        self.most = settings.max_held_bytes
        self.most_peer = settings.max_peer_bytes
        self.most_user = settings.max_user_bytes
        for account in list(self.users.values()):
            account.most = self.most_user

    # ── sums ──────────────────────────────────────────────────────────────────────────────────────

    def charge(self, peer: Peer, cost: int) -> None:
        """Add `cost` to what `peer`, its user and all hold; a negative one is a credit."""
        peer.held += cost
        peer.account.held += cost
        self.held += cost

    def exceeds(self, peer: Peer, cost: int) -> bool:
        """Whether `cost` more for `peer` exceeds a bound; `problem` says which."""
        return (
            self.held + cost > self.most
            or peer.held + cost > self.most_peer
            or peer.account.held + cost > peer.account.most
        )

    def exceeds_reserve(self, cost: int) -> bool:
        """Whether `cost` more exceeds what answers and registrations may use in all."""
        return self.held + cost > self.most + self.most // 4

    def exceeds_share(self, peer: Peer, cost: int) -> bool:
        """Whether `cost` more for `peer` exceeds its bound or that of its user."""
        return peer.held + cost > self.most_peer or peer.account.held + cost > peer.account.most

    def problem(self, peer: Peer, cost: int) -> str:
        """The bound that `cost` more for `peer` exceeds, as a sentence."""
        if peer.held + cost > self.most_peer:
            return f"the broker holds {peer.held} bytes for this peer already"
        if peer.account.held + cost > peer.account.most:
            return f"the broker holds {peer.account.held} bytes for this user already"
        return f"the broker holds {self.held} bytes already"

    # ── peers and users ───────────────────────────────────────────────────────────────────────────

    def of(self, user: str) -> UserAccount:
        """The account of `user`, made if need be."""
        if not user:
            return self.anonymous
        account = self.users.get(user)
        if account is None:
            account = self.users[user] = UserAccount(user, self.most_user)
        return account

    def enter(self, peer: Peer) -> None:
        """Charge a new peer to its user."""
        peer.account = self.of(peer.user)
        self.peers += 1
        self.charge(peer, PEER)

    def leave(self, peer: Peer) -> None:
        """`peer` is not known any more. What it still has open remains charged."""
        self.peers -= 1
        self.charge(peer, -PEER)

    def move(self, peer: Peer) -> None:
        """Charge everything of `peer` to the user that it is now."""
        before, after = peer.account, self.of(peer.user)
        if before is after:
            return
        peer.account = after
        before.held -= peer.held
        after.held += peer.held
        if peer.subscriber is not None:
            self.move_subscriber(peer.subscriber, after)

    def move_subscriber(self, listener: Subscriber, after: UserAccount) -> None:
        """Charge everything of a subscriber to another user. May be repeated."""
        before, listener.account = listener.account, after
        before.held -= listener.held
        after.held += listener.held
        before.topics -= len(listener.patterns)
        after.topics += len(listener.patterns)

    # ── requests ──────────────────────────────────────────────────────────────────────────────────

    def grow(self, request: AcceptedRequest, cost: int) -> None:
        """Charge `cost` more for an open request; a negative one is a credit."""
        request.cost += cost
        self.charge(request.peer, cost)

    def recount(self, request: AcceptedRequest) -> None:
        """Charge an open request anew, after its body or its metadata have been replaced."""
        self.grow(request, cost_of(request) - request.cost)

    def keep_slot(self, worker: RegisteredWorker, request: AcceptedRequest) -> None:
        """`request` has ended, but `worker` holds its slot: charge that to the worker."""
        request.slot_cost = REQUEST + len(request.metadata) + size_of_envelope(request.envelope)
        self.charge(worker.peer, request.slot_cost)

    def free_slot(self, worker: RegisteredWorker, request: AcceptedRequest) -> None:
        """Undo `keep_slot`."""
        self.charge(worker.peer, -request.slot_cost)
        request.slot_cost = 0

    # ── workers ───────────────────────────────────────────────────────────────────────────────────

    def register(self, worker: RegisteredWorker, cost: int) -> None:
        """Charge `cost` more for the record of `worker`; a negative one is a credit."""
        worker.cost += cost
        self.registrations += cost
        self.charge(worker.peer, cost)

    # ── subscribers ───────────────────────────────────────────────────────────────────────────────

    def subscribe(self, listener: Subscriber, cost: int) -> None:
        """Charge `cost` more for a subscriber; a negative one is a credit. It belongs to its user,
        because a session outlives its peer."""
        listener.held += cost
        listener.account.held += cost
        self.subscriptions += cost
        self.held += cost

    # ── in all ────────────────────────────────────────────────────────────────────────────────────

    def change_outbox(self, peer: Peer, cost: int) -> None:
        """Charge `cost` more for the outbox of `peer`; a negative one is a credit."""
        self.outboxes += cost
        self.charge(peer, cost)

    def change_stories(self, cost: int) -> None:
        """Charge `cost` more for stories; a negative one is a credit."""
        self.stories += cost
        self.held += cost

    def told(self) -> dict[str, int]:
        """The account, as `mmi.stats` reports it."""
        peers = self.peers * PEER
        others = self.outboxes + self.subscriptions + self.registrations + self.stories + peers
        return {
            "held": self.held,
            "most": self.most,
            "requests": self.held - others,
            "outboxes": self.outboxes,
            "subscriptions": self.subscriptions,
            "workers": self.registrations,
            "peers": peers,
            "stories": self.stories,
        }


def cost_of(request: AcceptedRequest) -> int:
    """What an open request costs. `size` counts its body and its waiting parts."""
    cost = _REQUEST + request.size + _FRAME * request.frame_count() + len(request.metadata)
    if request.stream is not None:
        cost += _FRAME * request.stream.frames
    if request.parts is not None:
        cost += request.parts_size + _FRAME * len(request.parts)
    if request.envelope:
        cost += size_of_envelope(request.envelope)
    return cost


def size_of_envelope(envelope: tuple[Frame, ...]) -> int:
    """The bytes of an envelope and of its frames."""
    return sum(map(len, envelope)) + FRAME * len(envelope)


def cost_of_message(frames: list[Frame], size: int) -> int:
    """What a message of `size` bytes costs in an outbox."""
    return MESSAGE + FRAME * len(frames) + size


def cost_of_pattern(pattern: bytes) -> int:
    """What a subscription costs."""
    return SUBSCRIPTION + len(pattern) + TOKEN * (pattern.count(b".") + 1)


def cost_of_story(request: AcceptedRequest) -> int:
    """What a kept request costs once it has ended."""
    notes = len(request.past_dispatches) if request.past_dispatches is not None else 0
    return STORY + NOTE * notes + len(request.metadata) + size_of_envelope(request.envelope)
