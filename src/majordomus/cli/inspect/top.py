"""`majordomus top`: services and workers of a broker, with the rates and latencies between two
looks.

Everything comes from ``mmi.broker``, ``mmi.stats``, ``mmi.services`` and ``mmi.workers``: the
broker counts, and what happened in between is computed here.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from majordomus.cli.output import cell, emit_json
from majordomus.cli.remote import answer, broker_option, json_option, keys, timeout_option

if TYPE_CHECKING:
    from rich.table import Table

    from majordomus.net.client.client import Client

TICKS: Final = 16384.0
"""Per second: box n of a service's `took` ends at 2**n of them."""
RATES: Final = ("answered", "failed", "expired", "cancelled", "retried")
SERVICES: Final = ("service", "workers", "queued", "open", "per_second", "p50", "p99")
WORKERS: Final = ("id", "services", "state", "held", "capacity", "load", "silent")


class Look(NamedTuple):
    """What the broker told at one time."""

    broker: dict[str, Any]
    stats: dict[str, Any]
    services: list[dict[str, Any]]
    workers: list[dict[str, Any]]


def look(client: Client, timeout: float) -> Look:
    """Asks the broker. Raises: as `remote.answer`."""
    names = ("broker", "stats", "services", "workers")
    return Look(*(answer(client, timeout, f"mmi.{name}") for name in names))


def difference(before: Look, after: Look) -> dict[str, Any]:
    """What happened between two looks, and what is now. Times are seconds."""
    seconds = max(after.broker["uptime"] - before.broker["uptime"], 0.000001)
    older = {row["service"]: row for row in before.services}
    return {
        **{name: after.broker[name] for name in ("name", "uptime", "draining", "open", "queued")},
        "interval": round(seconds, 3),
        "per_second": {
            name: round((after.stats[name] - before.stats[name]) / seconds, 1) for name in RATES
        },
        "services": [
            _service(older.get(row["service"], {}), row, seconds) for row in after.services
        ],
        "workers": [{name: row.get(name) for name in WORKERS} for row in after.workers],
    }


def _service(before: dict[str, Any], after: dict[str, Any], seconds: float) -> dict[str, Any]:
    older = before.get("took", [])
    boxes = [
        count - (older[n] if n < len(older) else 0) for n, count in enumerate(after.get("took", []))
    ]
    told = {name: after[name] for name in ("service", "workers", "queued", "open")}
    rate = (after["answered"] - before.get("answered", 0)) / seconds
    return {
        **told,
        "per_second": round(rate, 1),
        "p50": percentile(boxes, 0.5),
        "p99": percentile(boxes, 0.99),
    }


def percentile(boxes: Sequence[int], share: float) -> float | None:
    """The time that `share` of the requests did not exceed, from boxes that double: within a factor
    of two of the truth. None where there were no requests."""
    wanted = share * sum(boxes)
    for n, count in enumerate(boxes):
        if count and wanted <= count:
            low, high = (2.0 ** (n - 1) if n else 0.0) / TICKS, 2.0**n / TICKS
            return round(low + (high - low) * wanted / count, 6)
        wanted -= count
    return None


@click.command(short_help="Watch the services and workers of a broker.")
@broker_option
@timeout_option(5.0)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.05),
    metavar="SECONDS",
    default=1.0,
    show_default=True,
    help="Time between two looks.",
)
@click.option("--once", is_flag=True, help="Look twice, print what happened in between, and end.")
@json_option
def command(
    brokers: tuple[str, ...], timeout: float, interval: float, once: bool, as_json: bool
) -> None:
    """Watch the services and workers of a broker: what waits, requests per second, latencies.

    Latencies are from the broker's acceptance to the end, within a factor of two. --json prints one
    document, as --once does; so does a stdout that is no terminal. Ctrl-C ends it.
    """
    from majordomus.net.client.client import Client

    with Client(list(brokers), **keys()) as client:
        if once or as_json or not sys.stdout.isatty():
            before = look(client, timeout)
            time.sleep(interval)
            found = difference(before, look(client, timeout))
            emit_json(found) if as_json else _print(found)
            return
        with contextlib.suppress(KeyboardInterrupt):
            _watch(client, timeout, interval)


def _watch(client: Client, timeout: float, interval: float) -> None:
    from rich.console import Group
    from rich.live import Live

    before = look(client, timeout)
    with Live(auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(interval)
            after = look(client, timeout)
            live.update(Group(*_parts(difference(before, after))), refresh=True)
            before = after


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console.width = 1_000_000
    with console.capture() as captured:
        console.print(*_parts(found), sep="\n")
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _parts(found: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    rates = ", ".join(f"{cell(rate)} {name}" for name, rate in found["per_second"].items())
    state = "draining" if found["draining"] else f"up {found['uptime']:.0f} s"
    head = f"{cell(found['name'])}  {state}  {found['open']} open, {found['queued']} waiting"
    return [
        Text(head, style="bold"),
        Text(f"per second: {rates}"),
        Text(),
        _table(SERVICES, found["services"]),
        Text(),
        _table(WORKERS, found["workers"]),
    ]


def _table(columns: Sequence[str], rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        words = column in ("service", "id", "services", "state")
        table.add_column(
            column.upper().replace("PER_SECOND", "/S"), justify="left" if words else "right"
        )
    for row in rows:
        table.add_row(*(Text(_shown(column, row[column])) for column in columns))
    return table


def _shown(column: str, value: object) -> str:
    if column in ("p50", "p99") and isinstance(value, float):
        return f"{value * 1000:.3g} ms"
    return cell(value)
