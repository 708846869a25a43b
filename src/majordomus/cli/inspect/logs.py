"""`majordomus logs` shows the log entries of a collector, in colour or as JSON."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from majordomus import system
from majordomus.cli import DONE, INTERRUPTED
from majordomus.cli.options import json_option
from majordomus.cli.output import complain, emit_json, printable
from majordomus.cli.remote import broker_option, keys, timeout_option
from majordomus.errors import Unavailable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from majordomus.contrib.cloudlog.record import LogEntry, Part, Query, Watch
    from majordomus.contrib.cloudlog.sieve import Sieve

COLLECTOR: Final = "majordomus worker majordomus.contrib.cloudlog:collector"
STYLES: Final = (
    (logging.CRITICAL, "bold white on red"),
    (logging.ERROR, "bold red"),
    (logging.WARNING, "yellow"),
    (logging.INFO, "green"),
    (0, "dim"),
)
"""(lowest level, style of its name), highest level first."""


def _level(_ctx: click.Context, _parameter: click.Parameter, value: str) -> int:
    """Return the number of a level from its name or number."""
    known = logging.getLevelNamesMapping()
    try:
        return int(known.get(value.upper(), value))
    except ValueError:
        names = ", ".join(name for name in known if name != "NOTSET")
        raise click.BadParameter(
            f"{value!r} is not a level: expected a number or one of {names}"
        ) from None


@click.command(short_help="Show or follow the entries of the cloud logger.")
@click.option(
    "--level", callback=_level, default="0", metavar="LEVEL", help="The lowest level to show."
)
@click.option(
    "--app",
    "apps",
    multiple=True,
    metavar="NAME",
    help="Show only this application; may be repeated.",
)
@click.option(
    "--grep", default="", metavar="RE", help="Show only texts that match this regular expression."
)
@click.option(
    "--last",
    type=click.IntRange(min=0, max=1_000_000),
    default=100,
    show_default=True,
    metavar="N",
    help="The number of older entries to show.",
)
@click.option("-f", "--follow", is_flag=True, help="Continue with new entries.")
@click.option("--watch", is_flag=True, help="Show live watches instead.")
@broker_option
@timeout_option(5.0)
@json_option
def command(
    level: int,
    apps: tuple[str, ...],
    grep: str,
    last: int,
    follow: bool,
    watch: bool,
    brokers: tuple[str, ...],
    timeout: float,
    as_json: bool,
) -> int:
    """Show the latest log entries or the live watches of programs that use a CloudLogHandler.

    A collector must be running: majordomus worker majordomus.contrib.cloudlog:collector. With
    --follow, new entries are shown until Ctrl-C; with --watch as well, the table of watches is
    updated. With --watch, --grep matches the names of watches.
    """
    from majordomus.contrib.cloudlog.record import Query
    from majordomus.contrib.cloudlog.sieve import Sieve

    sieve = Sieve(level, apps, grep)
    query = Query(
        level=level, applications=list(apps), grep=grep, last=last, follow=follow, watch=watch
    )
    show = _show_watches if watch else _show_entries
    try:
        system.run(show(list(brokers), query, sieve, timeout, as_json))
    except KeyboardInterrupt:
        if not follow:  # with --follow, Ctrl-C is the usual end, and needs no line
            raise
        return INTERRUPTED
    except Unavailable as error:
        raise Unavailable(f"{error.text}; start a collector: {COLLECTOR}") from None
    return DONE


async def _parts(brokers: list[str], query: Query, timeout: float) -> Any:
    from majordomus.contrib.cloudlog.tail import follow
    from majordomus.net.client.async_client import AsyncClient

    waiting = False

    def interrupted(error: Exception) -> None:
        nonlocal waiting
        if not waiting:
            complain(f"majordomus logs: {error}; waiting")
        waiting = True

    async with AsyncClient(brokers, spread=False, **keys()) as client:
        parts = follow(client, query, timeout=timeout, interrupted=interrupted)
        async with contextlib.aclosing(parts):
            async for part in parts:
                waiting = False
                yield part


# ── entries ───────────────────────────────────────────────────────────────────────────────────────


async def _show_entries(
    brokers: list[str], query: Query, sieve: Sieve, timeout: float, as_json: bool
) -> None:
    show = _print_json if as_json else _Lines(sieve).show
    shown = False
    async for part in _parts(brokers, query, timeout):
        if part.left_out:
            complain(f"majordomus logs: too slow, {part.left_out} entries were left out")
        entries = [
            entry for entry in part.records if entry.data_format >= 0 and sieve.passes(entry)
        ]
        if entries:
            shown = True
            show(entries)
            sys.stdout.flush()
    if not shown:
        complain("no entries")


def _print_json(entries: Iterable[LogEntry]) -> None:
    from majordomus.contrib.cloudlog.record import entry_json

    lines = (json.dumps(entry_json(entry), ensure_ascii=False) for entry in entries)
    click.echo("\n".join(lines))


class _Lines:
    """Prints entries as lines: in colour on a terminal, else as plain text."""

    def __init__(self, sieve: Sieve) -> None:
        self._console = _console()
        self._pattern = sieve.pattern

    def show(self, entries: Iterable[LogEntry]) -> None:
        """Print `entries` with one write."""
        if self._console.is_terminal:
            from rich.text import Text

            lines = [self._coloured(entry) for entry in entries]
            self._console.print(Text("\n").join(lines), soft_wrap=True)
        else:
            click.echo("\n".join("".join(_cells(entry)) for entry in entries))

    def _coloured(self, entry: LogEntry) -> Text:
        from rich.text import Text

        from majordomus.contrib.cloudlog.record import python_level

        level = python_level(entry.level)
        style = next((style for least, style in STYLES if level >= least), "dim")
        time, name, source, text = _cells(entry)
        shown = Text(text)
        if self._pattern is not None:
            shown.highlight_regex(self._pattern, "reverse")
        return Text.assemble((time, "dim"), (name, style), (source, "cyan"), shown)


def _cells(entry: LogEntry) -> tuple[str, str, str, str]:
    """Return local time, level, application and text. Further lines of a text are indented, so that
    none looks like another entry."""
    from majordomus.contrib.cloudlog.record import level_name, to_datetime, unpack_data

    moment = to_datetime(entry.time)
    try:
        time = moment.astimezone().isoformat(" ", "milliseconds")[:23] if moment else "-"
    except (OverflowError, ValueError):  # the first or last hours of the calendar
        time = "-"
    lines = [printable(line) for line in re.split(r"\r?\n", entry.text)]
    data = unpack_data(entry.data_format, entry.data)
    if data is not None:
        lines.append(printable(json.dumps(data, ensure_ascii=False)))
    source = f"{printable(entry.application)}[{entry.process_id}] "
    return f"{time:23} ", f"{level_name(entry.level):8} ", source, "\n    ".join(lines)


# ── watches ───────────────────────────────────────────────────────────────────────────────────────


async def _show_watches(
    brokers: list[str], query: Query, sieve: Sieve, timeout: float, as_json: bool
) -> None:
    board = _Board(sieve)
    with _screen(board, query.follow, as_json) as show:
        async for part in _parts(brokers, query, timeout):
            show(board.update(part))
    if not board.processes:
        complain("no live watches")


class _Board:
    """The watches that are shown, by application and process."""

    def __init__(self, sieve: Sieve) -> None:
        self.processes: dict[tuple[str, int], list[Watch]] = {}
        self._pattern = sieve.pattern
        self._viewer = b""

    def update(self, part: Part) -> list[tuple[str, int, Watch]]:
        """Apply `part`. Returns the watches that are new or have a new value."""
        from majordomus.contrib.cloudlog.record import watches_of

        if part.viewer != self._viewer:  # a new stream repeats all watches
            self.processes.clear()
            self._viewer = part.viewer
        changes: list[tuple[str, int, Watch]] = []
        for entry in part.records:
            key = (entry.application, entry.process_id)
            before = {watch.name: watch for watch in self.processes.pop(key, [])}
            watches = [watch for watch in watches_of(entry) if self._wanted(watch)]
            if watches:
                self.processes[key] = watches
            changes += [(*key, watch) for watch in watches if before.get(watch.name) != watch]
        return changes

    def rows(self) -> Iterator[tuple[str, int, Watch]]:
        """Iterate over all watches, sorted by application and process."""
        for key in sorted(self.processes):
            for watch in self.processes[key]:
                yield (*key, watch)

    def table(self) -> Table:
        """Return all watches as a table for a terminal."""
        from rich.table import Table
        from rich.text import Text

        from majordomus.contrib.cloudlog.record import Align

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for column in ("APP", "PID", "NAME", "VALUE"):
            table.add_column(column, overflow="fold")
        for app, pid, watch in self.rows():
            right = watch.align == Align.RIGHT
            value = Text(printable(watch.value), "bold", justify="right" if right else "left")
            table.add_row(printable(app), str(pid), printable(watch.name), value)
        return table

    def _wanted(self, watch: Watch) -> bool:
        return self._pattern is None or self._pattern.search(watch.name) is not None


@contextlib.contextmanager
def _screen(board: _Board, follow: bool, as_json: bool) -> Iterator[Any]:
    """Yield the function to call with the changes of each part."""
    console = _console()
    if as_json:
        yield _print_changes_json
    elif not console.is_terminal:
        yield _print_changes
    elif follow:
        from rich.live import Live

        with Live(board.table(), console=console, auto_refresh=False) as live:
            yield lambda _changes: live.update(board.table(), refresh=True)
    else:
        yield lambda _changes: console.print(board.table())


def _print_changes(changes: list[tuple[str, int, Watch]]) -> None:
    for app, pid, watch in changes:
        click.echo(f"{printable(app)}[{pid}] {printable(watch.name)} {printable(watch.value)}")


def _print_changes_json(changes: list[tuple[str, int, Watch]]) -> None:
    for app, pid, watch in changes:
        emit_json({"app": app, "pid": pid, "name": watch.name, "value": watch.value}, line=True)


def _console() -> Console:
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False)
