"""Options that several commands have. Nothing of net is imported here: `--help` needs none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

MOST_SECONDS: Final = 1e9
"""32 years: with more, clocks and timers overflow."""


class Seconds(click.FloatRange):
    """A duration, of MOST_SECONDS at most. ``nan`` and ``inf`` are floats, and no durations."""

    name = "number of seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds, or fail as options do."""
        seconds: float = super().convert(value, param, ctx)
        if not seconds <= MOST_SECONDS:
            self.fail(f"{value} is not a number up to {MOST_SECONDS:,.0f}.", param, ctx)
        return seconds


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def verbose_option(words: str) -> Callable[[Command], Command]:
    """Add ``-v`` and ``--verbose``."""
    return click.option("-v", "--verbose", is_flag=True, help=words)


def otlp_options(sent: str) -> Callable[[Command], Command]:
    """Add ``--otlp`` and ``--otlp-interval``; `sent` is what goes to the collector."""
    collector = click.option(
        "--otlp",
        metavar="URL",
        help=f"Send {sent} to this collector, as in http://HOST:4318. [default: none]",
    )
    interval = click.option(
        "--otlp-interval",
        type=click.FloatRange(min=0.1, max=3600),
        default=15.0,
        show_default=True,
        metavar="SECONDS",
        help="How often metrics are sent to that collector.",
    )
    return lambda command: collector(interval(command))
