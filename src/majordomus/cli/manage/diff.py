"""`majordomus diff` compares two catalogs of contracts; its exit code is for CI."""

from __future__ import annotations

import click

from majordomus.cli.contracts import of_source
from majordomus.cli.options import json_option
from majordomus.cli.output import emit_json, printable


@click.command(short_help="Compare contracts: may callers stay as they are?")
@click.argument("old")
@click.argument("new")
@json_option
def command(old: str, new: str, as_json: bool) -> int:
    """Compare the contracts of OLD with those of NEW, and print every change.

    OLD and NEW are files of `majordomus describe --json`, or MODULE:WORKER. The exit code is 1 when
    a change breaks callers of OLD, and 0 when none does.
    """
    from majordomus.contracts import catalog

    found = catalog.changes(of_source(old), of_source(new))
    if as_json:
        emit_json(
            [
                {"service": name, "where": one.where, "text": one.text, "breaking": one.breaking}
                for name, one in found
            ]
        )
    else:
        for name, one in found:
            kind = "breaking" if one.breaking else "compatible"
            click.echo(printable(f"{kind}: {name}: {one}"))
    return 1 if any(one.breaking for _, one in found) else 0
