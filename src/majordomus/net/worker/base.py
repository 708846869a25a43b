"""What Worker and AsyncWorker have in common: their arguments and the table of services, and one
run of the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar, overload

from majordomus.core.broker.balancing.registry import LEAST_WEIGHT, MOST_WEIGHT
from majordomus.core.session.login import Credentials
from majordomus.core.worker.session import WorkerSettings
from majordomus.errors import ConfigurationError, LocalProtocolError
from majordomus.net import endpoints
from majordomus.net.connection.credentials import Access, credentials
from majordomus.net.worker.engine import Engine, Plan
from majordomus.net.worker.events import EngineEvents, WorkerEvents
from majordomus.net.worker.handlers import Function, Handler, make_handler
from majordomus.net.worker.load import Measure, host_load
from majordomus.net.worker.processes import pipe as process_wire
from majordomus.net.worker.processes import target as process_target
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect
from majordomus.security.certificates import Certificate

DRAIN_TIMEOUT: Final = 10.0
KILL_AFTER: Final = 2.0

logger = logging.getLogger("majordomus.worker")

F = TypeVar("F", bound=Function)


class WorkerBase(WorkerEvents):
    """The table of services, and where they are offered.

    `broker`: one endpoint or several; the worker registers at all of them. `capacity`: requests
    that each broker may have under work here at a time (default: `threads` where one handler needs
    a thread, else 1000). `threads`: handlers made with `def` that run at a time. `processes`: the
    same for handlers with `run="process"` (default: the processors), and what each broker may have
    under work there; one that has not ended `kill_after` seconds after a cancel or its deadline is
    killed. `weight`: this worker's share of its services' requests, next to workers of weight 1.
    `load`: returns what heartbeats tell of this machine's load, called in a thread every 10 s
    (default: load average per core; on Windows the CPU's share). `drain_timeout`: seconds that
    requests get to finish at the end. `interval` and `liveness` count until the broker has
    announced its own.
    `server_key`, `certificate`, `plain` and `login` are those of `Client`.
    """

    def __init__(
        self,
        broker: str | Sequence[str] = endpoints.DEFAULT,
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
        load: Measure = host_load,
        server_key: str = "",
        certificate: Certificate | str | Path | None = None,
        plain: tuple[str, str] | None = None,
        login: Sequence[str | bytes] | None = None,
    ) -> None:
        if capacity is not None and not 1 <= capacity <= spec.MAX_CAPACITY:
            raise ConfigurationError(f"a capacity is 1 to {spec.MAX_CAPACITY}, not {capacity}")
        self._threads = min(32, (os.cpu_count() or 1) + 4)
        self._processes = _processors()
        if not kill_after >= 0:
            raise ConfigurationError(f"kill_after is a number of seconds from 0, not {kill_after}")
        self._kill_after = kill_after
        self._broker, self._server_key = broker, server_key
        self._certificate, self._plain = certificate, plain
        self._dialect = endpoints.dialect(dialect)
        self._login = None if login is None else self._credentials(login)
        self._reach()
        self.configure(threads=threads, processes=processes)
        self.handlers: dict[str, Handler] = {}
        self._settings = WorkerSettings(
            services=(),
            dialect=endpoints.dialect(dialect),
            interval=interval,
            liveness=liveness,
            weight=_weight(weight),
        )
        self._load = load
        self._topics = {}
        self._capacity = capacity
        self._drain_timeout = drain_timeout
        self._shift: Shift | None = None

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
        """Who runs a worker may overrule what its program says; None leaves it. Before it runs.

        Raises: ConfigurationError.
        """
        _check_sizes(threads, processes)
        if broker is not None or server_key or certificate or plain:
            self._broker = self._broker if broker is None else broker
            self._server_key = server_key or self._server_key
            self._certificate = certificate or self._certificate
            self._plain = plain or self._plain
            self._reach()
        if login is not None:
            self._login = self._credentials(login)
        if threads is not None:
            self._threads = threads
        if processes is not None:
            self._processes = processes

    def _credentials(self, login: Sequence[str | bytes]) -> Credentials:
        if self._dialect is not Dialect.MDP03:
            raise ConfigurationError(
                f"a worker that speaks {self._dialect.value} has no words for a login"
            )
        return credentials(login)

    def _reach(self) -> None:
        self._access = Access(self._broker, self._server_key, self._certificate, self._plain)
        self.endpoints = self._access.urls

    def resize(self, *, threads: int | None = None, processes: int | None = None) -> None:
        """Other sizes of the pools from now on; None leaves one. From any thread.

        The capacity follows, and brokers learn of it at once. What is too many ends when it is done
        with its request. Raises: ConfigurationError.
        """
        _check_sizes(threads, processes)
        self.configure(threads=threads, processes=processes)
        if self._shift is not None:
            self._shift.resize(threads, processes)

    def set_capacity(self, capacity: int | None) -> None:
        """How much each broker may have under work here from now on; None: as the pools allow.

        0 takes nothing new, of any service, until another value is set. Handlers in processes keep
        the number of those. From any thread. Raises: ConfigurationError.
        """
        if capacity is not None and not 0 <= capacity <= spec.MAX_CAPACITY:
            raise ConfigurationError(f"a capacity is 0 to {spec.MAX_CAPACITY}, not {capacity}")
        if capacity == 0 and self._settings.dialect is not Dialect.MDP03:
            raise ConfigurationError(f"{self._settings.dialect} has no word for a pause: use stop")
        self._capacity = capacity
        if self._shift is not None:
            self._shift.set_capacity(capacity)

    @overload
    def service(self, name: F) -> F: ...
    @overload
    def service(self, name: str | None = None, *, run: str | None = None) -> Callable[[F], F]: ...
    def service(
        self, name: str | F | None = None, *, run: str | None = None
    ) -> F | Callable[[F], F]:
        """Decorator: the function serves `name`, by default its own name; `run` is as in `add`.

        Raises: ConfigurationError.
        """
        if callable(name):
            self.add(name.__name__, name)
            return name

        def decorate(function: F) -> F:
            self.add(name or function.__name__, function, run=run)
            return function

        return decorate

    def add(self, name: str, function: Function, *, run: str | None = None) -> None:
        """`function` serves `name`, from now on when the worker runs already.

        `run="process"`: in one of `processes`; the function has to stand at the top of a module.

        Raises: ConfigurationError for a name that no service may have, what is no function, or
        cannot run so.
        """
        if not 0 < len(name.encode()) <= spec.MAX_NAME:
            raise ConfigurationError(
                f"a service's name has 1 to {spec.MAX_NAME} bytes: {name[:40]!r}"
            )
        if name.encode().startswith(spec.MMI_PREFIX):
            raise ConfigurationError(f"{name!r}: names that start with mmi. are the broker's")
        handler = make_handler(function, run)
        if self._shift is not None and handler.target is not None:
            process_target.check(handler.target, handler.function)
        self.handlers[name] = handler
        if self._shift is not None:
            self._shift.add(name, self.handlers[name])

    @property
    def ready(self) -> bool:
        """Whether at least one broker has registered all services."""
        return self._shift is not None and self._shift.ready

    def _begin(self) -> Shift:
        """Raises:

        ConfigurationError for a worker without a service, LocalProtocolError when it runs already.
        """
        if not self.handlers:
            raise ConfigurationError(
                "this worker has no service: decorate a function with @worker.service(name)"
            )
        if self._shift is not None:
            raise LocalProtocolError("running", "this worker runs already")
        if process_wire.is_loading():
            raise ConfigurationError(
                "the worker starts when its module is imported, which its processes do: start it "
                'below if __name__ == "__main__"'
            )
        for handler in self.handlers.values():
            if handler.target is not None:
                process_target.check(handler.target, handler.function)
        plan = Plan(
            self.endpoints,
            self._settings,
            self._threads,
            self._capacity,
            self._processes,
            self._kill_after,
            self._access,
            self._load,
            dict(self._topics),
            self._login,
        )
        self._shift = Shift(plan, dict(self.handlers), self._drain_timeout)
        return self._shift


class Shift:
    """One run of the engine, until somebody asks to stop.

    `add` and `stop` may be called from any thread.
    """

    def __init__(self, plan: Plan, handlers: dict[str, Handler], drain_timeout: float) -> None:
        self._plan, self._handlers, self._drain_timeout = plan, handlers, drain_timeout
        self._asked, self._at_once = asyncio.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Engine | None = None
        self._failure: Exception | None = None

    @property
    def ready(self) -> bool:
        """Whether at least one broker has registered all services."""
        return self._engine is not None and self._engine.ready

    async def serve(self, *, signals: bool, begun: Callable[[], object] | None = None) -> None:
        """From the first connection to the last word. Cancelling it ends it without draining.

        Raises: what a connection has failed with. `begun` is called when `stop` and `add` have
        somebody to talk to.
        """
        loop = self._loop = asyncio.get_running_loop()
        engine = self._engine = Engine(self._plan, self._handlers, loop, self._broken)
        if begun is not None:
            begun()
        with self._signals(loop) if signals else contextlib.nullcontext():
            try:
                engine.open()
                await self._asked.wait()
                await _first_of(engine.drain(), self._at_once.wait(), self._drain_timeout)
            finally:
                self._engine = self._loop = None
                await engine.close()
        if self._failure is not None:
            raise self._failure

    def add(self, name: str, handler: Handler) -> None:
        """One more service."""
        loop, engine = self._loop, self._engine
        if loop is not None and engine is not None:
            loop.call_soon_threadsafe(engine.add, name, handler)

    def resize(self, threads: int | None, processes: int | None) -> None:
        """Other sizes of the pools."""
        loop, engine = self._loop, self._engine
        if loop is not None and engine is not None:
            loop.call_soon_threadsafe(engine.resize, threads, processes)

    def set_capacity(self, capacity: int | None) -> None:
        """Another capacity."""
        loop, engine = self._loop, self._engine
        if loop is not None and engine is not None:
            loop.call_soon_threadsafe(engine.set_capacity, capacity)

    def events(self, action: Callable[[EngineEvents], object]) -> None:
        """Something about events. What comes after the end is lost."""
        loop, engine = self._loop, self._engine
        if loop is not None and engine is not None:
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(action, engine.events)

    def stop(self, *, drain: bool) -> None:
        """Asks to drain, or to end at once."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(self._stop, drain)

    def _stop(self, drain: bool) -> None:
        self._asked.set()
        if not drain:
            self._at_once.set()

    def _broken(self, error: Exception) -> None:
        self._failure = error
        self._stop(drain=False)

    def _signalled(self) -> None:
        logger.info("the worker %s", "ends" if self._asked.is_set() else "drains")
        self._stop(drain=not self._asked.is_set())

    @contextlib.contextmanager
    def _signals(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """SIGINT and SIGTERM: the first drains, the second ends at once.

        Where this loop may not hear them, nothing.
        """
        heard: list[signal.Signals] = []
        with contextlib.suppress(
            ValueError, RuntimeError, NotImplementedError
        ):  # not the main thread
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._signalled)
                heard.append(number)
        try:
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)


def _check_sizes(threads: int | None, processes: int | None) -> None:
    if threads is not None and threads < 1:
        raise ConfigurationError(f"a worker has at least 1 thread, not {threads}")
    if processes is not None and not 1 <= processes <= spec.MAX_CAPACITY:
        raise ConfigurationError(
            f"a worker has 1 to {spec.MAX_CAPACITY} processes, not {processes}"
        )


def _processors() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _weight(weight: float) -> float:
    if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise ConfigurationError(f"a weight is {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}, not {weight}")
    return float(weight)


async def _first_of(work: Awaitable[object], alarm: Awaitable[object], timeout: float) -> None:
    """Until one of both is done, or `timeout` seconds have passed; the rest is cancelled."""
    tasks = [asyncio.ensure_future(one) for one in (work, alarm)]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
