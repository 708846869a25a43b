"""A request waits for a worker, and a worker that has a free slot gets the next request.

Rules 6 and 7 are here, the bounds of the queues (rule 4), and the half of rule 3 that is about
order: the choice of a worker for a request, the choice of a request for a worker, and the place of
a request that comes back from a worker.

The path of a call without backlog is `place`: choose a worker, dispatch. Everything else is for
requests that have to wait. What ends a request is called through a Protocol (streams.py), because
completion.py makes this class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.core.broker.error_texts import TARGET_DRAINS, no_worker_serves
from majordomus.core.broker.state.history import note
from majordomus.core.broker.state.transitions import AT_WORKER, OPEN, SERVING, STREAMING
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from majordomus.core.broker.dispatch import Dispatcher
    from majordomus.core.broker.state.identity import Caller
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.services import FairQueue, Service
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.core.broker.streams import EndsRequests, Streams

DELPHI = Dialect.DELPHI
NO_OTHER_WORKER: Final = "no other worker is free for a second try"


class Queueing:
    """Places requests, and feeds workers."""

    def __init__(
        self, registry: Registry, dispatcher: Dispatcher, streams: Streams, ends: EndsRequests
    ) -> None:
        self.registry = registry
        self.dispatcher = dispatcher
        self.streams = streams
        self.ends = ends

    # ── a request looks for a worker ──────────────────────────────────────────────────────────────

    def place(self, request: AcceptedRequest, now: float) -> None:
        """Dispatch `request` if a worker is free for it; else queue it behind the other requests
        of its peer. A hedge is not queued: it fails. An expired request is never dispatched
        (rule 5): a hook may have held it until now."""
        if request.deadline <= now:
            self.ends.expire(request, now)
            return
        # `_choose` and `_dispatch` are written out here: this is the path of every call
        if request.target is None:
            worker = request.service.strategy.choose(request)
        else:
            worker = self._choose(request)
        if worker is not None:
            self.dispatcher.dispatch(request, worker, now)
            if request.stream is not None:
                self.streams.dispatch(request, request.stream, worker, now)
            return
        if request.hedge:
            self.ends.fail(request, spec.UNAVAILABLE, NO_OTHER_WORKER, now)
            return
        registry = self.registry
        full = exceeded_bound(registry, request)
        if full and not request.flags & spec.DURABLE:  # it was accepted: it has to wait
            self.ends.fail(request, spec.TOO_MANY, full, now)
            return
        request.move("queue")
        queue = self._queue_of(request)
        request.behind = queue.count if request.service.workers else -1
        queue.push(request)
        registry.enter_queue(request)
        registry.backlogged[request.service] = None

    def _choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        """The worker for `request`: the one that it names, or the choice of the service's strategy;
        None when no worker may have it now."""
        target = request.target
        if target is not None:
            return target if target.has_free_slot() else None
        return request.service.strategy.choose(request)

    def _dispatch(self, request: AcceptedRequest, worker: RegisteredWorker, now: float) -> None:
        self.dispatcher.dispatch(request, worker, now)
        if request.stream is not None:
            self.streams.dispatch(request, request.stream, worker, now)

    def _queue_of(self, request: AcceptedRequest) -> FairQueue:
        return request.target.reserved if request.target else request.service.queue

    # ── a worker has a free slot ──────────────────────────────────────────────────────────────────

    def feed(self, worker: RegisteredWorker, now: float) -> None:
        """Dispatch waiting requests to `worker` as long as it has free slots (rule 6)."""
        if not self.registry.queued:
            return
        while worker.has_free_slot():
            request = self._next_for(worker)
            if request is None:
                return
            self.registry.leave_queue(request)
            if request.deadline <= now:
                self.ends.expire(request, now)
            else:
                self._dispatch(request, worker, now)

    def reweigh(self, worker: RegisteredWorker, now: float) -> None:
        """Act on a change of `worker`'s capacity, state or load."""
        self.dispatcher.weigh(worker)
        self.feed(worker, now)

    def _next_for(self, worker: RegisteredWorker) -> AcceptedRequest | None:
        """Take the next request for `worker`: in turns one that names this worker and one that does
        not, so that no client passes the others by naming workers (rule 7)."""
        reserved = worker.waiting
        if reserved is not None and reserved.count and not worker.reserved_last:
            worker.reserved_last = True
            return reserved.pop_for(worker)
        worker.reserved_last = False
        request = self._next_of_services(worker)
        return reserved.pop_for(worker) if request is None and reserved is not None else request

    def _next_of_services(self, worker: RegisteredWorker) -> AcceptedRequest | None:
        order = worker.order
        backlogged = self.registry.backlogged
        if len(backlogged) < len(order):
            for service in backlogged:
                if service.name in worker.services:
                    request = service.queue.pop_for(worker)
                    if request is not None:
                        backlogged.move_to_end(service)
                        return request
            return None
        for _ in range(len(order)):
            service = order[0]
            order.append(order.pop(0))
            if service.waiting is not None and service.waiting.count:
                request = service.waiting.pop_for(worker)
                if request is not None:
                    return request
        return None

    # ── a request comes back from a worker ────────────────────────────────────────────────────────

    def reject(self, request: AcceptedRequest, worker: RegisteredWorker, now: float) -> None:
        """REJECT: the handler did not run, so it is no attempt, and another worker gets the
        request."""
        self.registry.counts.rejected += 1
        if request.state not in AT_WORKER:
            return
        if request.state is STREAMING:
            text = "the worker declined after parts had passed"
            self.ends.fail(request, spec.WORKER_LOST, text, now)
            return
        note(request, "declined", now)
        request.attempt -= 1
        rejected = request.rejected = request.rejected or set()
        rejected.add(worker)
        self.requeue((request,), now)

    def requeue(self, requests: Iterable[AcceptedRequest], now: float) -> None:
        """Dispatch requests that came back from a worker to other workers, or queue them in front
        (rule 3). `requests`: the oldest first."""
        waiting: list[AcceptedRequest] = []
        for request in requests:
            if request.deadline <= now:
                self.ends.expire(request, now)
                continue
            if self.rejected_by_all(request) and not request.hedge:
                self.fail_rejected(request, now)
                continue
            request.move("queue")
            request.worker = None
            worker = self._choose(request)
            if worker is not None:
                self._dispatch(request, worker, now)
            elif request.hedge:
                self.ends.fail(request, spec.UNAVAILABLE, NO_OTHER_WORKER, now)
            elif hopeless := self._hopeless(request):
                self.ends.fail(request, spec.UNAVAILABLE, hopeless, now)
            else:
                waiting.append(request)
        for request in reversed(waiting):
            self._queue_of(request).push_front(request)
            self.registry.enter_queue(request)
            self.registry.backlogged[request.service] = None

    def give_up(self, queue: FairQueue, now: float) -> None:
        """Fail the FAIL-FAST requests in `queue` that no worker may take any more, because the last
        one was lost or drains."""
        for request in [r for r in queue if r.flags & spec.FAIL_FAST]:
            hopeless = self._hopeless(request)
            if not hopeless:
                return  # nor is any other of the same queue
            self.ends.fail(request, spec.UNAVAILABLE, hopeless, now)

    def drains(self, worker: RegisteredWorker, now: float) -> None:
        """`worker` takes nothing new from now on."""
        if worker.waiting is not None:
            self.give_up(worker.waiting, now)
        for service in list(worker.order):
            if service.waiting is not None and not service.served_now:
                self.give_up(service.waiting, now)

    def _hopeless(self, request: AcceptedRequest) -> str:
        """Why `request` may not wait; empty when it may."""
        if not request.flags & spec.FAIL_FAST:
            return ""
        service, target = request.service, request.target
        return hopeless_now(self.registry, service, target, request.called, request.caller)

    def rejected_by_all(self, request: AcceptedRequest) -> bool:
        """Whether every worker that may have `request` has rejected it."""
        if request.rejected is None:
            return False
        if request.target is not None:
            return request.target in request.rejected
        workers = request.service.workers.values()
        return bool(workers) and all(worker in request.rejected for worker in workers)

    def fail_rejected(self, request: AcceptedRequest, now: float) -> None:
        """503: no worker is left that might take `request`."""
        text = f"every worker of '{request.called.decode()}' declined"
        self.ends.fail(request, spec.UNAVAILABLE, text, now)

    def ended_at(self, request: AcceptedRequest, worker: RegisteredWorker, now: float) -> None:
        """Free the slots that `worker` will not give back itself, after `request` has ended there.

        A worker that has not got `request`, because its socket was full, or because it is a legacy
        worker and the stream of the client was still open, has no trace of it. A Delphi worker
        need not answer: see `_free_oldest_slot`.
        """
        if worker.is_undelivered(request.dispatch_id):
            worker.delivered(request.dispatch_id)
            if self.dispatcher.release(worker, request.dispatch_id) is not None:
                self.feed(worker, now)
        if worker.dialect is DELPHI:
            self._free_oldest_slot(worker, now)

    def _free_oldest_slot(self, worker: RegisteredWorker, now: float) -> None:
        """Forget the oldest unanswered request of a Delphi worker that has no free slot.

        It need not answer what it gets (docs/spec/delphi.md), so its slots would never come back.
        """
        if worker.holding < worker.capacity:
            return
        request = worker.oldest
        while request is not None and request.state in OPEN:
            request = request.newer
        if request is not None:
            self.registry.count_dropped("never-answered", worker.id)
            self.dispatcher.release(worker, request.dispatch_id)
            self.feed(worker, now)


def hopeless_now(
    registry: Registry,
    service: Service,
    target: RegisteredWorker | None,
    called: bytes,
    caller: Peer | Caller,
) -> str:
    """Why a FAIL-FAST request to `service`, or to the worker `target`, gets 503 at once: no worker
    is there that takes new requests. Empty when one is."""
    if target is not None:
        return "" if target.state is SERVING else TARGET_DRAINS
    if (service.own and not service.known) or service.served_now:
        return ""
    return no_worker_serves(registry, service, called, caller)


def exceeded_bound(registry: Registry, request: AcceptedRequest, more: int = 0) -> str:
    """Describe the bound of the queues that `request` would exceed with `more` bytes (rule 4);
    empty when there is none. What hooks hold counts toward the bounds as what is queued does."""
    settings, size = registry.settings, request.size + more
    queue, peer, service = (
        request.target.reserved if request.target else request.service.queue,
        request.peer,
        request.service,
    )
    name = request.called.decode()
    count, waiting = queue.count + service.held, queue.size + service.held_bytes
    if count >= settings.max_service_queue:
        return f"{count} requests wait for service '{name}' already"
    if waiting + size > settings.max_service_queue_bytes:
        return f"{waiting} bytes wait for service '{name}' already"
    if peer.queued >= settings.max_client_queue:
        return f"{peer.queued} requests of this client wait already"
    if peer.queued_bytes + size > settings.max_client_queue_bytes:
        return f"{peer.queued_bytes} bytes of this client wait already"
    if registry.queued >= settings.max_queue:
        return f"{registry.queued} requests wait at this broker already"
    if registry.queued_bytes + size > settings.max_queue_bytes:
        return f"{registry.queued_bytes} bytes wait at this broker already"
    return ""
