"""`majordomus subscribe` prints the events of a pattern, one on each line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from majordomus.cli import DONE, INTERRUPTED
from majordomus.cli.options import json_option
from majordomus.cli.output import complain, emit_bytes, emit_json, frame_json
from majordomus.cli.remote import broker_option, keys, timeout_option

if TYPE_CHECKING:
    from majordomus.net.events import Event


@click.command(short_help="Print the events of a pattern of topics.")
@click.argument("pattern")
@click.option("--count", type=click.IntRange(min=1), help="End after this many events.")
@broker_option
@timeout_option(5.0)
@json_option
def command(
    pattern: str, count: int | None, brokers: tuple[str, ...], timeout: float, as_json: bool
) -> int:
    """Print the events that are published to the topics of PATTERN, until Ctrl-C.

    Tokens of a topic are separated by dots. In a pattern, "*" matches one token, and ">" at the end
    matches the rest. A line is the topic and the event's frames, separated by spaces. Events are
    delivered at most once. --timeout is the time limit of the subscription itself.
    """
    from majordomus.net.client.client import Client

    with Client(list(brokers), spread=False, **keys()) as client:
        events = client.subscribe(pattern, timeout=timeout)
        complain(f"subscribed to {pattern}")
        try:
            for number, event in enumerate(events, 1):
                _print(event, as_json)
                if number == count:
                    break
        except KeyboardInterrupt:  # its usual end needs no line
            return INTERRUPTED
    return DONE


def _print(event: Event, as_json: bool) -> None:
    if as_json:
        frames = [frame_json(frame) for frame in event.frames]
        emit_json({"topic": event.topic, "frames": frames}, line=True)
    else:
        emit_bytes(b" ".join([event.topic.encode(), *event.frames]) + b"\n")
