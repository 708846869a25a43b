"""What became of the entries that a collector was not given: told by the numbers of the batches."""

from __future__ import annotations

from typing import Final, NamedTuple

MOST_SENDERS: Final = 10_000


class Missing(NamedTuple):
    """`dropped`: by the sender itself, before a batch. `lost`: on the way, or with a broker."""

    dropped: int
    lost: int


class Tally:
    """Remembers for each sender which number comes next; of the last MOST_SENDERS senders."""

    def __init__(self) -> None:
        self._next: dict[bytes, int] = {}

    def count(self, sender: bytes, first: int, dropped: int, size: int) -> Missing:
        """A batch of `size` entries from number `first` on has come.

        What was lost before the first batch of a sender is not known. A batch that comes again, or
        late, misses nothing.
        """
        expected = self._next.pop(sender, None)
        lost = 0 if expected is None else max(0, first - dropped - expected)
        self._next[sender] = max(expected or 0, first + size)
        if len(self._next) > MOST_SENDERS:
            del self._next[next(iter(self._next))]
        return Missing(dropped, lost)
