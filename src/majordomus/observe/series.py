"""The snapshots of one broker as bounded counters.

Peers choose the names of services, so at most `most` of them get series of their own: those that
have the most requests when there is a free place. A name keeps its place until the broker forgets
it. All others are added up under OTHER. The sum over all names is the sum over all requests: what
is counted between two snapshots is counted once, also when a service is forgotten in between.
"""

from __future__ import annotations

from heapq import nsmallest
from operator import add, sub
from typing import TYPE_CHECKING, Final

from majordomus.core.broker.state.times import TICKS
from majordomus.observe.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable

    from majordomus.observe.snapshot import ServiceRow, Snapshot, TimesRow, WorkerRow

OTHER: Final = "_other"
"""The label of the services that have no series of their own."""
OUTCOMES: Final = ("answered", "failed", "expired", "cancelled")
HISTOGRAMS: Final = ("queue", "service", "total")
STEPS: Final = (2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24)
"""The boxes that end a bucket: 0.24 ms to 1024 s, each four times as wide as the one before."""
BUCKETS: Final = len(STEPS) + 1
EMPTY: Final = [0.0] * (BUCKETS + 1)
"""The sum and the buckets of a histogram without a count."""
GAUGES: Final = ("workers", "queued", "queued_bytes", "open", "slots", "slots_in_use")

Numbers = list[float]
"""The counts of OUTCOMES, then for each of HISTOGRAMS its sum and its buckets."""


class ServiceSeries:
    """What is exported of one service.

    numbers: the counters. gauges: the values of GAUGES.
    """

    __slots__ = ("gauges", "numbers")

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self.gauges = dict.fromkeys(GAUGES, 0)

    def count(self, outcome: str) -> float:
        """How many requests ended so."""
        return self.numbers[OUTCOMES.index(outcome)]

    def histogram(self, which: str) -> tuple[float, Numbers]:
        """The sum in seconds, and the counts of the buckets."""
        at = len(OUTCOMES) + HISTOGRAMS.index(which) * (BUCKETS + 1)
        return self.numbers[at], self.numbers[at + 1 : at + 1 + BUCKETS]


class BrokerSeries:
    """The series of the services of one broker, from one snapshot to the next.

    services: what is exported, by the name of the service; OTHER is there when it has counted.
    """

    def __init__(self, most: int) -> None:
        self.services: dict[str, ServiceSeries] = {}
        self._most = most
        self._run: object = None
        self._names: set[str] = set()
        self._before: dict[str, ServiceRow] = {}
        self._all: Numbers = []
        self._other: Numbers = []

    def update(self, snapshot: Snapshot) -> None:
        """Take the next snapshot, which has the sections `services` and `workers`."""
        everything = _sum([snapshot.broker.forgotten, *snapshot.services])
        self._names = self._choose(snapshot)
        rows = {row.name: row for row in snapshot.services}
        self.services = {name: ServiceSeries(numbers_of(rows[name])) for name in self._names}
        is_new = snapshot.run != self._run
        if is_new:
            self._run, self._before = snapshot.run, {}
        change = everything if is_new else list(map(sub, everything, self._all))
        for name, series in self.services.items():
            change = list(map(sub, change, _since(self._before.get(name), series.numbers)))
        change = [max(0.0, more) for more in change]
        self._other = change if is_new else list(map(add, self._other, change))
        self._all, self._before = everything, rows
        if any(self._other) or len(rows) > len(self._names):
            self.services[OTHER] = ServiceSeries(self._other)
        self._fill_gauges(snapshot)

    def _choose(self, snapshot: Snapshot) -> set[str]:
        """The names with series of their own: those that had them, then the busiest."""
        kept = self._names.intersection(row.name for row in snapshot.services)
        free = self._most - len(kept)
        if free > 0:
            new = (row for row in snapshot.services if row.name not in kept and row.name != OTHER)
            busiest = nsmallest(free, new, key=lambda row: (-row.ended, row.name))
            kept.update(row.name for row in busiest)
        return kept

    def _fill_gauges(self, snapshot: Snapshot) -> None:
        for row in snapshot.services:
            gauges = self._series(row.name).gauges
            gauges["workers"] += row.workers
            gauges["queued"] += row.queued
            gauges["queued_bytes"] += row.queued_bytes
            gauges["open"] += row.open
        for worker in snapshot.workers:
            labels = {self.label(name) for name in worker.services}
            for label in labels:
                gauges = self._series(label).gauges
                gauges["slots"] += _slots(worker)
                gauges["slots_in_use"] += worker.held

    def label(self, name: str) -> str:
        """The label of the service `name`: its own, or OTHER."""
        return name if name in self.services else OTHER

    def _series(self, name: str) -> ServiceSeries:
        found = self.services.get(self.label(name))
        if found is None:  # a service that came between two pages of the snapshot
            found = self.services[OTHER] = ServiceSeries(self._other)
        return found


def _slots(worker: WorkerRow) -> int:
    """The slots that take requests: those of a worker that drains take none."""
    return worker.capacity if worker.state == "serving" else worker.held


def numbers_of(row: ServiceRow | TimesRow) -> Numbers:
    """The counters of one service."""
    numbers: Numbers = [row.answered, row.failed, row.expired, row.cancelled]
    for found in (row.queue, row.service, row.total):
        if len(found) < 3:  # most services of a broker with very many of them
            numbers += EMPTY
        else:
            numbers.append(found[0])
            numbers += buckets_of(Histogram.of(found))
    return numbers


def buckets_of(histogram: Histogram) -> Numbers:
    """The counts of a histogram between STEPS, and of what is beyond the last one."""
    counts: Numbers = []
    begin = 0
    for end in STEPS:
        counts.append(sum(histogram.boxes[begin : end + 1]))
        begin = end + 1
    return [*counts, sum(histogram.boxes[begin:])]


def bucket_of(seconds: float) -> int:
    """The number of the bucket of a time."""
    box = int(max(0.0, seconds) * TICKS).bit_length()
    return next((n for n, end in enumerate(STEPS) if box <= end), len(STEPS))


def _sum(rows: Iterable[ServiceRow | TimesRow]) -> Numbers:
    """The counters of all rows, added up. Most rows of a long list have no histogram."""
    total = [0.0] * (len(OUTCOMES) + len(HISTOGRAMS) * (BUCKETS + 1))
    for row in rows:
        if len(row.queue) < 3 and len(row.total) < 3:
            total[0] += row.answered
            total[1] += row.failed
            total[2] += row.expired
            total[3] += row.cancelled
        else:
            total = list(map(add, total, numbers_of(row)))
    return total


def _since(before: ServiceRow | None, after: Numbers) -> Numbers:
    """What has been counted since `before`; everything when the service was forgotten between."""
    if before is None:
        return after
    change = list(map(sub, after, numbers_of(before)))
    return after if min(change[: len(OUTCOMES)]) < 0 else change
