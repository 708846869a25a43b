"""Workers that are lost, and what becomes of the requests that they held.

The half of rule 3 that no worker has a word in lives here: what may be tried again, and what fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from majordomus.core.broker.error_texts import TARGET_GONE, no_worker_serves
from majordomus.core.broker.state.history import note
from majordomus.core.broker.state.transitions import AT_WORKER, STREAMING
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.core.broker.completion import Completion
    from majordomus.core.broker.queueing import Queueing
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.services import Service
    from majordomus.core.broker.state.workers import RegisteredWorker


class Retries:
    """Decides for each request of a lost worker whether it is tried again."""

    def __init__(self, registry: Registry, queueing: Queueing, completion: Completion) -> None:
        self.registry = registry
        self.queueing = queueing
        self.completion = completion

    def worker_lost(self, worker: RegisteredWorker, why: str, now: float) -> None:
        """`worker` is lost: what it held goes to another worker where that is allowed (rule 3)."""
        worker.move("lose")
        registry = self.registry
        services = list(worker.order)
        for service in services:
            service.leave(worker)
            service.last_worker = now
            if not service.workers:
                registry.served.pop(service, None)
        held = list(worker.held.values())
        for request in held:
            registry.dispatch_table.take(worker, request.dispatch_id)
            worker.let_go(request)
        registry.workers.pop(worker.id, None)
        for request in list(worker.reserved):
            self.completion.fail(request, spec.NOT_FOUND, TARGET_GONE, now)
        unsent = worker.undelivered or ()
        again = [r for r in held if self._may_retry(r, r.dispatch_id in unsent, why, now)]
        self.queueing.requeue(again, now)
        for service in services:
            self._fail_unservable(service, now)
            registry.tidy(service)

    def _fail_unservable(self, service: Service, now: float) -> None:
        """The worker that left may have been the last, or the last that had not declined."""
        for request in [r for r in service.queue.front if self.queueing.rejected_by_all(r)]:
            self.queueing.fail_rejected(request, now)
        if not service.workers:
            for request in [r for r in service.queue if r.flags & spec.FAIL_FAST]:
                text = no_worker_serves(self.registry, request.called, request.caller)
                self.completion.fail(request, spec.UNAVAILABLE, text, now)

    def _may_retry(self, request: AcceptedRequest, undelivered: bool, why: str, now: float) -> bool:
        """Whether a request of a lost worker may be tried again; if not, its client gets 502."""
        if request.state not in AT_WORKER:
            return False
        may = request.state is not STREAMING and (undelivered or not request.flags & spec.ONCE)
        if may and undelivered:
            request.attempt -= 1
        if may and request.target is None and request.attempt < self.registry.settings.max_attempts:
            self.registry.counts.retried += 1
            note(request, f"lost: {why}", now)
            return True
        self.completion.fail(
            request, spec.WORKER_LOST, f"worker lost ({why}) at attempt {request.attempt}", now
        )
        return False

    def note_unsent(self, worker: RegisteredWorker, command: int, conversation: object) -> None:
        """Note a send to `worker` that never left the broker. A handler cannot have run for a
        REQUEST of that kind, so it does not count as an attempt."""
        if command == spec.REQUEST and isinstance(conversation, int):
            worker.not_delivered(conversation)
