"""`majordomus call` sends one request and prints its reply as raw bytes or as JSON."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from majordomus.cli.completing import FIELDS, SERVICE
from majordomus.cli.options import Seconds, json_option
from majordomus.cli.output import emit_bytes, emit_json, frame_json, metadata_field
from majordomus.cli.remote import (
    broker_option,
    check_broker,
    dialect_option,
    keys,
    read_stdin,
    timeout_option,
)
from majordomus.errors import ConfigurationError
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from majordomus.net.bodies import Reply

STDIN: Final = "-"


@click.command(short_help="Call a service and print its reply.")
@click.argument("service", shell_complete=SERVICE)
@click.argument("body", default="")
@click.option(
    "--data",
    "-d",
    metavar="JSON",
    shell_complete=FIELDS,
    help="The body as JSON, encoded by the service's contract; @FILE reads it from a file. Not with"
    " --durable.",
)
@broker_option
@timeout_option(30.0)
@click.option(
    "--wait",
    is_flag=True,
    help="Wait for a worker, and for a broker, until the timeout. [default: fail at once]",
)
@click.option(
    "--durable",
    is_flag=True,
    help="Store the request and its outcome at the broker; see majordomus durable.",
)
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="The same key, service and body are the same durable request.",
)
@click.option(
    "--expires",
    type=Seconds(min=0),
    metavar="SECONDS",
    help="With --durable: how long it may have no outcome. [default: without limit]",
)
@click.option(
    "--keep",
    type=Seconds(min=0),
    metavar="SECONDS",
    help="With --durable: how long its outcome is kept. [default: as the broker is set]",
)
@click.option("--detach", is_flag=True, help="With --durable: print the id when it is stored.")
@click.option("--stream", is_flag=True, help="Print each part of the reply when it arrives.")
@dialect_option
@json_option
def command(
    service: str,
    body: str,
    data: str | None,
    brokers: tuple[str, ...],
    timeout: float,
    wait: bool,
    durable: bool,
    idempotency_key: str | None,
    expires: float | None,
    keep: float | None,
    detach: bool,
    stream: bool,
    dialect: str,
    as_json: bool,
) -> None:
    """Call SERVICE with BODY and print the reply, its frames separated by newlines.

    BODY is empty by default; "-" reads it from stdin. A file or pipe gets the bytes unchanged; on a
    terminal, and after each part of a stream, a newline follows. A status other than 200 is an
    error: one line on stderr and exit code 1. A service without a worker is one too, unless --wait
    is given; the line names what is served.

    With --durable the broker stores the request first: it runs although this command, the worker or
    the broker ends. --timeout then bounds the waiting alone, and a service without a worker is
    waited for.

    With --data the body is checked and encoded by the contract of the service, and the reply is
    printed as JSON: one line for each part with --stream.
    """
    asked: dict[str, Any] = {"key": idempotency_key, "expires": expires, "keep": keep}
    if not durable and (detach or any(value is not None for value in asked.values())):
        raise ConfigurationError("--detach, --idempotency-key, --expires and --keep need --durable")
    if durable and stream:
        raise ConfigurationError("--stream does not go with --durable")
    if durable and dialect != Dialect.MDP03:
        raise ConfigurationError(
            f"--durable does not go with --dialect {dialect}: call titanic.request"
        )
    if durable:
        _check_key_file()
    from majordomus.net.client.client import Client

    if data is not None:
        if body:
            raise ConfigurationError("give BODY or --data, not both")
        if durable:
            raise ConfigurationError("--data does not go with --durable")
        from majordomus.cli.inspect.call_data import call_with_data

        call_with_data(service, data, brokers, timeout, wait=wait, stream=stream)
        return
    sent = read_stdin() if body == STDIN else os.fsencode(body)
    with Client(list(brokers), dialect=dialect, spread=False, **keys()) as client:
        if not wait and dialect == Dialect.MDP03:
            check_broker(client, timeout)
        if stream:
            parts = client.stream(service, sent, timeout=timeout, fail_fast=not wait)
            _print_parts(parts, as_json)
            return
        if detach:
            id = client.submit_durable(service, sent, timeout=timeout, **asked)
            _print_id(id, as_json)
            return
        if durable:
            reply = client.call(service, sent, timeout=timeout, durable=True, **asked)
        else:
            reply = client.call(service, sent, timeout=timeout, fail_fast=not wait)
    if as_json:
        emit_json(_reply_json(service, reply))
    else:
        emit_bytes(b"\n".join(reply.frames) + (b"\n" if sys.stdout.isatty() else b""))


def _check_key_file() -> None:
    """Raises: ConfigurationError: `--key`, of a key pair, was given for `--idempotency-key`."""
    named = keys().get("certificate")
    if isinstance(named, str | Path) and not Path(named).exists():
        raise ConfigurationError(
            f"--key {named}: no such file. The key of a durable request is --idempotency-key"
        )


def _print_id(id: str, as_json: bool) -> None:
    if as_json:
        emit_json({"id": id})
    else:
        click.echo(id)


def _print_parts(parts: Iterable[Reply], as_json: bool) -> None:
    for number, part in enumerate(parts, 1):
        if as_json:
            shown = {"part": number, "frames": _frames_json(part), **metadata_field(part)}
            emit_json(shown, line=True)
        else:
            emit_bytes(b"\n".join(part.frames) + b"\n")


def _reply_json(service: str, reply: Reply) -> dict[str, Any]:
    return {
        "service": service,
        "status": reply.status,
        "worker": reply.worker.hex(),
        "frames": _frames_json(reply),
        **metadata_field(reply),
    }


def _frames_json(reply: Reply) -> list[dict[str, str]]:
    return [frame_json(frame) for frame in reply.frames]
