"""Commands print data on stdout, as a table or as JSON, and errors on stderr.

Names that peers chose reach a terminal only through `printable`: they may contain escape sequences.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO, TypeVar

import click

from majordomus.errors import ConfigurationError

if TYPE_CHECKING:
    from majordomus.net.bodies import Reply


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


def metadata_json(value: object) -> object:
    """Return metadata for JSON: bytes as `frame_json` shows them, everything else as it is."""
    if isinstance(value, bytes):
        return frame_json(value)
    if isinstance(value, dict):
        return {key: metadata_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [metadata_json(inner) for inner in value]
    return value


def metadata_field(reply: Reply) -> dict[str, object]:
    """Return the field of a reply's JSON that has its metadata; nothing where it has none."""
    return {"metadata": metadata_json(reply.metadata)} if reply.metadata else {}


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


def stdin_or_refuse(what: str) -> TextIO:
    """Return stdin. Raises: ConfigurationError, "`what` stdin, …", when the shell has closed it."""
    if sys.stdin is None:  # the shell's `<&-`
        raise ConfigurationError(f"{what} stdin, and stdin is closed")
    return sys.stdin


def emit_bytes(data: bytes) -> None:
    """Write `data` to stdout, and flush: unchanged to a file or pipe. For a terminal everything but
    printable text, line breaks and tabs is escaped, so that a peer's bytes are not executed."""
    sys.stdout.flush()
    if sys.stdout.isatty():
        data = for_terminal(data)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


_OF_PYTHON: Final = re.compile(
    r"(?:server_key=…|certificate=…|plain=\(user, password\)), |, curve=True| \(insecure=True\)"
)
"""How a program gives what an error asks for. The same sentence names the flag beside it."""


def for_command_line(sentence: str) -> str:
    """Return an error of the library as a command prints it: it names flags alone."""
    return _OF_PYTHON.sub("", sentence)


def complain(sentence: str) -> None:
    """Print one line on stderr; line breaks of `sentence` become spaces."""
    click.echo(printable(" ".join(sentence.split())), err=True)


class WarningLines(logging.Handler):
    """Prints each warning as one line, in a command that sets up no log."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            complain(f"warning: {for_command_line(record.getMessage())}")


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
            from majordomus.net.log_lines import ids_of

            line |= {"event": "message", "message": record.getMessage(), **ids_of(record)}
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
Command = TypeVar("Command", bound=Callable[..., Any])


def log_options(command: Command) -> Command:
    """Add ``--log-format`` and ``--log-level``, for `log_to_stderr`."""
    level = click.option(
        "--log-level",
        "log_levels",
        multiple=True,
        metavar="[COMPONENT=]LEVEL",
        help="The least level to log, as in broker=debug; repeatable. [default: warning]",
    )
    otlp = click.option(
        "--log-otlp",
        metavar="URL",
        help="Send the log to this collector as well, as in http://HOST:4318. [default: none]",
    )
    style = click.option(
        "--log-format",
        type=click.Choice(list(LOG_FORMATS)),
        envvar="MAJORDOMUS_LOG_FORMAT",
        default="text",
        show_default=True,
        help="Format of a log line, for people or for programs.",
    )
    return style(level(otlp(command)))


def log_format(style: str) -> logging.Formatter:
    """Return the formatter of one of LOG_FORMATS."""
    from majordomus.net.log_lines import SafeLines

    if style == "json":
        return JsonLines()
    return SafeLines("%(asctime)s %(levelname)s %(name)s: %(message)s")


LEVELS: Final = ("debug", "info", "warning", "error", "critical")
COMPONENTS: Final = (
    "broker",
    "worker",
    "client",
    "net",
    "zap",
    "events",
    "requests",
    "proxy",
    "otel",
)
"""The loggers of this package, without `majordomus.`."""


def log_to_stderr(
    verbose: bool,
    style: str = "text",
    levels: Iterable[str] = (),
    *,
    ids: bool = False,
    otlp: str | None = None,
    service: str = "majordomus",
) -> None:
    """Log warnings of this package to stderr, with `verbose` also connections and registrations.

    `levels` are LEVEL or COMPONENT=LEVEL. With `ids` the lines have the ids of the request that is
    handled. `otlp` is the URL of a collector that gets the log as well, as that of `service`.
    Raises: ConfigurationError for another level, and for a URL that is not http.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(log_format(style))
    if ids:
        from majordomus.net.log_lines import RequestIds

        handler.addFilter(RequestIds())
    handlers: list[logging.Handler] = [handler]
    if otlp is not None:
        handlers.append(_otlp_handler(otlp, service))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=handlers)
    for given in levels:
        component, _, level = given.rpartition("=")
        if level not in LEVELS or component not in ("", *COMPONENTS):
            raise ConfigurationError(
                f"--log-level {given}: expected LEVEL or COMPONENT=LEVEL; "
                f"levels: {', '.join(LEVELS)}; components: {', '.join(COMPONENTS)}"
            )
        name = f"majordomus.{component}" if component else "majordomus"
        logging.getLogger(name).setLevel(level.upper())


def _otlp_handler(url: str, service: str) -> logging.Handler:
    """The handler of --log-otlp. Raises: ConfigurationError."""
    try:
        from majordomus.contrib.otel.logs import OtlpLogs
    except ImportError as error:
        text = "--log-otlp needs more packages: pip install 'majordomus[otel]'"
        raise ConfigurationError(text) from error
    return OtlpLogs(url, service=service)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


MARKS = {"ok": "green", "broken": "bold red", "failed": "bold red", "note": "yellow"}
"""Word → its colour in a table when it is the whole cell."""


def _styled(value: object, text: Any) -> Any:
    shown = cell(value)
    return text(shown, style=MARKS.get(shown, ""))
