"""Facts of the core as lines of the log: one event, one line.

Peers' bytes are escaped and cut, bodies never come here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

LONGEST: Final = 120
"""Characters of one value."""
PER_SECOND: Final = 20
"""Lines of one kind in a second; the rest are counted and the count is told with the next line."""

LEVELS: Final[Mapping[str, int]] = {
    "worker-lost": logging.WARNING,
    "paused": logging.WARNING,
    "invalid": logging.WARNING,
    "handshake-failed": logging.WARNING,
    "revoked": logging.WARNING,
    "cut-off": logging.WARNING,
}

BY_WILL: Final = frozenset(("left",))
"""Why a peer is gone, when it said goodbye: nothing to warn of."""


def line(name: str, data: Mapping[str, object]) -> str:
    """`name key=value …`, one line of printable characters. A value with a space or a quote in
    it is quoted, so that none can look like another field."""
    return " ".join([name, *(f"{key}={_quoted(text(value))}" for key, value in data.items())])


def fields(data: Mapping[str, object]) -> dict[str, object]:
    """The same values for a log that keeps them apart: numbers as they are, the rest as text."""
    return {
        key: value if isinstance(value, int | float) else text(value) for key, value in data.items()
    }


def text(value: object) -> str:
    """A value for the log. Bytes that are no printable text are written in hex."""
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
    """Writes facts to a logger, not more than PER_SECOND of a name in any one second."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._second = 0
        self._written: dict[str, int] = {}

    def write(self, name: str, data: Mapping[str, object], now: float) -> None:
        """`now` is monotonic seconds."""
        if int(now) != self._second:
            self._second = int(now)
            self._tell_left_out()
        count = self._written[name] = self._written.get(name, 0) + 1
        level = logging.INFO if data.get("why") in BY_WILL else _level(name)
        if count <= PER_SECOND and self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", line(name, data), extra={"fact": (name, data)})

    def _tell_left_out(self) -> None:
        for name, count in self._written.items():
            if count > PER_SECOND:
                text = line(name, {"left_out": count - PER_SECOND})
                self._logger.log(_level(name), "%s", text)
        self._written.clear()
