"""W3C trace context as the metadata `trace`, and how a span ends.

The value is a `traceparent`: ``00-<trace id>-<span id>-<flags>``, in hex.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
)

from majordomus.errors import ProtocolError, StatusError
from majordomus.net.deadline import TRACE
from majordomus.net.version import version
from majordomus.protocol import spec

KEY: Final = "trace"
"""The key in a request's metadata."""
TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SYSTEM: Final = "majordomus"


def make_tracer(provider: TracerProvider | None) -> Tracer:
    """Return the tracer of this package; None is the provider of the process."""
    return trace.get_tracer(SYSTEM, version(), provider)


def traceparent_of(context: SpanContext) -> str:
    """Return the value of the metadata `trace`; empty for a context that is not valid."""
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def parent_of(traceparent: object) -> Context | None:
    """Return the context in which a span has that parent; None for a value that is invalid."""
    found = TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    if found is None or found[0].startswith("ff"):
        return None
    ids = int(found[1], 16), int(found[2], 16)
    context = SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(int(found[3], 16)))
    return trace.set_span_in_context(NonRecordingSpan(context)) if context.is_valid else None


def trace_of(metadata: Mapping[str, Any]) -> object:
    """Return the metadata `trace`; None without one."""
    return metadata.get(KEY)


def with_trace(options: dict[str, Any], span: Span) -> dict[str, Any]:
    """Return the options of a call with the context of `span` in its metadata. The caller's own
    value of `trace` stays."""
    value = traceparent_of(span.get_span_context())
    metadata = options.get("metadata") or {}
    if not value or KEY in metadata:
        return options
    return {**options, "metadata": {**metadata, KEY: value}}


def attributes_of(service: str | bytes) -> dict[str, str]:
    """Return the attributes that every span of a request has."""
    name = service.decode("utf-8", "replace") if isinstance(service, bytes) else service
    return {"rpc.system": SYSTEM, "rpc.method": name}


@contextmanager
def current(span: Span) -> Iterator[None]:
    """Make `span` the current one inside; calls of clients that make no spans are below it, too."""
    value = traceparent_of(span.get_span_context())
    token = TRACE.set(value) if value else None
    try:
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield
    finally:
        if token is not None:
            TRACE.reset(token)


def caller_context() -> Context | None:
    """Return the context of a span that begins here, below the current one.

    Without a current span the parent is that of the request that is handled now.
    """
    if trace.get_current_span().get_span_context().is_valid:
        return None
    return parent_of(TRACE.get())


def set_status(span: Span, status: int, text: str = "") -> None:
    """Set the status of a span whose request has ended with the status of an outcome."""
    span.set_attribute("majordomus.status", status)
    if status != spec.OK:
        span.set_status(Status(StatusCode.ERROR, text or str(status)))


def set_end(span: Span, error: BaseException | None) -> None:
    """Set the status of a span that ends with `error`, or well."""
    if error is None:
        set_status(span, spec.OK)
    else:
        set_failure(span, error)


def set_failure(span: Span, error: BaseException) -> None:
    """Set the status of a span that ends with `error`."""
    if isinstance(error, StatusError):
        span.set_attribute("majordomus.status", error.status)
        span.set_status(Status(StatusCode.ERROR, str(error)))
    elif isinstance(error, ProtocolError):
        span.set_status(Status(StatusCode.ERROR, error.reason))
    else:
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))


@contextmanager
def spanned(
    tracer: Tracer,
    service: str | bytes,
    kind: SpanKind,
    context: Context | None = None,
    **more: Any,
) -> Iterator[Span]:
    """Make a span that is the current one inside, and ends with it."""
    attributes = attributes_of(service)
    with tracer.start_as_current_span(
        attributes["rpc.method"],
        context,
        kind,
        {**attributes, **more},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            set_end(span, error)
            raise
        set_end(span, None)
