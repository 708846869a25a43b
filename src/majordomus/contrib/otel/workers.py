"""Workers that make a span for each run of a handler.

The span of a handler is the current one while the handler runs, so that calls which it makes are
its children. It ends with the outcome, also when that comes later (`reply_later`). That of a
handler with `run="process"` is made in the worker and includes the time that its request waits for
a process; the calls that the handler makes are its children, too.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Tracer, TracerProvider

from majordomus.contrib.otel.context import (
    attributes_of,
    current,
    make_tracer,
    parent_of,
    set_end,
    set_status,
    trace_of,
)
from majordomus.contrib.otel.events import PUSH, publishing, traced_handler
from majordomus.errors import MajordomusError
from majordomus.net import endpoints
from majordomus.net.bodies import Body, Reply
from majordomus.net.events import Handler as EventHandler
from majordomus.net.worker.async_worker import AsyncWorker
from majordomus.net.worker.base import WorkerBase
from majordomus.net.worker.declare.middleware import HandlerMiddleware
from majordomus.net.worker.handlers import Function, Handler, Shape
from majordomus.net.worker.outcomes import Outcome
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from majordomus.protocol import spec


def _context(request: Request) -> Context | None:
    """The context of the client's span; None without one, or with one that is invalid."""
    try:
        return parent_of(trace_of(request.metadata))
    except MajordomusError:
        return None


def _attempt(request: Request) -> int:
    try:
        return request.attempt
    except MajordomusError:
        return 1


def traced(handler: Handler, tracer: Tracer) -> Handler:
    """Return a handler that does the same inside of a span."""
    if handler.in_process:
        return handler._replace(middleware=(*handler.middleware, ProcessSpans(tracer)))
    wrap = WRAPPERS[handler.shape]
    return handler._replace(function=wrap(handler.function, tracer))


def _begin(request: Request, tracer: Tracer) -> Span:
    attributes: dict[str, str | int] = {
        **attributes_of(request.service),
        "majordomus.attempt": _attempt(request),
    }
    if request.id:
        attributes["majordomus.dispatch"] = request.id
    return tracer.start_span(request.service, _context(request), SpanKind.SERVER, attributes)


def _end(span: Span, error: BaseException | None) -> None:
    set_end(span, error)
    span.end()


@contextmanager
def _failing(span: Span) -> Iterator[None]:
    """Make `span` the current one inside, and end it with what is raised there."""
    try:
        with current(span):
            yield
    except BaseException as error:
        _end(span, error)
        raise


def _end_with_result(span: Span, request: Request, result: object) -> None:
    """End the span of a handler that has returned: now, or when its reply is given later."""
    box = request._reply_box
    if box is not None:
        span.add_event("replies later")
        box.on_outcome = partial(_end_with_outcome, span)
        return
    status = result.status if isinstance(result, Reply) else None
    if isinstance(status, int):
        set_status(span, int(status))
    else:
        set_end(span, None)
    span.end()


def _end_with_outcome(span: Span, outcome: Outcome) -> None:
    status, frames = outcome
    text = frames[0].decode("utf-8", "replace") if status != spec.OK and frames else ""
    set_status(span, status, text)
    span.end()


def _function(function: Function, tracer: Tracer) -> Function:
    def run(request: Request) -> Any:
        span = _begin(request, tracer)
        with _failing(span):
            result = function(request)
        _end_with_result(span, request, result)
        return result

    return run


def _coroutine(function: Function, tracer: Tracer) -> Function:
    async def run(request: Request) -> Any:
        span = _begin(request, tracer)
        with _failing(span):
            result = await function(request)
        _end_with_result(span, request, result)
        return result

    return run


def _stepped(parts: Iterator[Any], span: Span) -> Iterator[Any]:
    """Yield parts. The span is the current one during each step, not between two of them."""
    error = None
    try:
        while True:
            with current(span):
                try:
                    part = next(parts)
                except StopIteration:
                    return
            yield part
    except BaseException as raised:
        error = raised
        raise
    finally:
        close = getattr(parts, "close", None)
        if close is not None:
            close()
        _end(span, error)


def _generator(function: Function, tracer: Tracer) -> Function:
    def run(request: Request) -> Iterator[Any]:
        yield from _stepped(iter(function(request)), _begin(request, tracer))

    return run


def _async_generator(function: Function, tracer: Tracer) -> Function:
    async def run(request: Request) -> AsyncIterator[Any]:
        span, error = _begin(request, tracer), None
        parts = aiter(function(request))
        try:
            while True:
                with current(span):
                    try:
                        part = await anext(parts)
                    except StopAsyncIteration:
                        return
                yield part
        except BaseException as raised:
            error = raised
            raise
        finally:
            close = getattr(parts, "aclose", None)
            if close is not None:
                await close()
            _end(span, error)

    return run


WRAPPERS = {
    Shape.FUNCTION: _function,
    Shape.COROUTINE: _coroutine,
    Shape.GENERATOR: _generator,
    Shape.ASYNC_GENERATOR: _async_generator,
}


class ProcessSpans(HandlerMiddleware):
    """Makes a span for each run of a handler in a process."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def call(self, request: Request, handler: Callable[[Request], Any]) -> Any:
        span = _begin(request, self._tracer)
        with _failing(span):
            result = handler(request)
        if inspect.isgenerator(result):
            return _stepped(result, span)
        _end_with_result(span, request, result)
        return result

    def parts(self, request: Request, handler: Callable[[Request], Iterator[Any]]) -> Iterator[Any]:
        yield from _stepped(handler(request), _begin(request, self._tracer))


class _TracedEvents(WorkerBase):
    """What both workers do for events."""

    _tracer: Tracer

    def _prepared(self, handler: Handler) -> Handler:
        return traced(handler, self._tracer)

    def _prepared_event(self, handler: EventHandler) -> EventHandler:
        return traced_handler(handler, self._tracer)

    def push(self, client: bytes, body: Body = None, **options: Any) -> None:
        """As `Worker.push`. A `trace` in the metadata is the parent of its span, as for a push
        that comes long after its request."""
        with publishing(self._tracer, PUSH, options):
            super().push(client, body, **options)

    def publish(self, topic: str | bytes, body: Body = None, **options: Any) -> None:
        """As `Worker.publish`; the parent of its span is that of `push`."""
        with publishing(self._tracer, topic, options):
            super().publish(topic, body, **options)


class TracedWorker(_TracedEvents, Worker):
    """A `Worker` that makes a span for each run of a handler.

    `tracer_provider`: by default that of the process. The other arguments are those of `Worker`.
    """

    def __init__(
        self,
        broker: Any = endpoints.DEFAULT,
        *,
        tracer_provider: TracerProvider | None = None,
        **options: Any,
    ) -> None:
        self._tracer = make_tracer(tracer_provider)
        super().__init__(broker, **options)


class TracedAsyncWorker(_TracedEvents, AsyncWorker):
    """An `AsyncWorker` that makes a span for each run of a handler. Its arguments are those of
    `TracedWorker`."""

    def __init__(
        self,
        broker: Any = endpoints.DEFAULT,
        *,
        tracer_provider: TracerProvider | None = None,
        **options: Any,
    ) -> None:
        self._tracer = make_tracer(tracer_provider)
        super().__init__(broker, **options)
