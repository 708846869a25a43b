"""The requests of a lost worker: which are tried again, and which fail.

This is the half of rule 3 about lost workers. The half about REJECT is in queueing.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from majordomus.core.broker import contracts
from majordomus.core.broker.accel import links
from majordomus.core.broker.error_texts import TARGET_GONE
from majordomus.core.broker.state.history import note
from majordomus.core.broker.state.peers import is_dispatch
from majordomus.core.broker.state.transitions import AT_WORKER, OPEN, STREAMING
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
        """Unregister a lost worker. Its requests go to other workers where rule 3 allows it; the
        rest fail."""
        worker.move("lose")
        registry = self.registry
        if worker in registry.contracts.workers:
            contracts.worker_lost(registry, self.completion.outgoing, worker, now)
        services = list(worker.order)
        for service in services:
            service.leave(worker)
            service.last_worker = now
            if not service.workers:
                registry.served.pop(service, None)
        held = list(worker.held.values())
        for request in held:
            registry.dispatch_table.take(worker, request.dispatch_id)
            links.let_go(worker, request)
            if request.slot_cost:
                registry.account.free_slot(worker, request)
        registry.workers.pop(worker.id, None)
        registry.account.register(worker, -worker.cost)
        for request in list(worker.reserved):
            self.completion.fail(request, spec.NOT_FOUND, TARGET_GONE, now)
        unsent = worker.undelivered or ()
        again = [r for r in held if self._may_retry(r, r.dispatch_id in unsent, why, now)]
        self.queueing.requeue(again, now)
        for service in services:
            self._fail_unservable(service, now)
            registry.tidy(service)

    def _fail_unservable(self, service: Service, now: float) -> None:
        """Fail the requests that no remaining worker of `service` can take: all have rejected them,
        or none is left for a request that must not wait."""
        for request in [r for r in service.queue.front if self.queueing.rejected_by_all(r)]:
            self.queueing.fail_rejected(request, now)
        if not service.served_now:
            self.queueing.give_up(service.queue, now)

    def _may_retry(self, request: AcceptedRequest, undelivered: bool, why: str, now: float) -> bool:
        """Whether a request of a lost worker may be tried again; if not, its client gets 502.

        `undelivered`: its REQUEST never left the broker, so the dispatch is no attempt.
        """
        if request.state not in AT_WORKER:
            return False
        once = request.flags & (spec.ONCE | spec.DURABLE)  # a durable one has a policy of its own
        may = request.state is not STREAMING and (undelivered or not once)
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

    def refused(
        self, worker: RegisteredWorker, command: int, conversation: object, now: float
    ) -> bool:
        """Whether a send that the full socket of `worker` has refused may wait. Nothing waits for
        a dispatch that ended before its REQUEST left (rule 5); its slot is free again."""
        if not isinstance(conversation, int) or not is_dispatch(conversation):
            return True
        request = self.registry.dispatch_table.of(worker, conversation)
        if request is not None and command == spec.REQUEST and request.state not in OPEN:
            worker.not_delivered(conversation)
            self.queueing.ended_at(request, worker, now)
            return False
        return request is not None

    def note_unsent(self, worker: RegisteredWorker, command: int, conversation: object) -> None:
        """Note a send to `worker` that never left the broker. No handler can have run for such a
        REQUEST, so it does not count as an attempt."""
        if command == spec.REQUEST and isinstance(conversation, int):
            worker.not_delivered(conversation)
