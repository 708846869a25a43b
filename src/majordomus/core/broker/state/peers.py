"""One peer: its routing id, its dialect, its open requests and its outbox. No rule lives here."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from majordomus.core.broker.state.identity import UNPROVED, Identity
from majordomus.core.broker.state.transitions import PEER, PeerState, unlisted
from majordomus.core.broker.state.user_account import NO_ACCOUNT, UserAccount
from majordomus.protocol.spec import BROKER_ID_BIT, Dialect, Frame

if TYPE_CHECKING:
    from majordomus.core.broker.state.registry import Send
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.services import Service
    from majordomus.core.broker.state.subscribers import Subscriber
    from majordomus.core.broker.state.workers import RegisteredWorker


def conversation(id: int, envelope: tuple[Frame, ...]) -> object:
    """The key of a conversation for `Peer.find`. Behind a proxy, several clients share one routing
    id; each has its own envelope."""
    return (id, envelope) if envelope else id


def id_and_envelope(conversation: object) -> tuple[int, tuple[Frame, ...]]:
    """The id and the envelope of which `conversation` made this key."""
    if isinstance(conversation, tuple):
        id, envelope = conversation
        return id, envelope
    return (conversation, ()) if isinstance(conversation, int) else (0, ())


def is_dispatch(conversation: object) -> bool:
    """Whether this key is the id of a dispatch: then the peer is the worker that has it."""
    return isinstance(conversation, int) and bool(conversation & BROKER_ID_BIT)


def _arrival(request: AcceptedRequest) -> tuple[float, int]:
    """Sorts requests of one peer by the time at which they were accepted."""
    named = request.named
    return request.accepted, abs(named) if isinstance(named, int) else request.id


class PeerOutbox:
    """Sends that wait because the socket of their peer is full.

    messages: the sends with their tags, in order.
    size: bytes of their frames.
    cost: what they are charged (account.py).
    delay: seconds until they are sent again.
    """

    __slots__ = ("cost", "delay", "messages", "size")

    def __init__(self, delay: float) -> None:
        self.messages: deque[Send] = deque()
        self.size = 0
        self.cost = 0
        self.delay = delay


class Peer:
    """A routing id that has sent a message. Times are monotonic seconds.

    id: the routing id.
    dialect: the dialect of its first message.
    worker: the worker that it has registered as; None for a client.
    prefix: the prefix of every name that it uses, where a group is a tenant.
    outbox: the messages that its full socket refused; None without any.
    last_sent: when a message was last sent to it.
    last_received: when a message of it was last received.
    state: its state (transitions.py).
    requests: its open requests, in no order: each knows its index.
    by_key: the same by the key of their conversation. It is made when `find` is first called, and
        kept until none is open: a client that only calls needs none.
    highest_id: the highest id of its requests so far. A higher one is of none that is open.
    held, account: what the broker holds for it, and the account of its user (account.py).
    last_service: the service that it called last, if that was served; it may have been forgotten.
    handle: the address by which workers know it; that of its session, if it has one.
    own_handle: the handle that it got first; it never changes.
    identity: what its connection has proved.
    user, groups: those of `identity`.
    queued: how many of its requests are queued.
    queued_bytes: the bytes of their bodies.
    last_delay: the delay of its last outbox.
    flushed: when its outbox was last emptied.
    timer: its bucket of the timer wheel.
    subscriber: its subscriptions and session; None without any.
    """

    __slots__ = (
        "account",
        "by_key",
        "dialect",
        "flushed",
        "groups",
        "handle",
        "held",
        "highest_id",
        "id",
        "identity",
        "last_delay",
        "last_received",
        "last_sent",
        "last_service",
        "outbox",
        "own_handle",
        "prefix",
        "queued",
        "queued_bytes",
        "requests",
        "state",
        "subscriber",
        "timer",
        "user",
        "worker",
    )

    def __init__(self, id: bytes, dialect: Dialect, handle: bytes, now: float) -> None:
        self.id = id
        self.dialect = dialect
        self.handle = handle
        self.own_handle = handle
        self.subscriber: Subscriber | None = None
        self.identity: Identity = UNPROVED
        self.user = ""
        self.groups: tuple[str, ...] = ()
        self.prefix = b""
        self.state = PeerState.SEEN
        self.worker: RegisteredWorker | None = None
        self.requests: list[AcceptedRequest] = []
        self.by_key: dict[object, AcceptedRequest] | None = None
        self.highest_id = 0
        self.last_service: Service | None = None
        self.held = 0
        self.account: UserAccount = NO_ACCOUNT
        self.queued = 0
        self.queued_bytes = 0
        self.outbox: PeerOutbox | None = None
        self.last_delay = 0.0
        self.flushed = now
        self.last_received = now
        self.last_sent = now
        self.timer: dict[Peer, None] | None = None

    def forget_key(self, request: AcceptedRequest) -> None:
        """Remove a request that has ended from `by_key`."""
        if not self.requests:
            self.by_key = None
        elif self.by_key is not None:
            del self.by_key[request.key]

    def find(self, key: object) -> AcceptedRequest | None:
        """Return the open request whose conversation has this key; None without one."""
        if self.by_key is None:
            if not self.requests:
                return None
            self.by_key = self.open
        return self.by_key.get(key)

    @property
    def open(self) -> dict[object, AcceptedRequest]:
        """The open requests by the key of their conversation, oldest first. It is made anew each
        time: a message is looked up by `find`."""
        return {request.key: request for request in sorted(self.requests, key=_arrival)}

    def move(self, event: str) -> None:
        """Follow `event` through the table of states. Raises: LocalProtocolError if unlisted."""
        try:
            self.state = PEER[event][self.state]
        except KeyError:
            raise unlisted("peer", event, self.state) from None
