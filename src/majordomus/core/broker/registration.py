"""Who may serve what: a worker's claims to services, checked and entered.

A peer that speaks as what it is not known to be raises `UnknownPeerError`; the machine
sends it off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.core.broker.admission import name_problem
from majordomus.core.broker.state.access_rules import RESERVED, SERVE, full_name
from majordomus.core.broker.state.workers import RegisteredWorker
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.core.broker.authorization import Authorization
    from majordomus.core.broker.dispatch import Dispatcher
    from majordomus.core.broker.presence import Presence
    from majordomus.core.broker.queueing import Queueing
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry
    from majordomus.protocol.spec import Dialect

TOO_LONG: Final = "the name of the service is too long with the prefix of its tenant"


class UnknownPeerError(Exception):
    """A peer spoke as what it is not known to be: it gets DISCONNECT and is forgotten.

    ``notice``: the status and the sentence that it gets with it, where there are any, and the name
    of the service that is refused.
    """

    def __init__(self, reason: str, told: tuple[int, str, str] = (0, "", "")) -> None:
        super().__init__(reason)
        self.reason = reason
        self.notice = notice


class Registration:
    """Makes workers of peers."""

    def __init__(
        self,
        registry: Registry,
        presence: Presence,
        dispatcher: Dispatcher,
        queueing: Queueing,
        authorization: Authorization,
    ) -> None:
        self.authorization = authorization
        self.registry = registry
        self.presence = presence
        self.dispatcher = dispatcher
        self.queueing = queueing

    def check_claim(self, peer: Peer, worker: RegisteredWorker | None, called: bytes) -> bytes:
        """The full name of what `peer` would serve as `called`.

        Raises: UnknownPeerError: it may not, or there is no room for one more service.
        """
        name = full_name(peer.prefix, called)
        shown = called.decode("utf-8", "replace")
        if name_problem(called) or len(name) > spec.MAX_NAME:
            told = spec.BAD_REQUEST, name_problem(called) or TOO_LONG, shown
            raise UnknownPeerError("bad-service-name", told)
        if called.startswith(RESERVED):
            told = spec.FORBIDDEN, f"'{shown}' is reserved: no worker may serve it", shown
            raise UnknownPeerError("reserved-service-name", told)
        refusal = self.authorization.refuses(peer, peer, SERVE, called)
        if refusal is not None:
            raise UnknownPeerError("may-not-serve", (*refusal, shown))
        if worker is not None and name in worker.services:
            return name
        if (
            worker is not None
            and len(worker.services) >= self.registry.settings.max_worker_services
        ):
            most = self.registry.settings.max_worker_services
            told = spec.TOO_MANY, f"no room for '{shown}': a worker has {most} services", shown
            raise UnknownPeerError("too-many-services-of-a-worker", told)
        known = self.registry.services
        if name not in known and len(known) >= self.registry.settings.max_services:
            most = self.registry.settings.max_services
            told = spec.TOO_MANY, f"no room for '{shown}': the broker has {most} services", shown
            raise UnknownPeerError("too-many-services", told)
        return name

    def new_worker(
        self, peer: Peer, dialect: Dialect, capacity: int, now: float
    ) -> RegisteredWorker:
        worker = peer.worker = RegisteredWorker(peer, dialect, capacity, now)
        self.registry.workers[worker.id] = worker
        self.presence.watch(peer, now)
        return worker

    def register(self, worker: RegisteredWorker, name: bytes, now: float) -> None:
        service = self.registry.service(name)
        if service is None:
            raise UnknownPeerError("too-many-services")
        self.registry.emit(
            "worker-ready",
            worker=worker.id,
            service=name,
            capacity=worker.capacity,
            dialect=worker.dialect.value,
        )
        self.dispatcher.add_worker(worker, service)
        self.queueing.feed(worker, now)
