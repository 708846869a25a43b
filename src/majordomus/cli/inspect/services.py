"""`majordomus services`: what ``mmi.services`` says, as a table."""

from __future__ import annotations

import click

from majordomus.cli.output import emit_json, emit_records
from majordomus.cli.remote import ask, broker_option, json_option, timeout_option

FIRST = ("service", "workers", "queued", "open", "answered")
"""The columns that lead, where the broker sends them; whatever else it sends follows."""


@click.command(short_help="List the services of a broker.")
@broker_option
@timeout_option(5.0)
@json_option
def command(brokers: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """List the services of a broker: who serves, what waits, what is being worked on."""
    services = ask(brokers, timeout, "mmi.services")
    if as_json:
        emit_json(services)
    else:
        for service in services:
            service.pop("took", None)  # boxes of latencies: `majordomus top` reads them
        emit_records(services, FIRST, empty="no services")
