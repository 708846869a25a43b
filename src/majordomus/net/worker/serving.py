"""The way of a request through a worker: from the session's job to a handler, and its answer back.

The half of the engine that every request goes through. Everything is called in the loop's thread,
but for what runs in the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections import deque
from collections.abc import Sequence
from time import monotonic
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from majordomus.core.worker.session import (
    Cancel,
    Disconnected,
    DispatchCredit,
    EventReceived,
    Incoming,
    SubscriptionRefused,
    WorkerEvent,
)
from majordomus.core.worker.session_base import Dispatch
from majordomus.net.bodies import to_frames
from majordomus.net.deadline import HANDLING
from majordomus.net.worker.deferred_reply import Box, Said
from majordomus.net.worker.eager_tasks import spawner
from majordomus.net.worker.flow import Outflow
from majordomus.net.worker.handlers import Answer, Handler, answer, failure
from majordomus.net.worker.parts import Parts
from majordomus.net.worker.request import Request
from majordomus.net.worker.running import ConnectionDesk, Invocation, Offer, judge
from majordomus.net.worker.thread_pool import ThreadPool
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.net.worker.processes.pool import ProcessPool

NO_STREAM: Final = b"a handler that runs in a process takes no stream from its client"
PARTS_AHEAD: Final = 16
"""Parts that a generator in a thread may be ahead of the event loop."""

_OK: Final = spec.OK
_MORE: Final = spec.MORE
_ONCE: Final = spec.ONCE


class Serving:
    """The requests of all connections of one engine."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int) -> None:
        self._loop = loop
        self._spawner = spawner(loop, self._ended)
        self._pool = ThreadPool(threads)
        self._processes: ProcessPool | None = None
        self._offers: dict[bytes, Offer] = {}
        self._results: deque[tuple[Invocation, Said]] = deque()
        self._thread = threading.get_ident()
        self._collecting = False
        self._closing = False
        self._idle = asyncio.Event()
        self._awaited = False
        self._at: ConnectionDesk | None = (
            None  # whose events are being taken: it is flushed afterwards
        )
        self._said = False  # there is something to flush

    def offer(self, service: bytes, handler: Handler) -> None:
        """From now on `handler` serves `service`."""
        self._offers[service] = Offer(service.decode(), handler)

    # ── from the session ──────────────────────────────────────────────────────────────────────────

    def take(self, post: ConnectionDesk, events: Sequence[WorkerEvent]) -> None:
        """Requests to start, and requests that nobody waits for any more."""
        if not events:
            return
        self._at, self._said = post, False
        try:
            for event in events:
                if isinstance(event, Dispatch):
                    self._start(post, event)
                else:
                    self._on_the_way(post, event)
        finally:
            self._at = None
            if self._said:
                post.line.touch()

    def heard(
        self, post: ConnectionDesk, event: EventReceived | SubscriptionRefused | Disconnected
    ) -> None:
        """What has nothing to do with a request."""
        raise NotImplementedError

    def _on_the_way(
        self,
        post: ConnectionDesk,
        event: Cancel
        | Incoming
        | DispatchCredit
        | EventReceived
        | SubscriptionRefused
        | Disconnected,
    ) -> None:
        """What begins nothing."""
        if isinstance(event, EventReceived | SubscriptionRefused | Disconnected):
            self.heard(post, event)
        elif (one := post.running.get(event.id)) is None:
            return
        elif isinstance(event, Cancel):
            self._withdraw(one)
        elif isinstance(event, Incoming):
            if isinstance(one.request.parts, Parts):
                one.request.parts.put(event.frames, event.last)
        elif one.flow is not None:
            one.flow.go_on()

    def _start(self, post: ConnectionDesk, job: Dispatch) -> None:
        offer = self._offers.get(job.service)
        if offer is None:
            post.session.reject(job.id, monotonic())
            self._touch(post)
            return
        parts = None
        if job.flags & _MORE:
            if offer.in_process:
                post.session.final(job.id, spec.NOT_IMPLEMENTED, [NO_STREAM], monotonic())
                self._touch(post)
                return
            parts = self._parts_of(post, job.id)
        request = Request.__new__(Request)
        request.fill(
            offer.name,
            job.frames,
            job.client,
            job.deadline,
            job.metadata,
            job.broker_metadata,
            job.flags & _ONCE != 0,
            parts,
            0 if offer.in_process else self._thread,
        )
        one = Invocation.__new__(Invocation)
        one.begin(post, job.id, request, offer)
        if offer.threaded:
            post.running[job.id] = one
            self._submit(one)
            return
        try:
            work = offer.function(request) if offer.simple else self._serve_parts(one)
        except BaseException as error:
            self._ended(one, None, error)
            return
        if type(work) is not CoroutineType:
            work = _awaiting(work)
        one.task = self._spawner.spawn(work, one, request.deadline)
        if not one.over:
            post.running[job.id] = one

    def _parts_of(self, post: ConnectionDesk, job: int) -> Parts:
        return Parts(self._loop, lambda read: self._was_read(post, job, read))

    def _submit(self, one: Invocation) -> None:
        pool = self._processes if one.offer.in_process else None
        (pool or self._pool).submit(lambda: self._serve_in_thread(one))

    def _withdraw(self, one: Invocation) -> None:
        one.request.withdraw()
        if one.task is not None:
            one.task.cancel()
        if one.ahead is not None:
            one.ahead.release()  # it looks at `cancelled` before it goes on
        if one.flow is not None:
            one.flow.go_on()

    def _was_read(self, post: ConnectionDesk, job: int, read: int) -> None:
        if post.session.was_read(job, read):
            self._touch(post)

    def _touch(self, post: ConnectionDesk) -> None:
        """There is something to be sent."""
        if post is self._at:
            self._said = True
        else:
            post.line.touch()

    # ── handlers on the loop ──────────────────────────────────────────────────────────────────────

    def _ended(self, about: Invocation, result: object, error: BaseException | None) -> None:
        """A handler on the loop has returned, or raised."""
        box = about.request.box
        if error is None and type(result) is bytes and box is None:
            self._give(about, _OK, [result])
            return
        outcome = answer(result) if error is None else judge(about, error)
        if box is None or not self._left_open(about, box, outcome):
            self._finish(about, outcome)

    async def _serve_parts(self, one: Invocation) -> None:
        async with contextlib.aclosing(one.offer.function(one.request)) as parts:
            count = 0
            async for part in parts:
                await self._flow(one).send(to_frames(part))
                count += 1
                if count % PARTS_AHEAD == 0:
                    await asyncio.sleep(0)  # a generator that never waits would stop the heartbeats

    # ── handlers in threads ───────────────────────────────────────────────────────────────────────

    def _serve_in_thread(self, one: Invocation) -> None:
        HANDLING.set(one.request.deadline)
        try:
            outcome = self._serve_blocking(one)
        except BaseException as error:
            outcome = judge(one, error)
        box = one.request.box
        if box is None or not self._left_open(one, box, outcome):
            self._hand_over(one, outcome)

    def _left_open(self, one: Invocation, box: Box, outcome: Answer) -> bool:
        """Whether the answer is to come later. What a handler raises is the answer at once."""
        if outcome[0] != spec.OK:
            box.void()
            return False
        one.ahead = box.ahead
        box.open(lambda said: self._hand_over(one, said))
        return True

    def _serve_blocking(self, one: Invocation) -> Answer:
        request = one.request
        if request.cancelled:
            return spec.CANCELLED, [b"cancelled before it was begun"]
        result = one.offer.function(request)
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

    def _hand_over(self, one: Invocation, what: Said) -> None:
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

    def _flow(self, one: Invocation) -> Outflow:
        flow = one.flow
        if flow is None:

            def sent() -> None:
                self._touch(one.post)
                if one.ahead is not None:
                    one.ahead.release()

            flow = one.flow = Outflow(
                one.post.session, one.job, self._loop, sent, lambda end: self._finish(one, end)
            )
        return flow

    def _finish(self, one: Invocation, outcome: Answer) -> None:
        self._give(one, outcome[0], outcome[1])

    def _give(self, one: Invocation, status: int, frames: list[bytes]) -> None:
        post, now, job = one.post, monotonic(), one.job
        one.over = True
        post.running.pop(job, None)
        one.flow = None
        if self._closing:
            return  # only we have cancelled it: the DISCONNECT gives it to another worker
        try:
            post.session.final(job, status, frames, now)
        except Exception as error:  # a status or a body that cannot be sent
            status, frames = failure(error)
            post.session.final(job, status, frames, now)
        self._touch(post)
        if self._awaited and not post.running:
            self._idle.set()


async def _awaiting(work: Any) -> Any:
    return await work
