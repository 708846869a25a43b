"""Count the entries that did not arrive at a collector, by the numbers of the batches."""

from __future__ import annotations

from typing import Final, NamedTuple

MOST_SENDERS: Final = 10_000


class Missing(NamedTuple):
    """Missing entries.

    dropped: those that the sender dropped.
    lost: those that were lost on the way, or with a broker.
    """

    dropped: int
    lost: int


class Tally:
    """The next expected number of each of the last MOST_SENDERS senders."""

    def __init__(self) -> None:
        self._next: dict[bytes, int] = {}

    def count(self, sender: bytes, first: int, dropped: int, size: int) -> Missing:
        """Count a batch of `size` entries from number `first`.

        Losses before the first batch of a sender are not known. A repeated or late batch counts as
        no loss.
        """
        expected = self._next.pop(sender, None)
        lost = 0 if expected is None else max(0, first - dropped - expected)
        self._next[sender] = max(expected or 0, first + size)
        if len(self._next) > MOST_SENDERS:
            del self._next[next(iter(self._next))]
        return Missing(dropped, lost)
