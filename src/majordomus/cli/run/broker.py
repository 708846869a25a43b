"""`majordomus broker`: settings are read, endpoints are bound, SIGTERM drains."""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from majordomus.cli.config import TYPES, BrokerConfig, broker_config
from majordomus.cli.output import LOG_FORMATS, log_to_stderr
from majordomus.cli.processes import exit_on_sigterm
from majordomus.cli.run.app import App, Reloader
from majordomus.cli.run.supervise import BrokerSupervisor
from majordomus.errors import ConfigurationError
from majordomus.net import endpoints

if TYPE_CHECKING:
    from majordomus.net.broker.broker import Broker

FLAGS: Final = {
    "name": "How the broker calls itself.",
    "worker_interval": "Heartbeat interval of workers, in seconds.",
    "client_interval": "Heartbeat interval of clients with presence, in seconds.",
    "liveness": "Silent intervals after which a peer is lost.",
    "default_ttl": "Deadline of a request that brings none, in seconds.",
    "max_ttl": "Longest deadline of any request, in seconds.",
    "max_attempts": "Dispatches of one request before it has failed.",
    "max_message": "Largest body of a message, in bytes.",
    "max_queue": "Requests waiting in all.",
    "max_service_queue": "Requests waiting for one service.",
    "busy_timeout": "How long a busy 0.1 or 0.2 worker may be silent, in seconds.",
    "legacy_errors": "What 0.1, 0.2 and Delphi clients get for a failure: silence or reply.",
    "acl": "A TOML file of access rules; read again when it changes.",
    "delphi_unverified": "Accept Delphi messages without a hash: true or false.",
    "curve": "Encrypt; the broker's key pair is made at the first start and kept.",
    "certificate": "Where that pair is kept: a file. [default: broker.key in the state folder]",
    "clients": "Who may connect: a file or folder of keys, or any.",
    "passwords": "A file of passwords to ask for, on this machine alone.",
    "insecure": "Bind also where others can reach it, without encryption.",
}
"""The settings that have a flag of their own; ``--set`` reaches all of them."""

METAVARS: Final[dict[object, str]] = {int: "N", float: "SECONDS", str: "TEXT", bool: "BOOL"}


def setting_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """One option for each of FLAGS. They stay text here: config.py alone judges values."""
    for key, description in reversed(FLAGS.items()):
        name = f"--{key.replace('_', '-')}"
        # Alone, what is true or false means true.
        bare = key in ("curve", "insecure")
        alone: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if bare else {}
        metavar = "" if alone else METAVARS[TYPES[key]]
        command = click.option(name, key, metavar=metavar, help=description, **alone)(command)
    return command


OBJECTS_BETWEEN_LOOKS: Final = 50_000


@click.command(short_help="Run a broker.")
@click.option(
    "--bind",
    multiple=True,
    metavar="URL",
    help="Where to listen: tcp, ipc or inproc; several times for several. "
    f"[default: {endpoints.DEFAULT}]",
)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    envvar="MAJORDOMUS_CONFIG",
    metavar="FILE",
    help="A TOML file with a [broker] table.",
)
@click.option(
    "--app",
    metavar="MODULE:NAME",
    help="A broker with hooks: a subclass of Broker, or what makes one.",
)
@click.option("--reload", is_flag=True, help="Take the app anew when a .py file here changes.")
@setting_flags
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any setting; several times for several.",
)
@click.option(
    "--token-key",
    type=click.Path(path_type=Path),
    envvar="MAJORDOMUS_TOKEN_KEY",
    metavar="FILE",
    help="Ask for tokens, and make them with this secret key (majordomus token key NAME).",
)
@click.option(
    "--token-keys",
    type=click.Path(path_type=Path),
    envvar="MAJORDOMUS_TOKEN_KEYS",
    metavar="PATH",
    help="Ask for tokens, and accept those of this public key, or of all in this folder.",
)
@click.option(
    "--auth-service",
    envvar="MAJORDOMUS_AUTH_SERVICE",
    metavar="NAME",
    default="auth",
    show_default=True,
    help="The service that decides about logins.",
)
@click.option("--supervise", is_flag=True, help="Start it again should it die, within 2 s.")
@click.option("--supervised", type=(int, int, str), hidden=True)
@click.option("-v", "--verbose", is_flag=True, help="Log who comes and goes.")
@click.option(
    "--log-format",
    type=click.Choice(list(LOG_FORMATS)),
    envvar="MAJORDOMUS_LOG_FORMAT",
    default="text",
    show_default=True,
    help="One event is one line, for people or for programs.",
)
def command(
    bind: tuple[str, ...],
    file: Path | None,
    app: str | None,
    reload: bool,
    assignments: tuple[str, ...],
    token_key: Path | None,
    token_keys: Path | None,
    auth_service: str,
    supervise: bool,
    supervised: tuple[int, int, str] | None,
    verbose: bool,
    log_format: str,
    **flags: str | None,
) -> None:
    """Run a broker until SIGTERM or SIGINT, then drain and leave.

    Prints one line "listening on URL" per endpoint when it is ready. Settings come from the file,
    MAJORDOMUS_* variables and flags, in rising order. SIGHUP reads them, and the app, anew.
    """
    if supervise and supervised is None:
        sys.exit(BrokerSupervisor(_arguments).run())
    exit_on_sigterm()
    if supervised is not None and supervised[2]:
        bind = tuple(supervised[2].split())
    if reload and not app:
        raise ConfigurationError("--reload is for an --app: settings are read anew on SIGHUP")

    def configure() -> BrokerConfig:
        found = broker_config(file, os.environ, flags, assignments, bind)
        if supervised is not None:  # the supervisor's word, where it had to listen before
            found = found._replace(given=tuple(key for key in found.given if key != "bind"))
        return found

    config = configure()
    raise_descriptor_limit()
    log_to_stderr(verbose, log_format)
    middleware = token_auth(token_key, token_keys, auth_service)
    app_of = App(app or "", configure, middleware, Path.cwd() if reload else None)
    serve(config, supervised, app_of)


def _arguments(descriptor: int, restarts: int, endpoints: str) -> list[str]:
    """Our own command line again, for the process that is supervised."""
    return [*sys.argv[1:], "--supervised", str(descriptor), str(restarts), endpoints]


def raise_descriptor_limit() -> None:
    """Every peer is a descriptor: take as many as this process may have."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def how_to_connect(broker: Broker) -> Iterator[str]:
    """What clients of an encrypted broker have to be told, line by line."""
    policy = broker.security_policy
    if policy.file is not None:
        yield f"certificate {policy.file} ({'new' if policy.is_new else 'kept'})"
    yield f"public key {broker.public_key}"
    for url in broker.client_endpoints:
        key = "" if url.startswith("majordomus://") else f" --server-key='{broker.public_key}'"
        yield f"clients connect with --broker '{url}'{key}"
    if policy.clients in ("", "any"):
        yield "anybody who has that key may connect (--clients FILE says who may)"
    else:
        yield f"clients need a key that {policy.clients} knows (majordomus keygen NAME)"


def token_auth(key: Path | None, public: Path | None, auth_service: str) -> list[object]:
    """The middleware that asks for tokens, if it is wanted. Raises: ConfigurationError."""
    if key is None and public is None:
        return []
    from majordomus.middleware.token_auth import TokenAuth

    return [TokenAuth(auth_service=auth_service, key=key, public_keys=public or ())]


def serve(
    config: BrokerConfig,
    supervised: tuple[int, int, str] | None,
    app: App,
) -> None:
    """Until a signal. Raises: ClickException when an endpoint cannot be bound, being in use, and
    ConfigurationError for access rules that cannot be used."""
    from majordomus.security import acl

    if config.settings.acl:
        acl.load(Path(config.settings.acl))
    descriptor, restarts, _ = supervised or (-1, 0, "")
    broker = app.make(config)
    broker.restarts = restarts
    broker.check()
    broker.security_policy.check_files()
    try:
        broker.open()
    except ConfigurationError as error:
        # The URL is right, the flags are judged: what fails now is this machine, not the usage.
        raise click.ClickException(str(error)) from error

    def announce() -> None:
        click.echo("\n".join(f"listening on {url}" for url in broker.endpoints))
        if descriptor >= 0:
            os.write(descriptor, " ".join(broker.endpoints).encode())
            os.close(descriptor)
        if broker.public_key:
            click.echo("\n".join(how_to_connect(broker)))

    spare_the_collector()
    with Reloader(broker, app, config.bind):
        broker.run(ready=announce)


def spare_the_collector() -> None:
    """Let Python look for cycles seldom: a broker makes and frees objects by the hundred thousand a
    second, few of which are in a cycle. By default it looks at every seven hundredth."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_LOOKS, 20, 20)
