"""The engine of a worker: sessions with brokers on one side, handlers on the other, one event loop
between them.

Worker and AsyncWorker both run it. Everything is called in the loop's thread, but for what runs in
the pool.
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
    WorkerEvent,
    WorkerSession,
    WorkerSettings,
)
from majordomus.net.connection.async_link import AsyncSessionConnection
from majordomus.net.connection.credentials import Access
from majordomus.net.events import Handler as EventHandler
from majordomus.net.worker.events import EngineEvents
from majordomus.net.worker.handlers import Handler
from majordomus.net.worker.load import LoadMeter, Measure, host_load
from majordomus.net.worker.running import ConnectionDesk
from majordomus.net.worker.serving import Serving
from majordomus.protocol.spec import Dialect

DRAIN_LOOK: Final = 0.02
"""Seconds between two looks whether the sessions have drained."""
ABORT_GRACE: Final = 0.5
"""Seconds for handlers that are cancelled at the end to answer."""

logger = logging.getLogger("majordomus.worker")


class Plan(NamedTuple):
    """What a worker is told when it is made. Without a `capacity` the engine chooses one.

    Handlers in processes have connections of their own, whose capacity is `processes`.
    """

    urls: list[str]
    settings: WorkerSettings
    threads: int
    capacity: int | None
    processes: int
    kill_after: float
    access: Access | None = None
    load: Measure = host_load
    topics: Mapping[bytes, EventHandler] = {}
    login: Credentials | None = None


class Post(ConnectionDesk):
    """One registration at one broker."""

    def __init__(
        self,
        url: str,
        settings: WorkerSettings,
        engine: Engine,
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
        self.in_process = engine.in_process(settings.services)
        self.capacity = settings.capacity
        """What was announced last."""
        self._sent_off = ""
        self.line: AsyncSessionConnection[WorkerEvent] = AsyncSessionConnection(
            self.session,
            lambda: url,
            take=lambda events: engine.take(self, events),
            broken=engine.broken,
            loop=loop,
            access=access,
        )

    def tell_sent_off(self, event: Disconnected) -> None:
        """Log why, once as long as it stays the same."""
        text = f"{event.status} {event.text}"
        if text != self._sent_off:
            self._sent_off = text
            shown = text if text.isprintable() else text.encode("unicode_escape").decode()
            logger.warning("%s sent us off: %.300s", self.url, shown)


class Engine(Serving):
    """Serves from `open` to `close`. `broken` gets the exception after which it cannot go on."""

    def __init__(
        self,
        plan: Plan,
        handlers: Mapping[str, Handler],
        loop: asyncio.AbstractEventLoop,
        broken: Callable[[Exception], None],
    ) -> None:
        super().__init__(loop, plan.threads)
        self._plan, self.broken = plan, broken
        self._load: float | None = None
        self._meter = LoadMeter(plan.load, self._set_load, loop)
        for name, handler in handlers.items():
            self._know(name.encode(), handler)
        self._posts = [self._post(url, names) for url in plan.urls for names in self._shares()]
        self.events = EngineEvents(self._posts, plan.topics)

    @property
    def ready(self) -> bool:
        """Whether at least one broker has all services registered."""
        return any(
            all(post.session.ready for post in self._posts if post.url == url)
            for url in self._plan.urls
        )

    def open(self) -> None:
        """Starts to connect to every broker, and the processes."""
        if self._processes is not None:
            self._processes.open()
        self._meter.start()
        for post in self._posts:
            post.line.open()
        self._announce()

    def add(self, name: str, handler: Handler) -> None:
        """One more service; brokers learn of it, and of the capacity that fits, at once."""
        self._add(name, handler)
        self._announce()

    def _add(self, name: str, handler: Handler) -> None:
        service = name.encode()
        known = service in self._offers
        had_processes = self._processes is not None
        self._know(service, handler)
        if self._processes is not None and not had_processes:
            self._processes.open()
        if known:
            return
        alike = [post for post in self._posts if post.in_process == self.in_process((service,))]
        if alike and self._plan.settings.dialect is Dialect.MDP03:
            for post in alike:
                post.session.add_service(service, time.monotonic())
                post.line.touch()
            return
        for url in self._plan.urls:
            post = self._post(url, (service,))
            self._posts.append(post)
            post.line.open()

    def resize(self, threads: int | None, processes: int | None) -> None:
        """Other sizes of the pools; brokers learn of it at once. None leaves one as it is."""
        if threads is not None:
            self._plan = self._plan._replace(threads=threads)
            self._pool.resize(threads)
        if processes is not None:
            self._plan = self._plan._replace(processes=processes)
            if self._processes is not None:
                self._processes.resize(processes)
        self._announce()

    def set_capacity(self, capacity: int | None) -> None:
        """None is what fits the pools; 0 takes nothing new, of any service."""
        self._plan = self._plan._replace(capacity=capacity)
        self._announce()

    def _announce(self) -> None:
        now = time.monotonic()
        for post in self._posts:
            capacity = self._capacity(post.in_process)
            if capacity != post.capacity:
                post.capacity = capacity
                post.session.set_capacity(capacity, now)
                post.line.touch()

    async def drain(self) -> None:
        """Takes nothing new and finishes what is there.

        It ends when all is done; the caller bounds it.
        """
        self._meter.stop()
        now = time.monotonic()
        for post in self._posts:
            post.session.drain(now)
            post.line.flush()
        while any(post.running or not post.session.drained for post in self._posts):
            self._awaited = True
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), DRAIN_LOOK)

    async def close(self) -> None:
        """Cancels what still runs, says goodbye and closes the connections.

        What was not answered by now is given to another worker, if that is allowed.
        """
        self._closing = True
        self._meter.stop()
        tasks = [
            one.task
            for post in self._posts
            for one in post.running.values()
            if one.task is not None
        ]
        for post in self._posts:
            for one in list(post.running.values()):
                self._withdraw(one)
        if tasks:
            await asyncio.wait(tasks, timeout=ABORT_GRACE)
        self.events.close()
        now = time.monotonic()
        for post in self._posts:
            post.session.close(now)
            post.line.flush()
            post.line.close()
        self._pool.close(0.0)
        if self._processes is not None:
            await self._processes.close()

    def heard(
        self, post: ConnectionDesk, event: EventReceived | SubscriptionRefused | Disconnected
    ) -> None:
        """What has nothing to do with a request."""
        if not isinstance(event, Disconnected):
            self.events.put(event)
        elif isinstance(post, Post):
            post.tell_sent_off(event)

    # ── registrations ─────────────────────────────────────────────────────────────────────────────

    def _post(self, url: str, services: tuple[bytes, ...]) -> Post:
        capacity = self._capacity(self.in_process(services))
        settings = _with(self._plan.settings, services=services, capacity=max(1, capacity))
        post = Post(url, settings, self, self._loop, self._plan.access, self._plan.login)
        post.session.set_load(self._load, time.monotonic())
        return post

    def _set_load(self, load: float | None) -> None:
        self._load = load
        now = time.monotonic()
        for post in self._posts:
            post.session.set_load(load, now)

    def _know(self, service: bytes, handler: Handler) -> None:
        if handler.target is not None:
            if self._processes is None:
                from majordomus.net.worker.processes.pool import ProcessPool

                self._processes = ProcessPool(
                    self._plan.processes, self._loop, self.broken, self._plan.kill_after
                )
            handler = handler._replace(function=self._processes.function(handler.target))
        self.offer(service, handler)

    def in_process(self, services: tuple[bytes, ...]) -> bool:
        """Whether these, which share a connection, run in processes."""
        return self._offers[services[0]].in_process

    def _shares(self) -> list[tuple[bytes, ...]]:
        """The services of each connection: one for what runs in processes, whose capacity is their
        number, and one for all others; or one for each service where the dialect has no more.
        """
        names = self._offers
        if self._plan.settings.dialect is not Dialect.MDP03:
            return [(name,) for name in names]
        inside = tuple(name for name in names if not self.in_process((name,)))
        apart = tuple(name for name in names if self.in_process((name,)))
        return [share for share in (inside, apart) if share]

    def _capacity(self, in_process: bool) -> int:
        given = self._plan.capacity
        if given == 0:
            return 0
        if in_process:
            return self._plan.processes
        threaded = any(offer.threaded and not offer.in_process for offer in self._offers.values())
        return given or (self._plan.threads if threaded else 1000)


def _with(settings: WorkerSettings, **changes: Any) -> WorkerSettings:
    kept = {name: getattr(settings, name) for name in WorkerSettings.__struct_fields__}
    return WorkerSettings(**{**kept, **changes})
