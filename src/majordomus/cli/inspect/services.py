"""`majordomus services` prints the reply of ``mmi.services`` as a table."""

from __future__ import annotations

import click

from majordomus.cli.options import json_option
from majordomus.cli.output import emit_json, emit_records
from majordomus.cli.remote import ask, broker_option, timeout_option

FIRST = ("service", "workers", "queued", "open", "answered")
"""The first columns, as far as the broker sends them; all other columns follow."""


@click.command(short_help="List the services of a broker.")
@broker_option
@timeout_option(5.0)
@json_option
def command(brokers: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """List the services of a broker: their workers, queued requests and open requests."""
    services = ask(brokers, timeout, "mmi.services")
    if as_json:
        emit_json(services)
    else:
        for service in services:
            service.pop("took", None)  # a histogram, for `majordomus top`
        emit_records(services, FIRST, empty="no services")
