"""One worker: what it serves, what it holds, how loaded it says it is. No rule lives here."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from majordomus.core.services import FairQueue
from majordomus.core.states import SERVING, WORKER, WorkerState, unlisted
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.core.balancing import Place
    from majordomus.core.peers import Peer
    from majordomus.core.requests import Request
    from majordomus.core.services import Service


class Worker:
    """A peer that serves. ``held`` are its slots in use, by dispatch number, ended requests
    included. ``place``: where the strategy that last had it in a ring keeps it. ``answered``: of a
    Delphi worker, the handles that it may use again, with the handles of their clients."""

    __slots__ = (
        "answered",
        "busy_since",
        "capacity",
        "dialect",
        "handles",
        "held",
        "id",
        "last_beat_sent",
        "load",
        "metadata",
        "order",
        "peer",
        "place",
        "reserved",
        "reserved_last",
        "services",
        "state",
        "undelivered",
    )

    def __init__(self, peer: Peer, dialect: Dialect, capacity: int, now: float) -> None:
        self.peer = peer
        self.id = peer.id
        self.dialect = dialect
        self.capacity = capacity
        self.state = WorkerState.SERVING
        self.services: dict[bytes, Service] = {}
        self.metadata: dict[bytes, bytes] = {}
        self.order: list[Service] = []
        self.held: dict[int, Request] = {}
        self.handles: dict[bytes, deque[int]] = {}
        self.undelivered: set[int] = set()
        self.answered: dict[bytes, bytes] | None = None
        self.reserved = FairQueue()
        self.reserved_last = False
        self.place: Place | None = None
        self.load: float | None = None
        self.busy_since = now
        self.last_beat_sent = now

    def has_room(self) -> bool:
        """Whether a slot may be given out now."""
        if self.state is not SERVING or (self.load is not None and self.load == -1.0):
            return False
        return len(self.held) < self.capacity

    @property
    def free(self) -> int:
        """Slots that may be given out now."""
        if self.state is not WorkerState.SERVING or self.load == -1.0:
            return 0
        return max(0, self.capacity - len(self.held))

    def move(self, event: str) -> None:
        """Follow `event` through the table of states."""
        try:
            self.state = WORKER[event][self.state]
        except KeyError:
            raise unlisted("worker", event, self.state) from None
