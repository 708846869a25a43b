"""The metrics of Prometheus, made from snapshots.

Names and units follow the conventions of Prometheus. A collection has at most MOST_SERIES series,
whatever peers send: `per_broker` shares them among the brokers, and labels that peers can choose
are bounded (series.py). METRICS is the list of all names; alert rules and dashboards are tested
against it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from majordomus.core.broker.state.times import TICKS
from majordomus.errors import ConfigurationError
from majordomus.observe.ended import EndedRequest
from majordomus.observe.histogram import Histogram
from majordomus.observe.series import (
    BUCKETS,
    HISTOGRAMS,
    OUTCOMES,
    STEPS,
    BrokerSeries,
    bucket_of,
    buckets_of,
)
from majordomus.observe.snapshot import BrokerRow, Snapshot, WorkerRow

MOST_SERIES: Final = 2000
OWN_SERIES: Final = 60
"""Series of the exporter's own process, at most."""
MOST_REASONS: Final = 24
"""Values of a label such as `reason` or `status`; the counts of further ones are added up."""
FIXED_SERIES: Final = 180
"""Series of one broker without those of its services, at most."""
SERVICE_SERIES: Final = len(OUTCOMES) + len(HISTOGRAMS) * (BUCKETS + 2) + 6
"""Series of one service."""
BOUNDS: Final = (*(f"{2.0**step / TICKS:g}" for step in STEPS), "+Inf")


class Meaning(NamedTuple):
    """One metric: its kind, its HELP, its labels."""

    kind: str
    help: str
    labels: tuple[str, ...] = ("broker",)


NOW: Final[dict[str, Meaning]] = {
    "peers": Meaning("gauge", "Peers that the broker knows."),
    "services": Meaning("gauge", "Services that the broker knows."),
    "open": Meaning("gauge", "Open requests, queued ones included."),
    "queued": Meaning("gauge", "Requests that wait for a worker."),
    "queued_bytes": Meaning("gauge", "Bytes of the bodies of queued requests."),
    "subscriptions": Meaning("gauge", "Subscriptions to patterns of topics."),
    "sessions": Meaning("gauge", "Sessions of clients that the broker keeps."),
    "contract_conflicts": Meaning("gauge", "Services whose workers state incompatible contracts."),
}
"""Key of the snapshot's `now` → its metric, without prefix."""
NAMES: Final = {"open": "open_requests", "queued": "queued_requests"}
COUNTS: Final[dict[str, tuple[str, str]]] = {
    "accepted": ("requests_accepted", "Requests that the broker has accepted."),
    "dispatched": ("dispatches", "Dispatches of requests to workers."),
    "retried": ("retries", "Dispatches of requests that had lost their worker."),
    "rejected": ("rejects", "Dispatches that workers have rejected."),
    "parts": ("parts", "Parts of streams that workers have sent."),
    "unanswered": ("unanswered_requests", "Failed requests whose client got no message."),
    "pushed": ("events_pushed", "Events for the client of a handle."),
    "published": ("events_published", "Events for a topic."),
    "delivered": ("events_delivered", "Events that were sent to a subscriber or client."),
    "undelivered": ("events_undelivered", "Events that were lost on the way to a peer."),
    "asked": ("questions", "Questions to the management interface."),
}
"""Key of the snapshot's `counts` → the counter's name without prefix and suffix, and its HELP."""
ACCOUNT: Final = ("requests", "outboxes", "subscriptions", "workers", "peers", "stories")
"""The parts of the account whose sum is what the broker holds."""
PROCESS: Final[dict[str, tuple[str, str, str]]] = {
    "cpu": ("counter", "process_cpu_seconds", "CPU time of the broker's process."),
    "rss": ("gauge", "process_resident_memory_bytes", "Resident memory of the broker's process."),
    "started": ("gauge", "process_start_time_seconds", "When the broker's process began."),
    "descriptors": ("gauge", "process_open_fds", "Open descriptors of the broker's process."),
    "most_descriptors": ("gauge", "process_max_fds", "The process's limit of descriptors."),
}
TRACE_ID: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-")
"""Of a W3C traceparent: the form in which it is an exemplar."""
STORE: Final[dict[str, tuple[str, str]]] = {
    "accepts": ("store_writable", "Whether the store takes new rows: 1, or 0 for a full disk."),
    "rows": ("store_rows", "Rows of the store."),
    "bytes": ("store_size_bytes", "Size of the store's files."),
    "free": ("store_free_bytes", "Bytes that the store's disk has left; -1 where unknown."),
    "unstored": ("store_unstored_writes", "Writes that are not stored yet."),
    "open": ("durable_requests", "Durable requests without an outcome."),
    "running": ("durable_requests_running", "Durable requests that workers have."),
    "oldest": ("durable_oldest_seconds", "Time since the oldest open durable request."),
}
"""Key of the snapshot's `store` → its metric, without prefix, and its HELP."""
STATES: Final = ("serving", "draining", "suspect")


class Polled(NamedTuple):
    """The last snapshot of one broker.

    url: the endpoint, which is the label `broker`. seconds: how long the broker took to answer.
    snapshot: None when it did not answer. ended: requests that have ended since the last one, as
    exemplars. time: when they were read, in seconds since 1970.
    """

    url: str
    seconds: float
    snapshot: Snapshot | None
    ended: Sequence[EndedRequest] = ()
    time: float = 0.0


def per_broker(brokers: int) -> int:
    """How many services of each broker get series of their own.

    Raises: ConfigurationError when there are too many brokers for one exporter.
    """
    share = (MOST_SERIES - OWN_SERIES) // brokers
    services = (share - FIXED_SERIES) // SERVICE_SERIES - 1  # one is OTHER
    if services < 0:
        most = (MOST_SERIES - OWN_SERIES) // (FIXED_SERIES + SERVICE_SERIES)
        raise ConfigurationError(
            f"{brokers} brokers are too many: one exporter reads at most {most}; start several"
        )
    return services


class BrokerCollector(Collector):
    """Makes the metrics of the brokers whose snapshots it is given.

    `update` and `collect` belong to one thread.
    """

    def __init__(self, urls: Iterable[str]) -> None:
        known = list(dict.fromkeys(urls))
        self._series = {url: BrokerSeries(per_broker(len(known))) for url in known}
        self._polled = {url: Polled(url, 0.0, None) for url in known}
        self._exemplars: dict[str, dict[tuple[str, int], Exemplar]] = {url: {} for url in known}

    def update(self, polled: Polled) -> None:
        """Take the next snapshot of one broker."""
        self._polled[polled.url] = polled
        if polled.snapshot is not None:
            self._series[polled.url].update(polled.snapshot)
            self._add_exemplars(polled)

    def _add_exemplars(self, polled: Polled) -> None:
        """Keep the last traced request of each bucket. There are no more of them than buckets."""
        series = self._series[polled.url]
        kept = self._exemplars[polled.url]
        for label, bucket in list(kept):
            if label not in series.services:
                del kept[label, bucket]
        for one in polled.ended:
            found = TRACE_ID.match(one.trace)
            label = series.label(one.service)
            if found is not None and label in series.services:
                ended = polled.time - one.ago
                kept[label, bucket_of(one.took)] = Exemplar({"trace_id": found[1]}, one.took, ended)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric that has a value."""
        families = _Families()
        for url, polled in self._polled.items():
            families.set("up", (url,), float(polled.snapshot is not None))
            if polled.snapshot is None:
                continue
            families.set("answer_seconds", (url,), polled.seconds)
            _add_broker(families, url, polled.snapshot.broker)
            _add_workers(families, url, polled.snapshot.workers)
            self._add_services(families, url)
        return iter(families.families.values())

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: the metrics are known only when they are collected."""
        return iter(())

    def _add_services(self, families: _Families, url: str) -> None:
        for name, series in self._series[url].services.items():
            labels = (url, name)
            for gauge, value in series.gauges.items():
                families.set(f"service_{gauge}", labels, value)
            for outcome in OUTCOMES:
                labels_of = (*labels, outcome)
                families.set("service_requests", labels_of, series.count(outcome))
            for which, metric in SERVICE_HISTOGRAMS.items():
                exemplars = self._exemplars[url] if which == "total" else {}
                families.histogram(metric, labels, *series.histogram(which), exemplars)


SERVICE_HISTOGRAMS: Final = {
    "queue": "request_queue_seconds",
    "service": "request_service_seconds",
    "total": "request_duration_seconds",
}


def _metrics() -> Iterator[tuple[str, Meaning]]:
    of_a_service = ("broker", "service")
    yield "up", Meaning("gauge", "Whether the broker answered: 1 or 0.")
    yield "answer_seconds", Meaning("gauge", "How long the broker took to answer the exporter.")
    info = ("broker", "name", "version", "wire", "rules")
    yield "build_info", Meaning("gauge", "The broker's name, version, wire and rules.", info)
    yield "draining", Meaning("gauge", "Whether the broker refuses new requests: 1 or 0.")
    yield "restarts", Meaning("counter", "Restarts of the broker by its supervisor.")
    for key, meaning in NOW.items():
        yield NAMES.get(key, key), meaning
    for name, text in COUNTS.values():
        yield name, Meaning("counter", text)
    yield "requests", Meaning("counter", "Ended requests by outcome.", ("broker", "outcome"))
    text = "Client messages that did not become requests, by status."
    yield "requests_refused", Meaning("counter", text, ("broker", "status"))
    text = "Messages that were dropped, by reason."
    yield "messages_dropped", Meaning("counter", text, ("broker", "reason"))
    text = "Connections that were refused, by reason."
    yield "handshakes_refused", Meaning("counter", text, ("broker", "reason"))
    yield "held_bytes", Meaning("gauge", "What the broker holds.", ("broker", "kind"))
    yield "held_limit_bytes", Meaning("gauge", "The most that the broker holds in all.")
    yield "buffer_bytes", Meaning("gauge", "Bytes in buffers of connections.", ("broker", "kind"))
    for kind, name, text in PROCESS.values():
        yield name, Meaning(kind, text)
    for name, text in STORE.values():
        yield name, Meaning("gauge", text)
    text = "How late timers were handled: more than 1 ms after they were due."
    yield "loop_late_seconds", Meaning("histogram", text)
    yield "workers", Meaning("gauge", "Registered workers by state.", ("broker", "state"))
    yield "slots", Meaning("gauge", "Slots of workers that are serving.")
    yield "slots_in_use", Meaning("gauge", "Slots that requests hold.")
    yield "worker_load_max", Meaning("gauge", "The highest load that a worker has reported.")
    yield "worker_silent_max_seconds", Meaning("gauge", "The longest silence of a worker.")
    yield "service_workers", Meaning("gauge", "Workers of the service.", of_a_service)
    text = "Requests of the service that wait for a worker."
    yield "service_queued", Meaning("gauge", text, of_a_service)
    text = "Bytes of the bodies of the service's queued requests."
    yield "service_queued_bytes", Meaning("gauge", text, of_a_service)
    text = "Open requests of the service, queued ones included."
    yield "service_open", Meaning("gauge", text, of_a_service)
    text = "Slots of the service's workers. A worker may serve several services."
    yield "service_slots", Meaning("gauge", text, of_a_service)
    text = "Slots of the service's workers that requests hold, also of other services."
    yield "service_slots_in_use", Meaning("gauge", text, of_a_service)
    text = "Ended requests of the service by outcome."
    yield "service_requests", Meaning("counter", text, (*of_a_service, "outcome"))
    text = "Time from acceptance to the last dispatch."
    yield "request_queue_seconds", Meaning("histogram", text, of_a_service)
    text = "Time from the last dispatch to the end."
    yield "request_service_seconds", Meaning("histogram", text, of_a_service)
    text = "Time from acceptance to the end."
    yield "request_duration_seconds", Meaning("histogram", text, of_a_service)


PREFIX: Final = "majordomus_"
METRICS: Final[Mapping[str, Meaning]] = dict(_metrics())
"""Every metric, without prefix; a counter without its suffix `_total`."""


class _Families:
    """The metric families of one collection, made when they get their first value."""

    def __init__(self) -> None:
        self.families: dict[str, Metric] = {}

    def set(self, name: str, labels: tuple[str, ...], value: float) -> None:
        """Set the value of a gauge or a counter."""
        kind = CounterMetricFamily if METRICS[name].kind == "counter" else GaugeMetricFamily
        family = self._family(name, kind)
        family.add_metric(labels, value)  # type: ignore[attr-defined]

    def histogram(
        self,
        name: str,
        labels: tuple[str, ...],
        seconds: float,
        counts: list[float],
        exemplars: Mapping[tuple[str, int], Exemplar] | None = None,
    ) -> None:
        """Set a histogram. `exemplars` are by service and bucket."""
        reached = 0.0
        buckets: list[tuple[str, float, Exemplar | None]] = []
        for n, (bound, count) in enumerate(zip(BOUNDS, counts, strict=True)):
            reached += count
            buckets.append((bound, reached, (exemplars or {}).get((labels[-1], n))))
        family = self._family(name, HistogramMetricFamily)
        family.add_metric(labels, buckets, seconds)  # type: ignore[attr-defined]

    def _family(self, name: str, kind: Callable[..., Metric]) -> Metric:
        family = self.families.get(name)
        if family is None:
            meaning = METRICS[name]
            family = kind(PREFIX + name, meaning.help, labels=meaning.labels)
            self.families[name] = family
        return family

    def bounded(self, name: str, url: str, counts: Mapping[str, float]) -> None:
        """Set the values of a label that has many; the smallest counts are added up."""
        ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
        for value, count in ranked[:MOST_REASONS]:
            self.set(name, (url, value), count)
        rest = ranked[MOST_REASONS:]
        if rest:
            self.set(name, (url, "other"), sum(count for _, count in rest))


def _add_broker(families: _Families, url: str, broker: BrokerRow) -> None:
    info = (url, broker.name, broker.version, broker.wire, broker.rules)
    families.set("build_info", info, 1)
    families.set("draining", (url,), float(broker.draining))
    families.set("restarts", (url,), broker.restarts)
    for key in NOW:
        families.set(NAMES.get(key, key), (url,), broker.now.get(key, 0))
    for key, (name, _) in COUNTS.items():
        families.set(name, (url,), broker.counts.get(key, 0))
    for outcome in OUTCOMES:
        families.set("requests", (url, outcome), broker.counts.get(outcome, 0))
    families.bounded("requests_refused", url, broker.refused)
    families.bounded("messages_dropped", url, broker.dropped)
    families.bounded("handshakes_refused", url, broker.handshakes_refused)
    account = broker.account
    for kind in ACCOUNT:
        families.set("held_bytes", (url, kind), account.get(kind, 0))
    families.set("held_limit_bytes", (url,), account.get("most", 0))
    buffers = {key: n for key, n in account.items() if key not in (*ACCOUNT, "held", "most")}
    families.bounded("buffer_bytes", url, buffers)
    for key, (_, name, _) in PROCESS.items():
        if key in broker.process:
            families.set(name, (url,), broker.process[key])
    if broker.store is not None:
        for key, (name, _) in STORE.items():
            families.set(name, (url,), float(getattr(broker.store, key)))
    late = Histogram.of(broker.late)
    families.histogram("loop_late_seconds", (url,), late.seconds, buckets_of(late))


def _add_workers(families: _Families, url: str, workers: list[WorkerRow]) -> None:
    by_state = Counter(dict.fromkeys(STATES, 0))
    by_state.update(worker.state if worker.state in STATES else "other" for worker in workers)
    for state, count in by_state.items():
        families.set("workers", (url, state), count)
    slots = sum(worker.capacity for worker in workers if worker.state == "serving")
    families.set("slots", (url,), slots)
    families.set("slots_in_use", (url,), sum(worker.held for worker in workers))
    if workers:
        loads = [worker.load for worker in workers if worker.load is not None]
        families.set("worker_load_max", (url,), max(loads, default=0.0))
        families.set("worker_silent_max_seconds", (url,), max(w.silent for w in workers))
