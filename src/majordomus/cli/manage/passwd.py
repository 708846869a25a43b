"""`majordomus passwd` stores the hash of one user's password in a file."""

from __future__ import annotations

from pathlib import Path

import click

from majordomus.cli.output import stdin_or_refuse
from majordomus.security import passwords


@click.command(short_help="Set the password of a user in a file.")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("user")
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="GROUP",
    help="A group of the user; may be repeated.",
)
@click.option("--delete", is_flag=True, help="Delete the user instead.")
def command(file: Path, user: str, groups: tuple[str, ...], delete: bool) -> None:
    """Set USER's password in FILE, for a broker with --passwords FILE.

    FILE is created if it does not exist, readable for you alone. On a terminal, the password is
    asked for twice; otherwise one line is read from stdin. FILE contains only scrypt hashes.
    """
    if delete:
        passwords.store(file, user, None)
        return
    stdin = stdin_or_refuse("the password is read from")
    if stdin.isatty():
        password = click.prompt("password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = stdin.readline().rstrip("\n")
    passwords.store(file, user, passwords.hashed(password, groups))
