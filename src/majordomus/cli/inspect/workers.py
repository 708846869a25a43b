"""`majordomus workers` prints the reply of ``mmi.workers`` as a table."""

from __future__ import annotations

import click

from majordomus.cli.options import json_option
from majordomus.cli.output import emit_json, emit_records
from majordomus.cli.remote import ask, broker_option, timeout_option

FIRST = ("id", "services", "dialect", "state", "capacity", "held", "load")
"""The first columns, as far as the broker sends them; all other columns follow."""


@click.command(short_help="List the workers of a broker.")
@click.argument("service", default="")
@broker_option
@timeout_option(5.0)
@json_option
def command(service: str, brokers: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """List the workers of a broker, or the workers of one SERVICE."""
    workers = ask(brokers, timeout, "mmi.workers", service)
    if as_json:
        emit_json(workers)
    else:
        emit_records(workers, FIRST, empty=f"no workers for {service}" if service else "no workers")
