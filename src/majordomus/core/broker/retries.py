"""Workers that are lost, and what becomes of the requests that they held.

The half of rule 3 that no worker has a word in lives here: what may be tried again, and what fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from majordomus.core.broker.error_texts import TARGET_GONE, no_worker_serves
from majordomus.core.broker.outgoing import command_of
from majordomus.core.broker.state.history import note
from majordomus.core.broker.state.transitions import AT_WORKER, STREAMING
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.core.broker.dispatch import Dispatcher
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.services import Service
    from majordomus.core.broker.state.workers import RegisteredWorker
    from majordomus.protocol.spec import Frame

MDP03 = Dialect.MDP03


class Retries:
    """Draws the consequences. Belongs to the dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.registry = dispatcher.registry

    def dismiss(self, worker: RegisteredWorker, why: str, now: float) -> None:
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
            registry.dispatched.take(worker, request.dispatch)
            worker.let_go(request)
        registry.workers.pop(worker.id, None)
        for request in list(worker.reserved):
            self.dispatcher.fail(request, spec.NOT_FOUND, TARGET_GONE, now)
        unsent = worker.undelivered or ()
        again = [r for r in held if self._survives(r, r.dispatch in unsent, why, now)]
        self.dispatcher.requeue(again, now)
        for service in services:
            self._give_up_hopeless(service, now)
            registry.tidy(service)

    def _give_up_hopeless(self, service: Service, now: float) -> None:
        """The worker that left may have been the last, or the last that had not declined."""
        for request in [r for r in service.queue.front if self.dispatcher.declined_by_all(r)]:
            self.dispatcher.fail_declined(request, now)
        if not service.workers:
            for request in [r for r in service.queue if r.flags & spec.FAIL_FAST]:
                text = no_worker_serves(self.registry, request.called, request.caller)
                self.dispatcher.fail(request, spec.UNAVAILABLE, text, now)

    def _survives(self, request: AcceptedRequest, undelivered: bool, why: str, now: float) -> bool:
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
        self.dispatcher.fail(
            request, spec.WORKER_LOST, f"worker lost ({why}) at attempt {request.attempt}", now
        )
        return False

    def never_left(self, worker: RegisteredWorker, frames: list[Frame]) -> None:
        """A REQUEST that never left proves that nothing ran: it does not count as an attempt."""
        if worker.dialect is MDP03:
            command, number, _ = command_of(frames)
            if command == spec.REQUEST:
                worker.not_delivered(number)
            return
        for frame in frames[2:4]:
            waiting = worker.handles.get(bytes(frame), ())
            for number in reversed(waiting):
                if not worker.is_undelivered(number):
                    worker.not_delivered(number)
                    break
