"""A timer wheel: adding, removing and finding what is due cost O(1) for each item.

Every deadline of the broker is in one of these wheels. An item that ends early is removed at once,
so a wheel holds no more than what is open, however long the deadlines are.

Requests have a wheel of their own: each knows its bucket and its index there, so that removing one
needs no look-up.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Any

from majordomus.core.broker.accel import arithmetic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from majordomus.core.broker.state.requests import AcceptedRequest

STEPS_PER_SECOND = 128
"""An item is due at most 1/128 s after its time, and never before."""
_PER_SECOND = STEPS_PER_SECOND
_MOST_GAPS = 4
"""A bucket has at most so many entries for each of its requests."""


class TimerWheel:
    """The base of all wheels: a bucket for each step in which an item is due. Steps without one
    take no memory; a heap finds the next."""

    __slots__ = ("_buckets", "_last", "_last_step", "_steps")

    def __init__(self) -> None:
        self._buckets: dict[int, Any] = {}
        self._steps: list[int] = []
        self._last_step = -1
        """The step of the item that was added last: the next one often has the same."""
        self._last: Any = None

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def _new_bucket(self) -> Any:
        raise NotImplementedError

    def _bucket(self, step: int) -> Any:
        bucket = self._buckets.get(step)
        if bucket is None:
            bucket = self._buckets[step] = self._new_bucket()
            heappush(self._steps, step)
        self._last = bucket
        self._last_step = step
        return bucket

    def _drop(self) -> Any:
        """Remove the first step and return its bucket."""
        step = heappop(self._steps)
        if step == self._last_step:
            self._last_step = -1
        return self._buckets.pop(step)

    def due(self, now: float) -> list[Any]:
        """Remove and return every item that is due, oldest first."""
        items: list[Any] = []
        steps = self._steps
        last = now * STEPS_PER_SECOND
        while steps and steps[0] <= last:
            bucket = self._drop()
            items.extend(bucket)
            bucket.clear()
        return items

    def next(self) -> float:
        """When `due` next has an item to return; infinity when no item is held."""
        steps = self._steps
        while steps:
            if self._buckets[steps[0]]:
                return steps[0] / STEPS_PER_SECOND
            self._drop()
        return inf


class Deadlines(TimerWheel):
    """Items by their time in monotonic seconds. Items are keys of a dictionary."""

    __slots__ = ()

    def add(self, item: Any, when: float) -> dict[Any, None]:
        """Hold `item` until `when`. Returns its bucket: ``bucket.pop(item, None)`` removes it."""
        step = arithmetic.whole(when * _PER_SECOND) + 1
        bucket: dict[Any, None] = self._last if step == self._last_step else self._bucket(step)
        bucket[item] = None
        return bucket

    def _new_bucket(self) -> dict[Any, None]:
        return {}


class Bucket:
    """The requests that are due in one step, in the order in which they were added.

    requests: the requests; None in place of one that has been removed. These gaps are closed when
        they are three quarters of it.
    count: how many requests there are.
    """

    __slots__ = ("count", "requests")

    def __init__(self) -> None:
        self.requests: list[AcceptedRequest | None] = []
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[AcceptedRequest]:
        return iter([request for request in self.requests if request is not None])

    def remove(self, request: AcceptedRequest) -> None:
        """Remove `request`, which is in this bucket."""
        request.bucket = None
        self.requests[request.bucket_index] = None
        self.count -= 1
        if _MOST_GAPS * self.count < len(self.requests):
            self._close_gaps()

    def _close_gaps(self) -> None:
        index = 0
        waiting: list[AcceptedRequest | None] = []
        for request in self.requests:
            if request is not None:
                request.bucket_index = index
                index += 1
                waiting.append(request)
        self.requests = waiting

    def clear(self) -> None:
        """Remove every request."""
        for request in self:
            request.bucket = None
        self.requests = []
        self.count = 0


class RequestDeadlines(TimerWheel):
    """The wheel of requests. ``request.bucket.remove(request)`` removes one."""

    __slots__ = ()

    def add(self, request: AcceptedRequest) -> None:
        """Hold `request` until its deadline."""
        step = arithmetic.whole(request.deadline * _PER_SECOND) + 1
        bucket: Bucket = self._last if step == self._last_step else self._bucket(step)
        request.bucket = bucket
        request.bucket_index = len(bucket.requests)
        bucket.requests.append(request)
        bucket.count += 1

    def _new_bucket(self) -> Bucket:
        return Bucket()
