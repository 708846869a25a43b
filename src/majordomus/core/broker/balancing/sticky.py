"""`sticky`: requests with the same key go to the same worker, as long as it has a free slot.

Multi-probe consistent hashing: a worker has a few points on a ring, a key has several positions,
and the point that follows one of them most closely is its worker. When a worker is added, removed
or full, only the keys of that worker move.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias

from majordomus.core.broker.balancing.strategy import Strategy
from majordomus.protocol import metadata, spec

if TYPE_CHECKING:
    from majordomus.core.broker.balancing.rng import RandomSource
    from majordomus.core.broker.state.requests import AcceptedRequest
    from majordomus.core.broker.state.workers import RegisteredWorker

Point: TypeAlias = "tuple[int, bytes, RegisteredWorker]"

BITS: Final = 64
PROBES: Final = 8
POINTS: Final = 4
"""Points of a worker with weight 1."""
_PROBES: Final = Struct(f">{PROBES}Q")


class Ring:
    """Points by position, in 2^n buckets by their first bits: adding, removing and finding the next
    point cost O(1) on average."""

    __slots__ = ("_buckets", "_count", "_shift")

    def __init__(self) -> None:
        self._buckets: list[list[Point]] = [[]]
        self._shift = BITS
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, point: Point) -> None:
        insort(self._buckets[point[0] >> self._shift], point)
        self._count += 1
        if self._count > 4 * len(self._buckets):
            self._split(self._shift - 1)

    def remove(self, point: Point) -> None:
        bucket = self._buckets[point[0] >> self._shift]
        del bucket[bisect_left(bucket, point)]
        self._count -= 1
        if self._shift < BITS and 4 * self._count < len(self._buckets):
            self._split(self._shift + 1)

    def next(self, position: int, rejected: set[RegisteredWorker] | None) -> Point | None:
        """Return the first point at or after `position`, once around the ring, of a worker that is
        not in `rejected`; None without one."""
        buckets, first = self._buckets, position >> self._shift
        bucket = buckets[first]
        for at in range(bisect_left(bucket, (position,)), len(bucket)):
            if not rejected or bucket[at][2] not in rejected:
                return bucket[at]
        for n in range(1, len(buckets) + 1):
            for point in buckets[(first + n) % len(buckets)]:
                if not rejected or point[2] not in rejected:
                    return point
        return None

    def _split(self, shift: int) -> None:
        points = [point for bucket in self._buckets for point in bucket]
        self._shift = shift
        self._buckets = [[] for _ in range(1 << (BITS - shift))]
        for point in points:
            self._buckets[point[0] >> shift].append(point)


class Sticky(Strategy):
    """The worker of the request's key: the metadata `key`, or the client without one."""

    __slots__ = ("_placed", "_points", "_ring", "_weights")

    def __init__(self, dice: RandomSource | None = None) -> None:
        self._ring = Ring()
        self._points: dict[RegisteredWorker, list[Point]] = {}
        self._placed: set[RegisteredWorker] = set()
        self._weights: dict[RegisteredWorker, float] = {}

    def put(self, worker: RegisteredWorker) -> None:
        if worker in self._placed:
            return
        self._placed.add(worker)
        points = self._points.get(worker)
        if points is None:
            points = self._points[worker] = self._points_of(worker)
        for point in points:
            self._ring.add(point)

    def drop(self, worker: RegisteredWorker) -> None:
        if worker in self._placed:
            self._placed.remove(worker)
            for point in self._points[worker]:
                self._ring.remove(point)

    def choose(self, request: AcceptedRequest) -> RegisteredWorker | None:
        ring, nearest, found = self._ring, 1 << BITS, None
        if not ring:
            return None
        for position in _PROBES.unpack(blake2b(key_of(request), digest_size=_PROBES.size).digest()):
            point = ring.next(position, request.rejected)
            if point is None:
                return None
            distance = (point[0] - position) % (1 << BITS)
            if distance < nearest:
                nearest, found = distance, point[2]
        return found

    def enter(self, worker: RegisteredWorker, weight: float) -> None:
        if self._weights.get(worker) != weight:
            self.forget(worker)
            self._weights[worker] = weight

    def forget(self, worker: RegisteredWorker) -> None:
        self.drop(worker)
        self._points.pop(worker, None)
        self._weights.pop(worker, None)

    def _points_of(self, worker: RegisteredWorker) -> list[Point]:
        count = max(1, round(POINTS * self._weights.get(worker, 1.0)))
        hashes = (
            blake2b(worker.id, digest_size=8, salt=n.to_bytes(4, "big")).digest()
            for n in range(count)
        )
        return [(int.from_bytes(hash, "big"), worker.id, worker) for hash in hashes]


def key_of(request: AcceptedRequest) -> bytes:
    """Return the key of a request: its metadata `key`, else its client, also behind a proxy."""
    if request.flags & spec.METADATA:
        key = metadata.unpack(request.metadata).get("key")
        if key is not None:
            return key if isinstance(key, bytes) else str(key).encode()
    peer = request.peer
    return peer.handle if not request.envelope else b"".join((peer.handle, *request.envelope))
