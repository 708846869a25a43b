"""`majordomus top` shows a broker's services and workers, with rates and latencies.

It samples ``mmi.broker``, ``mmi.stats``, ``mmi.services`` and ``mmi.workers``. The broker only
counts; rates and percentiles are computed here, from the difference between two samples.
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
"""Ticks in a second: bucket n of a service's `took` ends at 2**n ticks."""
RATES: Final = ("answered", "failed", "expired", "cancelled", "retried")
SERVICES: Final = ("service", "workers", "queued", "open", "per_second", "p50", "p99")
WORKERS: Final = ("id", "services", "state", "held", "capacity", "load", "silent")


class Sample(NamedTuple):
    """The replies of a broker at one time, each under the name of its question."""

    broker: dict[str, Any]
    stats: dict[str, Any]
    services: list[dict[str, Any]]
    workers: list[dict[str, Any]]


def sample(client: Client, timeout: float) -> Sample:
    """Ask the broker. Raises: as `remote.answer`."""
    names = ("broker", "stats", "services", "workers")
    return Sample(*(answer(client, timeout, f"mmi.{name}") for name in names))


def difference(before: Sample, after: Sample) -> dict[str, Any]:
    """Return the rates between two samples and the state at the second. Times are seconds."""
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
    buckets = [
        count - (older[n] if n < len(older) else 0) for n, count in enumerate(after.get("took", []))
    ]
    shown = {name: after[name] for name in ("service", "workers", "queued", "open")}
    rate = (after["answered"] - before.get("answered", 0)) / seconds
    return {
        **shown,
        "per_second": round(rate, 1),
        "p50": percentile(buckets, 0.5),
        "p99": percentile(buckets, 0.99),
    }


def percentile(buckets: Sequence[int], share: float) -> float | None:
    """Return the latency in seconds that `share` of the requests did not exceed.

    Each bucket is twice as wide as the one before, so the result is exact within a factor of two.
    None without requests.
    """
    wanted = share * sum(buckets)
    for n, count in enumerate(buckets):
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
    help="Time between two samples.",
)
@click.option("--once", is_flag=True, help="Take two samples, print the difference and end.")
@json_option
def command(
    brokers: tuple[str, ...], timeout: float, interval: float, once: bool, as_json: bool
) -> None:
    """Watch the services and workers of a broker: queues, requests per second, latencies.

    A latency is the time from the acceptance of a request to its end, exact within a factor of two.
    With --once, with --json or without a terminal, one report is printed. Ctrl-C ends the command.
    """
    from majordomus.net.client.client import Client

    with Client(list(brokers), **keys()) as client:
        if once or as_json or not sys.stdout.isatty():
            before = sample(client, timeout)
            time.sleep(interval)
            found = difference(before, sample(client, timeout))
            emit_json(found) if as_json else _print(found)
            return
        with contextlib.suppress(KeyboardInterrupt):
            _watch(client, timeout, interval)


def _watch(client: Client, timeout: float, interval: float) -> None:
    from rich.console import Group
    from rich.live import Live

    before = sample(client, timeout)
    with Live(auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(interval)
            after = sample(client, timeout)
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
