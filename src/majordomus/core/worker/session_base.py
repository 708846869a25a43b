"""The base of a worker's session: its state, its registration, and what the end of a connection
causes.

`WorkerSession` adds the commands about dispatches and the messages of the broker.
"""

from __future__ import annotations

from itertools import count
from math import inf
from typing import Any, NamedTuple, TypeAlias
from typing import Final as Constant

from majordomus.contracts.model import hash_of
from majordomus.core.session.backoff import Rng
from majordomus.core.session.connection import Change, Connection
from majordomus.core.session.events import EventReceived, SessionEvents, SubscriptionRefused
from majordomus.core.session.machine import Session
from majordomus.core.session.outbox import SessionOutbox, Tag
from majordomus.core.session.settings import IdSource, WorkerSettings
from majordomus.core.session.transitions import DispatchState
from majordomus.core.worker import encoding
from majordomus.core.worker.streams import DispatchCredit, DispatchStreams, Incoming
from majordomus.errors import LocalProtocolError
from majordomus.protocol import spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.fields import written_service
from majordomus.protocol.mdp03 import Fields
from majordomus.protocol.spec import Dialect, Frame

_CANCELLED: Constant = DispatchState.CANCELLED

_EPOCH: Constant = 1 << 64
_JOINING: Constant = frozenset((Dialect.MDP01, Dialect.DELPHI))


class Dispatch:
    """The delivery of one request to this worker, which has to answer it.

    ``id``: the dispatch's number, unique in the session.
    ``service``: the name that was called.
    ``frames``: the body.
    ``client``: the handle of the client.
    ``deadline``: monotonic seconds, inf if there is none.
    ``metadata``: the client's packed map, checked; a client may write anything into it.
    ``broker_metadata``: the broker's packed map, checked.
    ``flags``: of the REQUEST.
    """

    __slots__ = (
        "broker_metadata",
        "client",
        "deadline",
        "flags",
        "frames",
        "id",
        "metadata",
        "service",
    )

    def __init__(
        self,
        id: int,
        service: bytes,
        frames: list[Frame],
        client: bytes,
        deadline: float,
        metadata: bytes,
        broker_metadata: bytes,
        flags: int,
    ) -> None:
        self.id = id
        self.service = service
        self.frames = frames
        self.client = client
        self.deadline = deadline
        self.metadata = metadata
        self.broker_metadata = broker_metadata
        self.flags = flags

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Dispatch):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in Dispatch.__slots__)

    __hash__ = None  # type: ignore[assignment]  # frames may be changed

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in Dispatch.__slots__)
        return f"Dispatch({fields})"


def make_dispatch(
    id: int,
    service: bytes,
    frames: list[Frame],
    client: bytes,
    deadline: float,
    metadata: bytes,
    broker_metadata: bytes,
    flags: int,
) -> Dispatch:
    """Make a `Dispatch`. A compiled call by position builds no argument tuple; a class does."""
    made = Dispatch.__new__(Dispatch)
    made.id = id
    made.service = service
    made.frames = frames
    made.client = client
    made.deadline = deadline
    made.metadata = metadata
    made.broker_metadata = broker_metadata
    made.flags = flags
    return made


class Cancel(NamedTuple):
    """The answer to a dispatch is not needed any more; a held one must still be answered."""

    id: int


class Disconnected(NamedTuple):
    """The broker disconnected, with a status and a sentence as in a FINAL.

    ``service``: the one that it refuses; empty when it names none.
    """

    status: int
    text: str
    service: str = ""


WorkerEvent: TypeAlias = (
    Dispatch
    | Cancel
    | Incoming
    | DispatchCredit
    | EventReceived
    | SubscriptionRefused
    | Disconnected
)


class LegacyReply(NamedTuple):
    """What the reply to a legacy dispatch needs.

    ``address``: the handle of the client. ``parts``: frames of parts that are joined into it.
    """

    address: bytes
    parts: list[Frame]


class WorkerSessionBase(Session):
    """The state of one session, and the life of its connection. See `WorkerSession`."""

    def __init__(self, settings: WorkerSettings, ids: IdSource, rng: Rng) -> None:
        self.settings = settings
        self.ready = False
        self.worker_id = b""
        self.late = 0
        self.invalid: dict[str, int] = {}
        self.welcome: dict[str, Any] = {}
        self._codec = LEGACY.get(settings.dialect)
        self._services = {written_service(service): None for service in settings.services}
        if self._codec is not None and len(self._services) != 1:
            raise LocalProtocolError("one-service", f"{settings.dialect} workers serve exactly one")
        self._service = next(iter(self._services), b"")
        # The name in the last REQUEST that had one of ours. As the same object it has its hash.
        self._called: bytes | None = None
        self._delphi = settings.dialect is Dialect.DELPHI
        self._busy_is_silent = self._codec is not None and not self._delphi
        self._joining = settings.dialect in _JOINING
        self._capacity = checked_capacity(settings.capacity)
        self._load: float | None = None
        interval = settings.interval
        self._connection = Connection(
            endpoints=1,
            connect_timeout=settings.connect_timeout,
            first=settings.reconnect_first,
            most=settings.reconnect_most,
            free=0,
            interval=min(interval, spec.DELPHI_HEARTBEAT_INTERVAL) if self._delphi else interval,
            liveness=settings.liveness,
            always=True,
            rng=rng,
            max_received=settings.max_received,
        )
        self._outbox = SessionOutbox()
        self._header = Fields()
        self._streams = DispatchStreams(self._outbox)
        self._event_ids = count(1)
        self.events = SessionEvents(self._outbox, lambda: next(self._event_ids))
        self._dispatches: dict[int, DispatchState] = {}
        self._legacy_replies: dict[int, LegacyReply] = {}
        self._base = (
            0  # the id of a REQUEST plus this is its dispatch_id, which is never used again
        )
        self._last = 0
        self._draining = False
        self._unregistered: list[bytes] = []  # services that were added while the worker drained
        self._left = False
        self._settle_at = inf
        self._events: list[WorkerEvent] = []
        self._taken: list[WorkerEvent] = []
        self._contracts: dict[bytes, tuple[str, bytes]] = {}  # of each service: hash and bytes
        for service, contract in settings.contracts.items():
            self._set_contract(service, contract)

    # ── reports of the shell ──────────────────────────────────────────────────────────────────────

    @property
    def connection(self) -> Connection:
        """The state of the connection, for the shell's reports about it."""
        return self._connection

    def connected(self, now: float) -> None:
        """The socket has a connection to the broker."""
        self._apply(self._connection.step("connected", now), now)

    def lost(self, now: float) -> None:
        """The connection has ended; what had arrived on it was handed to `receive` before."""
        self._apply(self._connection.step("lost", now), now)

    def refused(self, frames: list[Frame], tag: Tag, now: float) -> None:
        """Try `frames`, one of the last sends, again, because the socket did not take them.

        The shell reports refusals in order, before it does anything else.
        """
        if not self._connection.open:
            return
        if self._codec is None and tag == spec.HEARTBEAT:
            self._outbox.block(now)
        else:
            self._outbox.keep(frames, tag, now)

    def tick(self, now: float) -> None:
        """Do what is due at `now`; to be called when `next_deadline` has come."""
        connection = self._connection
        if now >= connection.due:
            if self._busy_is_silent and self._dispatches:
                connection.restart_silence(now)  # these brokers send no heartbeats to a busy worker
            change = connection.tick(now)
            if change is Change.HEARTBEAT:
                self._heartbeat()
            else:
                self._apply(change, now, notify=True)
        if now >= self._outbox.due and not self._outbox.retry(now):
            self._outbox.unblock()
        if now >= self._settle_at:
            self._settle_at = inf
            self._leave_if_idle(now)

    def next_deadline(self) -> float:
        """When `tick` is next needed, in monotonic seconds; inf when time changes nothing."""
        return min(self._connection.due, self._outbox.due, self._settle_at)

    def take_effects(self) -> tuple[list[list[Frame]], list[Tag], list[WorkerEvent], bool]:
        """Return the sends, their tags, the events, and whether the shell must replace its socket.

        It then closes the socket after these sends, and opens one with a new routing id.

        The lists are good until the next call, which empties them.
        """
        events = self._events
        self._events, self._taken = self._taken, events
        if self._events:
            del self._events[:]
        sends, tags = self._outbox.take()
        renew = self._connection.renew
        if renew:
            self._connection.renewed()
        return sends, tags, events, renew

    # ── the connection ────────────────────────────────────────────────────────────────────────────

    def _apply(self, change: Change, now: float, *, notify: bool = False) -> None:
        """Do what a change of the connection requires.

        `notify`: the broker gets a DISCONNECT, because the session ends the connection.
        """
        if change is Change.OPENED:
            if not self._draining:
                self._register_all(now)
        elif change is Change.ENDED:
            self._drop_dispatches()
            self._outbox.clear()
            if notify:
                self._outbox.put(self._disconnect(), spec.DISCONNECT)
            self._settle_at = inf
            self._leave_if_idle(now)

    def _register_all(self, now: float) -> None:
        self._unregistered.clear()
        for service in self._services:
            self._register(service, now)
        self.events.resubscribe()

    def _register(self, service: bytes, now: float) -> None:
        """Send READY. In a dialect without an answer to it, the session is ready at once."""
        if self._codec is None:
            settings = self.settings
            attempts = settings.durable.get(service)
            contract, _ = self._contracts.get(service, ("", b""))
            ready = encoding.ready(service, self._capacity, settings.weight, attempts, contract)
            self._outbox.put(ready, spec.READY)
        else:
            self._outbox.put(self._codec.w2b_ready(service), spec.READY)
            self.ready = not self._delphi
        if not self._connection.present:
            self._connection.begin_presence(now)

    def _set_contract(self, service: bytes, contract: bytes) -> None:
        """State `contract`, canonical bytes, in READY from now on; empty states none."""
        if contract:
            self._contracts[service] = hash_of(contract), contract
        else:
            self._contracts.pop(service, None)

    def _heartbeat(self) -> None:
        """ "A worker sends one per interval whatever else it sent" (docs/spec/mdp-0.3.md)."""
        if self._outbox.blocked:
            return
        if self._codec is None:
            self._outbox.put(encoding.heartbeat(self._load), spec.HEARTBEAT)
        else:
            heartbeat = self._codec.w2b_heartbeat(self._service, self._load)
            self._outbox.put(heartbeat, spec.HEARTBEAT)

    def _drop_dispatches(self) -> None:
        """Cancel and drop all dispatches, because their connection has ended."""
        for dispatch_id, state in self._dispatches.items():
            if state is not _CANCELLED:
                self._events.append(Cancel(dispatch_id))
        self._dispatches.clear()
        self._legacy_replies.clear()
        self._streams.of.clear()
        self._unregistered.clear()
        self._base += _EPOCH
        self.ready = False
        self.worker_id = b""

    def _leave_if_idle(self, now: float) -> None:
        """Disconnect a legacy worker that drains and holds no dispatch."""
        if self._codec is None or not self._draining or self._dispatches:
            return
        if not self._connection.open:
            self._connection.step("close", now)
        elif not self._left:
            self._left = True
            self.ready = False
            self._outbox.put(self._disconnect(), spec.DISCONNECT)
            self._connection.end_presence()

    def _disconnect(self) -> list[Frame]:
        if self._codec is None:
            return [encoding.DISCONNECT]
        return self._codec.w2b_disconnect(self._service)


def checked_capacity(capacity: int) -> int:
    if not 0 < capacity <= spec.MAX_CAPACITY:
        raise LocalProtocolError("bad-capacity", f"{capacity} is not 1..{spec.MAX_CAPACITY}")
    return capacity
