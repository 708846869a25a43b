"""`majordomus acl` checks a file of access rules, and shows which rule decides."""

from __future__ import annotations

from pathlib import Path

import click

from majordomus.cli.output import printable
from majordomus.core.broker.state.access_rules import ACTIONS, full_name
from majordomus.core.broker.state.identity import UNIX_USER
from majordomus.protocol.spec import DURABLE_PREFIX


@click.group(short_help="Check access rules, and show which one decides.")
def command() -> None:
    """Check access rules, and show which one decides."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Read FILE as a broker does, and print the first error."""
    from majordomus.security import acl

    acl.load(file)
    click.echo(f"{printable(str(file))}: ok")


@command.command()
@click.argument("user")
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("name")
@click.option(
    "--acl",
    "file",
    type=click.Path(path_type=Path),
    envvar="MAJORDOMUS_ACL",
    required=True,
    metavar="FILE",
    help="The file of access rules.",
)
@click.option("--group", "groups", multiple=True, help="A group of the user; may be repeated.")
def test(user: str, action: str, name: str, file: Path, groups: tuple[str, ...]) -> int:
    """Print whether USER may do ACTION with NAME, and which rule decides.

    An empty USER is an unauthenticated client; uid:1000 is the Unix user of an ipc connection.
    NAME is the name as the user writes it; for subscribe it is a pattern. The exit code is 1 when
    the action is denied.
    """
    from majordomus.security import acl

    rights = acl.load(file)
    if action == "call" and name.encode().startswith(DURABLE_PREFIX):
        click.echo("allowed: the broker asks no rule, but whose id it is")
        return 0
    if user.startswith(UNIX_USER):
        user, groups = "", (*groups, user)
    full = full_name(rights.prefix(groups), name.encode())
    verdict = rights.allows(user, groups, action, full)
    known = f" (known to the broker as {full.decode()})" if full != name.encode() else ""
    said = "allowed" if verdict.allowed else "denied"
    click.echo(printable(f"{said}: {verdict.why}{known}"))
    return 0 if verdict.allowed else 1
