"""`majordomus stubs` writes typed Python clients of services."""

from __future__ import annotations

from pathlib import Path

import click

from majordomus.cli.contracts import of_broker, of_source
from majordomus.cli.remote import broker_option, timeout_option
from majordomus.errors import ConfigurationError


@click.command(short_help="Write typed Python clients of services.")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of the modules; it is made if need be.",
)
@broker_option
@timeout_option(5.0)
@click.option("--from", "source", metavar="SOURCE", help="A file, or MODULE:WORKER, not a broker.")
def command(out: Path, brokers: tuple[str, ...], timeout: float, source: str | None) -> None:
    """Write one module for each group of services: its types, and functions that connect a client.

    The group of a service is its name before the last dot. The same contracts make the same files.
    """
    from majordomus.contracts import stubs

    found = of_broker(brokers, timeout) if source is None else of_source(source)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in stubs.modules(found).items():
            path = out / f"{name}.py"
            path.write_text(text, "utf-8")
            click.echo(str(path))
    except OSError as error:
        raise ConfigurationError(f"--out {out}: cannot write there: {error.strerror}") from None
