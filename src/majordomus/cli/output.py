"""Commands print data on stdout, as a table or as JSON, and errors on stderr.

Names that peers chose reach a terminal only through `printable`: they may contain escape sequences.
"""

from __future__ import annotations

import base64
import json
import logging
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click


def printable(text: str) -> str:
    """Return `text` with each unprintable character escaped, so that a terminal executes none."""
    from majordomus.net.log_lines import printable  # here: `--help` imports nothing of net

    return printable(text)


def for_terminal(data: bytes) -> bytes:
    """Return `data` with its control characters, and what is not UTF-8, escaped."""
    text = data.decode("utf-8", "backslashreplace")
    escaped = (char if char in "\n\t" or char.isprintable() else ascii(char)[1:-1] for char in text)
    return "".join(escaped).encode()


def cell(value: object) -> str:
    """Format one value for a table: an empty value is ``-``, a list is joined by commas."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    return printable(str(value))


def frame_json(frame: bytes) -> dict[str, str]:
    """Return a body frame for JSON: ``{"text": …}`` for UTF-8, else ``{"base64": …}``."""
    try:
        return {"text": frame.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(frame).decode("ascii")}


def emit_json(data: object, *, line: bool = False) -> None:
    """Print one JSON document; with `line` on one line, for streams of documents."""
    click.echo(json.dumps(data, indent=None if line else 2, ensure_ascii=False))


def emit_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table without rules. Columns that contain only numbers are aligned right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = [list(row) for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        numbers = bool(lines) and all(_is_number(line[index]) for line in lines)
        table.add_column(
            column.upper(), justify="right" if numbers else "left", no_wrap=numbers, overflow="fold"
        )
    for line in lines:
        table.add_row(*(_styled(value, Text) for value in line))
    console = Console(file=sys.stdout)
    if console.is_terminal:
        console.print(table)
        return
    # A pipe has no width, so no cell is folded, cut or padded.
    console.width = 1_000_000
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(shown.rstrip() for shown in captured.get().splitlines()))


def emit_records(records: object, first: Sequence[str], empty: str) -> None:
    """Print a broker's list as a table: the columns `first`, then the others.

    The broker may be of another version, so unknown keys become columns too.
    """
    known = (
        [record for record in records if isinstance(record, dict)]
        if isinstance(records, list)
        else []
    )
    if not known:
        complain(empty)
        return
    keys = dict.fromkeys(key for record in known for key in record)
    columns = [key for key in first if key in keys] + [key for key in keys if key not in first]
    emit_table(columns, [[record.get(key) for key in columns] for record in known])


def emit_bytes(data: bytes) -> None:
    """Write `data` to stdout, and flush: unchanged to a file or pipe. For a terminal everything but
    printable text, line breaks and tabs is escaped, so that a peer's bytes are not executed."""
    sys.stdout.flush()
    if sys.stdout.isatty():
        data = for_terminal(data)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def complain(sentence: str) -> None:
    """Print one line on stderr; line breaks of `sentence` become spaces."""
    click.echo(printable(" ".join(sentence.split())), err=True)


class JsonLines(logging.Formatter):
    """One JSON object on one line for each event.

    Its keys are time, level, logger, event and the data of the event; `message` for a log message
    without an event, and `error` for a traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        made = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": made,
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fact = getattr(record, "fact", None)
        if fact is None:
            line |= {"event": "message", "message": record.getMessage()}
        else:
            from majordomus.net.broker.fact_log import (
                fields,
            )  # so that `--help` does not import net

            line |= {
                "event": fact[0],
                **{f: v for f, v in fields(fact[1]).items() if f not in line},
            }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


LOG_FORMATS: Final = ("text", "json")


def log_format(style: str) -> logging.Formatter:
    """Return the formatter of one of LOG_FORMATS."""
    from majordomus.net.log_lines import SafeLines

    if style == "json":
        return JsonLines()
    return SafeLines("%(asctime)s %(levelname)s %(name)s: %(message)s")


def log_to_stderr(verbose: bool, style: str = "text") -> None:
    """Log warnings of this package to stderr, with `verbose` also connections and registrations."""
    handler = logging.StreamHandler()
    handler.setFormatter(log_format(style))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


MARKS = {"ok": "green", "broken": "bold red", "failed": "bold red", "note": "yellow"}
"""Word → its colour in a table when it is the whole cell."""


def _styled(value: object, text: Any) -> Any:
    shown = cell(value)
    return text(shown, style=MARKS.get(shown, ""))
