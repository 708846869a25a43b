"""Facts of the core as lines of the log: one fact, one line.

Bytes from peers are escaped and shortened. No fact contains a body.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

LONGEST: Final = 120
"""Characters of one value at most."""
PER_SECOND: Final = 20
"""Lines of one name per second at most; the number of the others is logged afterwards."""

LEVELS: Final[Mapping[str, int]] = {
    "worker-lost": logging.WARNING,
    "paused": logging.WARNING,
    "invalid": logging.WARNING,
    "handshake-failed": logging.WARNING,
    "revoked": logging.WARNING,
    "cut-off": logging.WARNING,
    "worker-refused": logging.WARNING,
    "request-refused": logging.WARNING,
}

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
    """Writes facts to a logger: at most PER_SECOND of each name per second."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._second = 0
        self._written: dict[str, int] = {}

    def write(self, name: str, data: Mapping[str, object], now: float) -> None:
        """Log one fact. `now` is monotonic seconds."""
        if int(now) != self._second:
            self._second = int(now)
            self._log_left_out()
        count = self._written[name] = self._written.get(name, 0) + 1
        level = logging.INFO if data.get("why") in VOLUNTARY else _level(name)
        if count <= PER_SECOND and self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", line(name, data), extra={"fact": (name, data)})

    def _log_left_out(self) -> None:
        for name, count in self._written.items():
            if count > PER_SECOND:
                text = line(name, {"left_out": count - PER_SECOND})
                self._logger.log(_level(name), "%s", text)
        self._written.clear()
