"""What commands print: data on stdout, as a table or as JSON; complaints on stderr.

Names that peers gave reach a terminal only through `printable`: they may hold escape sequences.
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
    """`text` with every character that a terminal would obey instead of show made visible."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def cell(value: object) -> str:
    """One value as a table shows it: nothing is ``-``, lists are joined by commas."""
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
    """A body frame in JSON: ``{"text": …}`` where it is UTF-8, else ``{"base64": …}``."""
    try:
        return {"text": frame.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(frame).decode("ascii")}


def emit_json(data: object, *, line: bool = False) -> None:
    """One JSON document on stdout; `line` keeps it on one line, for streams of documents."""
    click.echo(json.dumps(data, indent=None if line else 2, ensure_ascii=False))


def emit_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table without lines, for eyes as for grep; columns of nothing but numbers go right."""
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
    # A pipe has no width: nothing is folded, cut or filled up with spaces there.
    console.width = 1_000_000
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(shown.rstrip() for shown in captured.get().splitlines()))


def emit_records(records: object, first: Sequence[str], empty: str) -> None:
    """What a broker, perhaps of another version, lists: the keys of `first` lead, others follow."""
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
    """`data` on stdout as it is, at once."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def complain(sentence: str) -> None:
    """One line on stderr; a sentence of several lines is folded into one."""
    click.echo(printable(" ".join(sentence.split())), err=True)


class TextLines(logging.Formatter):
    """One event, one line, whatever stands in it; only the story of a fault of ours has more."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


class JsonLines(logging.Formatter):
    """One event, one line, one JSON object: time, level, logger, event, and what the event tells. A
    sentence of ours is in `message`, the story of a fault in `error`."""

    def format(self, record: logging.LogRecord) -> str:
        made = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, object] = {
            "time": made,
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fact = getattr(record, "fact", None)
        if fact is None:
            told |= {"event": "message", "message": record.getMessage()}
        else:
            from majordomus.net.broker.fact_log import fields  # `--help` needs nothing of net

            told |= {
                "event": fact[0],
                **{f: v for f, v in fields(fact[1]).items() if f not in told},
            }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told)


LOG_FORMATS: Final = {
    "text": TextLines("%(asctime)s %(levelname)s %(name)s: %(message)s"),
    "json": JsonLines(),
}


def log_to_stderr(verbose: bool, style: str = "text") -> None:
    """Warnings of this package as lines on stderr, with `verbose` also who comes and goes."""
    handler = logging.StreamHandler()
    handler.setFormatter(LOG_FORMATS[style])
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


MARKS = {"ok": "green", "broken": "bold red", "failed": "bold red", "note": "yellow"}
"""Words that tables colour when they stand alone in a cell."""


def _styled(value: object, text: Any) -> Any:
    shown = cell(value)
    return text(shown, style=MARKS.get(shown, ""))
