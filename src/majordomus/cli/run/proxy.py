"""`majordomus proxy` runs a ZeroMQ proxy, or controls one through its control endpoint."""

from __future__ import annotations

import click

from majordomus.cli.options import json_option, verbose_option
from majordomus.cli.output import emit_json, emit_table, log_to_stderr
from majordomus.cli.processes import exit_on_sigterm
from majordomus.cli.remote import timeout_option
from majordomus.errors import ConfigurationError

PATTERNS = ("xsub-xpub", "pull-push", "router-dealer")
COLUMNS = ("socket", "received", "received_bytes", "sent", "sent_bytes")


@click.command(short_help="Run or control a ZeroMQ proxy.")
@click.option(
    "--pattern",
    type=click.Choice(PATTERNS),
    help="The socket types of frontend and backend.",
)
@click.option(
    "--frontend",
    multiple=True,
    metavar="URL",
    help='Endpoint to bind for senders; may be repeated. ">URL" connects instead.',
)
@click.option(
    "--backend",
    multiple=True,
    metavar="URL",
    help='Endpoint to bind for receivers; may be repeated. ">URL" connects instead.',
)
@click.option(
    "--control",
    metavar="URL",
    help="Endpoint for control commands, without authentication. [default: none]",
)
@click.option(
    "--hwm",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    metavar="N",
    help="Limit of waiting messages for each peer; 0 is unlimited.",
)
@click.option(
    "--pause", metavar="CONTROL", help="Pause the proxy at CONTROL: it reads no messages."
)
@click.option("--resume", metavar="CONTROL", help="Resume the proxy at CONTROL.")
@click.option("--statistics", metavar="CONTROL", help="Print the counters of the proxy at CONTROL.")
@click.option("--terminate", metavar="CONTROL", help="End the proxy at CONTROL.")
@timeout_option(5.0)
@json_option
@verbose_option("Log control commands.")
def command(
    pattern: str | None,
    frontend: tuple[str, ...],
    backend: tuple[str, ...],
    control: str | None,
    hwm: int,
    timeout: float,
    as_json: bool,
    verbose: bool,
    **commands: str | None,
) -> None:
    """Run a proxy between two sockets until SIGTERM, SIGINT or --terminate, or control one.

    To run one, give --pattern, --frontend and --backend. It prints a line "frontend URL", "backend
    URL" or "control URL" for each endpoint when it is ready.

    To control one, give one of --pause, --resume, --statistics and --terminate with the URL of its
    --control. This works with proxies of libzmq (zmq_proxy_steerable) too.
    """
    given = {word: url for word, url in commands.items() if url is not None}
    if len(given) > 1:
        raise click.UsageError(f"only one of these at a time: --{', --'.join(given)}")
    if given:
        if pattern or frontend or backend or control:
            (word,) = given
            raise click.UsageError(
                f"--{word} controls a running proxy and cannot be combined with flags that run one"
            )
        (word, url) = given.popitem()
        _control(word, url, timeout, as_json)
        return
    if not (pattern and frontend and backend):
        raise click.UsageError("a proxy needs --pattern, --frontend and --backend")
    exit_on_sigterm()
    log_to_stderr(verbose)
    _run(pattern, frontend, backend, control, hwm)


def _run(
    pattern: str,
    frontend: tuple[str, ...],
    backend: tuple[str, ...],
    control: str | None,
    hwm: int,
) -> None:
    """Run the proxy. Raises: ClickException when an endpoint cannot be bound."""
    from majordomus.net.zmq.proxy import Proxy

    proxy = Proxy(pattern, frontend, backend, control, hwm=hwm)
    try:
        proxy.open()
    except ConfigurationError as error:
        # The URLs have been checked, so this is not wrong usage (exit code 2) but a failure (1).
        raise click.ClickException(str(error)) from error

    def announce() -> None:
        lines = [f"frontend {url}" for url in proxy.frontends]
        lines += [f"backend {url}" for url in proxy.backends]
        lines += [f"control {proxy.control}"] if proxy.control else []
        click.echo("\n".join(lines))

    proxy.run(ready=announce)


def _control(word: str, url: str, timeout: float, as_json: bool) -> None:
    """Send one command. Raises: DeadlineExceeded when no proxy replies."""
    from majordomus.net.zmq.proxy import Control

    with Control(url, timeout) as control:
        if word != "statistics":
            getattr(control, word)()
            return
        told = control.statistics()
    if as_json:
        sides = {"frontend": told.frontend._asdict(), "backend": told.backend._asdict()}
        emit_json({**sides, "paused": told.paused})
        return
    emit_table(COLUMNS, [("frontend", *told.frontend), ("backend", *told.backend)])
    if told.paused:
        click.echo("the proxy is paused")
