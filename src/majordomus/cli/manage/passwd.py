"""`majordomus passwd`: one user's password in a file of hashes."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from majordomus.security import passwords


@click.command(short_help="Set the password of a user in a file.")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("user")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="A group; several times.")
@click.option("--delete", is_flag=True, help="Take the user away instead.")
def command(file: Path, user: str, groups: tuple[str, ...], delete: bool) -> None:
    """Set USER's password in FILE, for a broker with --passwords FILE; it is made if need be.

    Asks for the password twice on a terminal, else reads one line of stdin. Only an scrypt hash is
    stored, in a file that only you can read.
    """
    if delete:
        passwords.store(file, user, None)
        return
    if sys.stdin.isatty():
        password = click.prompt("password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    passwords.store(file, user, passwords.hashed(password, groups))
