"""Sends log records to a collector by OTLP over HTTP.

    logging.getLogger().addHandler(OtlpLogs("http://127.0.0.1:4318", service="shop"))

The thread that logs appends to a bounded queue and waits for nothing; a thread of the handler
sends. A record has the ids of the current span, or of the trace of the request that is handled.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from typing import Any, Final, NamedTuple

from opentelemetry import trace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanContext

from majordomus.contrib.otel.context import parent_of
from majordomus.contrib.otel.sender import Sender, encodable, logger, pairs
from majordomus.net.broker.fact_log import fields
from majordomus.net.deadline import REQUEST, TRACE
from majordomus.net.version import version

PATH: Final = "/v1/logs"
MOST_WAITING: Final = 2000
"""Records that wait to be sent; further ones are counted, and dropped."""
TOO_MANY: Final = "log lines were not sent: too many at a time"
PAUSE: Final = 1.0
"""Seconds for which records are collected."""
CLOSE_WAIT: Final = 3.0
"""Seconds for the last records when the handler is closed."""
SEVERITIES: Final = (
    (logging.CRITICAL, SeverityNumber.SEVERITY_NUMBER_FATAL),
    (logging.ERROR, SeverityNumber.SEVERITY_NUMBER_ERROR),
    (logging.WARNING, SeverityNumber.SEVERITY_NUMBER_WARN),
    (logging.INFO, SeverityNumber.SEVERITY_NUMBER_INFO),
    (0, SeverityNumber.SEVERITY_NUMBER_DEBUG),
)


class _Line(NamedTuple):
    """One record, as it is sent. time: nanoseconds since 1970."""

    time: int
    level: int
    logger: str
    text: str
    attributes: dict[str, Any]
    context: SpanContext | None


class OtlpLogs(logging.Handler):
    """Sends records to `endpoint`, by default `OTEL_EXPORTER_OTLP_ENDPOINT` or loopback.

    `service` is the resource's `service.name`. Those of the logger `majordomus.otel`, which reports
    that nothing can be sent, are not sent.
    Raises: ConfigurationError for a URL that is not http.
    """

    def __init__(self, endpoint: str = "", *, service: str = "majordomus") -> None:
        super().__init__()
        self._sender = Sender(endpoint, PATH, "log lines", CLOSE_WAIT)
        self._resource = dict(Resource.create({"service.name": service}).attributes)
        self._waiting: deque[_Line] = deque()
        self._dropped = 0
        self._counting = threading.Lock()
        self._closing = threading.Event()
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record. Raises nothing, and waits for nothing."""
        if record.name == logger.name or self._closing.is_set():
            return
        try:
            if len(self._waiting) >= MOST_WAITING:
                with self._counting:
                    self._dropped += 1
                return
            self._waiting.append(self._line(record))
        except Exception:
            self.handleError(record)
            return
        if self._thread is None:  # `handle` holds the handler's lock
            thread = threading.Thread(target=self._run, name="majordomus-otlp", daemon=True)
            with contextlib.suppress(RuntimeError):  # the process has no thread left
                thread.start()
                self._thread = thread
        self._some.set()

    def close(self) -> None:
        """Send what waits, within some seconds. May be repeated."""
        self._closing.set()
        self._some.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_WAIT)
        super().close()

    def _line(self, record: logging.LogRecord) -> _Line:
        attributes: dict[str, Any] = {}
        fact = getattr(record, "fact", None)
        if fact is not None:
            attributes = {"event.name": fact[0], **fields(fact[1])}
        if REQUEST.get():
            attributes.setdefault("request", REQUEST.get())
        if record.exc_info and record.exc_info[0] is not None:
            text = (self.formatter or _FORMATTER).formatException(record.exc_info)
            attributes |= {
                "exception.type": record.exc_info[0].__name__,
                "exception.stacktrace": text,
            }
        at = round(record.created * 1e9)
        text = record.getMessage()
        name = record.name or "root"
        return _Line(at, record.levelno, name, text, attributes, _context())

    def _run(self) -> None:
        while not self._closing.is_set():
            self._some.wait()
            self._closing.wait(PAUSE)
            self._some.clear()
            self._send()
        self._send()

    def _send(self) -> None:
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        with self._counting:  # not the handler's lock: logging holds that while it closes handlers
            dropped, self._dropped = self._dropped, 0
        if dropped:
            text = f"{dropped} {TOO_MANY}"
            now = time.time_ns()
            lines.append(_Line(now, logging.WARNING, logger.name, text, {}, None))
        if not lines:
            return
        try:
            body = encoded(lines, self._resource)
        except Exception as error:  # the values are the program's: one must not end the thread
            logger.warning("%d log lines were not sent: %s", len(lines), error)
            return
        self._sender.send(body, len(lines))


def _context() -> SpanContext | None:
    """The span to which a record belongs; None without one."""
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        found = trace.get_current_span(parent_of(TRACE.get())).get_span_context()
    return found if found.is_valid else None


def encoded(lines: list[_Line], resource: dict[str, Any]) -> bytes:
    """Return lines as an ExportLogsServiceRequest."""
    message = ExportLogsServiceRequest()
    made = message.resource_logs.add()
    made.resource.attributes.extend(pairs(resource))
    scopes: dict[str, Any] = {}
    for line in lines:
        if line.logger not in scopes:
            scope = scopes[line.logger] = made.scope_logs.add()
            scope.scope.name, scope.scope.version = line.logger, version()
        record = scopes[line.logger].log_records.add()
        record.time_unix_nano = record.observed_time_unix_nano = line.time
        record.severity_number = next(number for level, number in SEVERITIES if line.level >= level)
        record.severity_text = logging.getLevelName(line.level)
        record.body.string_value = encodable(line.text)
        record.attributes.extend(pairs(line.attributes))
        if line.context is not None:
            record.trace_id = line.context.trace_id.to_bytes(16, "big")
            record.span_id = line.context.span_id.to_bytes(8, "big")
            record.flags = int(line.context.trace_flags)
    return message.SerializeToString()


_FORMATTER: Final = logging.Formatter()
