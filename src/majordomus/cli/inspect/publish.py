"""`majordomus publish` sends one event to a topic."""

from __future__ import annotations

import os
from typing import Final

import click

from majordomus.cli.remote import broker_option, keys, read_stdin, timeout_option

STDIN: Final = "-"


@click.command(short_help="Publish an event to a topic.")
@click.argument("topic")
@click.argument("body", default="")
@broker_option
@timeout_option(5.0)
def command(topic: str, body: str, brokers: tuple[str, ...], timeout: float) -> None:
    """Publish BODY to the subscribers of TOPIC; "-" reads BODY from stdin.

    The event is delivered at most once and has no reply. The command ends when the broker has
    confirmed the event.
    """
    from majordomus.net.client.client import Client

    sent = read_stdin() if body == STDIN else os.fsencode(body)
    with Client(list(brokers), spread=False, **keys()) as client:
        client.publish(topic, sent, timeout=timeout, confirm=True)
