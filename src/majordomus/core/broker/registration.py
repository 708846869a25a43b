"""Registrations: a worker's claim to a service is checked and entered.

A claim that is not allowed raises `UnknownPeerError`; the machine disconnects its peer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from majordomus.core.broker.admission import NO_STORE
from majordomus.core.broker.durable.commands import is_own
from majordomus.core.broker.state.access_rules import RESERVED, SERVE, full_name
from majordomus.core.broker.state.account import REGISTRATION, WORKER
from majordomus.core.broker.state.workers import RegisteredWorker
from majordomus.protocol import spec
from majordomus.protocol.fields import service_problem

if TYPE_CHECKING:
    from majordomus.core.broker.authorization import Authorization
    from majordomus.core.broker.dispatch import Dispatcher
    from majordomus.core.broker.durable.installed import InstalledStore
    from majordomus.core.broker.presence import Presence
    from majordomus.core.broker.queueing import Queueing
    from majordomus.core.broker.state.peers import Peer
    from majordomus.core.broker.state.registry import Registry
    from majordomus.core.broker.state.services import Service
    from majordomus.protocol.spec import Dialect

TOO_LONG: Final = "the name of the service is too long with the prefix of its tenant"


class UnknownPeerError(Exception):
    """A peer has sent a message of a role that it does not have. It gets DISCONNECT and is
    forgotten.

    ``reason``: a short key for counters and logs. ``notice``: status, text and the name of the
    refused service for the DISCONNECT; (0, "", "") for none. ``claim``: the service of a refused
    READY; None for any other message.
    """

    def __init__(
        self,
        reason: str,
        notice: tuple[int, str, str] = (0, "", ""),
        claim: bytes | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.notice = notice
        self.claim = claim


class Registration:
    """Registers peers as workers."""

    def __init__(
        self,
        registry: Registry,
        presence: Presence,
        dispatcher: Dispatcher,
        queueing: Queueing,
        authorization: Authorization,
        store: InstalledStore,
    ) -> None:
        self.store = store
        self.authorization = authorization
        self.registry = registry
        self.presence = presence
        self.dispatcher = dispatcher
        self.queueing = queueing

    def check_claim(self, peer: Peer, worker: RegisteredWorker | None, called: bytes) -> bytes:
        """Return the full name of the service that `peer` wants to serve as `called`.

        `worker` is the peer's worker, None before its first registration.

        Raises: UnknownPeerError: the name is invalid, `peer` may not serve it, or a bound on
            services is reached.
        """
        name = full_name(peer.prefix, called)
        shown = called.decode("utf-8", "replace")
        if service_problem(called) or len(name) > spec.MAX_NAME:
            notice = spec.BAD_REQUEST, service_problem(called) or TOO_LONG, shown
            raise UnknownPeerError("bad-service-name", notice, called)
        if called.startswith(RESERVED) or (self.store.durable is not None and is_own(called)):
            notice = spec.FORBIDDEN, f"'{shown}' is reserved: no worker may serve it", shown
            raise UnknownPeerError("reserved-service-name", notice, called)
        refusal = self.authorization.refuses(peer, peer, SERVE, called)
        if refusal is not None:
            raise UnknownPeerError("may-not-serve", (*refusal, shown), called)
        if worker is not None and name in worker.services:
            return name
        if (
            worker is not None
            and len(worker.services) >= self.registry.settings.max_worker_services
        ):
            most = self.registry.settings.max_worker_services
            notice = spec.TOO_MANY, f"no room for '{shown}': a worker has {most} services", shown
            raise UnknownPeerError("too-many-services-of-a-worker", notice, called)
        known = self.registry.services
        if name not in known and len(known) >= self.registry.settings.max_services:
            most = self.registry.settings.max_services
            notice = spec.TOO_MANY, f"no room for '{shown}': the broker has {most} services", shown
            raise UnknownPeerError("too-many-services", notice, called)
        cost = WORKER + REGISTRATION + len(name) + spec.MAX_METADATA
        account = self.registry.account
        if account.exceeds_reserve(cost) or account.exceeds_share(peer, cost):
            notice = spec.TOO_MANY, account.problem(peer, cost), shown
            raise UnknownPeerError("too-much-held", notice, called)
        return name

    def check_durable(self, values: dict[str, object], called: bytes) -> None:
        """Check what READY says of durable requests.

        Raises: UnknownPeerError: the service is to be durable, and the broker has no store.
        """
        if values.get("durable") is True and self.store.durable is None:
            notice = spec.NOT_IMPLEMENTED, NO_STORE, called.decode("utf-8", "replace")
            raise UnknownPeerError("no-store", notice, called)

    def declare(
        self, worker: RegisteredWorker, service: Service, values: dict[str, object], now: float
    ) -> None:
        """Note whether every request to a service is durable, as the READY of `worker` says."""
        durable = self.store.durable
        if durable is None:
            return
        attempts = values.get("max_attempts")
        most = attempts if isinstance(attempts, int) and attempts > 0 else 0
        alone = not service.workers or list(service.workers) == [worker.id]
        durable.declare(service, values.get("durable") is True, int(most), alone, now)

    def new_worker(
        self, peer: Peer, dialect: Dialect, capacity: int, now: float
    ) -> RegisteredWorker:
        """Make a worker of `peer`, without services yet."""
        worker = peer.worker = RegisteredWorker(peer, dialect, capacity, now)
        self.registry.workers[worker.id] = worker
        self.registry.account.register(worker, WORKER)
        self.presence.watch(peer, now)
        return worker

    def register(
        self,
        worker: RegisteredWorker,
        name: bytes,
        now: float,
        values: dict[str, object] | None = None,
    ) -> None:
        """Register `worker` for the service with this full name, and dispatch waiting requests to
        it. `values`: the metadata of its READY.

        Raises: UnknownPeerError: the bound `max_services` is reached.
        """
        service = self.registry.service(name)
        if service is None:
            raise UnknownPeerError("too-many-services", claim=name)
        self.registry.emit(
            "worker-ready",
            worker=worker.id,
            service=name,
            capacity=worker.capacity,
            dialect=worker.dialect.value,
        )
        self.registry.account.register(worker, REGISTRATION + len(name))
        self.declare(worker, service, values or {}, now)
        self.dispatcher.add_worker(worker, service)
        self.queueing.feed(worker, now)
