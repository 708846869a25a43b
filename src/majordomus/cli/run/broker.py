"""`majordomus broker` reads settings, binds endpoints and drains on SIGTERM."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from majordomus import system
from majordomus.cli.config import TYPES, BrokerConfig, broker_config
from majordomus.cli.options import verbose_option
from majordomus.cli.output import log_options, log_to_stderr
from majordomus.cli.processes import exit_on_sigterm
from majordomus.cli.run.app import App, Reloader
from majordomus.cli.run.supervise import BrokerSupervisor
from majordomus.durable.store import StoreError, StoreUnusableError
from majordomus.errors import ConfigurationError
from majordomus.net import endpoints

if TYPE_CHECKING:
    from majordomus.net.broker.broker import Broker

FLAGS: Final = {
    "name": "The broker's name.",
    "worker_interval": "Heartbeat interval of workers, in seconds.",
    "client_interval": "Heartbeat interval of clients with presence, in seconds.",
    "liveness": "Silent intervals after which a peer is lost.",
    "default_ttl": "Deadline of a request without one, in seconds.",
    "max_ttl": "Longest deadline of any request, in seconds.",
    "max_attempts": "Attempts of one request before it fails.",
    "max_message": "Largest body of a message, in bytes.",
    "max_queue": "Limit of queued requests in all.",
    "max_service_queue": "Limit of queued requests of one service.",
    "busy_timeout": "How long a busy 0.1 or 0.2 worker may be silent, in seconds.",
    "legacy_errors": "Reply to 0.1, 0.2 and Delphi clients on failure: silence or reply.",
    "store": "Store durable requests in this file: sqlite:FILE.",
    "acl": "A TOML file of access rules; read again when it changes.",
    "delphi_unverified": "Accept Delphi messages without a hash: true or false.",
    "curve": "Encrypt connections. The broker's key pair is made at the first start and kept.",
    "certificate": "The file of that key pair. [default: broker.key in the state folder]",
    "clients": "Keys that may connect: a file or folder of public keys, or any.",
    "passwords": "Require a password from this file; on this machine alone.",
    "insecure": "Permit endpoints that other machines can reach without encryption.",
}
"""Setting → help, for the settings with a flag of their own. ``--set`` can set every setting."""

METAVARS: Final[dict[object, str]] = {int: "N", float: "SECONDS", str: "TEXT", bool: "BOOL"}


def setting_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add one option for each of FLAGS. Values remain text here: config.py converts and checks."""
    for key, description in reversed(FLAGS.items()):
        name = f"--{key.replace('_', '-')}"
        # These flags may be given without a value, which means true.
        bare = key in ("curve", "insecure")
        alone: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if bare else {}
        metavar = "" if alone else METAVARS[TYPES[key]]
        command = click.option(name, key, metavar=metavar, help=description, **alone)(command)
    return command


OBJECTS_BETWEEN_COLLECTIONS: Final = 50_000


@click.command(short_help="Run a broker.")
@click.option(
    "--bind",
    multiple=True,
    metavar="URL",
    help=f"Endpoint to bind: tcp, ipc or inproc; may be repeated. [default: {endpoints.DEFAULT}]",
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
    help="A broker with hooks: a subclass of Broker, a function or an instance.",
)
@click.option(
    "--reload", is_flag=True, help="Reload the app when a .py file below this folder changes."
)
@setting_flags
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any setting; may be repeated.",
)
@click.option(
    "--token-key",
    type=click.Path(path_type=Path),
    envvar="MAJORDOMUS_TOKEN_KEY",
    metavar="FILE",
    help="Require tokens, and sign them with this secret key (majordomus token key NAME).",
)
@click.option(
    "--token-keys",
    type=click.Path(path_type=Path),
    envvar="MAJORDOMUS_TOKEN_KEYS",
    metavar="PATH",
    help="Require tokens signed by this public key, or by one of this folder.",
)
@click.option(
    "--auth-service",
    envvar="MAJORDOMUS_AUTH_SERVICE",
    metavar="NAME",
    default="auth",
    show_default=True,
    help="The service that checks logins.",
)
@click.option(
    "--check",
    "check_only",
    is_flag=True,
    help="Check settings, app, rights, store, keys and endpoints, and exit; "
    "nothing is bound or made.",
)
@click.option("--supervise", is_flag=True, help="Restart the broker within 2 s if it dies.")
@click.option("--supervised", type=(int, int, str), hidden=True)
@verbose_option("Log connections and registrations.")
@log_options
def command(
    bind: tuple[str, ...],
    file: Path | None,
    app: str | None,
    reload: bool,
    assignments: tuple[str, ...],
    token_key: Path | None,
    token_keys: Path | None,
    auth_service: str,
    check_only: bool,
    supervise: bool,
    supervised: tuple[int, int, str] | None,
    verbose: bool,
    log_format: str,
    log_levels: tuple[str, ...],
    log_otlp: str | None,
    **flags: str | None,
) -> None:
    """Run a broker until SIGTERM or SIGINT, then drain and exit.

    Prints one line "listening on URL" for each endpoint when it is ready. Flags override
    MAJORDOMUS_* variables, which override the file. SIGHUP reloads all of them, and the app.
    """
    if supervise and supervised is None and not check_only:
        sys.exit(BrokerSupervisor(_arguments).run())
    exit_on_sigterm()
    if supervised is not None and supervised[2]:
        bind = tuple(supervised[2].split())
    if reload and not app:
        raise ConfigurationError("--reload needs --app; send SIGHUP to reload settings")

    def configure() -> BrokerConfig:
        found = broker_config(file, os.environ, flags, assignments, bind)
        if supervised is not None:  # the supervisor has set `bind`, not the user
            found = found._replace(given=tuple(key for key in found.given if key != "bind"))
        return found

    config = configure()
    system.raise_descriptor_limit()
    log_to_stderr(verbose, log_format, log_levels, otlp=log_otlp, service="majordomus-broker")
    middleware = token_auth(token_key, token_keys, auth_service)
    app_of = App(app or "", configure, middleware, Path.cwd() if reload else None)
    if check_only:
        click.echo("\n".join(checked(config, app_of)))
        return
    serve(config, supervised, app_of)


def _arguments(descriptor: int, restarts: int, endpoints: str) -> list[str]:
    """Return this command line for the supervised process."""
    return [*sys.argv[1:], "--supervised", str(descriptor), str(restarts), endpoints]


def how_to_connect(broker: Broker) -> Iterator[str]:
    """Yield the lines with the flags that clients of an encrypted broker need."""
    policy = broker.security_policy
    if policy.file is not None:
        yield f"certificate {policy.file} ({'new' if policy.is_new else 'kept'})"
    yield f"public key {broker.public_key}"
    for url in broker.client_endpoints:
        key = "" if url.startswith("majordomus://") else f" --server-key='{broker.public_key}'"
        yield f"clients connect with --broker '{url}'{key}"
    if policy.clients in ("", "any"):
        yield "every client with that key may connect (restrict this with --clients FILE)"
    else:
        yield f"only clients whose public key is in {policy.clients} may connect"


def token_auth(key: Path | None, public: Path | None, auth_service: str) -> list[object]:
    """Return the middleware for tokens, if there is a key. Raises: ConfigurationError."""
    if key is None and public is None:
        return []
    from majordomus.middleware.token_auth import TokenAuth

    return [TokenAuth(auth_service=auth_service, key=key, public_keys=public or ())]


def check_audit(path: Path) -> None:
    """Check that the audit log can be written, and make nothing. Raises: ConfigurationError."""
    problem = ""
    if path.is_dir():
        problem = "it is a folder"
    elif not path.parent.is_dir():
        problem = "its folder does not exist"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        problem = "it cannot be written"
    if problem:
        raise ConfigurationError(f"audit = {str(path)!r}: {problem}")


def checked(config: BrokerConfig, app: App) -> Iterator[str]:
    """Check everything that a start would, but bind nothing and make no file; yield what was found.

    Raises: ConfigurationError for the first thing that is wrong.
    """
    from majordomus.net.broker.limits.connection_limits import exempt_networks
    from majordomus.net.zmq import select as wires
    from majordomus.security import acl

    wires.check()
    broker = app.make(config)
    broker.check()
    settings = broker.settings
    named = [name for name in config.given if name != "bind"]
    yield f"settings: {', '.join(named) or 'all are defaults'}"
    if app.target:
        yield f"app: {app.target}"
    if settings.acl:
        acl.load(Path(settings.acl))
        yield f"rights: {settings.acl}"
    if settings.audit:
        check_audit(Path(settings.audit).absolute())
        yield f"audit: {settings.audit}"
    if settings.store:
        check_store(settings.store)
        yield f"store: {settings.store}"
    exempt_networks(settings.exempt_addresses)
    policy = broker.security_policy
    made = policy.check_files(make=False)
    if policy.encrypted:
        yield f"certificate: {policy.file or 'given'}" if made else "certificate: a start makes it"
    for url in broker.to_bind:
        yield f"endpoint: {url}"
    yield "no problem was found"


def check_store(named: str) -> None:
    """Check the folder and file of a store without opening it: a broker may use it now.

    Raises: ConfigurationError.
    """
    from majordomus.durable.files import BALLAST, Ballast, check_disk, real_file
    from majordomus.durable.opening import path_of, wrong_head

    problem = ""
    try:
        file = real_file(Path(path_of(named)))
        Ballast(Path(f"{file}.ballast"), BALLAST).check()
        if not os.access(file.parent, os.W_OK | os.X_OK):
            problem = f"{file.parent} cannot be written"
        elif file.exists() and (wrong := wrong_head(file)):
            problem = f"{file} {wrong}"
        else:
            check_disk(file.parent)
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}"
    except StoreError as error:
        problem = str(error)
    if problem:
        raise ConfigurationError(f"--store {named}: {problem}")


def serve(
    config: BrokerConfig,
    supervised: tuple[int, int, str] | None,
    app: App,
) -> None:
    """Serve until a signal.

    Raises: ClickException when an endpoint cannot be bound, ConfigurationError for access
    rules that cannot be used.
    """
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
    except StoreUnusableError:
        raise
    except ConfigurationError as error:
        # URL and flags are correct, so this is not wrong usage (exit code 2) but a failure (1).
        raise click.ClickException(str(error)) from error

    def announce() -> None:
        click.echo("\n".join(f"listening on {url}" for url in broker.endpoints))
        if descriptor >= 0:
            os.write(descriptor, " ".join(broker.endpoints).encode())
            os.close(descriptor)
        if broker.public_key:
            click.echo("\n".join(how_to_connect(broker)))

    collect_rarely()
    with Reloader(broker, app, config.bind):
        broker.run(ready=announce)


def collect_rarely() -> None:
    """Make the cyclic garbage collector run rarely.

    A broker makes and frees some 100,000 objects a second, few of them in cycles. By default the
    collector runs after every 700 of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, 20, 20)
