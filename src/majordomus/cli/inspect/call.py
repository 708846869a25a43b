"""`majordomus call` sends one request and prints its reply as raw bytes or as JSON."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from majordomus.cli.output import emit_bytes, emit_json, frame_json
from majordomus.cli.remote import (
    broker_option,
    check_broker,
    dialect_option,
    json_option,
    keys,
    read_stdin,
    timeout_option,
)
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from majordomus.net.bodies import Reply

STDIN: Final = "-"


@click.command(short_help="Call a service and print its reply.")
@click.argument("service")
@click.argument("body", default="")
@broker_option
@timeout_option(30.0)
@click.option(
    "--wait",
    is_flag=True,
    help="Wait for a worker, and for a broker, until the timeout. [default: fail at once]",
)
@click.option("--stream", is_flag=True, help="Print each part of the reply when it arrives.")
@dialect_option
@json_option
def command(
    service: str,
    body: str,
    brokers: tuple[str, ...],
    timeout: float,
    wait: bool,
    stream: bool,
    dialect: str,
    as_json: bool,
) -> None:
    """Call SERVICE with BODY and print the reply, its frames separated by newlines.

    BODY is empty by default; "-" reads it from stdin. A file or pipe gets the bytes unchanged; on a
    terminal, and after each part of a stream, a newline follows. A status other than 200 is an
    error: one line on stderr and exit code 1. A service without a worker is one too, unless --wait
    is given; the line names what is served.
    """
    from majordomus.net.client.client import Client

    sent = read_stdin() if body == STDIN else os.fsencode(body)
    with Client(list(brokers), dialect=dialect, **keys()) as client:
        if not wait and dialect == Dialect.MDP03:
            check_broker(client, timeout)
        if stream:
            parts = client.stream(service, sent, timeout=timeout, fail_fast=not wait)
            _print_parts(parts, as_json)
            return
        reply = client.call(service, sent, timeout=timeout, fail_fast=not wait)
    if as_json:
        emit_json(_reply_json(service, reply))
    else:
        emit_bytes(b"\n".join(reply.frames) + (b"\n" if sys.stdout.isatty() else b""))


def _print_parts(parts: Iterable[Reply], as_json: bool) -> None:
    for number, part in enumerate(parts, 1):
        if as_json:
            emit_json({"part": number, "frames": _frames_json(part)}, line=True)
        else:
            emit_bytes(b"\n".join(part.frames) + b"\n")


def _reply_json(service: str, reply: Reply) -> dict[str, Any]:
    return {
        "service": service,
        "status": reply.status,
        "worker": reply.worker.hex(),
        "frames": _frames_json(reply),
    }


def _frames_json(reply: Reply) -> list[dict[str, str]]:
    return [frame_json(frame) for frame in reply.frames]
