"""`majordomus profile` keeps named brokers with their keys, for `--profile NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from majordomus.cli import profiles, remote
from majordomus.cli.output import emit_table
from majordomus.errors import ConfigurationError
from majordomus.net import endpoints


@click.group(short_help="Name a broker and its keys, for --profile.")
def command() -> None:
    """Keep brokers with their keys under a name, for --profile NAME.

    The commands that ask a broker take it; `worker` and `metrics` do not.
    """


@command.command("add", short_help="Add or replace a profile.")
@click.argument("name")
@click.option(
    "--broker", "brokers", multiple=True, required=True, metavar="URL", help="The broker."
)
@click.option(
    "--server-key",
    metavar="KEY",
    callback=remote.not_empty,
    help="The public key of an encrypted broker.",
)
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="Your key pair.")
@click.option(
    "--plain", type=click.Path(path_type=Path), metavar="FILE", help="A file with user:password."
)
@click.option(
    "--login", type=click.Path(path_type=Path), metavar="FILE", help="A file with user:secret."
)
def add(
    name: str,
    brokers: tuple[str, ...],
    server_key: str | None,
    key: Path | None,
    plain: Path | None,
    login: Path | None,
) -> None:
    """Add the profile NAME. Files are kept as absolute paths; secrets stay in their files."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigurationError(f"a profile's name has letters, digits, - and _, not {name!r}")
    endpoints.to_connect([endpoints.without_key(url) for url in brokers])
    values: dict[str, Any] = {"brokers": list(brokers)}
    if server_key:
        values["server_key"] = server_key
    for field, file in (("key", key), ("plain", plain), ("login", login)):
        if file is not None:
            values[field] = str(file.expanduser().absolute())
    profiles.write({**profiles.read(), name: values})


@command.command("list", short_help="List the profiles.")
def show() -> None:
    """List the profiles and their brokers."""
    rows = [(name, values.get("brokers", [])) for name, values in sorted(profiles.read().items())]
    if rows:
        emit_table(("profile", "brokers"), rows)


@command.command("remove", short_help="Remove a profile.")
@click.argument("name")
def remove(name: str) -> None:
    """Remove the profile NAME."""
    profiles.of(name)
    kept = profiles.read()
    del kept[name]
    profiles.write(kept)
