"""The live watches of all processes, as a collector keeps them: the last word of each process.

Every change has a version, so a viewer asks for what is newer than what it has seen. A process that
says nothing for `expiry` seconds has no watches any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from majordomus.contrib.cloudlog.record import LogEntry, watches_entry, watches_of
from majordomus.errors import RecordError

EXPIRY: Final = 15.0
MOST_PROCESSES: Final = 1000
MOST_BYTES: Final = 256 * 1024
"""Of one process's watches."""


class Shown(NamedTuple):
    """What one process shows; `heard` is monotonic seconds."""

    version: int
    heard: float
    entry: LogEntry
    empty: bool


class Watchboard:
    """``version`` grows with every change."""

    def __init__(self, expiry: float = EXPIRY) -> None:
        self.expiry = expiry
        self.version = 0
        self._shown: dict[tuple[str, int], Shown] = {}

    def tell(self, entry: LogEntry, now: float) -> bool:
        """One process's word. False when it says nothing new.

        Raises: RecordError when its data are no Watches, or too many.
        """
        if len(entry.data) > MOST_BYTES:
            raise RecordError("LogEntry", "data", f"{len(entry.data)} bytes of watches")
        watches = watches_of(entry)
        key = (entry.application, entry.process_id)
        before = self._shown.pop(key, None)
        if before is not None and before.entry.data == entry.data:
            self._shown[key] = before._replace(heard=now)
            return False
        self.version += 1
        self._shown[key] = Shown(self.version, now, entry, not watches)
        if len(self._shown) > MOST_PROCESSES:
            del self._shown[next(iter(self._shown))]  # the one heard of least lately
        return True

    def expire(self, now: float, seconds: float) -> bool:
        """Takes away what nobody has confirmed. True for a change. `seconds`: since 1970.

        The empty word of a process is kept as long again, so that viewers see that it is gone.
        """
        changed = False
        for key, shown in list(self._shown.items()):
            if now - shown.heard < self.expiry:
                break  # the rest was heard of later
            del self._shown[key]
            if not shown.empty:
                self.version += 1
                entry = watches_entry((), *key, seconds)
                self._shown[key] = Shown(self.version, now, entry, True)
                changed = True
        return changed

    def newer(self, version: int) -> Sequence[LogEntry]:
        """What has changed after `version`; after 0, nothing of processes that show nothing."""
        return [
            shown.entry
            for shown in self._shown.values()
            if shown.version > version and not (shown.empty and version == 0)
        ]
