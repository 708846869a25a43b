"""`majordomus top` shows a broker's services and workers, with rates and latencies.

It samples ``mmi.broker``, ``mmi.stats``, ``mmi.services`` and ``mmi.workers``. The broker only
counts; rates and percentiles are computed here, from the difference between two samples. The
questions of `top` itself are not counted.

On a terminal the samples are taken in a thread of their own, so that keys are read while a broker
does not answer. A broker that is lost, or another one after it, begins a new series of samples.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from majordomus import system
from majordomus.cli import DONE, INTERRUPTED
from majordomus.cli.output import cell, emit_json, printable
from majordomus.cli.remote import answer, broker_option, json_option, keys, timeout_option
from majordomus.errors import MajordomusError

if TYPE_CHECKING:
    from rich.table import Table

    from majordomus.net.client.client import Client

TICKS: Final = 16384.0
"""Ticks in a second: bucket n of a service's `took` ends at 2**n ticks."""
RATES: Final = ("answered", "failed", "expired", "cancelled", "retried")
SERVICES: Final = ("service", "workers", "queued", "open", "per_second", "p50", "p99")
WORKERS: Final = ("id", "services", "state", "held", "capacity", "load", "silent")

KEYS: Final = 0.2
"""Seconds between two looks whether a sample has come, while no key is pressed."""
KEY_NAMES: Final = {
    b"q": "q",
    b"k": "up",
    b"\x1b[A": "up",
    b"j": "down",
    b"\x1b[B": "down",
    b"\x1b[5~": "page-up",
    b"\x1b[6~": "page-down",
    b" ": "page-down",
}


class Sample(NamedTuple):
    """The replies of a broker at one time, each under the name of its question."""

    broker: dict[str, Any]
    stats: dict[str, Any]
    services: list[dict[str, Any]]
    workers: list[dict[str, Any]]


class Sampler:
    """Takes samples with one client, and leaves out its own questions."""

    def __init__(self, client: Client, timeout: float) -> None:
        self._client, self._timeout = client, timeout
        self._asked = 0  # questions that were answered

    def sample(self) -> Sample:
        """Ask the broker. Raises: as `remote.answer`."""
        broker = self._ask("mmi.broker")
        broker["open"] -= 1
        asked = self._asked
        stats = self._ask("mmi.stats")
        stats["answered"] -= asked
        return Sample(broker, stats, self._ask("mmi.services"), self._ask("mmi.workers"))

    def _ask(self, question: str) -> Any:
        found = answer(self._client, self._timeout, question)
        self._asked += 1
        return found


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
) -> int:
    """Watch the services and workers of a broker: queues, requests per second, latencies.

    A latency is the time from the acceptance of a request to its end, exact within a factor of two.
    With --once, with --json or without a terminal, one report is printed. On a terminal, q ends the
    command, and arrows, Page Up and Page Down scroll.
    """
    from majordomus.net.client.client import Client

    with Client(list(brokers), **keys()) as client:
        sampler = Sampler(client, timeout)
        before = sampler.sample()
        if once or as_json or not sys.stdout.isatty():
            time.sleep(interval)
            found = difference(before, sampler.sample())
            emit_json(found) if as_json else _print(found)
            return DONE
        try:
            _watch(sampler, before, interval)
        except KeyboardInterrupt:  # as q
            return INTERRUPTED
    return DONE


class TopView:
    """What a terminal shows: the lines of the last report, scrolled, and a line about them.

    lines: the report, styled.
    problem: why there is no newer one.
    """

    def __init__(self) -> None:
        self.lines: list[str] = ["waiting for the second sample"]
        self.problem = ""
        self._top = 0

    def scroll(self, key: str, height: int) -> None:
        """Scroll by one key; keys without a meaning do nothing."""
        page = max(1, height - 2)
        self._top += {"up": -1, "down": 1, "page-up": -page, "page-down": page}.get(key, 0)

    def shown(self, height: int) -> list[str]:
        """Return the lines for a terminal of that height; the last one tells what is cut."""
        room = max(1, height - 1)
        count = len(self.lines)
        self._top = max(0, min(self._top, count - room))
        lines = self.lines[self._top : self._top + room]
        parts = [self.problem] if self.problem else []
        if count > room:
            parts.append(f"lines {self._top + 1}-{self._top + len(lines)} of {count}")
        return [*lines, ", ".join([*parts, "q: end"])]


def _watch(sampler: Sampler, before: Sample | None, interval: float) -> None:
    """Show reports until the key q."""
    from rich.live import Live
    from rich.text import Text

    view = TopView()
    with (
        ThreadPoolExecutor(1) as pool,
        _keyboard() as read_key,
        Live(auto_refresh=False, screen=True) as live,
    ):
        due, asked = time.monotonic() + interval, None
        while True:
            height = live.console.size.height
            shown = "\n".join(view.shown(height))
            live.update(Text.from_ansi(shown), refresh=True)
            key = read_key(min(KEYS, interval))
            if key == "q":
                return
            view.scroll(key, height)
            if asked is None and time.monotonic() >= due:
                asked = pool.submit(sampler.sample)
            if asked is None or not asked.done():
                continue
            try:
                after: Sample | None = asked.result()
                view.problem = ""
            except (MajordomusError, TimeoutError) as error:
                after = None
                view.problem = f"{printable(str(error))}; asking again"
            asked, due = None, time.monotonic() + interval
            if before is not None and after is not None and is_later(before, after):
                view.lines = _report(difference(before, after), live.console.size.width)
            before = after


def is_later(before: Sample, after: Sample) -> bool:
    """Whether both samples are of the same run of a broker: else their counters differ by
    nothing that has happened."""
    return (
        before.broker["name"] == after.broker["name"]
        and before.broker["uptime"] < after.broker["uptime"]
        and all(before.stats[name] <= after.stats[name] for name in RATES)
    )


@contextlib.contextmanager
def _keyboard() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits so many seconds for a key, and returns its name or ""."""
    if not sys.stdin.isatty() or not system.HAS_KEYS:
        yield _no_key
        return
    fd = sys.stdin.fileno()

    def read_key(seconds: float) -> str:
        ready, _, _ = select.select([fd], [], [], seconds)
        pressed = os.read(fd, 32) if ready else b""
        return KEY_NAMES.get(pressed, "")

    with system.unbuffered_keys(fd):
        yield read_key


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def _report(found: dict[str, Any], width: int) -> list[str]:
    """Return the report as styled lines for a terminal."""
    from rich.console import Console

    console = Console(file=sys.stdout, width=width)
    with console.capture() as captured:
        console.print(*_parts(found), sep="\n")
    return captured.get().splitlines()


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
