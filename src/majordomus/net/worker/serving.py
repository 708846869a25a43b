"""The path of a request through a worker: from the session's dispatch to a handler, and from the
handler's outcome back to the session.

Everything is called in the loop's thread, except for what runs in the thread pool: `_run_in_thread`
and the functions that it calls. Those pass their outputs to the loop with `_queue_output`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections import deque
from collections.abc import Sequence
from math import inf
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
    WorkerSession,
)
from majordomus.core.worker.session_base import Dispatch
from majordomus.errors import LocalProtocolError
from majordomus.net.connection.inline import InlinePool, is_inline
from majordomus.net.deadline import HANDLING, TRACE, trace_of
from majordomus.net.worker.deferred_reply import PARTS_AHEAD, Output, ReplyBox
from majordomus.net.worker.eager_tasks import spawner
from majordomus.net.worker.flow import ReplyFlow
from majordomus.net.worker.handlers import Handler, Shape
from majordomus.net.worker.outcomes import (
    Outcome,
    cancelled_before_start,
    logged_outcome_of_error,
    metadata_of,
    no_thread,
    outcome_of_error,
    outcome_of_result,
    outcome_without_caller,
    part_of,
)
from majordomus.net.worker.parts import RequestParts
from majordomus.net.worker.request import Request
from majordomus.net.worker.thread_pool import ThreadPool
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.net.connection.async_link import AsyncSessionConnection
    from majordomus.net.worker.processes.pool import ProcessPool

NO_STREAM: Final = b"a handler that runs in a process takes no stream from its client"
PARTS_PER_TURN: Final = 16
"""Parts of an async generator until the loop gets a turn: one that never waits would otherwise
delay the heartbeats."""

READ_ALL: Final = 0.02
"""Seconds without a new request after which everything is read that a stall has kept."""

_OK: Final = spec.OK
_MORE: Final = spec.MORE
_ONCE: Final = spec.ONCE


class WorkerConnection:
    """One connection to a broker, as the requests that arrive over it see it.

    url: the broker's endpoint
    session: the worker's session with that broker
    line: moves the session's messages
    invocations: what has no outcome yet, by dispatch id
    """

    url: str
    session: WorkerSession
    line: AsyncSessionConnection

    def __init__(self) -> None:
        self.invocations: dict[int, Invocation] = {}


class RunLimit:
    """How many handlers of one kind run at a time, whichever brokers dispatched them.

    Each broker keeps to the capacity that was announced to it, so only a worker with several
    brokers needs a limit of its own.

    most: the worker's capacity for handlers of this kind
    running: invocations that have begun, and have no outcome yet
    waiting: invocations that have not begun, in order
    starting: `Serving._release` is beginning them
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.running = 0
        self.waiting: deque[Invocation] = deque()
        self.starting = False


class ServedService:
    """A service and its handler, with the properties that every request needs.

    name: the service's name
    function: the handler, called with a `Request`
    in_process: the handler runs in a process of the pool
    threaded: the handler would block the event loop
    simple: the handler is a coroutine function, whose result is the reply
    kind: where the handler runs, one of `handlers.RUNS`
    contract: the canonical bytes of its contract; empty without one
    limit: how many handlers of its kind run at a time; None where the broker alone limits that
    """

    def __init__(self, name: str, handler: Handler) -> None:
        self.name = name
        self.function = handler.function
        self.in_process = handler.in_process
        self.threaded = handler.shape.threaded
        self.simple = handler.shape is Shape.COROUTINE
        self.kind = handler.kind
        self.contract = handler.contract
        self.limit: RunLimit | None = None


class Invocation:
    """One run of a handler, for one dispatch.

    connection: the connection over which the dispatch came, and over which its FINAL goes
    dispatch_id: the session's number of the dispatch
    request: what the handler gets
    service: the service that is called
    finished: whether it has its outcome
    task: the task of a handler on the event loop, once it has waited
    parts_ahead: counts the parts that the handler's thread may still send before it waits
    flow: the parts on their way to the session; None as long as there are none
    """

    __slots__ = (
        "connection",
        "dispatch_id",
        "finished",
        "flow",
        "parts_ahead",
        "request",
        "service",
        "task",
    )

    def _fill(
        self,
        connection: WorkerConnection,
        dispatch_id: int,
        request: Request,
        service: ServedService,
    ) -> None:
        """Set every attribute of an invocation made with `Invocation.__new__`: compiled, a call by
        position costs less than a constructor (ADR 0008)."""
        self.connection, self.dispatch_id = connection, dispatch_id
        self.request, self.service = request, service
        self.finished = False
        self.task: asyncio.Task[None] | None = None
        self.parts_ahead: threading.Semaphore | None = None
        self.flow: ReplyFlow | None = None


class Serving:
    """The requests of all connections of one engine."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, threads: int, limits: dict[str, RunLimit]
    ) -> None:
        self._loop = loop
        self._spawner = spawner(loop, self._handler_ended)
        self._pool = InlinePool(loop) if is_inline(loop) else ThreadPool(threads)
        self._processes: ProcessPool | None = None
        self._services: dict[bytes, ServedService] = {}
        self._limits = limits  # by kind of handler; empty for a worker with one broker
        # Outputs of threads, for the loop:
        self._outputs: deque[tuple[Invocation, Output | ReplyBox]] = deque()
        self._outputs_scheduled = False
        self._closing = False
        self._idle = asyncio.Event()
        self._idle_wanted = False  # `drain` waits for `_idle`
        self._stalled_after = inf  # what is read later than this was kept by a stall of the loop
        # Dispatches that were read after a stall, and are not begun.
        self._kept: dict[tuple[WorkerConnection, int], Dispatch] = {}
        self._last_begun: ServedService | None = None
        self._last_called: bytes | None = None
        """The service's name in that request: the session gives the next one the same object."""
        self._current: WorkerConnection | None = None  # its events are being handled
        self._flush_current = False  # they have caused something to be sent

    def serve(self, service: bytes, handler: Handler) -> None:
        """Serve `service` with `handler` from now on."""
        served = self._services[service] = ServedService(service.decode(), handler)
        self._last_called = None
        served.limit = self._limits.get(served.kind)

    # ── from the session ──────────────────────────────────────────────────────────────────────────

    def take_events(self, connection: WorkerConnection, events: Sequence[WorkerEvent]) -> None:
        """Handle the events of a connection's session: start handlers, cancel requests, pass on
        parts and credit."""
        if not events:
            return
        self._current, self._flush_current = connection, False
        if self._kept or connection.session.received_at() > self._stalled_after:
            events = self._keep_dispatches(connection, events)
        try:
            for event in events:
                if isinstance(event, Dispatch):
                    self._start(connection, event)
                else:
                    self._handle_event(connection, event)
        finally:
            self._current = None
            if self._flush_current:
                connection.line.touch()

    def _keep_dispatches(
        self, connection: WorkerConnection, events: Sequence[WorkerEvent]
    ) -> list[WorkerEvent]:
        """Keep the dispatches that are read after a stall until everything is read that is there:
        a CANCEL of them may come behind. Return the other events."""
        others: list[WorkerEvent] = []
        for event in events:
            if isinstance(event, Dispatch) and not event.flags & _MORE:
                if not self._kept:
                    self._loop.call_later(READ_ALL, self._begin_kept, 1)
                self._kept[connection, event.id] = event
            elif isinstance(event, Cancel) and (connection, event.id) in self._kept:
                del self._kept[connection, event.id]
                status, frames = cancelled_before_start()
                connection.session.final(event.id, status, frames, monotonic())
                self._flush_current = True
            else:
                others.append(event)
        return others

    def _begin_kept(self, count: int) -> None:
        """Begin the kept dispatches when no more have come since there were `count`."""
        if len(self._kept) > count:
            self._loop.call_later(READ_ALL, self._begin_kept, len(self._kept))
            return
        kept, self._kept = self._kept, {}
        if self._closing:
            return  # the DISCONNECT gives them to other workers
        for (connection, _), dispatch in kept.items():
            self._start(connection, dispatch)

    def take_other_event(
        self,
        connection: WorkerConnection,
        event: EventReceived | SubscriptionRefused | Disconnected,
    ) -> None:
        """Handle an event that belongs to no request."""
        raise NotImplementedError

    def _handle_event(
        self,
        connection: WorkerConnection,
        event: Cancel
        | Incoming
        | DispatchCredit
        | EventReceived
        | SubscriptionRefused
        | Disconnected,
    ) -> None:
        """Handle an event that starts no handler."""
        if isinstance(event, EventReceived | SubscriptionRefused | Disconnected):
            self.take_other_event(connection, event)
        elif (invocation := connection.invocations.get(event.id)) is None:
            return
        elif isinstance(event, Cancel):
            self._cancel(invocation)
        elif isinstance(event, Incoming):
            if isinstance(invocation.request.parts, RequestParts):
                invocation.request.parts.put(event.frames, event.last)
        elif invocation.flow is not None:
            invocation.flow.resume()

    def _start(self, connection: WorkerConnection, dispatch: Dispatch) -> None:
        service = self._last_begun
        if service is None or dispatch.service is not self._last_called:
            service = self._services.get(dispatch.service)
            if service is None:
                connection.session.reject(dispatch.id, monotonic())
                self._flush(connection)
                return
            self._last_begun, self._last_called = service, dispatch.service
        parts = None
        if dispatch.flags & _MORE:
            if service.in_process:
                connection.session.final(
                    dispatch.id, spec.NOT_IMPLEMENTED, [NO_STREAM], monotonic()
                )
                self._flush(connection)
                return
            parts = self._new_parts(connection, dispatch.id)
        request = Request.__new__(Request)
        request._fill(
            service.name,
            dispatch.frames,
            dispatch.client,
            dispatch.deadline,
            dispatch.metadata,
            dispatch.broker_metadata,
            dispatch.flags & _ONCE != 0,
            parts,
            -dispatch.id if service.in_process else dispatch.id,
        )
        invocation = Invocation.__new__(Invocation)
        invocation._fill(connection, dispatch.id, request, service)
        limit = service.limit
        if limit is not None:
            if limit.running >= limit.most:
                connection.invocations[dispatch.id] = invocation
                limit.waiting.append(invocation)
                return
            limit.running += 1
        self._begin(invocation)

    def _begin(self, invocation: Invocation) -> None:
        """Run the handler."""
        connection, service, request = invocation.connection, invocation.service, invocation.request
        if service.threaded:
            connection.invocations[invocation.dispatch_id] = invocation
            self._submit(invocation)
            return
        token = None
        if request._packed:
            trace = trace_of(request._packed)
            token = TRACE.set(trace) if trace else None
        try:
            work = (
                service.function(request)
                if service.simple
                else self._run_async_generator(invocation)
            )
        except BaseException as error:
            if token is not None:
                TRACE.reset(token)
            self._handler_ended(invocation, None, error)
            return
        if type(work) is not CoroutineType:
            work = _awaiting(work)
        invocation.task = self._spawner.spawn(work, invocation, request.deadline)
        if token is not None:  # the work has a context of its own
            TRACE.reset(token)
        if not invocation.finished:
            connection.invocations[invocation.dispatch_id] = invocation

    def _release(self, limit: RunLimit) -> None:
        """An invocation has its outcome: those that wait may begin."""
        limit.running -= 1
        self.begin_waiting(limit)

    def begin_waiting(self, limit: RunLimit) -> None:
        """Begin the invocations that wait, as far as `limit` allows."""
        if limit.starting:
            return  # a handler that has ended at once: the loop below goes on
        limit.starting = True
        try:
            while limit.waiting and limit.running < limit.most and not self._closing:
                limit.running += 1
                invocation = limit.waiting.popleft()
                if invocation.request.cancelled:
                    gone = outcome_without_caller(invocation.request, begun=False)
                    self._send_outcome(invocation, gone)
                else:
                    self._begin(invocation)
        finally:
            limit.starting = False

    def _new_parts(self, connection: WorkerConnection, dispatch_id: int) -> RequestParts:
        return RequestParts(
            self._loop, lambda count: self._parts_read(connection, dispatch_id, count)
        )

    def _submit(self, invocation: Invocation) -> None:
        pool = self._processes if invocation.service.in_process else None
        if isinstance(self._pool, InlinePool) and isinstance(
            invocation.request.parts, RequestParts
        ):
            self._pool.submit_beside(lambda: self._run_in_thread(invocation))
            return
        try:
            (pool or self._pool).submit(lambda: self._run_in_thread(invocation))
        except RuntimeError:  # the process has no thread left, and this pool has none yet
            self._send_outcome(invocation, no_thread())

    def _cancel(self, invocation: Invocation) -> None:
        invocation.request._cancel()
        if invocation.task is not None:
            invocation.task.cancel()
        if invocation.parts_ahead is not None:
            invocation.parts_ahead.release()  # its thread checks `cancelled` before the next part
        if invocation.flow is not None:
            invocation.flow.resume()

    def _parts_read(self, connection: WorkerConnection, dispatch_id: int, count: int) -> None:
        if connection.session.was_read(dispatch_id, count):
            self._flush(connection)

    def _flush(self, connection: WorkerConnection) -> None:
        """Have the connection's sends flushed: after its events are handled, or in this turn of
        the loop."""
        if connection is self._current:
            self._flush_current = True
        else:
            connection.line.touch()

    # ── handlers on the loop ──────────────────────────────────────────────────────────────────────

    def _handler_ended(
        self, invocation: Invocation, result: object, error: BaseException | None
    ) -> None:
        """A handler on the loop has returned `result`, or raised `error`. It is handed on as a
        callback: of a declared type a method is C's, and no object."""
        self._end(invocation, result, error)

    def _end(self, invocation: Invocation, result: object, error: BaseException | None) -> None:
        box = invocation.request._reply_box
        if error is None and type(result) is bytes and box is None:
            self._send_final(invocation, _OK, [result])
            return
        if error is None:
            outcome = outcome_of_result(result)
        else:
            request = invocation.request
            outcome = logged_outcome_of_error(request, error)
        if box is None or not self._is_deferred(invocation, box, outcome):
            self._send_outcome(invocation, outcome)

    async def _run_async_generator(self, invocation: Invocation) -> None:
        async with contextlib.aclosing(invocation.service.function(invocation.request)) as parts:
            count = 0
            async for part in parts:
                await self._flow(invocation).send(part_of(part))
                count += 1
                if count % PARTS_PER_TURN == 0:
                    await asyncio.sleep(0)

    # ── handlers in threads ───────────────────────────────────────────────────────────────────────

    def _run_in_thread(self, invocation: Invocation) -> None:
        HANDLING.set(invocation.request.deadline)
        packed = invocation.request._packed
        if packed or TRACE.get():
            TRACE.set(trace_of(packed))
        try:
            outcome = self._run_blocking(invocation)
        except BaseException as error:
            request = invocation.request
            outcome = logged_outcome_of_error(request, error)
        box = invocation.request._reply_box
        if box is None or not self._is_deferred(invocation, box, outcome):
            self._queue_output(invocation, outcome)

    def _is_deferred(self, invocation: Invocation, box: ReplyBox, outcome: Outcome) -> bool:
        """Whether the reply comes later than the handler has returned. A failure of the handler is
        the outcome at once."""
        if outcome[0] != spec.OK:
            box.discard()
            return False
        invocation.parts_ahead = box.parts_ahead
        box.connect(lambda: self._queue_output(invocation, box))
        return True

    def _run_blocking(self, invocation: Invocation) -> Outcome:
        request = invocation.request
        if request.cancelled:
            return outcome_without_caller(request, begun=False)
        result = invocation.service.function(request)
        if not inspect.isgenerator(result):
            return outcome_of_result(result)
        invocation.parts_ahead = threading.Semaphore(PARTS_AHEAD)
        with contextlib.closing(result) as parts:
            for part in parts:
                if request.cancelled:
                    return outcome_without_caller(request, begun=True)
                frames = part_of(part)
                invocation.parts_ahead.acquire()
                self._queue_output(invocation, frames)
        return spec.OK, []

    def _queue_output(self, invocation: Invocation, output: Output | ReplyBox) -> None:
        """Pass an output, or a box with outputs, to the loop. From any thread and finalizer."""
        self._outputs.append((invocation, output))
        if not self._outputs_scheduled:
            self._outputs_scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, and so is the connection
                self._loop.call_soon_threadsafe(self._send_outputs)

    def _send_outputs(self) -> None:
        # Reset before the queue is read: an output that is appended later schedules a new call.
        self._outputs_scheduled = False
        while self._outputs:
            invocation, output = self._outputs.popleft()
            if isinstance(output, ReplyBox):
                while (kept := output.take()) is not None:
                    self._send_output(invocation, kept)
            else:
                self._send_output(invocation, output)

    def _send_output(self, invocation: Invocation, output: Output) -> None:
        if invocation.finished:
            return
        if not isinstance(output, tuple):
            self._flow(invocation).put(output)
        elif invocation.flow is None:
            self._send_outcome(invocation, output)
        else:
            invocation.flow.end(output)

    # ── to the session ────────────────────────────────────────────────────────────────────────────

    def _flow(self, invocation: Invocation) -> ReplyFlow:
        flow = invocation.flow
        if flow is None:

            def on_sent() -> None:
                self._flush(invocation.connection)
                if invocation.parts_ahead is not None:
                    invocation.parts_ahead.release()

            flow = invocation.flow = ReplyFlow(
                invocation.connection.session,
                invocation.dispatch_id,
                self._loop,
                on_sent,
                lambda outcome: self._send_outcome(invocation, outcome),
            )
        return flow

    def _send_outcome(self, invocation: Invocation, outcome: Outcome) -> None:
        if type(outcome) is not tuple:
            self._send_with_metadata(invocation, outcome)
        self._send_final(invocation, outcome[0], outcome[1])

    def _send_with_metadata(self, invocation: Invocation, outcome: Outcome) -> None:
        """Give the session an outcome with metadata. `_send_final` must follow: it finds the
        dispatch ended, or sends what could not be sent here. So other outcomes pay nothing."""
        if self._closing:
            return
        status, frames = outcome
        session, metadata = invocation.connection.session, metadata_of(outcome)
        with contextlib.suppress(LocalProtocolError):
            session.final_with(invocation.dispatch_id, status, frames, metadata, monotonic())

    def _send_final(self, invocation: Invocation, status: int, frames: list[bytes]) -> None:
        connection, now, dispatch_id = invocation.connection, monotonic(), invocation.dispatch_id
        limit, ended = invocation.service.limit, invocation.finished
        invocation.finished = True
        if connection.invocations:
            connection.invocations.pop(dispatch_id, None)
        invocation.flow = None
        if self._closing:
            return  # cancelled by `close` alone: the DISCONNECT gives the request to another worker
        try:
            connection.session.final(dispatch_id, status, frames, now)
        except Exception as error:  # a status or a body that cannot be sent
            status, frames = outcome_of_error(error)
            connection.session.final(dispatch_id, status, frames, now)
        self._flush(connection)
        if limit is not None and not ended:
            self._release(limit)
        if self._idle_wanted and not connection.invocations:
            self._idle.set()


async def _awaiting(work: Any) -> Any:
    return await work
