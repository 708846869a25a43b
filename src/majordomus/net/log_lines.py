"""Lines of a log whose text came from peers and handlers: a terminal executes nothing in them."""

from __future__ import annotations

import logging
from typing import Final

from majordomus.net.deadline import REQUEST, TRACE, trace_id_of


def printable(text: str) -> str:
    """Return `text` with each unprintable character escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def printable_lines(text: str) -> str:
    """Do the same, and keep line feeds."""
    return "\n".join(map(printable, text.split("\n")))


LONGEST_TRACE: Final = 120
"""Characters of a trace that are logged: a client may send any text."""


class RequestIds(logging.Filter):
    """Gives each record the attributes `request_id` and `trace_id` of the request that is handled
    now. Both are empty outside of handlers; `request_id` needs `middleware.LogIds`."""

    def filter(self, record: logging.LogRecord) -> bool:
        trace = TRACE.get()[:LONGEST_TRACE]
        record.request_id, record.trace_id = REQUEST.get(), trace_id_of(trace) or trace
        return True


def ids_of(record: logging.LogRecord) -> dict[str, str]:
    """Return the ids that `RequestIds` has found, as fields of a line. A fact has its own."""
    if hasattr(record, "fact"):
        return {}
    found = {"request": getattr(record, "request_id", ""), "trace": getattr(record, "trace_id", "")}
    return {key: value for key, value in found.items() if isinstance(value, str) and value}


class SafeLines(logging.Formatter):
    """One line for each event, whatever it contains. Only a traceback has more lines, and no line
    has a control character."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        ids = "".join(f" {key}={value}" for key, value in ids_of(record).items())
        return printable(super().formatMessage(record) + ids)

    def format(self, record: logging.LogRecord) -> str:
        # All of it: the traceback may be one that another handler's formatter has left in `record`.
        return printable_lines(super().format(record))
