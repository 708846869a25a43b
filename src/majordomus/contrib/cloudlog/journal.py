"""The file to which a collector appends entries, one JSON document per line.

At `max_bytes` the file is renamed to its name with `.1`, which replaces an earlier one. So at most
twice that size is on the disk. One thread at a time may use it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import msgspec

from majordomus.contrib.cloudlog.record import LogEntry, entry_json

logger = logging.getLogger("majordomus.cloudlog")


class Journal:
    """A journal file. Only the first of consecutive failures is logged.

    path: the file.
    max_bytes: the size at which it is renamed.
    lost: entries that could not be written.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.lost = 0
        self._file: IO[bytes] | None = None
        self._failing = False

    def write(self, entries: Iterable[bytes]) -> None:
        """Append entries. Blocks. An OSError is logged and counted, not raised."""
        encode = msgspec.json.encode
        lines = [encode(entry_json(LogEntry.from_bytes(entry))) for entry in entries]
        try:
            self._write(b"\n".join(lines) + b"\n")
            self._failing = False
        except OSError as error:
            self.lost += len(lines)
            self.close()
            if not self._failing:
                logger.error("cannot write %s: %s", self.path, error)  # noqa: TRY400
            self._failing = True

    def close(self) -> None:
        """Close the file. May be repeated; the next `write` opens it again."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = self.path.open("ab", buffering=0)
        if self._file.tell() and self._file.tell() + len(data) > self.max_bytes:
            self.close()
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            self._file = self.path.open("ab", buffering=0)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) or 0 :]
