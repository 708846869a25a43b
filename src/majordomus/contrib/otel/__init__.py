"""OpenTelemetry: spans of clients, brokers and workers, linked by W3C trace context in metadata;
logs and metrics by OTLP.

    from majordomus.contrib.otel import TracedClient, TracedWorker

Nothing of it is imported, and no call costs more, unless a program uses these classes. They need
the extra `otel`. The program sets up the provider of OpenTelemetry, as for any other library.

context: trace context as the metadata `trace`, and how a span ends.
clients: `TracedClient` and `TracedAsyncClient`: a span for each call.
workers: `TracedWorker` and `TracedAsyncWorker`: a span for each run of a handler.
events: spans of events that are published, pushed and handled.
broker: spans of a broker, made outside of it from the requests that it has ended.
otlp: sends spans to a collector by OTLP over HTTP.
logs: sends log records to a collector.
metrics: sends the metrics of a Prometheus registry to a collector; it needs the extra `observe`.
sender: posts to a collector.
"""

from majordomus.contrib.otel.broker import BrokerSpans
from majordomus.contrib.otel.clients import TracedAsyncClient, TracedClient
from majordomus.contrib.otel.logs import OtlpLogs
from majordomus.contrib.otel.otlp import OtlpExporter
from majordomus.contrib.otel.workers import TracedAsyncWorker, TracedWorker

__all__ = [
    "BrokerSpans",
    "OtlpExporter",
    "OtlpLogs",
    "TracedAsyncClient",
    "TracedAsyncWorker",
    "TracedClient",
    "TracedWorker",
]
