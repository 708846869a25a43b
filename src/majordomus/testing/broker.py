"""`TestBroker`: joins a broker, workers and clients for a test.

With `real=True` the same object starts a broker on a TCP port, and each worker in a thread of its
own (real.py). What needs the virtual clock then skips the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from math import inf
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeAlias, TypeVar

from majordomus.core.broker.hooks.actions import Action, Reject
from majordomus.core.broker.hooks.views import HookRequest
from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import ConfigurationError
from majordomus.net.broker.broker import Broker
from majordomus.net.broker.hooks import Middleware
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from majordomus.net.worker.async_worker import AsyncWorker
from majordomus.net.worker.worker import Worker
from majordomus.testing.memory import MemoryBroker
from majordomus.testing.real import RealBroker
from majordomus.testing.recorder import RecordedCall

AnyWorker: TypeAlias = Worker | AsyncWorker
AnyClient: TypeAlias = Client | AsyncClient
READY: Final = 5.0
"""Seconds in which a worker has to be registered."""

T = TypeVar("T")


class Backend(Protocol):
    """What a `TestBroker` does with a virtual clock, or with a real broker.

    calls: the calls that the broker has received.
    """

    calls: list[RecordedCall]

    def open(self) -> None:
        """Start the broker."""

    def url(self) -> str:
        """Return a URL for one more peer."""

    def now(self) -> float:
        """Return the time, in seconds."""

    def advance(self, seconds: float) -> None:
        """Let time pass."""

    def add(self, worker: AnyWorker, url: str) -> None:
        """Start a worker, and wait until it is registered."""

    def lose(self, worker: AnyWorker) -> None:
        """End a worker at once."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the event loop of the test."""

    def drop(self, url: str) -> None:
        """End the connections of the peer with this URL."""

    def pause(self, url: str, paused: bool) -> None:
        """Let the peer with this URL read nothing, or read again."""

    def close(self) -> None:
        """End everything."""


class VirtualTime:
    """The clock of a test."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def now(self) -> float:
        """The time, in seconds; only differences have a meaning."""
        return self._backend.now()

    def advance(self, seconds: float) -> None:
        """Let time pass: everything that is due meanwhile happens, in order.

        Raises: ConfigurationError for a negative number; NeedsVirtualClock with `real=True`.
        """
        if not 0 <= seconds < inf:
            raise ConfigurationError(f"time advances by 0 seconds or more, not {seconds}")
        self._backend.advance(seconds)


class _Refusals(Middleware):
    """Refuses calls of certain services, as `TestBroker.refuse` wants it."""

    def __init__(self) -> None:
        self.left: dict[str, list[Reject]] = {}

    def on_request(self, request: HookRequest) -> Action | None:
        waiting = self.left.get(request.service)
        return waiting.pop(0) if waiting else None


class TestBroker:
    """A broker for one test: `with TestBroker() as broker:`, or a fixture of the plugin.

    broker: a `Broker` of the program, with its hooks, settings and strategies
    settings: the settings of a broker of its own
    real: use a real broker on a TCP port, real threads and the real clock
    time: the clock
    """

    __test__ = False  # pytest collects no tests here

    def __init__(
        self,
        broker: Broker | None = None,
        *,
        settings: BrokerSettings | Mapping[str, Any] | None = None,
        real: bool = False,
    ) -> None:
        if broker is not None and settings is not None:
            raise ConfigurationError("give a broker or settings, not both")
        if isinstance(settings, Mapping):
            settings = BrokerSettings(**settings)
        self.real = real
        self._refusals = _Refusals()
        made = Broker(settings, bind="tcp://127.0.0.1:*") if broker is None else broker
        made.hooks.insert(0, self._refusals)
        self._broker = made
        self._backend: Backend = (RealBroker if real else MemoryBroker)(made)
        self.time = VirtualTime(self._backend)
        self._urls: dict[int, str] = {}
        self._clients: list[AnyClient] = []
        self._attached: list[AnyClient] = []
        self._workers: list[AnyWorker] = []
        self._open = False

    # ── peers ─────────────────────────────────────────────────────────────────────────────────────

    def add(self, *workers: AnyWorker) -> None:
        """Start workers, whatever broker they name, and wait until they are registered.

        `def` handlers run on the event loop of the test, and so do handlers with `run="process"`.
        Raises: a StatusError when a service is refused; ConfigurationError as `Worker.run`.
        """
        for worker in workers:
            self._backend.add(worker, self._new_url(worker))
            self._workers.append(worker)

    def client(self, **options: Any) -> Client:
        """Return a client of this broker; the options are those of `Client`."""
        client = Client(self._backend.url(), **options)
        self._urls[id(client)] = client.endpoints[0]
        self._clients.append(client)
        return client

    def async_client(self, **options: Any) -> AsyncClient:
        """Return a client for coroutines of `run`; the options are those of `AsyncClient`."""
        client = AsyncClient(self._backend.url(), **options)
        self._urls[id(client)] = client.endpoints[0]
        self._clients.append(client)
        return client

    def attach(self, *clients: AnyClient) -> None:
        """Let clients of the program call this broker: clients that were not used yet, such as one
        that a module of handlers has. After the test they are as before.

        Raises: LocalProtocolError for a client that was used.
        """
        for client in clients:
            client.redirect(self._new_url(client))
            self._clients.append(client)
            self._attached.append(client)

    def _new_url(self, peer: object) -> str:
        url = self._urls[id(peer)] = self._backend.url()
        return url

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the event loop of the test, and return its result."""
        return self._backend.run(coroutine)

    # ── what has happened ─────────────────────────────────────────────────────────────────────────

    @property
    def calls(self) -> list[RecordedCall]:
        """The calls that the broker has received, the first one first."""
        return self._backend.calls

    def calls_of(self, service: str) -> list[RecordedCall]:
        """The calls of one service."""
        return [call for call in self.calls if call.service == service]

    # ── faults ────────────────────────────────────────────────────────────────────────────────────

    def lose(self, worker: AnyWorker) -> None:
        """End a worker at once: its connection is gone, and its handlers are cancelled."""
        self._backend.drop(self._urls[id(worker)])
        self._backend.lose(worker)
        self._workers.remove(worker)

    def drop(self, peer: AnyWorker | AnyClient) -> None:
        """End the connection of a worker or client, as a network does. It connects again."""
        self._backend.drop(self._urls[id(peer)])

    def pause(self, peer: AnyWorker | AnyClient) -> None:
        """Let a peer read nothing until `resume`: a slow reader."""
        self._backend.pause(self._urls[id(peer)], True)

    def resume(self, peer: AnyWorker | AnyClient) -> None:
        """Let a paused peer read what has come, and what comes."""
        self._backend.pause(self._urls[id(peer)], False)

    def refuse(
        self,
        service: str,
        status: int = 429,
        text: str = "the queue of this service is full",
        *,
        times: int = 1,
    ) -> None:
        """Refuse the next calls of a service: as a full queue does, or with another status."""
        self._refusals.left.setdefault(service, []).extend([Reject(status, text)] * times)

    # ── begin and end ─────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Start the broker. `with` does it. May be repeated."""
        if not self._open:
            self._open = True
            self._backend.open()

    def close(self) -> None:
        """End workers, clients and broker. May be repeated."""
        if not self._open:
            return
        self._open = False
        try:
            for client in self._clients:
                self._close(client)
        finally:
            self._backend.close()
            self._broker.hooks.remove(self._refusals)
            for client in self._attached:
                client.restore()

    def _close(self, client: AnyClient) -> None:
        if isinstance(client, Client):
            client.close()
            return
        loop = client._runner.loop
        if loop is None or not (loop.is_running() or loop.is_closed()):
            self._backend.run(client.close())
        elif loop.is_running():  # that of a worker in a thread
            asyncio.run_coroutine_threadsafe(client.close(), loop).result(READY)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
