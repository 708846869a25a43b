"""`majordomus proto` prints the .proto text of a module's records, for other languages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from majordomus.cli.target import import_here
from majordomus.errors import ConfigurationError


@click.command(short_help="Print the .proto text of a module's records.")
@click.argument("module")
@click.option("--package", help="The package in the text. [default: the module's name]")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a file instead of stdout.",
)
def command(module: str, package: str | None, output: Path | None) -> None:
    """Print the .proto text of the records in MODULE, or of one record with MODULE:NAME.

    The text includes all records that these contain, so protoc needs no other file.
    """
    from majordomus.messages.records import codec_of, proto_of

    records = _records(module)
    text = proto_of(records, codec_of(records[0]).package if package is None else package)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")


def _records(target: str) -> list[Any]:
    """Return the records that `target` names. Raises: ConfigurationError when there are none."""
    from majordomus.messages.records import is_record

    name, _, only = target.partition(":")
    if not name:
        raise ConfigurationError(f"{target!r}: expected MODULE or MODULE:NAME")
    found = {
        key: value
        for key, value in vars(import_here(name)).items()
        if is_record(value) and value.__module__ == name
    }
    if not found:
        raise ConfigurationError(f"{name} has no records: decorate a class with @record")
    if only and only not in found:
        raise ConfigurationError(f"{name} has no record {only} (it has {', '.join(found)})")
    return [found[only]] if only else list(found.values())
