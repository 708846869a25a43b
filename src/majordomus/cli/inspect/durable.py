"""`majordomus durable` shows, ends and forgets durable requests, and checks the file of a store."""

from __future__ import annotations

import string
import sys
from pathlib import Path
from typing import Any, Final

import click

from majordomus.cli.options import json_option
from majordomus.cli.output import (
    cell,
    emit_bytes,
    emit_json,
    emit_records,
    frame_json,
    metadata_field,
)
from majordomus.cli.remote import (
    ask,
    broker_option,
    check_broker,
    keys,
    pages,
    timeout_option,
)
from majordomus.errors import NotFound, StatusError

FIRST: Final = ("number", "service", "state", "status", "attempts", "age", "owner", "key", "id")
LIST: Final = "mmi.durable.list"
ID_LENGTH: Final = 32
SHOWN: Final = 2 * ID_LENGTH
"""Characters of a wrong argument that its error line repeats."""
LARGEST: Final = (1 << 63) - 1


def checked_ids(
    ctx: click.Context, _param: click.Parameter, given: str | tuple[str, ...]
) -> str | tuple[str, ...]:
    """Return the ids of durable requests. No broker needs to be asked about text that is none."""
    for id in (given,) if isinstance(given, str) else given:
        if len(id) != ID_LENGTH or not set(id) <= set(string.hexdigits):
            raise click.UsageError(
                f"{id[:SHOWN]!r} is no id: an id has {ID_LENGTH} hexadecimal digits, as "
                "submit_durable and --detach return it",
                ctx,
            )
    return given


file_argument = click.argument("file", type=click.Path(path_type=Path))


@click.group(short_help="Inspect, end and check durable requests.")
def command() -> None:
    """Show, end and forget durable requests; verify, compact and copy the file of a store."""


@command.command()
@broker_option
@timeout_option(5.0)
@json_option
def status(brokers: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Show the state of the broker's store: rows, bytes, the oldest request, the disk."""
    found = ask(brokers, timeout, "mmi.durable")
    if as_json:
        emit_json(found)
    else:
        click.echo("\n".join(f"{name:<10}{cell(value)}" for name, value in found.items()))


@command.command("list")
@click.option("--service", default="", metavar="NAME", help="Requests to this service alone.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="Most rows."
)
@broker_option
@timeout_option(5.0)
@json_option
def list_command(
    service: str, limit: int, brokers: tuple[str, ...], timeout: float, as_json: bool
) -> None:
    """List durable requests, the oldest first, those with an outcome included.

    The id of an anonymous request is a secret between its client and the broker, and is not shown.
    """
    rows = _rows(brokers, timeout, service, limit + 1)
    if len(rows) > limit:
        del rows[limit:]
        click.echo(f"there are more than {limit}: --limit N shows more", err=True)
    if as_json:
        emit_json(rows)
    else:
        emit_records(rows, FIRST, empty="the broker has no durable request")


def _rows(
    brokers: tuple[str, ...], timeout: float, service: str, limit: int
) -> list[dict[str, Any]]:
    from majordomus.net.client.client import Client

    rows: list[dict[str, Any]] = []
    with Client(list(brokers), spread=False, **keys()) as client:
        for page in pages(client, timeout, LIST, service):
            rows += page
            if len(rows) >= limit:
                break
    return rows[:limit]


@command.command()
@click.argument("request")
@broker_option
@timeout_option(5.0)
@json_option
def show(request: str, brokers: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Show the durable request REQUEST, an id or a number of the list.

    Of the id of an anonymous request, which is a secret, the number alone is compared.
    """
    from majordomus.net.client.client import Client

    is_id = len(request) == ID_LENGTH
    allowed = string.hexdigits if is_id else string.digits
    number = 0
    if request and len(request) <= ID_LENGTH and set(request) <= set(allowed):
        number = int(request[: ID_LENGTH // 2], 16) if is_id else int(request)
    elif not is_id:
        raise click.UsageError(f"{request[:SHOWN]!r} is no id and no number")
    unknown = NotFound(f"the broker has no durable request {cell(request)}")
    if not 0 < number <= LARGEST:
        raise unknown
    with Client(list(brokers), spread=False, **keys()) as client:
        found = answer_one(client, timeout, number)
    if is_id and found["id"] not in ("", request.lower()):
        raise unknown
    if as_json:
        emit_json(found)
    else:
        click.echo("\n".join(f"{name:<10}{cell(value)}" for name, value in found.items()))


def answer_one(client: Any, timeout: float, number: int) -> dict[str, Any]:
    """Return the row `number`. Raises: NotFound."""
    for page in pages(client, timeout, LIST, "", b"%d" % max(0, number - 1)):
        for row in page[:1]:
            if row["number"] == number:
                return dict(row)
        break
    raise NotFound(f"the broker has no durable request {number}")


@command.command()
@click.argument("id", callback=checked_ids)
@broker_option
@timeout_option(30.0)
@click.option("--wait", is_flag=True, help="Wait for the outcome until the timeout.")
@json_option
def result(id: str, brokers: tuple[str, ...], timeout: float, wait: bool, as_json: bool) -> None:
    """Print the outcome of the durable request ID, as `majordomus call` prints a reply."""
    from majordomus.net.client.client import Client

    with Client(list(brokers), spread=False, **keys()) as client:
        check_broker(client, timeout)
        reply = client.result(id, timeout=timeout if wait else 0)
    if as_json:
        frames = list(map(frame_json, reply.frames))
        emit_json({"id": id, "status": reply.status, "frames": frames, **metadata_field(reply)})
    else:
        emit_bytes(b"\n".join(reply.frames) + (b"\n" if sys.stdout.isatty() else b""))


@command.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…", callback=checked_ids)
@broker_option
@timeout_option(5.0)
def withdraw(ids: tuple[str, ...], brokers: tuple[str, ...], timeout: float) -> int:
    """End durable requests with status 499. Exit code 1 when one has an outcome already."""
    return _for_each("withdraw", ids, brokers, timeout)


@command.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…", callback=checked_ids)
@broker_option
@timeout_option(5.0)
def forget(ids: tuple[str, ...], brokers: tuple[str, ...], timeout: float) -> int:
    """Delete the outcomes of durable requests. Exit code 1 when one has none yet."""
    return _for_each("forget", ids, brokers, timeout)


def _for_each(verb: str, ids: tuple[str, ...], brokers: tuple[str, ...], timeout: float) -> int:
    from majordomus.net.client.client import Client

    failed = 0
    with Client(list(brokers), spread=False, **keys()) as client:
        check_broker(client, timeout)
        for id in ids:
            try:
                getattr(client, verb)(id, timeout=timeout)
            except StatusError as error:
                failed = 1
                click.echo(f"{cell(id)}: {cell(str(error))}", err=True)
    return failed


@command.command()
@file_argument
@json_option
def verify(file: Path, as_json: bool) -> int:
    """Check every row of the store FILE, of a broker that does not run.

    The exit code is 1 when something is damaged.
    """
    from majordomus.durable import offline

    found = offline.verify(file)
    if as_json:
        emit_json(found._asdict())
    else:
        for problem in found.problems:
            click.echo(cell(problem))
        click.echo(
            f"{found.rows} rows, {found.open} without an outcome, {found.bytes} bytes:"
            f" {len(found.problems)} problems"
        )
    return 1 if found.problems else 0


@command.command()
@file_argument
def compact(file: Path) -> None:
    """Give the space of deleted rows back to the disk. The broker of FILE must not run.

    The disk needs space for a second copy of FILE meanwhile.
    """
    from majordomus.durable import offline

    before, after = offline.compact(file)
    click.echo(f"{before} bytes before, {after} after")


@command.command()
@file_argument
@click.argument("target", type=click.Path(path_type=Path))
def backup(file: Path, target: Path) -> None:
    """Copy the store FILE to the new file TARGET. The broker of FILE may run.

    A copy of FILE alone, made by other means, lacks what is in FILE-wal.
    """
    from majordomus.durable import offline

    click.echo(f"{offline.backup(file, target)} bytes in {cell(str(target))}")
