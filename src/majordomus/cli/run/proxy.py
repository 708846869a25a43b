"""`majordomus proxy`: run a ZeroMQ proxy, or steer one that runs, through its control endpoint."""

from __future__ import annotations

import click

from majordomus.cli.output import emit_json, emit_table, log_to_stderr
from majordomus.cli.processes import exit_on_sigterm
from majordomus.cli.remote import json_option, timeout_option
from majordomus.errors import ConfigurationError

PATTERNS = ("xsub-xpub", "pull-push", "router-dealer")
COLUMNS = ("socket", "received", "received_bytes", "sent", "sent_bytes")


@click.command(short_help="Run a ZeroMQ proxy, or steer one.")
@click.option(
    "--pattern",
    type=click.Choice(PATTERNS),
    help="The sockets of frontend and backend.",
)
@click.option(
    "--frontend",
    multiple=True,
    metavar="URL",
    help='Where senders connect, several times for several; ">URL" connects instead.',
)
@click.option(
    "--backend",
    multiple=True,
    metavar="URL",
    help='Where receivers connect, several times for several; ">URL" connects instead.',
)
@click.option(
    "--control",
    metavar="URL",
    help="Where it can be steered, by anybody who reaches it. [default: nowhere]",
)
@click.option(
    "--hwm",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    metavar="N",
    help="Messages that may wait for each peer, 0 without limit.",
)
@click.option("--pause", metavar="CONTROL", help="Let the proxy at CONTROL read nothing.")
@click.option("--resume", metavar="CONTROL", help="Let it go on.")
@click.option("--statistics", metavar="CONTROL", help="Print what has passed it.")
@click.option("--terminate", metavar="CONTROL", help="End it.")
@timeout_option(5.0)
@json_option
@click.option("-v", "--verbose", is_flag=True, help="Log what is commanded.")
def command(
    pattern: str | None,
    frontend: tuple[str, ...],
    backend: tuple[str, ...],
    control: str | None,
    hwm: int,
    timeout: float,
    as_json: bool,
    verbose: bool,
    **steering: str | None,
) -> None:
    """Run a proxy between two sockets until SIGTERM, SIGINT or --terminate, or steer one.

    To run one, give --pattern, --frontend and --backend; it prints a line "frontend URL", "backend
    URL" and "control URL" for each endpoint when it is ready. To steer one, give one of --pause,
    --resume, --statistics and --terminate with the URL that was its --control. Proxies of libzmq
    (zmq_proxy_steerable) can be steered as well.
    """
    given = {word: url for word, url in steering.items() if url is not None}
    if len(given) > 1:
        raise click.UsageError(f"one at a time: --{', --'.join(given)}")
    if given:
        if pattern or frontend or backend or control:
            (word,) = given
            raise click.UsageError(f"--{word} steers a proxy that runs, it cannot be run with it")
        (word, url) = given.popitem()
        _steer(word, url, timeout, as_json)
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
    """Raises: ClickException when an endpoint cannot be bound, being in use."""
    from majordomus.net.zmq.proxy import Proxy

    proxy = Proxy(pattern, frontend, backend, control, hwm=hwm)
    try:
        proxy.open()
    except ConfigurationError as error:
        # The URLs are right: what fails now is this machine, not the usage.
        raise click.ClickException(str(error)) from error

    def announce() -> None:
        lines = [f"frontend {url}" for url in proxy.frontends]
        lines += [f"backend {url}" for url in proxy.backends]
        lines += [f"control {proxy.control}"] if proxy.control else []
        click.echo("\n".join(lines))

    proxy.run(ready=announce)


def _steer(word: str, url: str, timeout: float, as_json: bool) -> None:
    """Raises: DeadlineExceeded when no proxy is there."""
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
        click.echo("it is paused")
