"""Sends spans to a collector by OTLP over HTTP, with Protocol Buffers.

It is an exporter for the SDK's `BatchSpanProcessor`, which calls it in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status as StatusMessage
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

from majordomus.contrib.otel.sender import Sender, encodable, pairs

PATH: Final = "/v1/traces"
KINDS: Final[Mapping[SpanKind, SpanMessage.SpanKind.ValueType]] = {
    SpanKind.INTERNAL: SpanMessage.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: SpanMessage.SPAN_KIND_SERVER,
    SpanKind.CLIENT: SpanMessage.SPAN_KIND_CLIENT,
    SpanKind.PRODUCER: SpanMessage.SPAN_KIND_PRODUCER,
    SpanKind.CONSUMER: SpanMessage.SPAN_KIND_CONSUMER,
}
STATUSES: Final[Mapping[StatusCode, StatusMessage.StatusCode.ValueType]] = {
    StatusCode.UNSET: StatusMessage.STATUS_CODE_UNSET,
    StatusCode.OK: StatusMessage.STATUS_CODE_OK,
    StatusCode.ERROR: StatusMessage.STATUS_CODE_ERROR,
}


class OtlpExporter(SpanExporter):
    """Sends spans to `endpoint`, by default `OTEL_EXPORTER_OTLP_ENDPOINT` or loopback.

    Spans that cannot be sent are dropped, with one line in the log until some can be sent again.

    Raises: ConfigurationError for a URL that is not http.
    """

    def __init__(self, endpoint: str = "", timeout: float = 10.0) -> None:
        self._sender = Sender(endpoint, PATH, "spans", timeout)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans. Raises nothing."""
        sent = self._sender.send(encoded(spans), len(spans))
        return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE


def encoded(spans: Sequence[ReadableSpan]) -> bytes:
    """Return spans as an ExportTraceServiceRequest."""
    message = ExportTraceServiceRequest()
    scopes: dict[tuple[int, str], Any] = {}
    resources: dict[int, Any] = {}
    for span in spans:
        resource = span.resource
        if id(resource) not in resources:
            made = resources[id(resource)] = message.resource_spans.add()
            made.resource.attributes.extend(pairs(resource.attributes))
        scope = span.instrumentation_scope
        key = id(resource), scope.name if scope is not None else ""
        if key not in scopes:
            made = scopes[key] = resources[id(resource)].scope_spans.add()
            if scope is not None:
                made.scope.name, made.scope.version = scope.name, scope.version or ""
        _fill(scopes[key].spans.add(), span)
    return message.SerializeToString()


def _fill(message: SpanMessage, span: ReadableSpan) -> None:
    context = span.context
    message.trace_id = context.trace_id.to_bytes(16, "big")
    message.span_id = context.span_id.to_bytes(8, "big")
    if span.parent is not None:
        message.parent_span_id = span.parent.span_id.to_bytes(8, "big")
    message.name, message.kind = encodable(span.name), KINDS[span.kind]
    message.start_time_unix_nano = span.start_time or 0
    message.end_time_unix_nano = span.end_time or 0
    message.attributes.extend(pairs(span.attributes))
    message.status.code = STATUSES[span.status.status_code]
    message.status.message = encodable(span.status.description or "")
    for event in span.events:
        made = message.events.add()
        made.name, made.time_unix_nano = event.name, event.timestamp
        made.attributes.extend(pairs(event.attributes))
