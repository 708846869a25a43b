"""The engine of a worker: registrations at brokers on one side, handlers on the other, one event
loop between them. `Worker` and `AsyncWorker` both run it.

This module decides which connection serves which services, and which capacity it announces; the
path of a single request is in serving.py. Everything is called in the loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from majordomus.core.session.login import Credentials
from majordomus.core.worker.login import LoginWorkerSession
from majordomus.core.worker.session import (
    Disconnected,
    EventReceived,
    SubscriptionRefused,
    WorkerSession,
    WorkerSettings,
)
from majordomus.errors import StatusError, error_for
from majordomus.net.connection.async_link import AsyncSessionConnection
from majordomus.net.connection.credentials import Access
from majordomus.net.connection.inline import as_async, is_inline
from majordomus.net.events import Handler as EventHandler
from majordomus.net.worker.broker_log import BrokerLog
from majordomus.net.worker.declare.middleware import around
from majordomus.net.worker.events import EngineEvents
from majordomus.net.worker.handlers import RUNS, Handler, Shape
from majordomus.net.worker.load import LoadMeter, Measure, host_load
from majordomus.net.worker.serving import RunLimit, Serving, WorkerConnection
from majordomus.net.worker.stalls import StallWatch
from majordomus.net.worker.thread_pool import PoolUsage, ThreadPool
from majordomus.protocol.spec import Dialect

DRAIN_CHECK: Final = 0.02
"""Seconds between two checks whether the sessions have drained."""
ABORT_GRACE: Final = 0.5
"""Seconds that handlers have at the end to react to their cancellation."""
LOOP_CAPACITY: Final = 1000
"""Default capacity of handlers on the event loop."""
LIMITED: Final = ("thread", "loop")
"""Kinds of handlers that a worker with several brokers has to limit itself. The pool of processes
is its own limit."""

logger = logging.getLogger("majordomus.worker")


class EngineSettings(NamedTuple):
    """What a worker was given by its user.

    urls: the brokers' endpoints; the worker registers at all of them
    session: the template of each session's settings: dialect, heartbeats, weight
    threads: size of the thread pool
    capacity: requests that each broker may have dispatched here; None is what the pools allow
    processes: size of the process pool, and the capacity of the connections that serve from it
    kill_after: seconds after which a handler process that ignores a cancellation is killed
    access: keys and passwords of the brokers; None connects without
    load: measures this machine's load
    topics: the event handlers, by pattern
    login: credentials for the brokers' auth service; None is no login
    """

    urls: list[str]
    session: WorkerSettings
    threads: int
    capacity: int | None
    processes: int
    kill_after: float
    access: Access | None = None
    load: Measure = host_load
    topics: Mapping[bytes, EventHandler] = {}
    login: Credentials | None = None


class BrokerRegistration(WorkerConnection):
    """A connection to a broker, and the services that are registered over it.

    services: the names of its services
    kind: where the handlers of its services run, one of `handlers.RUNS`
    capacity: the capacity that was announced last
    missed: heartbeats of the broker that did not come in their interval
    """

    def __init__(
        self,
        url: str,
        settings: WorkerSettings,
        engine: WorkerEngine,
        loop: asyncio.AbstractEventLoop,
        access: Access | None = None,
        login: Credentials | None = None,
    ) -> None:
        super().__init__()
        self.session = (
            WorkerSession(settings, os.urandom, random.random)
            if login is None
            else LoginWorkerSession(settings, login, os.urandom, random.random)
        )
        self.url = url
        self.kind = engine.kind_of(settings.services)
        self.capacity = settings.capacity
        self._last_disconnect = ""
        self.services = [name.decode() for name in settings.services]
        self.missed = 0
        self._missed_in_a_row = 0
        self.log = engine.log_of(url)
        self.log.add(self)
        self.line: AsyncSessionConnection = AsyncSessionConnection(
            self.session,
            lambda: url,
            take=lambda events: engine.take_events(self, events),
            broken=engine.on_failure,
            loop=loop,
            access=access,
            changed=self.log.changed,
        )

    @property
    def ready(self) -> bool:
        """Whether the broker has registered the services of this connection."""
        return self.session.ready

    @property
    def refused(self) -> bool:
        """Whether the broker has refused the last handshake, or has disconnected with a reason."""
        return self.line.refusal is not None or self._last_disconnect != ""

    @property
    def problem(self) -> str:
        """How the last attempt to connect has failed, in a few words."""
        return self.line.failed.get(self.url, "")

    def registered(self) -> None:
        """The broker has registered it: earlier refusals are over."""
        self._last_disconnect = ""

    def count_missed(self, now: float) -> None:
        """Count the heartbeats that are missing now. Half an interval late is not missing."""
        session = self.session
        connection = session.connection
        if not session.ready or session.settings.dialect is not Dialect.MDP03:
            self._missed_in_a_row = 0  # brokers of the older dialects send none to a busy worker
            return
        in_a_row = max(0, int((now - connection.received_at) / connection.interval - 0.5))
        self.missed += max(0, in_a_row - self._missed_in_a_row)
        self._missed_in_a_row = in_a_row

    def log_disconnect(self, event: Disconnected) -> None:
        """Log the reason of a DISCONNECT, unless it is the same as the last time: a worker that is
        refused tries again and again."""
        text = f"{event.status} {event.text}"
        if text != self._last_disconnect:
            self._last_disconnect = text
            shown = text if text.isprintable() else text.encode("unicode_escape").decode()
            logger.warning("%s has disconnected this worker: %.300s", self.url, shown)


class BrokerUsage(NamedTuple):
    """What became of the connections to one broker.

    registered: whether all services are registered. losses: how often the broker was lost. missed:
    how many of its heartbeats did not come.
    """

    registered: bool
    losses: int
    missed: int


class WorkerUsage(NamedTuple):
    """What a running worker uses.

    threads, processes: the pools; None without handlers in processes. lag: how late the event loop
    ran its last timer, in seconds, and `lag_seconds` all of them. brokers: by URL.
    """

    threads: PoolUsage
    processes: PoolUsage | None
    lag: float
    lag_seconds: float
    brokers: dict[str, BrokerUsage]


class WorkerEngine(Serving):
    """Serves from `open` to `close`. `on_failure` gets the exception after which it cannot go
    on."""

    def __init__(
        self,
        settings: EngineSettings,
        handlers: Mapping[str, Handler],
        loop: asyncio.AbstractEventLoop,
        on_failure: Callable[[Exception], None],
    ) -> None:
        limits: dict[str, RunLimit] = {}
        super().__init__(loop, settings.threads, limits)
        self._settings, self.on_failure = settings, on_failure
        self._logs: dict[str, BrokerLog] = {}
        if len(settings.urls) > 1:
            limits.update((kind, RunLimit(max(1, self._capacity(kind)))) for kind in LIMITED)
        self._load: float | None = None
        self._meter = LoadMeter(settings.load, self._set_load, loop)
        for name, handler in handlers.items():
            self._set_handler(name.encode(), handler)
        self._registrations = [
            self._new_registration(url, services)
            for url in settings.urls
            for services in self._services_by_connection()
        ]
        self.events = EngineEvents(self._registrations, settings.topics)
        self._refusals: dict[BrokerRegistration, StatusError] = {}
        self._watch = StallWatch(loop, self._running, self._note_stall, self._count_missed)

    @property
    def ready(self) -> bool:
        """Whether at least one broker has registered all services."""
        return any(
            all(one.session.ready for one in self._registrations if one.url == url)
            for url in self._settings.urls
        )

    @property
    def processes_started(self) -> bool:
        """Whether the handler processes, if there are any, have loaded the handlers. From any
        thread."""
        return self._processes is None or self._processes.started

    @property
    def usage(self) -> WorkerUsage:
        """What it uses now. From any thread."""
        return WorkerUsage(
            self._pool.usage if isinstance(self._pool, ThreadPool) else PoolUsage(0, 0, 0),
            None if self._processes is None else self._processes.usage,
            self._watch.lag,
            self._watch.lag_seconds,
            {log.url: self._broker_usage(log) for log in list(self._logs.values())},
        )

    def _broker_usage(self, log: BrokerLog) -> BrokerUsage:
        missed = [one.missed for one in list(self._registrations) if one.url == log.url]
        return BrokerUsage(log.registered, log.losses, sum(missed))

    def _count_missed(self) -> None:
        now = time.monotonic()
        for registration in self._registrations:
            registration.count_missed(now)

    def log_of(self, url: str) -> BrokerLog:
        """Return what logs the changes of state of the broker at `url`."""
        return self._logs.setdefault(url, BrokerLog(url, self._loop))

    def open(self) -> None:
        """Start the handler processes, and connect to every broker."""
        if self._processes is not None:
            self._processes.open()
        if not is_inline(self._loop):
            self._meter.start()
        self._watch.start()
        for registration in self._registrations:
            registration.line.open()
        self._announce_capacity()

    def add(self, name: str, handler: Handler) -> None:
        """Serve one more service, or an old one with a new handler. Brokers learn of it, and of
        the capacity that fits, at once."""
        service = name.encode()
        is_new = service not in self._services
        had_processes = self._processes is not None
        self._set_handler(service, handler)
        if self._processes is not None and not had_processes:
            self._processes.open()
        if is_new:
            self._register(service)
        self._announce_capacity()

    def _register(self, service: bytes) -> None:
        """Register a service over the connections that it fits, or over new ones."""
        kind = self.kind_of((service,))
        fitting = [one for one in self._registrations if one.kind == kind]
        if fitting and self._settings.session.dialect is Dialect.MDP03:
            for registration in fitting:
                contract = self._services[service].contract
                registration.session.add_service(service, time.monotonic(), contract)
                registration.services.append(service.decode())
                registration.line.touch()
            return
        for url in self._settings.urls:
            registration = self._new_registration(url, (service,))
            self._registrations.append(registration)
            registration.line.open()

    def resize(self, threads: int | None, processes: int | None) -> None:
        """Change the sizes of the pools; None leaves one as it is. Brokers learn of the capacity
        that fits at once."""
        if threads is not None:
            self._settings = self._settings._replace(threads=threads)
            self._pool.resize(threads)
        if processes is not None:
            self._settings = self._settings._replace(processes=processes)
            if self._processes is not None:
                self._processes.resize(processes)
        self._announce_capacity()

    def set_capacity(self, capacity: int | None) -> None:
        """Change the capacity: None is what the pools allow, 0 takes nothing new of any service."""
        self._settings = self._settings._replace(capacity=capacity)
        self._announce_capacity()

    def _announce_capacity(self) -> None:
        now = time.monotonic()
        for kind, limit in self._limits.items():
            limit.most = self._capacity(kind) or limit.most  # 0 ends nothing that was dispatched
            self.begin_waiting(limit)
        for registration in self._registrations:
            capacity = self._capacity(registration.kind)
            if capacity != registration.capacity:
                registration.capacity = capacity
                registration.session.set_capacity(capacity, now)
                registration.line.touch()

    async def drain(self) -> None:
        """Take no new requests, and wait until those that are held have their outcomes.

        There is no timeout: the caller bounds the wait.
        """
        self._meter.stop()
        self._stop_logs()
        now = time.monotonic()
        for registration in self._registrations:
            registration.session.drain(now)
            registration.line.flush()
        while any(one.invocations or not one.session.drained for one in self._registrations):
            self._idle_wanted = True
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), DRAIN_CHECK)

    async def close(self) -> None:
        """Cancel the running handlers, send DISCONNECT, and close the connections.

        The broker dispatches what has no outcome by now to another worker, if that is allowed.
        """
        self._closing = True
        self._meter.stop()
        self._watch.stop()
        self._stop_logs()
        running = [one for each in self._registrations for one in each.invocations.values()]
        tasks = [one.task for one in running if one.task is not None]
        for invocation in running:
            self._cancel(invocation)
        if tasks:
            await asyncio.wait(tasks, timeout=ABORT_GRACE)
        self.events.close()
        now = time.monotonic()
        for registration in self._registrations:
            registration.session.close(now)
            registration.line.flush()
            registration.line.close()
        self._pool.close(0.0)
        if self._processes is not None:
            await self._processes.close()

    def _stop_logs(self) -> None:
        for log in self._logs.values():
            log.stop()

    def take_other_event(
        self,
        connection: WorkerConnection,
        event: EventReceived | SubscriptionRefused | Disconnected,
    ) -> None:
        """Handle an event that belongs to no request."""
        if not isinstance(event, Disconnected):
            self.events.put(event)
        elif isinstance(connection, BrokerRegistration):
            connection.log_disconnect(event)
            if event.service and not (self._closing or self._idle_wanted):
                self._separate(connection, event)

    # ── registrations ─────────────────────────────────────────────────────────────────────────────

    def _new_registration(self, url: str, services: tuple[bytes, ...]) -> BrokerRegistration:
        capacity = self._capacity(self.kind_of(services))
        contracts = {name: self._services[name].contract for name in services}
        settings = _replace(
            self._settings.session,
            services=services,
            capacity=max(1, capacity),
            contracts={name: contract for name, contract in contracts.items() if contract},
        )
        access, login = self._settings.access, self._settings.login
        registration = BrokerRegistration(url, settings, self, self._loop, access, login)
        registration.session.set_load(self._load, time.monotonic())
        return registration

    def _set_load(self, load: float | None) -> None:
        self._load = load
        now = time.monotonic()
        for registration in self._registrations:
            registration.session.set_load(load, now)

    def _set_handler(self, service: bytes, handler: Handler) -> None:
        if is_inline(self._loop):
            handler = handler._replace(target=None)
            if handler.middleware:
                function = around(handler.function, handler.middleware)
                handler = handler._replace(function=function, middleware=())
            if handler.shape is Shape.GENERATOR:
                function = as_async(handler.function)
                handler = handler._replace(function=function, shape=Shape.ASYNC_GENERATOR)
        if handler.target is not None:
            if self._processes is None:
                # Imported here because few workers need it, and it loads multiprocessing.
                from majordomus.net.worker.processes.pool import ProcessPool

                self._processes = ProcessPool(
                    self._settings.processes,
                    self._loop,
                    self.on_failure,
                    self._settings.kill_after,
                )
            durable = service in self._settings.session.durable
            function = self._processes.function(handler.target, durable=durable)
            handler = handler._replace(function=function)
        if handler.middleware:
            function = around(handler.function, handler.middleware)
            handler = handler._replace(function=function)
        self.serve(service, handler)

    def kind_of(self, services: tuple[bytes, ...]) -> str:
        """Where the handlers of these services, which share a connection, run."""
        kind: str = self._services[services[0]].kind
        return kind

    def _running(self) -> list[str]:
        """The names of the services whose handlers run in this process, and of the last that was
        called."""
        running = [one.service for each in self._registrations for one in each.invocations.values()]
        if self._last_begun is not None:
            running.append(self._last_begun)
            self._last_begun = None
        return [service.name for service in running if not service.in_process]

    def _note_stall(self, after: float) -> None:
        self._stalled_after = after

    @property
    def refusal(self) -> StatusError | None:
        """Why every broker has refused a service; None when one may still register all."""
        for registration in [one for one in self._refusals if one.session.ready]:
            del self._refusals[registration]
        if {one.url for one in self._refusals} >= set(self._settings.urls):
            return next(iter(self._refusals.values()), None)
        return None

    def _separate(self, registration: BrokerRegistration, event: Disconnected) -> None:
        """Give a refused service a connection of its own, which tries again and again: its broker
        disconnects a worker for one service, and the others are to be served."""
        service = event.service.encode()
        if registration.session.remove_service(service):
            alone = self._new_registration(registration.url, (service,))
            alone._last_disconnect = registration._last_disconnect  # it is logged once
            self._registrations.append(alone)
            alone.line.open()
            registration = alone
        self._refusals[registration] = error_for(event.status, [event.text.encode()])

    def _services_by_connection(self) -> list[tuple[bytes, ...]]:
        """The services of each connection to a broker.

        Handlers of each kind have a connection of their own, since each kind has a capacity of its
        own: none waits for slots that another kind has taken. A legacy dialect needs a connection
        for each service.
        """
        names = self._services
        if self._settings.session.dialect is not Dialect.MDP03:
            return [(name,) for name in names]
        by_kind = (tuple(n for n in names if self.kind_of((n,)) == kind) for kind in RUNS)
        return [services for services in by_kind if services]

    def _capacity(self, kind: str) -> int:
        given = self._settings.capacity
        if given == 0:
            return 0
        if kind == "process":
            return self._settings.processes
        return given or (self._settings.threads if kind == "thread" else LOOP_CAPACITY)


def _replace(settings: WorkerSettings, **changes: Any) -> WorkerSettings:
    kept = {name: getattr(settings, name) for name in WorkerSettings.__struct_fields__}
    return WorkerSettings(**{**kept, **changes})
