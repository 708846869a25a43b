"""The last entries that a collector was given, as bytes, by their number.

Bounded twice, in entries and in bytes. A reader has a position and nothing else: what was thrown
away before it came is a difference of numbers, so a slow reader costs nothing and knows what it
missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from majordomus.errors import ConfigurationError

CHUNK_BYTES: Final = 512 * 1024
"""Bytes that one `read` returns, one entry more or less."""


class Ring:
    """``first`` is the number of the oldest entry, ``end`` that of the next one."""

    def __init__(self, capacity: int, max_bytes: int) -> None:
        if capacity < 1 or max_bytes < 1:
            raise ConfigurationError("a ring holds at least 1 entry and 1 byte")
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.first = 0
        self.end = 0
        self.size = 0
        self._slots: list[bytes] = []  # grows to `capacity`, then entry n is at n modulo capacity

    def append(self, entries: Sequence[bytes]) -> None:
        """Adds entries; as many of the oldest go as is needed."""
        slots, capacity = self._slots, self.capacity
        for entry in entries:
            if self.end - self.first == capacity:
                self._drop()
            if len(slots) < capacity:
                slots.append(entry)
            else:
                slots[self.end % capacity] = entry
            self.end += 1
            self.size += len(entry)
        while self.size > self.max_bytes and self.first < self.end:
            self._drop()

    def read(self, at: int, most: int) -> list[bytes]:
        """Up to `most` entries from number `at` on, which must lie within first and end."""
        slots, capacity = self._slots, self.capacity
        found: list[bytes] = []
        size = 0
        for number in range(at, min(at + most, self.end)):
            entry = slots[number % capacity]
            found.append(entry)
            size += len(entry)
            if size >= CHUNK_BYTES:
                break
        return found

    def _drop(self) -> None:
        at = self.first % self.capacity
        self.size -= len(self._slots[at])
        self._slots[at] = b""
        self.first += 1
