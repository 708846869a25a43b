"""Messages without an end: who sends one is found by what his connection has brought since it last
delivered anything, and is cut off.

libzmq hands on no message before all of it is there, and counts an unfinished one toward no limit.
So memory is watched: as long as it does not grow beyond what was found innocent before, nobody is
looked at.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Final

from majordomus import system
from majordomus.net.broker.limits.descriptors import MEASURES, Mark, brought

EVERY: Final = 0.02
"""Seconds between two looks at the memory, or at the connections."""
SLACK: Final = 16 * 1024 * 1024
"""Bytes by which memory may grow without anybody being looked at."""
ROOM: Final = 1024 * 1024
"""Bytes that a message may need on the wire besides its body."""
SHARE: Final = 10
"""So many times as long as a look took there is none."""
WATCH: Final = 1.0
"""Seconds of looking that acquit everybody."""
_PAGE: Final = system.page_size()


def memory() -> int:
    """Bytes of this process that are in memory."""
    fd = os.open("/proc/self/statm", os.O_RDONLY)
    try:
        return int(os.read(fd, 128).split()[1]) * _PAGE
    finally:
        os.close(fd)


class Flood:
    """Watches the connections of one socket. `most` is the largest body that a message may have.

    `due`: when `look` is next needed, in monotonic seconds.
    """

    def __init__(
        self,
        most: int,
        *,
        memory: Callable[[], int] = memory,
        brought: Callable[[int], int] = brought,
    ) -> None:
        self.due = inf
        self._limit = most + ROOM
        self._memory, self._look_at = memory, brought
        self._innocent = 0
        self._until = inf
        self._brought: dict[int, int] = {}
        self._suspects: set[int] = set()

    @property
    def watching(self) -> bool:
        """Whether `delivered` wants to be told."""
        return self._until < inf

    def begin(self, now: float) -> None:
        """There is somebody to watch."""
        if MEASURES and self.due == inf:
            self._innocent = max(self._innocent, self._memory())
            self.due = now + EVERY

    def delivered(self, fds: Iterable[int]) -> None:
        """Whole messages came by these descriptors: what they bring counts from here."""
        for fd in fds:
            self._brought.pop(fd, None)
            self._suspects.discard(fd)

    def ended(self, fd: int) -> None:
        """The connection of `fd` has ended; the next one that gets it is another."""
        self._brought.pop(fd, None)
        self._suspects.discard(fd)

    def look(
        self, marks: Mapping[int, Mark], silent: Callable[[int], bool], now: float
    ) -> list[int]:
        """Whom to cut off, out of the connections `marks`; `silent(fd)`: nothing came by it yet."""
        grown = self._memory() - self._innocent
        if not self.watching:
            self.due = now + EVERY if marks else inf
            if grown > SLACK:
                self._until = now + WATCH
                self._brought = {fd: 0 for fd in marks if silent(fd)}
                return self._scan(marks)
            return []
        began = time.perf_counter()
        guilty = self._scan(marks)
        self.due = now + max(EVERY, SHARE * (time.perf_counter() - began))
        if guilty:
            self._until = now + WATCH
        elif now >= self._until:
            self._innocent += max(0, grown)
            self._until = inf
            self._brought.clear()
            self._suspects.clear()
        return guilty

    def _scan(self, marks: Mapping[int, Mark]) -> list[int]:
        """Beyond the limit at two looks in a row: what came between them has been delivered by
        then."""
        found: set[int] = set()
        for fd in marks:
            now_at = self._look_at(fd)
            if now_at - self._brought.setdefault(fd, now_at) > self._limit:
                found.add(fd)
        guilty = sorted(found & self._suspects)
        self._suspects = found.difference(guilty)
        return guilty
