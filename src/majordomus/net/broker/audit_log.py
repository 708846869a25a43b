"""The audit log: what was refused, revoked or changed, as JSON lines that are on disk.

The broker's thread only appends to a bounded queue. A thread of the log writes what waits there in
one piece and then calls fsync, so that no message waits for a disk. The file is reopened when
its path leads to another one: other programs may rotate it.

What cannot be written is counted. The next line that can be written has the number, under the event
`lost`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from majordomus.errors import ConfigurationError
from majordomus.net.broker.fact_log import fields

AUDITED: Final = frozenset(
    (
        "cut-off",
        "drain",
        "handshake-failed",
        "not-allowed",
        "reload",
        "revoked",
        "rights-changed",
        "token-revoked",
        "worker-refused",
    )
)
"""The facts that are written."""
MOST_WAITING: Final = 10_000
"""Events that wait for the disk."""
PER_SECOND: Final = 1000
"""Events of one name per second; further ones are counted as lost."""
MODE: Final = 0o600

logger = logging.getLogger("majordomus.broker")


def _utc() -> datetime:
    return datetime.now(UTC)


class AuditLog:
    """An audit log. `write` belongs to the broker's thread, `close` too.

    Raises: ConfigurationError when the file cannot be opened.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime] = _utc) -> None:
        self._path, self._clock = path, clock
        try:
            self._file = self._open()
        except OSError as error:
            raise ConfigurationError(f"audit = {str(path)!r}: {error.strerror or error}") from error
        self._waiting: deque[bytes] = deque()
        self._dropped = 0  # by the broker's thread
        self._unwritten = 0  # by the log's thread, as is the next
        self._told = 0
        self._second = 0
        self._written: dict[str, int] = {}
        self._failing = False
        self._some = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="majordomus-audit", daemon=True)
        self._thread.start()

    def write(self, name: str, data: Mapping[str, object], now: float) -> None:
        """Append one event, if it is one of AUDITED. `now` is monotonic seconds."""
        if name not in AUDITED:
            return
        if int(now) != self._second:
            self._second = int(now)
            self._written.clear()
        count = self._written[name] = self._written.get(name, 0) + 1
        if count > PER_SECOND or len(self._waiting) >= MOST_WAITING:
            self._dropped += 1
            return
        self._waiting.append(self._line(name, fields(data)))
        self._some.set()

    def close(self) -> None:
        """Write what waits, and close the file. May be repeated."""
        self._closing = True
        self._some.set()
        self._thread.join()

    def _line(self, name: str, data: Mapping[str, object]) -> bytes:
        time = self._clock().isoformat(timespec="milliseconds")
        kept = {key: value for key, value in data.items() if key not in ("time", "event")}
        return json.dumps({"time": time, "event": name, **kept}).encode() + b"\n"

    def _run(self) -> None:
        while not self._closing:
            self._some.wait()
            self._some.clear()
            self._write_waiting()
        self._write_waiting()
        os.close(self._file)

    def _write_waiting(self) -> None:
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        dropped = self._dropped
        lost = dropped - self._told + self._unwritten
        added = [self._line("lost", {"count": lost})] if lost else []
        if not lines and not added:
            return
        try:
            self._reopen_if_rotated()
            _append(self._file, b"".join(lines + added))
            self._told, self._unwritten = dropped, 0
            self._failing = False
        except OSError as error:
            self._unwritten += len(lines)
            if not self._failing:  # once, until a line has been written again
                logger.critical("the audit log cannot be written: %s", error)
            self._failing = True

    def _reopen_if_rotated(self) -> None:
        """Reopen the file when another one, or none, has its path."""
        mine = os.fstat(self._file)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            new = self._open()
            os.close(self._file)
            self._file = new

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, MODE)


def _append(file: int, data: bytes) -> None:
    """Append all of `data` and sync it, or nothing of it: a full disk may take a part, and half a
    line would spoil the next one."""
    status = os.fstat(file)
    is_file = stat.S_ISREG(status.st_mode)  # a pipe or a terminal is neither cut nor synced
    try:
        while data:
            data = data[os.write(file, data) :]
        if is_file:
            os.fsync(file)
    except OSError:
        if is_file:
            with contextlib.suppress(OSError):
                os.ftruncate(file, status.st_size)
        raise
