"""What `Worker` and `AsyncWorker` have in common: their arguments, the table of services, and the
start of a run.

Everything is checked here before it reaches the engine. A change while the worker runs goes to its
`WorkerRun`, which passes it to the loop.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from majordomus import system
from majordomus.contracts.facts import make_facts
from majordomus.core.session.login import Credentials
from majordomus.core.session.settings import LEAST_RECEIVED, MAX_RECEIVED
from majordomus.core.worker.session import WorkerSettings
from majordomus.errors import ConfigurationError, LocalProtocolError
from majordomus.net import endpoints
from majordomus.net.connection.credentials import Access, credentials
from majordomus.net.events import Handler as EventHandler
from majordomus.net.worker.declare.lifespan import Action, Lifespan, checked
from majordomus.net.worker.declare.middleware import HandlerMiddleware, around
from majordomus.net.worker.declare.router import Router
from majordomus.net.worker.declare.services import NOTHING, ErrorClass, ServiceDecorators
from majordomus.net.worker.engine import EngineSettings, WorkerUsage
from majordomus.net.worker.events import EngineEvents, EventMethods
from majordomus.net.worker.handlers import Function, Handler, make_handler
from majordomus.net.worker.load import Measure, host_load
from majordomus.net.worker.processes import pipe, target
from majordomus.net.worker.run import WorkerRun
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect
from majordomus.security.certificates import Certificate

DRAIN_TIMEOUT: Final = 10.0
KILL_AFTER: Final = 2.0
MOST_ATTEMPTS: Final = 1_000_000
"""The highest `max_attempts`. A broker has a lower limit of its own, `max_durable_attempts`."""

A = TypeVar("A", bound=Action)


class WorkerBase(ServiceDecorators, EventMethods):
    """A worker's services, and the brokers at which it registers them.

    broker: one endpoint or several; the worker registers at all of them; by default as in `Client`
    dialect: the protocol that it uses with them
    capacity: requests to `def` handlers, and to `async def` handlers, that each broker may
        dispatch here at a time, and that run at a time for all brokers together; by default
        `threads` for `def` and 1000 for `async def`
    threads: `def` handlers that run at a time; by default the processors + 4, at most 32
    processes: handlers with `run="process"` that run at a time, and their capacity at each broker;
        by default the processors
    kill_after: seconds after a cancel or the deadline until a handler process that runs on is
        killed
    drain_timeout: seconds that requests have to finish when the worker stops
    interval, liveness: of heartbeats, until the broker has announced its own
    weight: this worker's share of its services' requests, next to workers of weight 1
    max_received: bytes of one message that are taken from a broker; a larger request is answered
        with 413
    load: returns this machine's load for the heartbeats, and is called in a thread every 10 s; by
        default the load average per core (on Windows the processors' busy share)
    server_key, certificate, plain, login, require_encryption: as those of `Client`

    Raises: ConfigurationError for an argument out of its bounds.
    """

    def __init__(
        self,
        broker: str | Sequence[str] | None = None,
        *,
        dialect: str = Dialect.MDP03,
        capacity: int | None = None,
        threads: int | None = None,
        processes: int | None = None,
        kill_after: float = KILL_AFTER,
        drain_timeout: float = DRAIN_TIMEOUT,
        interval: float = spec.WORKER_INTERVAL,
        liveness: int = spec.LIVENESS,
        weight: float = 1.0,
        max_received: int = MAX_RECEIVED,
        load: Measure = host_load,
        server_key: str = "",
        certificate: Certificate | str | Path | None = None,
        plain: tuple[str, str] | None = None,
        login: Sequence[str | bytes] | None = None,
        require_encryption: bool = False,
    ) -> None:
        if capacity is not None and not 1 <= capacity <= spec.MAX_CAPACITY:
            raise ConfigurationError(f"a capacity is 1 to {spec.MAX_CAPACITY}, not {capacity}")
        if not kill_after >= 0:
            raise ConfigurationError(f"kill_after is at least 0 seconds, not {kill_after}")
        self._threads = min(32, (os.cpu_count() or 1) + 4)
        self._processes = system.usable_processors()
        self._kill_after = kill_after
        self._broker, self._server_key = broker, server_key
        self._certificate, self._plain = certificate, plain
        self._require_encryption = require_encryption
        self._dialect = endpoints.dialect(dialect)
        self._login = None if login is None else self._credentials(login)
        self._set_access()
        self.configure(threads=threads, processes=processes)
        self.handlers: dict[str, Handler] = {}
        self._lifespan = Lifespan()
        self._middleware: tuple[HandlerMiddleware, ...] = ()
        self._including: tuple[HandlerMiddleware, ...] = ()  # of the router that is included now
        self._settings = WorkerSettings(
            services=(),
            dialect=endpoints.dialect(dialect),
            interval=interval,
            liveness=liveness,
            weight=_checked_weight(weight),
            max_received=_checked_size(max_received),
        )
        self._load = load
        self._topics: dict[bytes, EventHandler] = {}
        self._capacity = capacity
        self._drain_timeout = drain_timeout
        self._active: WorkerRun | None = None

    def configure(
        self,
        *,
        broker: str | Sequence[str] | None = None,
        threads: int | None = None,
        processes: int | None = None,
        server_key: str = "",
        certificate: Certificate | str | Path | None = None,
        plain: tuple[str, str] | None = None,
        login: Sequence[str | bytes] | None = None,
    ) -> None:
        """Override arguments of the constructor; None and "" leave them. Before the worker runs.

        It is for programs that run other people's workers, as `majordomus worker` does.
        Raises: ConfigurationError.
        """
        _check_sizes(threads, processes)
        if broker is not None or server_key or certificate or plain:
            self._broker = self._broker if broker is None else broker
            self._server_key = server_key or self._server_key
            self._certificate = certificate or self._certificate
            self._plain = plain or self._plain
            self._set_access()
        if login is not None:
            self._login = self._credentials(login)
        if threads is not None:
            self._threads = threads
        if processes is not None:
            self._processes = processes

    def _credentials(self, login: Sequence[str | bytes]) -> Credentials:
        if self._dialect is not Dialect.MDP03:
            raise ConfigurationError(f"{self._dialect.value} has no login: it needs MDP/0.3")
        return credentials(login)

    def _set_access(self) -> None:
        self._access = Access(
            self._broker,
            self._server_key,
            self._certificate,
            self._plain,
            self._require_encryption,
        )
        self.endpoints = self._access.urls

    def resize(self, *, threads: int | None = None, processes: int | None = None) -> None:
        """Change the sizes of the pools from now on; None leaves one as it is. From any thread.

        The capacity follows, and brokers learn of it at once. A thread or process too many ends
        when its request has finished. Raises: ConfigurationError.
        """
        _check_sizes(threads, processes)
        self.configure(threads=threads, processes=processes)
        if self._active is not None:
            self._active.resize(threads, processes)

    def set_capacity(self, capacity: int | None) -> None:
        """Change the argument `capacity` while the worker runs. From any thread.

        None is what the pools allow. 0 takes nothing new, of any service, until another value is
        set. The capacity of handlers in processes stays their number, except for 0.
        Raises: ConfigurationError.
        """
        if capacity is not None and not 0 <= capacity <= spec.MAX_CAPACITY:
            raise ConfigurationError(f"a capacity is 0 to {spec.MAX_CAPACITY}, not {capacity}")
        if capacity == 0 and self._settings.dialect is not Dialect.MDP03:
            raise ConfigurationError(
                f"{self._settings.dialect} cannot pause a worker: use stop, or MDP/0.3"
            )
        self._capacity = capacity
        if self._active is not None:
            self._active.set_capacity(capacity)

    def add(
        self,
        name: str,
        function: Function,
        *,
        run: str | None = None,
        durable: bool = False,
        max_attempts: int | None = None,
        version: str = "",
        examples: Sequence[Any] = (),
        errors: Sequence[ErrorClass] = (),
        publishes: Mapping[str, Any] = NOTHING,
        idempotent: bool = False,
        once: bool = False,
    ) -> None:
        """Serve `name` with `function`; at once, if the worker runs already.

        With `run="process"` the function runs in a handler process, which imports it: it has to be
        at the top level of a module. With `durable` every request to it is durable, which needs a
        broker with a store; such a request runs at most `max_attempts` times.

        The other arguments are for the service's contract (docs/contracts.md): its version, example
        values of the request, the failures that it states (`NotFound`, or `(NotFound, Missing)`
        with the type of its detail), the types of the events that it publishes, by topic, and
        whether a request may be repeated (`idempotent`) or has to
        be sent with `once`.

        Raises: ConfigurationError for a name that no service may have or that has a handler
        already, for a value that is no function, and for a function that cannot run so.
        """
        self._check_name(name)
        self._check_durable(durable, max_attempts)
        if run == "process":
            system.check_children("run='process'")
        facts = make_facts(version, examples, errors, publishes, idempotent, once)
        # A handler process imports the module of its handler, and needs no contract.
        described = not pipe.is_loading()
        handler = make_handler(function, run, facts, self._lifespan, described=described)
        handler = self._prepared(handler._replace(middleware=self._including))
        self._add(name, handler, (max_attempts or 0) if durable else None)

    def _add(self, name: str, handler: Handler, attempts: int | None = None) -> None:
        """Serve `name` with a handler. `attempts`: as in `WorkerSettings.durable`."""
        if self._active is not None and handler.target is not None:
            target.check(handler.target, handler.function)
        self.handlers[name] = handler
        if attempts is not None:
            self._settings.durable[name.encode()] = attempts
        if self._active is not None:
            self._active.add(name, self._with_middleware(handler))

    def _with_middleware(self, handler: Handler) -> Handler:
        """Return a handler with the worker's own middleware around it."""
        if not self._middleware:
            return handler
        return handler._replace(middleware=(*self._middleware, *handler.middleware))

    def include(self, router: Router) -> None:
        """Serve everything that a router declares: services, events, starts and stops.

        Raises: ConfigurationError, as `add` and `subscribe`.
        """
        for one in router.services:
            self._including = one.middleware
            try:
                self.add(one.name, one.function, **one.options)
            finally:
                self._including = ()
        for pattern, handler in router.events:
            self.subscribe(pattern, handler)
        for start in router.starts:
            self.on_start(start)
        for stop in router.stops:
            self.on_stop(stop)

    def use(self, *middleware: HandlerMiddleware) -> None:
        """Put middleware around every handler, from the next run on: the first one outermost.

        Raises: ConfigurationError for an object that is no middleware.
        """
        around(_no_handler, middleware)
        self._middleware += middleware

    def on_start(self, action: A) -> A:
        """Decorate a function, or a coroutine function, that runs before the worker connects.

        What it raises ends the run. Raises: ConfigurationError for a function with arguments.
        """
        self._lifespan.starts.append(checked(action))
        return action

    def on_stop(self, action: A) -> A:
        """Decorate a function that runs when every handler has ended; the last one runs first.

        Raises: ConfigurationError for a function with arguments.
        """
        self._lifespan.stops.append(checked(action))
        return action

    @contextlib.contextmanager
    def override(
        self, dependency: Callable[..., Any], replacement: Callable[..., Any]
    ) -> Iterator[None]:
        """Replace a dependency in `with`: for tests. Of scope "worker" before the worker runs."""
        overrides = self._lifespan.overrides
        before = overrides.get(dependency)
        overrides[dependency] = replacement
        try:
            yield
        finally:
            if before is None:
                del overrides[dependency]
            else:
                overrides[dependency] = before

    def _prepared(self, handler: Handler) -> Handler:
        """Return the handler that is served; a subclass may wrap its function."""
        return handler

    def _check_durable(self, durable: bool, max_attempts: int | None) -> None:
        """Raises: ConfigurationError."""
        if durable and self._dialect is not Dialect.MDP03:
            raise ConfigurationError(f"{self._dialect.value} has no durable services: use MDP/0.3")
        if max_attempts is not None and not durable:
            raise ConfigurationError("max_attempts is for services with durable=True")
        if max_attempts is None:
            return
        if type(max_attempts) is not int or not 1 <= max_attempts <= MOST_ATTEMPTS:
            given = f"{max_attempts!r:.40}"
            raise ConfigurationError(f"max_attempts is 1 to {MOST_ATTEMPTS:,}, not {given}")

    def _check_name(self, name: str) -> None:
        """Check what can be known here, before a broker refuses it. Raises: ConfigurationError."""
        if not isinstance(name, str):
            raise ConfigurationError(f"a service's name is text, not {type(name).__name__}")
        encoded = name.encode("utf-8", "surrogatepass")
        if not 0 < len(encoded) <= spec.MAX_NAME:
            raise ConfigurationError(
                f"a service's name has 1 to {spec.MAX_NAME} bytes: {name[:40]!r}"
            )
        if encoded.decode("utf-8", "replace") != name:
            raise ConfigurationError(f"a service's name is valid Unicode, not {name[:40]!r}")
        if encoded.startswith(spec.MMI_PREFIX):
            raise ConfigurationError(f"{name!r}: names that start with mmi. are the broker's")
        # In the older dialects the broker may be of another make, with other reserved names.
        if self._dialect is Dialect.MDP03 and encoded.startswith(spec.RESERVED_NAMES):
            raise ConfigurationError(f"{name!r}: names that start with $ are reserved")
        if name in self.handlers:
            raise ConfigurationError(f"{name!r} has a handler already")

    def _usage(self) -> WorkerUsage | None:
        """What the worker uses now; None while it does not run. From any thread."""
        return None if self._active is None else self._active.usage

    @property
    def _processes_started(self) -> bool:
        """Whether no handler process is still loading the handlers."""
        return self._active is None or self._active.processes_started

    @property
    def ready(self) -> bool:
        """Whether at least one broker has registered all services."""
        return self._active is not None and self._active.ready

    def _check_refused(self) -> None:
        """Raises: a StatusError when every broker has refused one of the services."""
        refusal = None if self._active is None else self._active.refusal
        if refusal is not None:
            raise refusal

    def _new_run(self) -> WorkerRun:
        """Make the run of this worker, and keep it in `_active`; the caller has to start it.

        Raises: ConfigurationError for a worker without a service, and in a process that imports its
        handlers; LocalProtocolError when the worker is already running.
        """
        if not self.handlers:
            raise ConfigurationError(
                "this worker has no service: decorate a function with @worker.service(name)"
            )
        if self._active is not None and not self._active.dropped:
            raise LocalProtocolError("running", "this worker is already running")
        if pipe.is_loading():
            raise ConfigurationError(
                "the worker starts when its module is imported, and its handler processes import "
                'it: start it below if __name__ == "__main__"'
            )
        for handler in self.handlers.values():
            if handler.target is not None:
                target.check(handler.target, handler.function)
        settings = EngineSettings(
            urls=self.endpoints,
            session=self._settings,
            threads=self._threads,
            capacity=self._capacity,
            processes=self._processes,
            kill_after=self._kill_after,
            access=self._access,
            load=self._load,
            topics=dict(self._topics),
            login=self._login,
        )
        handlers = {name: self._with_middleware(one) for name, one in self.handlers.items()}
        self._active = WorkerRun(settings, handlers, self._drain_timeout, self._lifespan)
        return self._active

    def redirect(self, url: str) -> None:
        """Use the broker at `url` from the next run on, without keys: for `majordomus.testing`."""
        self._access = Access(url)
        self.endpoints = self._access.urls

    def _new_run_at(self, url: str) -> WorkerRun:
        """As `_new_run`, at another broker: for `majordomus.testing`."""
        access, urls = self._access, self.endpoints
        try:
            self._access = Access(url)
            self.endpoints = self._access.urls
            return self._new_run()
        finally:
            self._access, self.endpoints = access, urls

    def _with_events(self, action: Callable[[EngineEvents], object]) -> bool:
        if self._active is None:
            return False
        self._active.with_events(action)
        return True


def _no_handler(request: object) -> None:
    """A handler to check middleware with."""


def _check_sizes(threads: int | None, processes: int | None) -> None:
    if threads is not None and threads < 1:
        raise ConfigurationError(f"a worker has at least 1 thread, not {threads}")
    if processes is not None and not 1 <= processes <= spec.MAX_CAPACITY:
        raise ConfigurationError(
            f"a worker has 1 to {spec.MAX_CAPACITY} processes, not {processes}"
        )


def _checked_size(size: int) -> int:
    if size < LEAST_RECEIVED:
        raise ConfigurationError(f"max_received is at least {LEAST_RECEIVED} bytes, not {size}")
    return size


def _checked_weight(weight: float) -> float:
    if not spec.LEAST_WEIGHT <= weight <= spec.MOST_WEIGHT:
        raise ConfigurationError(
            f"a weight is {spec.LEAST_WEIGHT:g} to {spec.MOST_WEIGHT:g}, not {weight}"
        )
    return float(weight)
