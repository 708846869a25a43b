"""A file to which a collector appends its entries: JSON, one line each.

At `max_bytes` the file is renamed to the same name with `.1`, in place of an earlier one, so at
most twice as much lies on the disk. One thread at a time.
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
    """``lost`` counts entries that could not be written; of failures in a row one is logged."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.lost = 0
        self._file: IO[bytes] | None = None
        self._failing = False

    def write(self, entries: Iterable[bytes]) -> None:
        """Appends entries and hands them to the system. Blocks; never raises for a bad disk."""
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
        """May be repeated; the next `write` opens the file again."""
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
