"""What `majordomus top` shows: rates between two snapshots, as rows of a view, sorted and scrolled.

Everything here is computed from two snapshots and the size of the terminal; nothing is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from majordomus.cli.output import cell, printable
from majordomus.observe.histogram import Histogram
from majordomus.observe.snapshot import ServiceRow, Snapshot

if TYPE_CHECKING:
    from rich.text import Text

RATES: Final = ("answered", "failed", "expired", "cancelled", "retried")
Row = dict[str, Any]


def difference(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Return the rates between two snapshots and the state at the second. Times are seconds."""
    broker = after.broker
    seconds = max(broker.uptime - before.broker.uptime, 0.000001)
    older = {row.name: row for row in before.services}
    counts, counted = broker.counts, before.broker.counts
    return {
        "name": broker.name,
        "version": broker.version,
        "uptime": broker.uptime,
        "draining": broker.draining,
        "open": broker.now.get("open", 0),
        "queued": broker.now.get("queued", 0),
        "peers": broker.now.get("peers", 0),
        "held": broker.account.get("held", 0),
        "most": broker.account.get("most", 0),
        "account": broker.account,
        "cpu": _rate(before.broker.process, broker.process, "cpu", seconds),
        "rss": broker.process.get("rss", 0),
        "interval": round(seconds, 3),
        "per_second": {
            name: round((counts.get(name, 0) - counted.get(name, 0)) / seconds, 1) for name in RATES
        },
        "services": [_service(older.get(row.name), row, seconds) for row in after.services],
        "workers": [
            {name: getattr(row, name) for name in VIEWS["workers"]} for row in after.workers
        ],
        "clients": [
            {name: getattr(row, name) for name in VIEWS["clients"]} for row in after.clients
        ],
        **({} if broker.store is None else {"durable": msgspec.structs.asdict(broker.store)}),
    }


def _rate(before: dict[str, float], after: dict[str, float], key: str, seconds: float) -> float:
    more = after.get(key, 0.0) - before.get(key, 0.0)
    return round(max(0.0, more) / seconds, 3)


def _service(before: ServiceRow | None, after: ServiceRow, seconds: float) -> Row:
    def since(which: str) -> Histogram:
        now = Histogram.of(getattr(after, which))
        return now if before is None else now.since(Histogram.of(getattr(before, which)))

    def rate(*names: str) -> float:
        old = 0 if before is None else sum(getattr(before, name) for name in names)
        count = sum(getattr(after, name) for name in names)
        return float(round(max(0, count - old) / seconds, 1))

    total, queue = since("total"), since("queue")
    return {
        "service": after.name,
        "workers": after.workers,
        "queued": after.queued,
        "open": after.open,
        "per_second": rate("answered"),
        "failed": rate("failed", "expired"),
        "wait99": queue.quantile(0.99),
        "p50": total.quantile(0.5),
        "p99": total.quantile(0.99),
    }


def is_later(before: Snapshot, after: Snapshot) -> bool:
    """Whether both snapshots are of the same run of a broker: else their counters differ by
    nothing that has happened."""
    return before.run == after.run and before.broker.uptime < after.broker.uptime


# ── rows as lines ─────────────────────────────────────────────────────────────────────────────────


class Column(NamedTuple):
    """One column: its title, its width, and how a value is shown.

    A column of width 0 is as wide as its longest text, as far as there is room. What is left after
    that goes to a column that may be wider, up to `most`.
    """

    title: str
    width: int
    shown: Callable[[Any], str] = cell
    most: int = 0


def duration(value: float | None) -> str:
    """Show a latency."""
    if value is None:
        return "-"
    if value >= 1:
        return f"{value:.3g} s"
    return f"{value * 1000:.3g} ms" if value >= 0.001 else f"{value * 1_000_000:.3g} µs"


def size(value: float) -> str:
    """Show a number of bytes."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g} {unit}" if unit != "B" else f"{value:.0f} B"
        value /= 1024
    return f"{value:.3g} GiB"


ENOUGH: Final = 40
"""Characters for a column of names, before another column may be wider."""

VIEWS: Final[dict[str, dict[str, Column]]] = {
    "services": {
        "service": Column("SERVICE", 0),
        "workers": Column("WORKERS", 7),
        "queued": Column("QUEUED", 6),
        "open": Column("OPEN", 5),
        "per_second": Column("/S", 7),
        "failed": Column("FAIL/S", 6),
        "wait99": Column("WAIT99", 7, duration),
        "p50": Column("P50", 7, duration),
        "p99": Column("P99", 7, duration),
    },
    "workers": {
        "id": Column("ID", 14, most=32),
        "services": Column("SERVICES", 0),
        "state": Column("STATE", 8),
        "held": Column("HELD", 5),
        "capacity": Column("CAPACITY", 8),
        "load": Column("LOAD", 6),
        "silent": Column("SILENT", 7),
        "user": Column("USER", 8),
    },
    "clients": {
        "id": Column("ID", 14, most=32),
        "user": Column("USER", 0),
        "dialect": Column("DIALECT", 8),
        "open": Column("OPEN", 5),
        "queued": Column("QUEUED", 6),
        "held": Column("HELD", 9, size),
        "silent": Column("SILENT", 8),
    },
}
"""View → its columns by the key of a row."""
FIRST_SORT: Final = {"services": "per_second", "workers": "held", "clients": "open"}
TEXTS: Final = ("service", "id", "services", "state", "user", "dialect")
"""Columns that are aligned left, and sorted upwards first."""
KEYS: Final = {
    "s": "services",
    "w": "workers",
    "c": "clients",
}
HELP: Final = "s w c: view  < >: sort  r: reverse  q: end"


class TopView:
    """What a terminal shows.

    found: the last difference; None before the first.
    problem: why there is no newer one.
    """

    def __init__(self) -> None:
        self.found: dict[str, Any] | None = None
        self.problem = ""
        self.name = "services"
        self._sort = dict(FIRST_SORT)
        self._downwards = {view: key not in TEXTS for view, key in FIRST_SORT.items()}
        self._top = 0

    def press(self, key: str, height: int) -> None:
        """Act on one key; keys without a meaning do nothing."""
        page = max(1, height - 7)
        if key in KEYS or key == "tab":
            views = list(VIEWS)
            after = views[(views.index(self.name) + 1) % len(views)]
            self.name, self._top = KEYS.get(key, after), 0
        elif key in ("left", "right"):
            keys = list(VIEWS[self.name])
            at = keys.index(self._sort[self.name]) + (1 if key == "right" else -1)
            self._sort[self.name] = keys[at % len(keys)]
            self._downwards[self.name] = self._sort[self.name] not in TEXTS
        elif key == "r":
            self._downwards[self.name] = not self._downwards[self.name]
        elif key == "home":
            self._top = 0
        else:
            self._top += {"up": -1, "down": 1, "page-up": -page, "page-down": page}.get(key, 0)

    def lines(self, width: int, height: int) -> list[Text]:
        """Return the lines for a terminal of that size, none of them wider or too many."""
        lines = self._waiting(height) if self.found is None else self._table(width, height)
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return lines

    def _waiting(self, height: int) -> list[Text]:
        from rich.text import Text

        first = Text(self._trouble() if self.problem else "waiting for the second snapshot")
        return [first, *(Text() for _ in range(height - 2)), Text(HELP)][:height]

    def _table(self, width: int, height: int) -> list[Text]:
        from rich.text import Text

        found = self.found or {}
        rows = sorted_rows(found[self.name], self._sort[self.name], self._downwards[self.name])
        room = max(1, height - 6)
        self._top = max(0, min(self._top, len(rows) - room))
        table = table_lines(self.name, rows[self._top : self._top + room], width, self._sort)
        lines = [*head_lines(found), Text(), *table]
        lines += [Text() for _ in range(height - 1 - len(lines))]
        return [*lines[: height - 1], Text(self._status(len(rows), room), style="reverse")]

    def _trouble(self) -> str:
        """The hint stands first: a terminal cuts the end of a line."""
        return f"q: end  asking again: {self.problem}"

    def _status(self, count: int, room: int) -> str:
        if self.problem:
            return self._trouble()
        last = min(count, self._top + room)
        order = "down" if self._downwards[self.name] else "up"
        title = VIEWS[self.name][self._sort[self.name]].title
        where = f"{self._top + 1}-{last} of {count}" if count else "none"
        return f"{self.name} {where} by {title} {order}  {HELP}"


def sorted_rows(rows: Sequence[Row], key: str, downwards: bool) -> list[Row]:
    """Sort rows by one column; a value that is not known comes last."""
    known = [row for row in rows if row[key] is not None]
    known.sort(key=lambda row: row[key], reverse=downwards)
    return known + [row for row in rows if row[key] is None]


def head_lines(found: dict[str, Any]) -> list[Text]:
    """The lines above the table."""
    from rich.text import Text

    state = "draining" if found["draining"] else f"up {found['uptime']:.0f} s"
    rates = ", ".join(f"{cell(rate)} {name}" for name, rate in found["per_second"].items())
    uses = f"{found['peers']} peers, {size(found['held'])} of {size(found['most'])} held"
    if found["rss"]:
        uses += f", {found['cpu'] * 100:.0f} % of a core, {size(found['rss'])} resident"
    head = f"{printable(found['name'])}  {state}  {found['open']} open, {found['queued']} waiting"
    lines = [Text(head, style="bold"), Text(f"per second: {rates}"), Text(uses)]
    return lines + ([Text(durable_line(found["durable"]))] if "durable" in found else [])


def durable_line(store: dict[str, Any]) -> str:
    """Return one line about durable requests and their store."""
    disk = f", {size(store['free'])} free" if store["free"] >= 0 else ""
    full = "" if store["accepts"] else "; DISK ALMOST FULL: new ones are refused"
    return (
        f"durable: {store['open']} without an outcome, {store['running']} placed,"
        f" the oldest {store['oldest']:.0f} s old; {store['rows']} rows, {size(store['bytes'])}"
        f"{disk}{full}"
    )


def fitted_widths(columns: Sequence[Column], longest: Sequence[int], width: int) -> list[int]:
    """The widths of columns in a terminal, where `longest` are those of their longest texts."""
    widths = [column.width for column in columns]
    left = width - sum(widths) - (len(columns) - 1)
    for n, column in enumerate(columns):
        wanted = sum(size for one, size in zip(columns, longest, strict=True) if not one.width)
        spare = left - min(wanted, ENOUGH)
        more = min(column.most, longest[n]) - widths[n]
        if column.most and more > 0 and spare > 0:
            widths[n] += min(more, spare)
            left -= min(more, spare)
    for n, size in enumerate(longest):
        widths[n] = widths[n] or max(8, min(size, left))
    return widths


def table_lines(
    view: str, rows: Sequence[Row], width: int, sort: dict[str, str] | None = None
) -> list[Text]:
    """The header and one line for each row. With `width` 0 every column is as wide as its texts."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    columns = VIEWS[view]
    cells = [[column.shown(row[key]) for key, column in columns.items()] for row in rows]
    titles = [column.title for column in columns.values()]
    separator = " " if width else "  "
    widths = [max(map(cell_len, texts)) for texts in zip(titles, *cells, strict=True)]
    if width:
        widths = fitted_widths(list(columns.values()), widths, width)

    def fitted(text: str, key: str, room: int) -> str:
        if cell_len(text) > room:
            text = set_cell_size(text, room - 1) + "…"
        if key in TEXTS:
            return set_cell_size(text, room)
        return " " * (room - cell_len(text)) + text

    header = Text()
    for key, title, room in zip(columns, titles, widths, strict=True):
        chosen = sort is not None and sort[view] == key
        header.append(fitted(title, key, room), style="bold reverse" if chosen else "bold")
        header.append(separator)
    header.right_crop(len(separator))
    lines = [header]
    for texts in cells:
        fields = zip(texts, columns, widths, strict=True)
        lines.append(Text(separator.join(fitted(*field) for field in fields)))
    return lines
