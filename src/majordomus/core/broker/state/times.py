"""How long the requests of a service waited, how long they were at a worker, and both together.

A histogram is a list of BOXES counts. Box n counts times below 2**n ticks, so histograms of
services and of brokers are merged by addition.

Most requests get a worker at once. Their waiting time is 0, and their time at the worker is their
time in all, which `Service` counts. So only requests that have waited are counted here, in `Waits`,
and a request that has not costs one comparison more. `Times` puts both together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from majordomus.core.broker.state.services import Service

BOXES: Final = 64
"""Boxes of a histogram."""
TICKS: Final = 16384.0
"""Ticks per second. The first box ends at 61 µs, each further one at twice that."""


class Waits:
    """The requests of one service that did not get a worker at once. Times are seconds.

    waited: how long all of them waited.
    took, served: how long those that a worker got took in all, and at their last worker.
    waited_seconds: the sum of the waiting times of those that a worker got.
    unserved_seconds: the sum of the waiting times of the others.
    """

    __slots__ = ("served", "took", "unserved_seconds", "waited", "waited_seconds")

    def __init__(self) -> None:
        self.waited = [0] * BOXES
        self.took = [0] * BOXES
        self.served = [0] * BOXES
        self.waited_seconds = 0.0
        self.unserved_seconds = 0.0


class Times:
    """The histograms and the ends of the requests of one service, or of several.

    queue: times from acceptance to the last dispatch; also of requests that no worker got.
    service: times from the last dispatch to the end.
    total: times from acceptance to the end, of requests that a worker got.
    queue_seconds, service_seconds, total_seconds: their sums.
    answered, failed, expired, cancelled: requests by their outcome.
    """

    __slots__ = (
        "answered",
        "cancelled",
        "expired",
        "failed",
        "queue",
        "queue_seconds",
        "service",
        "service_seconds",
        "total",
        "total_seconds",
    )

    def __init__(self) -> None:
        self.queue = [0] * BOXES
        self.service = [0] * BOXES
        self.total = [0] * BOXES
        self.queue_seconds = 0.0
        self.service_seconds = 0.0
        self.total_seconds = 0.0
        self.answered = 0
        self.failed = 0
        self.expired = 0
        self.cancelled = 0

    def add(self, other: Times) -> None:
        """Merge `other` into this."""
        _add(self.queue, other.queue)
        _add(self.service, other.service)
        _add(self.total, other.total)
        self.queue_seconds += other.queue_seconds
        self.service_seconds += other.service_seconds
        self.total_seconds += other.total_seconds
        self.answered += other.answered
        self.failed += other.failed
        self.expired += other.expired
        self.cancelled += other.cancelled


def times_of(service: Service) -> Times:
    """The times of `service`."""
    times = Times()
    took = times.total = service.took
    waits = service.waits
    times.total_seconds = times.service_seconds = service.seconds
    times.answered, times.failed = service.served, service.failed
    times.expired, times.cancelled = service.expired, service.cancelled
    if waits is None:
        times.service = took
        times.queue[0] = sum(took)
        return times
    times.service = [
        all_of - waited + served
        for all_of, waited, served in zip(took, waits.took, waits.served, strict=True)
    ]
    times.queue = list(waits.waited)
    times.queue[0] += sum(took) - sum(waits.took)
    times.service_seconds -= waits.waited_seconds
    times.queue_seconds = waits.waited_seconds + waits.unserved_seconds
    return times


def _add(to: list[int], what: list[int]) -> None:
    for n, count in enumerate(what):
        if count:
            to[n] += count
