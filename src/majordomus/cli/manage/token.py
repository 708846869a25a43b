"""`majordomus token`: the keys that brokers sign tokens with, and what a token says."""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path

import click

from majordomus.cli.output import printable


@click.group(short_help="Make keys for tokens, and say what a token says.")
def command() -> None:
    """Make keys for tokens, and say what a token says."""


@command.command()
@click.argument("name", type=click.Path(path_type=Path))
def key(name: Path) -> None:
    """Make a pair of keys: NAME.jwk for every broker, NAME.jwk_secret for the one that signs.

    No file is overwritten, and nobody else can read the secret one.
    """
    from majordomus.security import tokens

    made = tokens.new_key()
    public, secret = made.save(name)
    click.echo(printable(f"{public}: the public key {made.kid}"))
    click.echo(printable(f"{secret}: the secret key; keep it where it is"))


@command.command()
@click.option(
    "--key",
    "keys",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    metavar="FILE",
    help="A public key; several times for several.",
)
@click.option("--curve", default="", help="The CURVE key of the connection.")
def check(keys: tuple[Path, ...], curve: str) -> int:
    """Read one token from stdin and say what it says, if it is good.

    Exit code 1 when it is not.
    """
    from majordomus.security import tokens

    checker = tokens.Checker(map(tokens.read_public, keys))
    token = sys.stdin.read(tokens.MOST_BYTES + 2).strip()
    try:
        claims = checker.check(token, time.time(), curve)
    except tokens.TokenError as error:
        click.echo(f"refused: {error}")
        return 1
    until = datetime.datetime.fromtimestamp(claims.expires, datetime.UTC).isoformat()
    groups = ", ".join(claims.groups) or "none"
    click.echo(printable(f"user {claims.user}, groups {groups}, until {until}, id {claims.id}"))
    return 0
