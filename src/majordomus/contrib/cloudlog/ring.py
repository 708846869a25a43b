"""The last entries of a collector, as bytes, by number. Bounded in entries and in bytes.

A reader is only a position. The number of entries that it missed is a difference of numbers, so
that a slow reader costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from majordomus.errors import ConfigurationError

CHUNK_BYTES: Final = 512 * 1024
"""Bytes that one `read` returns, up to one entry more."""


class Ring:
    """A ring buffer of entries.

    capacity: most entries.
    max_bytes: most bytes of all entries.
    first: the number of the oldest entry.
    end: the number of the next entry.
    size: bytes of all entries.
    """

    def __init__(self, capacity: int, max_bytes: int) -> None:
        if capacity < 1 or max_bytes < 1:
            raise ConfigurationError("a ring must hold at least 1 entry and 1 byte")
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.first = 0
        self.end = 0
        self.size = 0
        self._entries: list[bytes] = []  # grows to `capacity`, then entry n is at n modulo capacity

    def append(self, entries: Sequence[bytes]) -> None:
        """Add entries, and drop the oldest ones as needed."""
        stored, capacity = self._entries, self.capacity
        for entry in entries:
            if self.end - self.first == capacity:
                self._drop()
            if len(stored) < capacity:
                stored.append(entry)
            else:
                stored[self.end % capacity] = entry
            self.end += 1
            self.size += len(entry)
        while self.size > self.max_bytes and self.first < self.end:
            self._drop()

    def read(self, at: int, most: int) -> list[bytes]:
        """Up to `most` entries from number `at`, which must be within `first` and `end`."""
        stored, capacity = self._entries, self.capacity
        found: list[bytes] = []
        size = 0
        for number in range(at, min(at + most, self.end)):
            entry = stored[number % capacity]
            found.append(entry)
            size += len(entry)
            if size >= CHUNK_BYTES:
                break
        return found

    def _drop(self) -> None:
        at = self.first % self.capacity
        self.size -= len(self._entries[at])
        self._entries[at] = b""
        self.first += 1
