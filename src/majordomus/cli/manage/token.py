"""`majordomus token` makes the keys that sign tokens, checks a token, and revokes tokens."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import click

from majordomus.cli.options import Seconds
from majordomus.cli.output import printable, stdin_or_refuse


@click.group(short_help="Make keys for tokens; check and revoke tokens.")
def command() -> None:
    """Make keys for tokens; check and revoke tokens."""


@command.command()
@click.argument("name", type=click.Path(path_type=Path))
def key(name: Path) -> None:
    """Make a key pair: NAME.jwk for every broker, NAME.jwk_secret to sign with.

    An existing file is not overwritten. Only you can read the secret key.
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
    help="A public key; may be repeated.",
)
@click.option("--curve", default="", help="The CURVE key of the connection.")
def check(keys: tuple[Path, ...], curve: str) -> int:
    """Read one token from stdin, check it and print its content.

    The exit code is 1 when it is not valid.
    """
    from majordomus.security import tokens

    checker = tokens.Checker(map(tokens.read_public, keys))
    token = stdin_or_refuse("the token is read from").read(tokens.MOST_BYTES + 2).strip()
    try:
        claims = checker.check(token, time.time(), curve)
    except tokens.TokenError as error:
        click.echo(f"refused: {error}")
        return 1
    until = datetime.datetime.fromtimestamp(claims.expires, datetime.UTC).isoformat()
    groups = ", ".join(claims.groups) or "none"
    session = f", session {claims.session}"
    click.echo(
        printable(f"user {claims.user}, groups {groups}, until {until}{session}, id {claims.id}")
    )
    return 0


@command.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option(
    "--revocations",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file of revoked tokens. [default: revoked-tokens in the state folder]",
)
@click.option(
    "--lifetime",
    type=Seconds(min=1),
    default=43_200.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a token of that id may still be valid.",
)
def revoke(ids: tuple[str, ...], path: Path | None, lifetime: float) -> None:
    """Revoke tokens or sessions by their ids, which `token check` prints.

    A broker that reads the same file refuses them within a second.
    """
    from majordomus.net.broker.security.curve import state_folder
    from majordomus.security.revocations import Revocations

    now = time.time()
    revocations = Revocations(path or state_folder() / "revoked-tokens")
    for id in ids:
        revocations.add(id, now, now + lifetime)
        click.echo(printable(f"revoked {id} in {revocations.path}"))
