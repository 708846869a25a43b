"""`majordomus explain`: what ``mmi.explain`` says of one request, as a story; without one, the list
of those that are worth one."""

from __future__ import annotations

from typing import Any, Final

import click

from majordomus.cli.output import cell, emit_json, emit_records
from majordomus.cli.remote import ask, broker_option, json_option, timeout_option
from majordomus.errors import NotFound

FIRST: Final = ("id", "service", "state", "status", "took", "ago", "why")


@click.command(short_help="Tell the story of a request.")
@click.argument("id", default="")
@broker_option
@timeout_option(5.0)
@json_option
def command(id: str, brokers: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Tell the story of the request ID: why it waited, which workers had it, for how long each.

    ID is a name of the list that is printed without one, or the trace in the request's metadata.
    The list has requests that were slow, tried again, or not answered with 200, newest first. Found
    by their names are also open requests and the last fast ones.
    """
    try:
        found = ask(brokers, timeout, "mmi.explain", id)
    except NotFound:
        text = f"the broker does not know {id} (any more): it keeps the last ones"
        raise NotFound(text) from None
    if as_json:
        emit_json(found)
    elif id:
        click.echo("\n".join(tell(found)))
    else:
        emit_records(found, FIRST, empty="no request was slow, tried again or failed so far")


def tell(story: dict[str, Any]) -> list[str]:
    """A story in lines."""
    is_open = story["status"] == 0
    outcome = story["state"] if is_open else f"{story['state']} with {story['status']}"
    since = f"for {_time(story['took'])}" if is_open else f"after {_time(story['took'])}"
    asked = f"asked by {story['client']}" + (f" ({story['user']})" if story["user"] else "")
    lines = [
        f"{cell(story['id'])}  {cell(story['service'])}: {outcome} {since}",
        f"  {asked}, with {_time(story['ttl'])} to live",
    ]
    if story["waited"]:
        because = story["because"] or "the broker had not placed it yet"
        lines.append(f"  waited {_time(story['waited'])} for a worker: {because}")
    if story["now"]:
        lines.append(f"  waits: {story['now']}")
    for one in story["attempts"]:
        had = f"worker {one['worker']} had it for {_time(one['held'])}"
        lines.append(f"  {_time(one['at'])}: {had}: {one['how']}")
    if story["why"]:
        lines.append(f"  its client was told: {story['why']}")
    return [cell(line) for line in lines]


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
