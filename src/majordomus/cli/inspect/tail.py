"""`majordomus tail` prints requests as they end. It asks ``mmi.ended`` several times a second."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from majordomus.cli import DONE, INTERRUPTED
from majordomus.cli.inspect.top_view import duration
from majordomus.cli.options import Seconds, json_option
from majordomus.cli.output import complain, emit_json, printable
from majordomus.cli.remote import broker_option, keys, timeout_option
from majordomus.errors import BrokerLost, ConfigurationError, DeadlineExceeded, Unavailable
from majordomus.observe.ended import QUESTION, EndedReader, EndedRequest

if TYPE_CHECKING:
    from majordomus.net.client.client import Client

PAUSE: Final = 0.1
"""Seconds between two questions, so that a broker with 2,500 requests per second misses none."""
WIDEST: Final = 32
"""Characters of a service's name up to which lines are aligned on a terminal."""
LONGEST_TIME: Final = 7
PATTERN: Final = re.compile(r"!?[1-9](\d\d|xx)")


class Filter(NamedTuple):
    """Which requests are printed: all that meet every condition."""

    services: tuple[str, ...]
    statuses: tuple[str, ...]
    slower: float

    def matches(self, one: EndedRequest) -> bool:
        """Whether `one` is printed."""
        if self.services and not any(fnmatchcase(one.service, glob) for glob in self.services):
            return False
        if one.took < self.slower:
            return False
        wanted = [has_status(one.status, status) for status in self.statuses]
        negative = [status.startswith("!") for status in self.statuses]
        allowed = [found for found, no in zip(wanted, negative, strict=True) if no]
        named = [found for found, no in zip(wanted, negative, strict=True) if not no]
        return all(allowed) and (not named or any(named))


def has_status(status: int, wanted: str) -> bool:
    """Whether a status is `wanted`: 404, 5xx, or with "!" any other."""
    if wanted.startswith("!"):
        return not has_status(status, wanted[1:])
    return f"{status:03d}"[: 1 if wanted.endswith("xx") else 3] == wanted.removesuffix("xx")


@click.command(short_help="Print requests as they end.")
@broker_option
@timeout_option(5.0)
@click.option(
    "--service", "services", multiple=True, metavar="GLOB", help="Only these services; repeatable."
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    metavar="STATUS",
    help="Only this status: 404, 5xx, or !200 for all others; repeatable.",
)
@click.option(
    "--slower",
    type=Seconds(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Only requests that took at least as long.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N requests.")
@json_option
def command(
    brokers: tuple[str, ...],
    timeout: float,
    services: tuple[str, ...],
    statuses: tuple[str, ...],
    slower: float,
    count: int | None,
    as_json: bool,
) -> int:
    """Print requests as they end, until Ctrl-C: time, status, service, how long they took.

    A broker keeps the last 256 requests, and for longer those that were slow, retried or failed.
    When more end between two questions, a line on stderr has the number of the missing ones.
    """
    from majordomus.net.client.client import Client

    for status in statuses:
        if not PATTERN.fullmatch(status):
            raise ConfigurationError(f"--status {status}: expected 404, 5xx or !200")
    chosen = Filter(services, statuses, slower)
    try:
        with Client(list(brokers), spread=False, **keys()) as client:
            _follow(client, timeout, chosen, count, as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def _follow(
    client: Client, timeout: float, chosen: Filter, count: int | None, as_json: bool
) -> None:
    """Print until `count` requests have been printed. A lost broker is waited for."""
    reader, left, lost, widest = EndedReader(), count, False, 0
    while True:
        try:
            answer = client.call(QUESTION, reader.question(), timeout=timeout).frames
            found = reader.read([bytes(frame) for frame in answer])
        except (BrokerLost, DeadlineExceeded, Unavailable) as error:
            if not lost:
                complain(f"majordomus tail: {error}; asking again")
            lost = True
            reader.begin_anew()
            time.sleep(PAUSE)
            continue
        lost = False
        for one in found.rows:
            if chosen.matches(one):
                if as_json:
                    emit_json(as_object(one), line=True)
                else:
                    widest = max(widest, min(len(printable(one.service)), WIDEST))
                    click.echo(line(one, widest if sys.stdout.isatty() else 0))
                left = None if left is None else left - 1
                if left == 0:
                    return
        if found.missed:
            complain(f"majordomus tail: {found.missed} more requests have ended")
        if not found.more:
            time.sleep(PAUSE)


def _ended(one: EndedRequest) -> datetime:
    return datetime.fromtimestamp(time.time() - one.ago, UTC)


def line(one: EndedRequest, widest: int = 0) -> str:
    """One request as a line. With `widest`, the columns of a terminal: names of so many characters
    and the times after them are aligned."""
    parts = [
        _ended(one).astimezone().strftime("%H:%M:%S.%f")[:-3],
        f"{one.status:03d}",
        printable(one.service).ljust(widest),
        duration(one.took).rjust(LONGEST_TIME if widest else 0),
    ]
    if one.waited >= 0.001:
        parts.append(f"waited {duration(one.waited)}")
    if one.attempts > 1:
        parts.append(f"{one.attempts} attempts")
    if one.user:
        parts.append(f"user {printable(one.user)}")
    parts.append(one.id)
    if one.trace:
        parts.append(f"trace {printable(one.trace)}")
    if one.why:
        parts.append(printable(one.why))
    return "  ".join(parts)


def as_object(one: EndedRequest) -> dict[str, object]:
    """One request as a JSON object."""
    fields = {name: getattr(one, name) for name in one.__struct_fields__ if name != "ago"}
    return {"time": _ended(one).isoformat(timespec="milliseconds"), **fields}
