"""The live watches of all processes at a collector: the last ones of each process.

Every change has a version, so that a stream reads the changes after the version it has sent. The
watches of a process that sends none for `expiry` seconds are removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from majordomus.contrib.cloudlog.record import LogEntry, watches_entry, watches_of
from majordomus.errors import RecordError

EXPIRY: Final = 15.0
MOST_PROCESSES: Final = 1000
MOST_BYTES: Final = 256 * 1024
"""Most bytes of one process's watches."""


class Shown(NamedTuple):
    """The watches of one process.

    version: the version of their last change.
    received: when they were received last, in monotonic seconds.
    entry: the entry that has them.
    empty: whether there are none.
    """

    version: int
    received: float
    entry: LogEntry
    empty: bool


class Watchboard:
    """The watches of all processes.

    expiry: seconds until the watches of a silent process are removed.
    version: grows with every change.
    """

    def __init__(self, expiry: float = EXPIRY) -> None:
        self.expiry = expiry
        self.version = 0
        self._shown: dict[tuple[str, int], Shown] = {}

    def update(self, entry: LogEntry, now: float) -> bool:
        """Replace the watches of the process of `entry`. False when they have not changed.

        Raises: RecordError when its data are not Watches, or too large.
        """
        if len(entry.data) > MOST_BYTES:
            raise RecordError("LogEntry", "data", f"{len(entry.data)} bytes of watches")
        watches = watches_of(entry)
        key = (entry.application, entry.process_id)
        before = self._shown.pop(key, None)
        if before is not None and before.entry.data == entry.data:
            self._shown[key] = before._replace(received=now)
            return False
        self.version += 1
        self._shown[key] = Shown(self.version, now, entry, not watches)
        if len(self._shown) > MOST_PROCESSES:
            del self._shown[next(iter(self._shown))]  # the one received least recently
        return True

    def expire(self, now: float, seconds: float) -> bool:
        """Remove the watches of silent processes. True when there are any.

        `now` is monotonic, `seconds` the time since 1970. An empty entry is kept for `expiry`
        seconds more, so that viewers see the removal.
        """
        changed = False
        for key, shown in list(self._shown.items()):
            if now - shown.received < self.expiry:
                break  # the others were received later
            del self._shown[key]
            if not shown.empty:
                self.version += 1
                entry = watches_entry((), *key, seconds)
                self._shown[key] = Shown(self.version, now, entry, True)
                changed = True
        return changed

    def newer(self, version: int) -> Sequence[LogEntry]:
        """The entries that changed after `version`; for version 0 without empty ones."""
        return [
            shown.entry
            for shown in self._shown.values()
            if shown.version > version and not (shown.empty and version == 0)
        ]
