"""Spans of a broker, made outside of it: from the requests that it has ended (`mmi.ended`).

The broker does nothing for them. A request whose client sent a trace context gets a span from its
acceptance to its end, as a child of the client's span, beside that of the worker. Its dispatches
are events of the span.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider

from majordomus.contrib.otel.context import attributes_of, make_tracer, parent_of
from majordomus.observe.ended import EndedRequest
from majordomus.protocol import spec

SECOND: Final = 1_000_000_000
"""In nanoseconds, the unit of OpenTelemetry."""

Attempt = Mapping[str, Any]
"""One of the `attempts` of `mmi.explain`."""


class BrokerSpans:
    """Makes spans of ended requests. `broker` is an attribute of all of them."""

    def __init__(
        self,
        broker: str,
        tracer_provider: TracerProvider | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._tracer = make_tracer(tracer_provider)
        self._broker, self._clock = broker, clock

    def add(self, one: EndedRequest, attempts: Sequence[Attempt] = ()) -> bool:
        """Make the span of one request; False when its client sent no trace context, or one that
        is not sampled.

        `attempts` are those of a request that had several; without them only the last is known.
        """
        parent = parent_of(one.trace)
        if parent is None or not int(one.trace.split("-")[3], 16) & 1:
            return False
        ended = self._clock() - round(one.ago * SECOND)
        began = ended - round(one.took * SECOND)
        attributes: dict[str, str | int] = {
            **attributes_of(one.service),
            "majordomus.broker": self._broker,
            "majordomus.request": one.id,
            "majordomus.status": one.status,
            "majordomus.attempts": one.attempts,
        }
        name = f"broker {one.service}"
        span = self._tracer.start_span(
            name, parent, SpanKind.INTERNAL, attributes, start_time=began
        )
        for at, event, worker in _dispatches(one, attempts):
            span.add_event(event, {"majordomus.worker": worker}, began + round(at * SECOND))
        if one.status != spec.OK:
            span.set_status(Status(StatusCode.ERROR, one.why or str(one.status)))
        span.end(ended)
        return True


def _dispatches(one: EndedRequest, attempts: Sequence[Attempt]) -> list[tuple[float, str, str]]:
    """Seconds since the acceptance, name and worker of each event."""
    if not attempts:
        return [(one.waited, "dispatched", one.worker)] if one.worker else []
    found = []
    for attempt in attempts:
        at, worker = float(attempt["at"]), str(attempt["worker"])
        found.append((at, "dispatched", worker))
        found.append((at + float(attempt["held"]), str(attempt["how"]), worker))
    return found
