"""Lines of a log whose text came from peers and handlers: a terminal executes nothing in them."""

from __future__ import annotations

import logging
from types import TracebackType


def printable(text: str) -> str:
    """Return `text` with each unprintable character escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class SafeLines(logging.Formatter):
    """One line for each event, whatever it contains. Only a traceback has more lines, and no line
    has a control character."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))

    def formatException(  # noqa: N802 - logging's name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        return "\n".join(printable(line) for line in super().formatException(ei).split("\n"))
