"""Facts of the core as lines of the log: one fact, one line.

Bytes from peers are escaped and shortened. No fact contains a body.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping
from typing import Final

LONGEST: Final = 120
"""Characters of one value at most."""
PER_SECOND: Final = 20
"""Lines of one name per second at most; the number of the others is logged afterwards."""

LEVELS: Final[Mapping[str, int]] = {
    "worker-lost": logging.WARNING,
    "paused": logging.WARNING,
    "contracts-differ": logging.WARNING,
    "invalid": logging.WARNING,
    "handshake-failed": logging.WARNING,
    "revoked": logging.WARNING,
    "cut-off": logging.WARNING,
    "worker-refused": logging.WARNING,
    "request-refused": logging.WARNING,
    "store-full": logging.WARNING,
}

LOGGED_ELSEWHERE: Final = frozenset(("reload", "rights-changed"))
"""Facts that are for observers and the audit log: the program that causes them logs them itself."""

VOLUNTARY: Final = frozenset(("left",))
"""Reasons of a peer that left on its own: logged as information, not as a warning."""


def line(name: str, data: Mapping[str, object]) -> str:
    """Return `name key=value …`, one line of printable characters.

    A value with a space or a quote is quoted, so that it cannot be read as another field.
    """
    return " ".join([name, *(f"{key}={_quoted(text(value))}" for key, value in data.items())])


def fields(data: Mapping[str, object]) -> dict[str, object]:
    """Return the values for a structured log: numbers as they are, everything else as text."""
    return {
        key: value if isinstance(value, int | float) else text(value) for key, value in data.items()
    }


def text(value: object) -> str:
    """Return a value as text for the log. Bytes that are not printable ASCII become hex."""
    if isinstance(value, bytes | bytearray):
        return _cut(_printable(bytes(value)))
    if isinstance(value, str):
        return _cut(value if value.isprintable() else value.encode("unicode_escape").decode())
    if isinstance(value, list | tuple | set | frozenset):
        return _cut("[" + ",".join(text(one) for one in list(value)[:LONGEST]) + "]")
    if isinstance(value, float):
        return f"{value:.3f}"
    return _cut(str(value))


def _quoted(value: str) -> str:
    if not any(char in value for char in ' "'):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _level(name: str) -> int:
    return LEVELS.get(name, logging.INFO)


def _printable(value: bytes) -> str:
    head = value[:LONGEST]
    return (
        head.decode("ascii")
        if head.isascii() and head.decode("ascii").isprintable()
        else value.hex()
    )


def _cut(value: str) -> str:
    return value if len(value) <= LONGEST else value[: LONGEST - 1] + "…"


class FactLog:
    """Writes facts to a logger: at most PER_SECOND of each name per second.

    The number of those that are left out is logged with the first fact of a later second, or by a
    timer when none comes: a flood may be the last that a broker logs for hours.
    """

    def __init__(self, logger: logging.Logger, pause: float = 1.0) -> None:
        self._logger = logger
        self._pause = pause
        self._second = 0
        self._written: dict[str, int] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def write(self, name: str, data: Mapping[str, object], now: float) -> None:
        """Log one fact. `now` is monotonic seconds."""
        if name in LOGGED_ELSEWHERE:
            return
        with self._lock:
            left_out = []
            if int(now) != self._second:
                self._second = int(now)
                left_out = self._take_left_out()
            count = self._written[name] = self._written.get(name, 0) + 1
            if count > PER_SECOND and self._timer is None:
                self._timer = threading.Timer(self._pause, self._tell)
                self._timer.daemon = True
                with contextlib.suppress(RuntimeError):  # the process has no thread left
                    self._timer.start()
        self._log(left_out)
        level = logging.INFO if data.get("why") in VOLUNTARY else _level(name)
        if count <= PER_SECOND and self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", line(name, data), extra={"fact": (name, data)})

    def close(self) -> None:
        """Log what is left out so far. May be repeated."""
        timer = self._timer
        if timer is not None:
            timer.cancel()
            self._tell()

    def _tell(self) -> None:
        with self._lock:
            self._timer = None
            left_out = self._take_left_out()
        self._log(left_out)

    def _take_left_out(self) -> list[tuple[str, int]]:
        """The numbers of those that were left out since the last time."""
        found = [(name, n - PER_SECOND) for name, n in self._written.items() if n > PER_SECOND]
        self._written.clear()
        return found

    def _log(self, left_out: list[tuple[str, int]]) -> None:
        for name, count in left_out:
            data = {"left_out": count}
            self._logger.log(_level(name), "%s", line(name, data), extra={"fact": (name, data)})
