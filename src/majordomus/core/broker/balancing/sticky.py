"""`sticky`: requests with one key go to one worker, as long as it is there and has a slot.

Consistent hashing with several probes: a worker has a few points on a ring, a key looks from
several places for the next point, and the nearest one found is its worker. When a worker comes or
goes, or is full, only the keys of that one worker move.
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
"""Points of a worker of weight 1."""
_PROBES: Final = Struct(f">{PROBES}Q")


class Ring:
    """Points in the order of their places, parted into 2^n boxes by their first bits: adding,
    removing and finding the next one cost O(1) on the average, whatever their number."""

    __slots__ = ("_boxes", "_count", "_shift")

    def __init__(self) -> None:
        self._boxes: list[list[Point]] = [[]]
        self._shift = BITS
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, point: Point) -> None:
        insort(self._boxes[point[0] >> self._shift], point)
        self._count += 1
        if self._count > 4 * len(self._boxes):
            self._part(self._shift - 1)

    def remove(self, point: Point) -> None:
        box = self._boxes[point[0] >> self._shift]
        del box[bisect_left(box, point)]
        self._count -= 1
        if self._shift < BITS and 4 * self._count < len(self._boxes):
            self._part(self._shift + 1)

    def next(self, place: int, rejected: set[RegisteredWorker] | None) -> Point | None:
        """The first point at or behind `place`, once around, of a worker not in `rejected`."""
        boxes, first = self._boxes, place >> self._shift
        box = boxes[first]
        for at in range(bisect_left(box, (place,)), len(box)):
            if not rejected or box[at][2] not in rejected:
                return box[at]
        for n in range(1, len(boxes) + 1):
            for point in boxes[(first + n) % len(boxes)]:
                if not rejected or point[2] not in rejected:
                    return point
        return None

    def _part(self, shift: int) -> None:
        points = [point for box in self._boxes for point in box]
        self._shift = shift
        self._boxes = [[] for _ in range(1 << (BITS - shift))]
        for point in points:
            self._boxes[point[0] >> shift].append(point)


class Sticky(Strategy):
    """The worker of the request's key: of the metadata `key`, or of the client where there is
    none."""

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
            points = self._points[worker] = self._places(worker)
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
        for place in _PROBES.unpack(blake2b(key_of(request), digest_size=_PROBES.size).digest()):
            point = ring.next(place, request.rejected)
            if point is None:
                return None
            distance = (point[0] - place) % (1 << BITS)
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

    def _places(self, worker: RegisteredWorker) -> list[Point]:
        count = max(1, round(POINTS * self._weights.get(worker, 1.0)))
        hashes = (
            blake2b(worker.id, digest_size=8, salt=n.to_bytes(4, "big")).digest()
            for n in range(count)
        )
        return [(int.from_bytes(hash, "big"), worker.id, worker) for hash in hashes]


def key_of(request: AcceptedRequest) -> bytes:
    """What a request sticks by: its metadata `key`, else its client, also behind a proxy."""
    if request.flags & spec.METADATA:
        key = metadata.unpack(request.metadata).get("key")
        if key is not None:
            return key if isinstance(key, bytes) else str(key).encode()
    peer = request.peer
    return peer.handle if not request.envelope else b"".join((peer.handle, *request.envelope))
