"""`majordomus explain` prints ``mmi.explain``: one request's history, or a list of requests."""

from __future__ import annotations

import re
from typing import Any, Final

import click

from majordomus.cli.options import json_option
from majordomus.cli.output import cell, emit_json, emit_records
from majordomus.cli.remote import ask, broker_option, timeout_option
from majordomus.errors import NotFound, StatusError

NUMBER: Final = re.compile(r"-[0-9]+")
FIRST: Final = ("id", "service", "state", "status", "took", "ago", "why")


def checked_id(ctx: click.Context, _param: click.Parameter, id: str) -> str:
    """Return the id. That of a run of a durable request begins with a minus, and is no option."""
    if id.startswith("-") and not NUMBER.fullmatch(id):
        raise click.NoSuchOption(id, ctx=ctx)
    return id


@click.command(
    short_help="Show what happened to a request.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("id", default="", callback=checked_id)
@broker_option
@timeout_option(5.0)
@json_option
def command(id: str, brokers: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Show what happened to request ID: why it waited, which workers had it, for how long.

    ID is an id from the list, the trace in the request's metadata, or its W3C trace id. Without ID,
    prints the list: requests that were slow, retried or did not end with 200, newest first. Open
    requests and the latest fast ones are not in the list, but their ids are found too. A broker
    with a store adds a line about it.
    """
    try:
        found = ask(brokers, timeout, "mmi.explain", id)
    except NotFound:
        text = f"the broker has no request {id}; it remembers only the latest ones"
        raise NotFound(text) from None
    if as_json:
        emit_json(found)
    elif id:
        click.echo("\n".join(history_lines(found)))
    else:
        emit_records(found, FIRST, empty="no request has been slow, retried or failed so far")
        _show_store(brokers, timeout)


def _show_store(brokers: tuple[str, ...], timeout: float) -> None:
    """Print a line about the store that durable requests may wait for, if the broker has one."""
    try:
        store = ask(brokers, timeout, "mmi.durable")
    except StatusError:
        return
    from majordomus.cli.inspect.top_view import durable_line

    click.echo(durable_line(store))


def history_lines(history: dict[str, Any]) -> list[str]:
    """Return the history of a request as lines of text."""
    is_open = history["status"] == 0
    outcome = history["state"] if is_open else f"{history['state']} with {history['status']}"
    since = f"for {_time(history['took'])}" if is_open else f"after {_time(history['took'])}"
    asked = f"requested by {history['client']}" + (
        f" ({history['user']})" if history["user"] else ""
    )
    asked += f", with {_time(history['ttl'])} to live"
    if not history["client"]:
        asked = f"a run of the durable request {cell(history['id']).lstrip('-')}"
    lines = [
        f"{cell(history['id'])}  {cell(history['service'])}: {outcome} {since}",
        f"  {asked}",
    ]
    if history["waited"]:
        because = history["because"] or "the broker had not queued it yet"
        lines.append(f"  waited {_time(history['waited'])} for a worker: {because}")
    if history["now"]:
        lines.append(f"  waits: {history['now']}")
    for one in history["attempts"]:
        had = f"worker {one['worker']} had it for {_time(one['held'])}"
        lines.append(f"  {_time(one['at'])}: {had}: {one['how']}")
    if history["why"]:
        lines.append(f"  reply to the client: {history['why']}")
    return [cell(line) for line in lines]


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
