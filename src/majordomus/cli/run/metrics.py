"""`majordomus metrics` serves the metrics and the readiness of brokers over HTTP.

It is a process of its own beside the brokers, and asks each of them for its snapshot. A broker
serves no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any, Final

import click

from majordomus.cli.options import otlp_options
from majordomus.cli.output import log_to_stderr
from majordomus.cli.processes import exit_on_sigterm
from majordomus.cli.remote import key_options, keys, timeout_option
from majordomus.cli.run.http_address import NEEDS_OTEL, address_of, check_extra
from majordomus.errors import ConfigurationError
from majordomus.net import endpoints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from majordomus.net.client.async_client import AsyncClient

SERVICE: Final = "majordomus-broker"
"""The `service.name` of what is sent to a collector."""
MOST_CONNECTIONS: Final = 100
"""HTTP connections at a time; further ones get 503."""


@click.command(short_help="Serve the metrics of brokers to Prometheus.")
@click.option(
    "--broker",
    "brokers",
    multiple=True,
    metavar="URL",
    envvar="MAJORDOMUS_BROKER",
    default=[endpoints.DEFAULT],
    show_default=True,
    help="A broker to read; repeat it for more. The metrics have its URL as a label.",
)
@key_options
@click.option(
    "--bind",
    metavar="HOST:PORT",
    default="127.0.0.1:9464",
    show_default=True,
    help="Where to serve HTTP. Port 0 is any free one.",
)
@timeout_option(5.0)
@otlp_options("spans and metrics")
@click.option("-v", "--verbose", is_flag=True, help="Log each HTTP request.")
def command(
    brokers: tuple[str, ...],
    bind: str,
    timeout: float,
    otlp: str | None,
    otlp_interval: float,
    verbose: bool,
) -> None:
    """Serve /metrics for Prometheus, /healthz and /readyz over HTTP, until SIGTERM or SIGINT.

    /readyz answers 200 while each broker serves, and 503 while one drains or does not answer.
    /healthz answers 200 while this process runs. It prints "listening on URL" when it is ready.
    """
    exit_on_sigterm()
    log_to_stderr(verbose)
    host, port = address_of("--bind", bind)
    check_extra()
    from majordomus.observe import web
    from majordomus.observe.exporter import per_broker

    urls = list(dict.fromkeys(brokers))
    for url in urls:
        endpoints.to_connect(url)
    per_broker(len(urls))
    listening = _listen(host, port)
    with contextlib.closing(listening):
        asyncio.run(_serve(web, urls, listening, timeout, verbose, otlp, otlp_interval))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        # The address is written correctly, so this is not wrong usage (exit code 2).
        raise click.ClickException(
            f"cannot bind {host}:{port}: {os.strerror(error.errno or 0)}"
        ) from error


async def _serve(
    web: Any,
    urls: list[str],
    listening: socket.socket,
    timeout: float,
    verbose: bool,
    otlp: str | None,
    otlp_interval: float,
) -> None:
    import uvicorn

    from majordomus.net.client.async_client import AsyncClient
    from majordomus.observe import ended, snapshot

    async with contextlib.AsyncExitStack() as stack:
        if otlp is not None:
            provider = stack.enter_context(_provider(otlp))
        asks: dict[str, Any] = {}
        for url in urls:
            client = await stack.enter_async_context(AsyncClient(url, timeout=timeout, **keys()))
            questions = asker(client, snapshot.QUESTION), asker(client, ended.QUESTION)
            asks[url] = web.Questions(*questions)
            if otlp is not None:
                from majordomus.cli.run.spans import follow

                task = asyncio.create_task(follow(client, url, provider))
                stack.callback(task.cancel)
        read = web.Brokers(asks, timeout)
        if otlp is not None:
            from majordomus.cli.run.spans import push_metrics
            from majordomus.contrib.otel.metrics import OtlpMetrics

            metrics = OtlpMetrics(otlp, read.registry, SERVICE)
            pushing = asyncio.create_task(push_metrics(read.update, metrics, otlp_interval))
            stack.callback(pushing.cancel)
        config = uvicorn.Config(
            web.make_app(read),
            log_config=None,
            access_log=verbose,
            lifespan="off",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
        )
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"listening on http://{shown}:{port}")
        with contextlib.suppress(KeyboardInterrupt):
            await uvicorn.Server(config).serve(sockets=[listening])


@contextlib.contextmanager
def _provider(otlp: str) -> Iterator[Any]:
    """Send spans inside, and what is left at the end. Raises: ConfigurationError."""
    try:
        from majordomus.cli.run.spans import make_provider
    except ImportError as error:
        raise ConfigurationError(NEEDS_OTEL) from error

    provider = make_provider(otlp)
    try:
        yield provider
    finally:
        provider.shutdown()


def asker(client: AsyncClient, question: str) -> Callable[[list[bytes]], Awaitable[list[bytes]]]:
    """Return a function that asks the client's broker this question."""

    async def ask(body: list[bytes]) -> list[bytes]:
        return [bytes(frame) for frame in (await client.call(question, body)).frames]

    return ask
