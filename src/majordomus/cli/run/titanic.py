"""`majordomus titanic` serves RFC 9 at a broker that has no store, whoever made it."""

from __future__ import annotations

import asyncio
from math import inf

import click

from majordomus.cli.options import Seconds, verbose_option
from majordomus.cli.output import log_to_stderr
from majordomus.cli.processes import exit_on_sigterm
from majordomus.cli.remote import brokers_option, dialect_option
from majordomus.durable.store import StoreError
from majordomus.net import endpoints


@click.command(short_help="Serve RFC 9 at a broker without a store.")
@click.option(
    "--store", required=True, metavar="sqlite:FILE", help="Store the requests in this file."
)
@brokers_option("The broker; repeat it for several.", default=[endpoints.DEFAULT])
@dialect_option
@click.option(
    "--attempt",
    type=Seconds(min=0, min_open=True, max=86400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long one call of a service may take before it is called again.",
)
@click.option(
    "--keep",
    type=Seconds(min=0, max=10 * 365 * 86400),
    default=7 * 86400.0,
    show_default=True,
    metavar="SECONDS",
    help="How long outcomes are kept.",
)
@click.option(
    "--calls",
    type=click.IntRange(min=1, max=1000),
    default=16,
    show_default=True,
    metavar="N",
    help="Calls at a time; each has a connection.",
)
@verbose_option("Log connections, and calls that failed.")
def command(
    store: str,
    brokers: tuple[str, ...],
    dialect: str,
    attempt: float,
    keep: float,
    calls: int,
    verbose: bool,
) -> None:
    """Serve titanic.request, titanic.reply and titanic.close (RFC 9) until SIGTERM or SIGINT.

    It is a worker and a client of the broker. A stored request survives kill -9 and the loss of
    power, runs at least once and has one outcome. It prints "serving at URL" when it is registered.

    A broker of majordomus with --store serves RFC 9 itself, and faster.
    """
    exit_on_sigterm()
    log_to_stderr(verbose)
    for url in brokers:
        endpoints.to_connect(url)
    try:
        asyncio.run(_serve(store, brokers, dialect, attempt, keep, calls))
    except StoreError as error:
        # The store was opened, so this is not wrong usage (exit code 2).
        raise click.ClickException(f"the store has failed: {error}") from error


async def _serve(
    named: str, urls: tuple[str, ...], dialect: str, attempt: float, keep: float, calls: int
) -> None:
    """Serve until a signal. Raises: StoreUnusableError, StoreError."""
    from majordomus.contrib.titanic.service import Titanic
    from majordomus.durable.opening import open_store

    served = Titanic(
        open_store(named), urls, dialect=dialect, attempt=attempt, keep=keep, calls=calls
    )

    async def announce() -> None:
        await served.wait_ready(inf)
        click.echo(f"serving at {', '.join(urls)}")

    announcing = asyncio.create_task(announce())
    try:
        await served.run()
    finally:
        announcing.cancel()
