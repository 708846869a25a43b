"""The engine of a worker: sessions with brokers on one side, handlers on the other, one event loop
between them.

Worker and AsyncWorker both run it. Everything is called in the loop's thread, but for what runs in
the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from majordomus.core.session_login import Credentials
from majordomus.core.worker_login import LoginWorkerSession
from majordomus.core.worker_session import (
    Cancel,
    Credit,
    Event,
    Incoming,
    Job,
    Refused,
    SentOff,
    WorkerEvent,
    WorkerSession,
    WorkerSettings,
)
from majordomus.errors import MajordomusError
from majordomus.net.access import Access
from majordomus.net.async_line import AsyncLine
from majordomus.net.bodies import to_frames
from majordomus.net.deadline import HANDLING
from majordomus.net.eager import spawner
from majordomus.net.events import Handler as EventHandler
from majordomus.net.flow import Outflow
from majordomus.net.handlers import Answer, Handler, Shape, answer, failure
from majordomus.net.later import Box, Said
from majordomus.net.load import Measure, Meter, host_load
from majordomus.net.parts import Parts
from majordomus.net.pool import Pool
from majordomus.net.request import Request
from majordomus.net.running import Running, judge
from majordomus.net.worker_events import EngineEvents
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.net.process_pool import ProcessPool

DRAIN_LOOK: Final = 0.02
"""Seconds between two looks whether the sessions have drained."""
ABORT_GRACE: Final = 0.5
"""Seconds for handlers that are cancelled at the end to answer."""
NO_STREAM: Final = b"a handler that runs in a process takes no stream from its client"
PARTS_AHEAD: Final = 16
"""Parts that a generator in a thread may be ahead of the event loop."""

_OK: Final = spec.OK
_MORE: Final = spec.MORE
_ONCE: Final = spec.ONCE
_THREADED: Final = tuple(shape for shape in Shape if shape.threaded)

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


class Post:
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
        self.running: dict[int, Running] = {}
        self.line: AsyncLine[WorkerEvent] = AsyncLine(
            self.session,
            lambda: url,
            take=lambda events: engine.take(self, events),
            broken=engine.broken,
            loop=loop,
            access=access,
        )

    def tell_sent_off(self, event: SentOff) -> None:
        """Log why, once as long as it stays the same."""
        text = f"{event.status} {event.text}"
        if text != self._sent_off:
            self._sent_off = text
            shown = text if text.isprintable() else text.encode("unicode_escape").decode()
            logger.warning("%s sent us off: %.300s", self.url, shown)


class Engine:
    """Serves from `open` to `close`. `broken` gets the exception after which it cannot go on."""

    def __init__(
        self,
        plan: Plan,
        handlers: Mapping[str, Handler],
        loop: asyncio.AbstractEventLoop,
        broken: Callable[[Exception], None],
    ) -> None:
        self._plan, self._loop, self.broken = plan, loop, broken
        self._spawn = spawner(loop)
        self._pool = Pool(plan.threads)
        self._load: float | None = None
        self._meter = Meter(plan.load, self._set_load, loop)
        self._processes: ProcessPool | None = None
        self._handlers: dict[bytes, Handler] = {}
        self._names: dict[bytes, str] = {}
        for name, handler in handlers.items():
            self._know(name.encode(), handler)
        self._posts = [self._post(url, names) for url in plan.urls for names in self._shares()]
        self.events = EngineEvents(self._posts, plan.topics)
        self._results: deque[tuple[Running, Said]] = deque()
        self._thread = threading.get_ident()
        self._collecting = False
        self._closing = False
        self._idle = asyncio.Event()
        self._awaited = False

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
        known = service in self._handlers
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

    # ── from the session ──────────────────────────────────────────────────────────────────────────

    def take(self, post: Post, events: Iterable[WorkerEvent]) -> None:
        """Requests to start, and requests that nobody waits for any more."""
        for event in events:
            if isinstance(event, Job):
                self._start(post, event)
            else:
                self._on_the_way(post, event)

    def _on_the_way(self, post: Post, event: WorkerEvent) -> None:
        """What begins nothing."""
        if isinstance(event, Event | Refused):
            self.events.put(event)
        elif isinstance(event, SentOff):
            post.tell_sent_off(event)
        elif (one := post.running.get(event.id)) is None:
            return
        elif isinstance(event, Cancel):
            self._withdraw(one)
        elif isinstance(event, Incoming):
            if isinstance(one.request.parts, Parts):
                one.request.parts.put(event.frames, event.last)
        elif isinstance(event, Credit) and one.flow is not None:
            one.flow.go_on()

    def _start(self, post: Post, job: Job) -> None:
        handler = self._handlers.get(job.service)
        if handler is None:
            post.session.reject(job.id, time.monotonic())
            post.line.touch()
            return
        parts = None
        if job.flags & _MORE:
            if handler.target is not None:
                post.session.final(job.id, spec.NOT_IMPLEMENTED, [NO_STREAM], time.monotonic())
                post.line.touch()
                return
            parts = Parts(self._loop, lambda read: self._was_read(post, job.id, read))
        number, service, frames, client, deadline, theirs, ours, flags = job
        request = Request(
            self._names[service],
            frames,
            client=client,
            deadline=deadline,
            packed=theirs,
            broker_packed=ours,
            once=flags & _ONCE != 0,
            parts=parts,
            loop_thread=self._thread if handler.target is None else 0,
        )
        one = post.running[number] = Running(post, number, request, handler)
        if handler.shape in _THREADED:
            processes = None if handler.target is None else self._processes
            pool = processes or self._pool
            pool.submit(lambda: self._serve_in_thread(one))
        else:
            one.task = self._spawn(self._serve(one))

    def _withdraw(self, one: Running) -> None:
        one.request.withdraw()
        if one.task is not None:
            one.task.cancel()
        if one.ahead is not None:
            one.ahead.release()  # it looks at `cancelled` before it goes on
        if one.flow is not None:
            one.flow.go_on()

    def _was_read(self, post: Post, job: int, read: int) -> None:
        if post.session.was_read(job, read):
            post.line.touch()

    # ── handlers on the loop ──────────────────────────────────────────────────────────────────────

    async def _serve(self, one: Running) -> None:
        request, handler = one.request, one.handler
        HANDLING.set(request.deadline)
        try:
            if handler.shape is Shape.COROUTINE:
                result = await handler.function(request)
                outcome = (_OK, [result]) if type(result) is bytes else answer(result)
            else:
                await self._serve_parts(one)
                outcome = spec.OK, []
        except BaseException as error:
            outcome = judge(one, error)
        box = request.box
        if box is None or not self._left_open(one, box, outcome):
            self._finish(one, outcome)

    async def _serve_parts(self, one: Running) -> None:
        async with contextlib.aclosing(one.handler.function(one.request)) as parts:
            count = 0
            async for part in parts:
                await self._flow(one).send(to_frames(part))
                count += 1
                if count % PARTS_AHEAD == 0:
                    await asyncio.sleep(0)  # a generator that never waits would stop the heartbeats

    # ── handlers in threads ───────────────────────────────────────────────────────────────────────

    def _serve_in_thread(self, one: Running) -> None:
        HANDLING.set(one.request.deadline)
        try:
            outcome = self._serve_blocking(one)
        except BaseException as error:
            outcome = judge(one, error)
        box = one.request.box
        if box is None or not self._left_open(one, box, outcome):
            self._hand_over(one, outcome)

    def _left_open(self, one: Running, box: Box, outcome: Answer) -> bool:
        """Whether the answer is to come later. What a handler raises is the answer at once."""
        if outcome[0] != spec.OK:
            box.void()
            return False
        one.ahead = box.ahead
        box.open(lambda said: self._hand_over(one, said))
        return True

    def _serve_blocking(self, one: Running) -> Answer:
        request = one.request
        if request.cancelled:
            return spec.CANCELLED, [b"cancelled before it was begun"]
        result = one.handler.function(request)
        if not inspect.isgenerator(result):
            return answer(result)
        one.ahead = threading.Semaphore(PARTS_AHEAD)
        with contextlib.closing(result) as parts:
            for part in parts:
                if request.cancelled:
                    return spec.CANCELLED, [b"cancelled"]
                frames = to_frames(part)
                one.ahead.acquire()
                self._hand_over(one, frames)
        return spec.OK, []

    def _hand_over(self, one: Running, what: Said) -> None:
        """From a thread to the loop."""
        self._results.append((one, what))
        if not self._collecting:
            self._collecting = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._collecting = False  # before looking: what comes from now on asks for the next turn
        while self._results:
            one, what = self._results.popleft()
            if not isinstance(what, tuple):
                self._flow(one).put(what)
            elif one.flow is None:
                self._finish(one, what)
            else:
                one.flow.end(what)

    # ── to the session ────────────────────────────────────────────────────────────────────────────

    def _flow(self, one: Running) -> Outflow:
        flow = one.flow
        if flow is None:

            def sent() -> None:
                one.post.line.touch()
                if one.ahead is not None:
                    one.ahead.release()

            flow = one.flow = Outflow(
                one.post.session, one.job, self._loop, sent, lambda end: self._finish(one, end)
            )
        return flow

    def _finish(self, one: Running, outcome: Answer) -> None:
        post, now, job = one.post, time.monotonic(), one.job
        post.running.pop(job, None)
        one.flow = None
        if self._closing:
            return  # only we have cancelled it: the DISCONNECT gives it to another worker
        try:
            post.session.final(job, outcome[0], outcome[1], now)
        except MajordomusError as error:  # a status or a body that cannot be sent
            post.session.final(job, *failure(error), now)
        post.line.touch()
        if self._awaited and not post.running:
            self._idle.set()

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
                from majordomus.net.process_pool import ProcessPool

                self._processes = ProcessPool(
                    self._plan.processes, self._loop, self.broken, self._plan.kill_after
                )
            handler = handler._replace(function=self._processes.function(handler.target))
        self._names[service] = service.decode()
        self._handlers[service] = handler

    def in_process(self, services: tuple[bytes, ...]) -> bool:
        """Whether these, which share a connection, run in processes."""
        return self._handlers[services[0]].target is not None

    def _shares(self) -> list[tuple[bytes, ...]]:
        """The services of each connection: one for what runs in processes, whose capacity is their
        number, and one for all others; or one for each service where the dialect has no more.
        """
        names = self._handlers
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
        threaded = any(
            handler.shape.threaded and handler.target is None for handler in self._handlers.values()
        )
        return given or (self._plan.threads if threaded else 1000)


def _with(settings: WorkerSettings, **changes: Any) -> WorkerSettings:
    kept = {name: getattr(settings, name) for name in WorkerSettings.__struct_fields__}
    return WorkerSettings(**{**kept, **changes})
