"""Spans of events: one for each that is published or pushed, and one for each run of a handler.

The span of a handler has the sender's as its parent, however late the event is sent.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Tracer

from majordomus.contrib.otel.context import (
    KEY,
    SYSTEM,
    caller_context,
    current,
    parent_of,
    set_failure,
    traceparent_of,
)
from majordomus.errors import MajordomusError
from majordomus.net.events import Event, Handler

PUSH = ""
"""The topic of an event that is pushed to one client."""


@contextmanager
def publishing(tracer: Tracer, topic: str | bytes, options: dict[str, Any]) -> Iterator[None]:
    """Make the span of one event; `options["metadata"]` gets its context.

    A `trace` in the metadata is the parent: so a push an hour after its request is in its trace.
    """
    metadata = options.get("metadata") or {}
    context = parent_of(metadata.get(KEY)) or caller_context()
    span = _begin(tracer, topic, SpanKind.PRODUCER, context)
    value = traceparent_of(span.get_span_context())
    if value:
        options["metadata"] = {**metadata, KEY: value}
    try:
        yield
    except BaseException as error:
        set_failure(span, error)
        raise
    finally:
        span.end()


def traced_handler(handler: Handler, tracer: Tracer) -> Handler:
    """Return a handler of events that does the same inside of a span."""
    if inspect.iscoroutinefunction(handler):

        async def run(event: Event) -> object:
            span = _begin(tracer, event.topic, SpanKind.CONSUMER, _context(event))
            return await _awaited(span, handler(event))

        return run

    def call(event: Event) -> object:
        span = _begin(tracer, event.topic, SpanKind.CONSUMER, _context(event))
        try:
            with current(span):
                result = handler(event)
        except BaseException as error:
            set_failure(span, error)
            span.end()
            raise
        if isinstance(result, Awaitable):
            return _awaited(span, result)
        span.end()
        return result

    return call


async def _awaited(span: Span, result: Awaitable[object]) -> object:
    try:
        with current(span):
            return await result
    except BaseException as error:
        set_failure(span, error)
        raise
    finally:
        span.end()


def _context(event: Event) -> Context | None:
    try:
        return parent_of(event.metadata.get(KEY))
    except MajordomusError:
        return None


def _begin(tracer: Tracer, topic: str | bytes, kind: SpanKind, context: Context | None) -> Span:
    shown = topic.decode("utf-8", "replace") if isinstance(topic, bytes) else topic
    verb, operation = ("publish", "send") if kind is SpanKind.PRODUCER else ("process", "process")
    attributes = {"messaging.system": SYSTEM, "messaging.operation.type": operation}
    if not shown:
        verb = "push" if kind is SpanKind.PRODUCER else "process push"
    else:
        attributes["messaging.destination.name"] = shown
    return tracer.start_span(f"{verb} {shown}".rstrip(), context, kind, attributes)
