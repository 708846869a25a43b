"""A request goes to a worker and takes a slot there; the slot comes back.

The slot rule of MDP/0.3 and rule 2 are here. A slot is taken when a REQUEST is sent. It is given
back by the FINAL or the REJECT of that dispatch, or by the loss of the worker. Only the worker that
holds a dispatch can answer it. Requests are ended in completion.py and chosen in queueing.py.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from majordomus.core.broker import encoding
from majordomus.core.broker.accel import links
from majordomus.core.broker.balancing.registry import set_weight
from majordomus.core.broker.state.transitions import SERVING, STEPS, unlisted
from majordomus.protocol import spec
from majordomus.protocol.spec import BROKER_ID_BIT, Dialect

if TYPE_CHECKING:
    from majordomus.core.broker.outgoing import Outgoing
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.services import Service
    from majordomus.core.broker.state.workers import RegisteredWorker

MDP03 = Dialect.MDP03
DISPATCH = STEPS["dispatch"]
REQUEST = spec.REQUEST
"""The command in the tag of a dispatch: compiled, one object for all of them."""


class Dispatcher:
    """Takes slots of workers and gives them back."""

    def __init__(self, registry: Registry, outgoing: Outgoing) -> None:
        self.registry = registry
        self.outgoing = outgoing

    def dispatch(self, request: AcceptedRequest, worker: RegisteredWorker, now: float) -> None:
        """Take a slot of `worker` for `request`, and send it the REQUEST.

        For a request with a stream nothing is sent here: see `Streams.dispatch`.
        """
        registry = self.registry
        at = request.state
        after = DISPATCH[at]  # `request.follow(DISPATCH)`, without its call
        if after is None:
            raise unlisted("request", "dispatch", request.state)
        request.state = after
        request.attempt += 1
        request.given = now
        request.worker = worker
        number = registry.last_number = registry.dispatch_table.give(request, registry.last_number)
        request.dispatch_id = BROKER_ID_BIT | number
        if not worker.holding:
            worker.busy_since = now
        links.hold(worker, request)
        tag = None  # it is in the header
        if worker.dialect is not MDP03:
            tag = request.dispatch_id
            self._remember_handle(worker, request)
        registry.counts.dispatched += 1
        service = request.service
        if service.given is not None:
            service.given(worker)
        self.weigh(worker)
        if request.stream is None:
            message = encoding.request_to(worker, request, now)
            self.outgoing.send(worker.peer, message, REQUEST, tag, now)

    def release(self, worker: RegisteredWorker, dispatch_id: int) -> AcceptedRequest | None:
        """Give back the slot of a dispatch; None when `worker` does not hold it (rule 2)."""
        request = self.registry.dispatch_table.take(worker, dispatch_id)
        if request is None:
            return None
        links.let_go(worker, request)
        if request.slot_cost:
            self.registry.account.free_slot(worker, request)
        if worker.dialect is not MDP03:
            self._forget_handle(worker, request, dispatch_id)
        self.weigh(worker)
        return request

    def held_as(self, worker: RegisteredWorker | None, dispatch_id: int) -> AcceptedRequest | None:
        """Return the request that holds a slot of `worker` as this dispatch; None without one."""
        return None if worker is None else self.registry.dispatch_table.of(worker, dispatch_id)

    def add_worker(self, worker: RegisteredWorker, service: Service) -> None:
        """Make `worker` one of the workers of `service`."""
        service.enter(worker)
        self.registry.served[service] = None
        worker.services[service.name] = service
        worker.order.append(service)
        set_weight(worker, service)
        self.weigh(worker)

    def weigh(self, worker: RegisteredWorker) -> None:
        """Update the strategies of `worker`'s services after its capacity, state, load or number
        of slots in use has changed."""
        free = (  # `has_free_slot`, without its call
            worker.state is SERVING
            and worker.holding < worker.capacity
            and (worker.load is None or worker.load != -1.0)
        )
        for service in worker.order:
            if free:
                service.strategy.put(worker)
            else:
                service.strategy.drop(worker)

    def _remember_handle(self, worker: RegisteredWorker, request: AcceptedRequest) -> None:
        handle = encoding.handle_of(worker, request, request.dispatch_id)
        worker.handles.setdefault(handle, deque()).append(request.dispatch_id)

    def _forget_handle(
        self, worker: RegisteredWorker, request: AcceptedRequest, dispatch_id: int
    ) -> None:
        handle = encoding.handle_of(worker, request, dispatch_id)
        waiting = worker.handles[handle]
        waiting.remove(dispatch_id)
        if not waiting:
            del worker.handles[handle]
