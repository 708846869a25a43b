"""One service: its name, its workers and its queue, which is fair over routing ids (rule 7)."""

from __future__ import annotations

from collections import Counter, OrderedDict
from math import inf
from typing import TYPE_CHECKING

from majordomus.core.broker.accel import arithmetic
from majordomus.core.broker.state.times import BOXES, TICKS, Waits
from majordomus.core.broker.state.transitions import EXPIRED, FAILED, SERVING
from majordomus.protocol.spec import MMI_PREFIX

_TICKS = TICKS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from majordomus.core.broker.balancing.strategy import Strategy
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.transitions import RequestState
    from majordomus.core.broker.state.workers import RegisteredWorker


class FairQueue:
    """Requests that wait: first those that came back from a worker, then one of each peer in turn.

    front: the requests that came back from a worker.
    declined: for each worker, how many requests in `front` it has rejected. A worker that has
        rejected all of them need not search `front`.
    turns: the other requests of each peer; the peer whose turn it is comes first.
    count: the number of requests.
    size: the bytes of their bodies.
    """

    __slots__ = ("count", "declined", "front", "size", "turns")

    def __init__(self) -> None:
        self.front: OrderedDict[AcceptedRequest, None] = OrderedDict()
        self.declined: Counter[RegisteredWorker] = Counter()
        self.turns: OrderedDict[Peer, OrderedDict[AcceptedRequest, None]] = OrderedDict()
        self.count = 0
        self.size = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[AcceptedRequest]:
        """Every request; `front` first, then peer by peer."""
        yield from self.front
        for own in self.turns.values():
            yield from own

    def push(self, request: AcceptedRequest) -> None:
        """Add `request` behind the others of its peer."""
        own = self.turns.get(request.peer)
        if own is None:
            own = self.turns[request.peer] = OrderedDict()
        own[request] = None
        self._entered(request)

    def push_front(self, request: AcceptedRequest) -> None:
        """Add `request` before all others."""
        self.front[request] = None
        self.front.move_to_end(request, last=False)
        self.declined.update(request.rejected or ())
        self._entered(request)

    def pop_for(self, worker: RegisteredWorker) -> AcceptedRequest | None:
        """Remove and return the next request that `worker` has not rejected; None without one."""
        if self.declined.get(worker, 0) < len(self.front):
            for request in self.front:
                if request.rejected is None or worker not in request.rejected:
                    self.remove(request)
                    return request
        if not self.turns:
            return None
        peer, own = self.turns.popitem(last=False)
        request, _ = own.popitem(last=False)
        if own:
            self.turns[peer] = own
        self._left(request)
        return request

    def remove(self, request: AcceptedRequest) -> None:
        """Remove `request`, which is in this queue."""
        if request in self.front:
            del self.front[request]
            self._forget_rejections(request)
        else:
            own = self.turns[request.peer]
            del own[request]
            if not own:
                del self.turns[request.peer]
        self._left(request)

    def _forget_rejections(self, request: AcceptedRequest) -> None:
        for worker in request.rejected or ():
            self.declined[worker] -= 1
            if not self.declined[worker]:
                del self.declined[worker]

    def _entered(self, request: AcceptedRequest) -> None:
        request.queue = self
        self.count += 1
        self.size += request.size

    def _left(self, request: AcceptedRequest) -> None:
        request.queue = None
        self.count -= 1
        self.size -= request.size


class Service:
    """A name that clients call.

    name: the full name, with the prefix of a tenant.
    newest_worker: of `workers`, the one that registered last; None while no worker serves it. It
        says whether the service is served without reading the dictionary, and is the worker that
        the processor is told to fetch: of one worker it is the right one.
    open: how many open requests it has.
    served: how many requests were answered with status 200.
    known: whether it is the registry's service of its name.
    own: whether the broker answers it itself (`mmi.`).
    given: called with the worker of each dispatch; None where the strategy does not use it.
    strategy: the strategy that chooses among its workers.
    workers: its registered workers by routing id, oldest first.
    waiting: its queue; made when `queue` is first read.
    held: how many of its requests are held by hooks; they count as queued ones do.
    held_bytes: the bytes of their bodies.
    last_worker: when its last worker was lost, in monotonic seconds.
    failed, expired, cancelled: how many requests ended so.
    seconds: how long all requests that a worker got took, in all.
    waits: the times of requests that did not get a worker at once; None before the first.
    _took, _box, _in_box: the histogram of latencies, the bucket of the last latencies, and how many
        of these are not in the histogram yet.
    """

    __slots__ = (
        "_box",
        "_in_box",
        "_took",
        "cancelled",
        "expired",
        "failed",
        "given",
        "held",
        "held_bytes",
        "known",
        "last_worker",
        "name",
        "newest_worker",
        "open",
        "own",
        "seconds",
        "served",
        "strategy",
        "waiting",
        "waits",
        "workers",
    )

    def __init__(self, name: bytes, strategy: Strategy) -> None:
        self.name = name
        self.strategy = strategy
        self.given = strategy.notify_dispatch
        self.newest_worker: RegisteredWorker | None = None
        self.waiting: FairQueue | None = None
        self.workers: dict[bytes, RegisteredWorker] = {}
        self.open = 0
        self.held = 0
        self.held_bytes = 0
        self.known = False
        self.own = name.startswith(MMI_PREFIX)
        self.served = 0
        self.failed = 0
        self.expired = 0
        self.cancelled = 0
        self.seconds = 0.0
        self.waits: Waits | None = None
        self._took: list[int] | None = None
        self._box = 0
        self._in_box = 0
        self.last_worker = -inf

    @property
    def queue(self) -> FairQueue:
        """The queue of the requests that any of its workers may get."""
        if self.waiting is None:
            self.waiting = FairQueue()
        return self.waiting

    @property
    def served_now(self) -> bool:
        """Whether one of its workers takes new requests: one that drains takes none."""
        return any(worker.state is SERVING for worker in self.workers.values())

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        """Return the worker for `request`; None when no worker may have it now."""
        return self.strategy.choose(request)

    def enter(self, worker: RegisteredWorker) -> None:
        """`worker` serves this service from now on."""
        self.workers[worker.id] = worker
        self.newest_worker = worker

    def leave(self, worker: RegisteredWorker) -> None:
        """`worker` no longer serves this service."""
        self.strategy.forget(worker)
        self.workers.pop(worker.id, None)
        if self.newest_worker is worker:
            self.newest_worker = next(reversed(self.workers.values()), None)

    def note(self, took: float) -> None:
        """Count a request that took so many seconds from acceptance to end; each box is twice as
        wide as the one before (times.py)."""
        self.seconds += took
        box = arithmetic.bits(arithmetic.whole(took * _TICKS))
        if box == self._box:
            self._in_box += 1
        else:
            self._next_box(box)

    def note_wait(self, waited: float, took: float) -> None:
        """Count the waiting time of a request that `note` has counted."""
        waits = self._waits()
        waits.waited_seconds += waited
        waits.waited[arithmetic.bits(arithmetic.whole(waited * _TICKS))] += 1
        waits.took[arithmetic.bits(arithmetic.whole(took * _TICKS))] += 1
        waits.served[arithmetic.bits(arithmetic.whole((took - waited) * _TICKS))] += 1

    def note_unserved(self, waited: float) -> None:
        """Count the waiting time of a request that no worker got."""
        waits = self._waits()
        waits.unserved_seconds += waited
        waits.waited[arithmetic.bits(arithmetic.whole(waited * _TICKS))] += 1

    def note_end(self, state: RequestState) -> None:
        """Count a request that has ended without an answer of status 200."""
        if state is FAILED:
            self.failed += 1
        elif state is EXPIRED:
            self.expired += 1
        else:
            self.cancelled += 1

    def forget_times(self) -> None:
        """Count from 0 again."""
        self.served = self.failed = self.expired = self.cancelled = 0
        self.seconds = 0.0
        self.waits = self._took = None
        self._box = self._in_box = 0

    @property
    def counted(self) -> bool:
        """Whether a request of it has been counted."""
        return bool(self.served or self.failed or self.expired or self.cancelled)

    def _waits(self) -> Waits:
        if self.waits is None:
            self.waits = Waits()
        return self.waits

    def _next_box(self, box: int) -> None:
        if self._took is None:
            self._took = [0] * BOXES
        self._took[self._box] += self._in_box
        self._box = box
        self._in_box = 1

    @property
    def took(self) -> list[int]:
        """The histogram of the times from acceptance to end."""
        boxes = [0] * BOXES if self._took is None else self._took.copy()
        boxes[self._box] += self._in_box
        return boxes
