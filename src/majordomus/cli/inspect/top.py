"""`majordomus top` shows a broker's services, workers and clients, with rates and latencies.

It samples the broker's snapshot, ``mmi.metrics``. The broker only counts; rates and percentiles are
computed here (top_view.py), from the difference between two samples. Questions to the broker are
not part of the snapshot, so `top` does not change what it shows.

On a terminal the samples are taken in a thread of their own, so that keys are read while a broker
does not answer. A broker that is lost, or another one after it, begins a new series of samples.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import click

from majordomus import system
from majordomus.cli import DONE, INTERRUPTED
from majordomus.cli.inspect.top_view import (
    TopView,
    difference,
    head_lines,
    is_later,
    sorted_rows,
    table_lines,
)
from majordomus.cli.options import Seconds, json_option
from majordomus.cli.output import emit_json, printable
from majordomus.cli.remote import broker_option, keys, timeout_option
from majordomus.errors import MajordomusError
from majordomus.observe.snapshot import QUESTION, SECTIONS, Snapshot, read

if TYPE_CHECKING:
    from majordomus.net.client.client import Client

KEYS: Final = 0.2
"""Seconds between two looks whether a sample has come, while no key is pressed."""
SILENT: Final = 1.5
"""Seconds without an answer after which the status line says so."""
DUMB: Final = ("dumb", "unknown")
"""Values of TERM of terminals that cannot be drawn on."""
MOST_ROWS: Final = 5000
"""Rows of a list that one sample has: the oldest workers and clients."""
KEY_NAMES: Final = {
    b"q": "q",
    b"k": "up",
    b"\x1b[A": "up",
    b"j": "down",
    b"\x1b[B": "down",
    b"\x1b[5~": "page-up",
    b"\x1b[6~": "page-down",
    b" ": "page-down",
    b"\x1b[H": "home",
    b"\x1b[1~": "home",
    b"\t": "tab",
    b"<": "left",
    b">": "right",
    b"\x1b[D": "left",
    b"\x1b[C": "right",
    b"r": "r",
    b"s": "s",
    b"w": "w",
    b"c": "c",
}


def sample(client: Client, timeout: float) -> Snapshot:
    """Read the broker's snapshot. Raises: StatusError, MajordomusError."""

    def ask(body: list[bytes]) -> list[bytes]:
        frames = client.call(QUESTION, body, timeout=timeout).frames
        return [bytes(frame) for frame in frames]

    return read(ask, SECTIONS, MOST_ROWS)


@click.command(short_help="Watch the services, workers and clients of a broker.")
@broker_option
@timeout_option(5.0)
@click.option(
    "--interval",
    type=Seconds(min=0.05),
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
    """Watch the services, workers and clients of a broker: queues, rates and latencies.

    A latency is the time from the acceptance of a request to its end, exact within a factor of two;
    WAIT99 is the time in the queue. With --once or --json, and without a terminal that can be drawn
    on, one report is printed.

    On a terminal, s, w and c (or Tab) choose services, workers or clients. < and > choose the
    column that sorts, r reverses it. Arrows, Page Up and Page Down scroll, and q ends the command.
    """
    from majordomus.net.client.client import Client

    with Client(list(brokers), spread=False, **keys()) as client:
        before = sample(client, timeout)
        if once or as_json or not _can_draw():
            time.sleep(interval)
            found = difference(before, sample(client, timeout))
            emit_json(found) if as_json else _print(found)
            return DONE
        try:
            _watch(lambda: sample(client, timeout), before, interval)
        except KeyboardInterrupt:  # as q
            return INTERRUPTED
    return DONE


def _can_draw() -> bool:
    """Whether stdout is a terminal whose screen can be drawn anew."""
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in DUMB


def _watch(take_sample: Callable[[], Snapshot], before: Snapshot | None, interval: float) -> None:
    """Show reports until the key q."""
    from rich.live import Live
    from rich.text import Text

    view = TopView()
    with (
        ThreadPoolExecutor(1) as pool,
        _keyboard() as read_keys,
        Live(auto_refresh=False, screen=True) as live,
    ):
        due, asked = time.monotonic() + interval, None
        while True:
            width, height = live.console.size
            live.update(Text("\n").join(view.lines(width, height)), refresh=True)
            for key in read_keys(min(KEYS, interval)):
                if key == "q":
                    return
                view.press(key, height)
            if asked is None and time.monotonic() >= due:
                asked = pool.submit(take_sample)
            if asked is None or not asked.done():
                silent = time.monotonic() - due
                if asked is not None and silent >= SILENT and not view.problem:
                    view.problem = "the broker does not answer"
                continue
            try:
                after: Snapshot | None = asked.result()
                view.problem = ""
            except (MajordomusError, TimeoutError) as error:
                after = None
                view.problem = printable(str(error))
            asked, due = None, time.monotonic() + interval
            if before is not None and after is not None and is_later(before, after):
                view.found = difference(before, after)
            before = after


@contextlib.contextmanager
def _keyboard() -> Iterator[Callable[[float], list[str]]]:
    """Yield a function that waits so many seconds for keys, and returns their names."""
    if sys.stdin is None or not sys.stdin.isatty() or not system.HAS_KEYS:
        yield _no_keys
        return
    fd = sys.stdin.fileno()

    def read_keys(seconds: float) -> list[str]:
        ready, _, _ = select.select([fd], [], [], seconds)
        if not ready:
            return []
        try:
            pressed = os.read(fd, 256)
        except OSError:
            pressed = b""
        return list(keys_of(pressed)) if pressed else ["q"]  # the terminal is gone

    with system.unbuffered_keys(fd):
        yield read_keys


def _no_keys(seconds: float) -> list[str]:
    time.sleep(seconds)
    return []


def keys_of(pressed: bytes) -> Iterator[str]:
    """Yield the names of the keys in what a terminal has sent; unknown bytes are skipped."""
    while pressed:
        code = next((code for code in KEY_NAMES if pressed.startswith(code)), b"")
        if code:
            yield KEY_NAMES[code]
        pressed = pressed[len(code) or 1 :]


def _print(found: dict[str, Any]) -> None:
    """Print one report: services, then workers."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    lines = [line.plain for line in head_lines(found)]
    for view, key in (("services", "service"), ("workers", "id")):
        rows = sorted_rows(found[view], key, downwards=False)
        lines += ["", *(line.plain.rstrip() for line in table_lines(view, rows, width))]
    click.echo("\n".join(lines))
