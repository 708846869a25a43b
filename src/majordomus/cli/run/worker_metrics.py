"""The metrics of one worker process, for `majordomus worker --metrics` and `--otlp`.

They are served over HTTP, or sent to a collector, by a thread of the process. Handlers are timed
only where one of the flags is given. The time of a handler with ``run="process"`` includes the wait
for a process.
"""

from __future__ import annotations

import atexit
import contextlib
import inspect
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from majordomus.net.bodies import Reply
from majordomus.net.worker.declare.middleware import HandlerMiddleware
from majordomus.net.worker.handlers import Function, Handler, Shape
from majordomus.net.worker.request import Request
from majordomus.observe.exporter import BOUNDS
from majordomus.observe.web import make_probe_app
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.net.worker.base import WorkerBase
    from majordomus.net.worker.thread_pool import PoolUsage

PREFIX: Final = "majordomus_worker_"
SERVICE: Final = "majordomus-worker"
"""The `service.name` of what is sent to a collector."""
SEND_TIMEOUT: Final = 2.0
"""Seconds that a collector has to answer: a process that ends waits for the last message."""
BUCKETS: Final = tuple(map(float, BOUNDS))


class Run:
    """One run of a handler. failed: whether it has failed without an exception."""

    failed = False


class WorkerMetrics(Collector):
    """The metrics of one worker. Make it before the worker runs."""

    def __init__(self, worker: WorkerBase) -> None:
        self._worker = worker
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            f"{PREFIX}handler_seconds",
            "How long handlers ran, by service and by how they ended.",
            ("service", "outcome"),
            registry=self.registry,
            buckets=BUCKETS,
        )
        self._running = Gauge(
            f"{PREFIX}handlers_running",
            "Handlers that run now.",
            ("service",),
            registry=self.registry,
        )
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        for name, handler in worker.handlers.items():
            worker.handlers[name] = self.timed(handler)

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: what is collected depends on the worker's brokers."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the running worker; only `ready` while it does not run."""
        ready = float(self._worker.ready)
        yield GaugeMetricFamily(f"{PREFIX}ready", "Whether a broker has registered it.", ready)
        usage = self._worker._usage()
        if usage is None:
            return
        yield from _pools({"threads": usage.threads, "processes": usage.processes})
        text = "How late the event loop ran its last timer."
        yield GaugeMetricFamily(f"{PREFIX}loop_lag_seconds", text, usage.lag)
        text = "How late the event loop ran all timers."
        yield CounterMetricFamily(f"{PREFIX}loop_late_seconds", text, usage.lag_seconds)
        text = "Whether the broker has registered all services."
        registered = GaugeMetricFamily(f"{PREFIX}registered", text, labels=["broker"])
        text = "How often the broker was lost: its heartbeats, or its connection."
        losses = CounterMetricFamily(f"{PREFIX}broker_losses", text, labels=["broker"])
        text = "Heartbeats of the broker that did not come in their interval."
        missed = CounterMetricFamily(f"{PREFIX}heartbeats_missed", text, labels=["broker"])
        for url, found in usage.brokers.items():
            registered.add_metric([url], float(found.registered))
            losses.add_metric([url], found.losses)
            missed.add_metric([url], found.missed)
        yield registered
        yield losses
        yield missed

    def timed(self, handler: Handler) -> Handler:
        """Return a handler that does the same and is timed."""
        if handler.in_process:
            return handler._replace(middleware=(*handler.middleware, TimedProcess(self._time)))
        wrap = {
            Shape.FUNCTION: self._function,
            Shape.COROUTINE: self._coroutine,
            Shape.GENERATOR: self._generator,
            Shape.ASYNC_GENERATOR: self._async_generator,
        }[handler.shape]
        return handler._replace(function=wrap(handler.function))

    @contextlib.contextmanager
    def _time(self, service: str) -> Iterator[Run]:
        running, began = self._running.labels(service), time.perf_counter()
        running.inc()
        run, outcome = Run(), "failed"
        try:
            yield run
            outcome = "failed" if run.failed else "answered"
        finally:
            running.dec()
            self._seconds.labels(service, outcome).observe(time.perf_counter() - began)

    def _function(self, function: Function) -> Function:
        def run(request: Request) -> Any:
            with self._time(request.service):
                return function(request)

        return run

    def _coroutine(self, function: Function) -> Function:
        async def run(request: Request) -> Any:
            with self._time(request.service):
                return await function(request)

        return run

    def _generator(self, function: Function) -> Function:
        def run(request: Request) -> Iterator[Any]:
            with self._time(request.service):
                yield from function(request)

        return run

    def _async_generator(self, function: Function) -> Function:
        async def run(request: Request) -> AsyncIterator[Any]:
            with self._time(request.service):
                async with contextlib.aclosing(function(request)) as parts:
                    async for part in parts:
                        yield part

        return run


class TimedProcess(HandlerMiddleware):
    """Times handlers that run in processes."""

    def __init__(self, time: Callable[[str], contextlib.AbstractContextManager[Run]]) -> None:
        self._time = time

    def call(self, request: Request, handler: Callable[[Request], Any]) -> Any:
        with contextlib.ExitStack() as stack:
            timed = stack.enter_context(self._time(request.service))
            result = handler(request)
            if inspect.isgenerator(result):
                return _parts(result, stack.pop_all())
            timed.failed = isinstance(result, Reply) and result.status != spec.OK
        return result


def _parts(parts: Iterator[Any], until: contextlib.ExitStack) -> Iterator[Any]:
    with until:
        yield from parts


def _pools(pools: dict[str, PoolUsage | None]) -> Iterator[Metric]:
    texts = {
        "size": "Threads or processes that there may be.",
        "busy": "Threads or processes that run a handler.",
        "waiting": "Requests that wait for a thread or process.",
    }
    for name, text in texts.items():
        family = GaugeMetricFamily(f"{PREFIX}pool_{name}", text, labels=["pool"])
        for pool, usage in pools.items():
            if usage is not None:
                family.add_metric([pool], getattr(usage, name))
        yield family


def listen(host: str, port: int, most: int) -> socket.socket:
    """Listen at the first free port of `most` from `port` on; port 0 is any.

    Raises: OSError of the last one.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in range(port, port + (most if port else 1)):
        try:
            return socket.create_server((host, number), family=family)
        except OSError as error:
            last = error
    raise last


def serve(metrics: WorkerMetrics, listening: socket.socket) -> None:
    """Serve HTTP in a thread until the process ends."""

    def problems() -> dict[str, str]:
        worker = metrics._worker
        return {} if worker.ready else {"worker": "no broker has registered it"}

    config = uvicorn.Config(
        make_probe_app(metrics.registry, problems),
        log_config=None,
        access_log=False,
        lifespan="off",
        limit_concurrency=20,
    )
    server = uvicorn.Server(config)
    threading.Thread(
        target=server.run,
        kwargs={"sockets": [listening]},
        name="majordomus-metrics",
        daemon=True,
    ).start()


def send(metrics: WorkerMetrics, otlp: str, seconds: float) -> None:
    """Send the metrics to a collector every `seconds`, in a thread, and once more when the process
    ends. Raises: ConfigurationError for a wrong URL."""
    from majordomus.contrib.otel.metrics import OtlpMetrics

    instance = f"{socket.gethostname()}-{os.getpid()}"
    sender = OtlpMetrics(otlp, metrics.registry, SERVICE, instance=instance, timeout=SEND_TIMEOUT)

    def run() -> None:
        while True:
            sender.send(*sender.encoded())
            time.sleep(seconds)

    atexit.register(lambda: sender.send(*sender.encoded()))
    threading.Thread(target=run, name="majordomus-otlp", daemon=True).start()
