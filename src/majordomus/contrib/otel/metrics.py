"""Sends the metrics of a Prometheus registry to a collector by OTLP over HTTP.

Names, labels and values are those that /metrics has, without the suffix `_total`. All sums and
histograms are cumulative. The counters of a broker begin with its process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    HistogramDataPoint,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as MetricMessage
from opentelemetry.sdk.resources import Resource
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from majordomus.contrib.otel.sender import Sender, pairs
from majordomus.net.version import version

PATH: Final = "/v1/metrics"
SECOND: Final = 1_000_000_000
"""In nanoseconds, the unit of OTLP."""
UNITS: Final = {"_seconds": "s", "_bytes": "By"}
"""The suffix of a name → its unit."""
CUMULATIVE: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
STARTED: Final = "majordomus_process_start_time_seconds"

Labels = tuple[tuple[str, str], ...]


class OtlpMetrics:
    """Sends what a registry collects.

    `service` is the resource's `service.name`; `instance` is its `service.instance.id`, where one
    service has several processes. `timeout`: seconds that the collector has for a message.

    Raises: ConfigurationError for a URL that is not http.
    """

    def __init__(
        self,
        endpoint: str,
        registry: Collector,
        service: str,
        clock: Callable[[], int] = time.time_ns,
        instance: str = "",
        timeout: float = 10.0,
    ) -> None:
        self._sender = Sender(endpoint, PATH, "metrics", timeout)
        self._registry, self._clock = registry, clock
        names = {"service.name": service} | ({"service.instance.id": instance} if instance else {})
        self._resource = dict(Resource.create(names).attributes)
        self._began = clock()

    def encoded(self) -> tuple[bytes, int]:
        """Return a message with the metrics of now, and how many metrics are in it."""
        families = list(self._registry.collect())
        return encoded(families, self._resource, self._began, self._clock()), len(families)

    def send(self, body: bytes, count: int) -> bool:
        """Send a message. It waits for the collector; it raises nothing."""
        return self._sender.send(body, count)


def encoded(families: Iterable[Metric], resource: Mapping[str, Any], began: int, now: int) -> bytes:
    """Return metrics as an ExportMetricsServiceRequest. `began` and `now`: nanoseconds since 1970;
    what belongs to no broker's process counts from `began`."""
    message = ExportMetricsServiceRequest()
    made = message.resource_metrics.add()
    made.resource.attributes.extend(pairs(resource))
    scope = made.scope_metrics.add()
    scope.scope.name, scope.scope.version = "majordomus", version()
    families = list(families)
    starts = _starts(families)

    def start(labels: Labels) -> int:
        return starts.get(dict(labels).get("broker", ""), began)

    for family in families:
        metric = scope.metrics.add()
        metric.name, metric.description = family.name, family.documentation
        metric.unit = next((unit for end, unit in UNITS.items() if family.name.endswith(end)), "1")
        fill = _FILL.get(family.type, _gauge)
        fill(metric, family.samples, start, now)
    return message.SerializeToString()


def _starts(families: Iterable[Metric]) -> dict[str, int]:
    """When the process of each broker began."""
    samples = (one for family in families if family.name == STARTED for one in family.samples)
    return {one.labels["broker"]: round(one.value * SECOND) for one in samples}


Start = Callable[[Labels], int]


def _gauge(metric: MetricMessage, samples: Iterable[Sample], _start: Start, now: int) -> None:
    for sample in samples:
        point = metric.gauge.data_points.add(time_unix_nano=now, as_double=sample.value)
        point.attributes.extend(pairs(sample.labels))


def _counter(metric: MetricMessage, samples: Iterable[Sample], start: Start, now: int) -> None:
    metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, CUMULATIVE
    for sample in samples:
        if not sample.name.endswith("_total"):
            continue  # when it was created
        point = metric.sum.data_points.add(time_unix_nano=now, as_double=sample.value)
        point.start_time_unix_nano = start(tuple(sample.labels.items()))
        point.attributes.extend(pairs(sample.labels))


def _histogram(metric: MetricMessage, samples: Iterable[Sample], start: Start, now: int) -> None:
    metric.histogram.aggregation_temporality = CUMULATIVE
    points: dict[Labels, HistogramDataPoint] = {}
    for sample in samples:
        labels = tuple(pair for pair in sample.labels.items() if pair[0] != "le")
        point = points.get(labels)
        if point is None:
            point = points[labels] = metric.histogram.data_points.add(time_unix_nano=now)
            point.start_time_unix_nano = start(labels)
            point.attributes.extend(pairs(dict(labels)))
        if sample.name.endswith("_bucket"):
            _bucket(point, sample)
        elif sample.name.endswith("_sum"):
            point.sum = sample.value


def _bucket(point: HistogramDataPoint, sample: Sample) -> None:
    """Add the next bucket, whose count includes those before it."""
    bound, reached = float(sample.labels["le"]), int(sample.value)
    point.bucket_counts.append(reached - point.count)
    point.count = reached
    if math.isfinite(bound):
        point.explicit_bounds.append(bound)
    if sample.exemplar is not None:
        exemplar = point.exemplars.add(as_double=sample.exemplar.value)
        exemplar.time_unix_nano = round(float(sample.exemplar.timestamp or 0.0) * SECOND)
        exemplar.trace_id = bytes.fromhex(sample.exemplar.labels.get("trace_id", ""))


_FILL: Final[dict[str, Callable[[MetricMessage, Iterable[Sample], Start, int], None]]] = {
    "counter": _counter,
    "histogram": _histogram,
}
