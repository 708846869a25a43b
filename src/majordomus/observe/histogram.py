"""Histograms of a broker: box n counts times below 2**n ticks, so they are merged by addition."""

from __future__ import annotations

from collections.abc import Sequence

from majordomus.core.broker.state.times import BOXES, TICKS


class Histogram:
    """A histogram of durations.

    seconds: the sum of all durations.
    boxes: a list of BOXES counts.
    """

    __slots__ = ("boxes", "seconds")

    def __init__(self, seconds: float = 0.0, boxes: Sequence[int] = ()) -> None:
        self.seconds = seconds
        self.boxes = [*boxes, *[0] * (BOXES - len(boxes))][:BOXES]

    @classmethod
    def of(cls, row: Sequence[float]) -> Histogram:
        """Read the form of the snapshot: the sum, the number of the first box, its counts.

        What lies outside of the boxes is left out, so no broker's reply makes this raise.
        """
        made = cls(float(row[0]) if row else 0.0)
        first = int(row[1]) if len(row) > 1 else 0
        for n, count in enumerate(row[2:], first):
            if 0 <= n < BOXES:
                made.boxes[n] = int(count)
        return made

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.boxes)

    def add(self, other: Histogram) -> None:
        """Merge `other` into this."""
        self.seconds += other.seconds
        for n, count in enumerate(other.boxes):
            self.boxes[n] += count

    def since(self, before: Histogram) -> Histogram:
        """Return the counts since `before`; all of them when the broker has restarted."""
        boxes = [after - old for after, old in zip(self.boxes, before.boxes, strict=True)]
        if min(boxes) < 0:
            return self
        return Histogram(max(0.0, self.seconds - before.seconds), boxes)

    def quantile(self, share: float) -> float | None:
        """Return the duration that `share` of the durations did not exceed; None without any.

        Each box is twice as wide as the one before, so it is exact within a factor of two.
        """
        wanted = share * self.count
        for n, count in enumerate(self.boxes):
            if count and wanted <= count:
                low, high = (2.0 ** (n - 1) if n else 0.0) / TICKS, 2.0**n / TICKS
                return round(low + (high - low) * wanted / count, 6)
            wanted -= count
        return None
