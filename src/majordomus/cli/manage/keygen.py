"""`majordomus keygen` writes a CURVE key pair as two files."""

from __future__ import annotations

from pathlib import Path

import click

from majordomus.cli.options import json_option
from majordomus.cli.output import emit_json
from majordomus.errors import ConfigurationError
from majordomus.security.certificates import SUFFIXES


@click.command(short_help="Make a CURVE key pair.")
@click.argument("name")
@click.option(
    "--format",
    "style",
    type=click.Choice(list(SUFFIXES)),
    default="pyzmq",
    show_default=True,
    help="Format of the files: NAME.key, NAME (CZMQ) or NAME.json (DelphiZeroMQ), each also with "
    "_secret.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="FOLDER",
    help="The folder to write to. [default: this folder]",
)
@click.option("--user", default="", metavar="USER", help="The owner. [default: NAME]")
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="GROUP",
    help="A group of the owner; may be repeated.",
)
@json_option
def command(
    name: str,
    style: str,
    directory: Path,
    user: str,
    groups: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make the CURVE key pair NAME: a public file to publish, and a secret file for you alone.

    Prints the paths and the public key. An existing file is not overwritten. A broker with the
    public file in its --clients folder identifies the owner as USER, a member of each GROUP.
    """
    from majordomus.net.broker.security import curve
    from majordomus.security import certificates, files, keys

    if not name or "/" in name or name in (".", ".."):
        raise ConfigurationError(f"{name!r} is not a file name; use --directory for the folder")
    metadata = {"name": name, "user": keys.check_user(user or name)}
    if groups:
        metadata["groups"] = ", ".join(keys.check_group(group) for group in groups)
    files.make_folder(directory)
    made = curve.make(metadata)
    public, secret = certificates.write(directory / name, made, style)
    if as_json:
        emit_json({"public": made.public, "public_file": str(public), "secret_file": str(secret)})
    else:
        click.echo(f"public key   {made.public}\npublic file  {public}\nsecret file  {secret}")
