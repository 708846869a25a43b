"""The flags that name a broker and its credentials, and one question to a broker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from majordomus.cli import profiles
from majordomus.cli.options import Seconds
from majordomus.cli.output import stdin_or_refuse
from majordomus.errors import (
    ConfigurationError,
    DeadlineExceeded,
    MajordomusError,
    NotSupported,
    StatusError,
    Unauthenticated,
    error_for,
)
from majordomus.net import endpoints
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.net.client.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])

CONNECT: Final = 2.0
"""Seconds that a command waits for a connection to a broker."""


class _Endpoint(click.types.StringParamType):
    """The URL of a broker. The variable may have several, separated by commas or spaces."""

    name = "url"

    def split_envvar_value(self, rv: str) -> list[str]:
        return endpoints.listed(rv, "MAJORDOMUS_BROKER")


def brokers_option(words: str, **more: Any) -> Callable[[Command], Command]:
    """Add ``--broker`` alone."""
    return click.option(
        "--broker",
        "brokers",
        multiple=True,
        type=_Endpoint(),
        metavar="URL",
        envvar="MAJORDOMUS_BROKER",
        help=words,
        **more,
    )


_broker = brokers_option(
    "The broker. Repeat it for more: the next one is used when one is lost.",
    default=[endpoints.DEFAULT],
    show_default=True,
)


dialect_option = click.option(
    "--dialect",
    type=click.Choice([dialect.value for dialect in Dialect]),
    envvar="MAJORDOMUS_DIALECT",
    default=Dialect.MDP03.value,
    show_default=True,
    help="The dialect, for brokers of other projects.",
)


_profile = click.option(
    "--profile",
    metavar="NAME",
    envvar="MAJORDOMUS_PROFILE",
    is_eager=True,
    expose_value=False,
    callback=profiles.use,
    help="A broker and its keys (majordomus profile add NAME).",
)


def broker_option(command: Command) -> Command:
    """Add ``--broker``, ``--profile`` and the options of `key_options`."""
    return _broker(_profile(key_options(command)))


def key_options(command: Command) -> Command:
    """Add ``--server-key``, ``--key``, ``--plain`` and ``--login``; `keys` returns their values."""
    for option in reversed(_KEYS):
        command = option(command)
    return command


def _note(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    ctx.meta[f"{__name__}.{parameter.name}"] = value


def not_empty(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse an empty key, such as that of a variable of the shell that is not set.

    Without a key the connection is not encrypted. Raises: ConfigurationError.
    """
    if value is not None and not value.strip():
        raise ConfigurationError(
            f"{parameter.opts[0]} is empty: give the broker's public key, or leave the flag out"
        )
    return value


def _note_key(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    _note(ctx, parameter, not_empty(ctx, parameter, value))


def _file_option(flag: str, words: str) -> Callable[[Command], Command]:
    return click.option(
        flag,
        type=click.Path(path_type=Path),
        metavar="FILE",
        envvar=f"MAJORDOMUS_{flag.removeprefix('--').upper()}",
        expose_value=False,
        callback=_note,
        help=words,
    )


_KEYS = (
    click.option(
        "--server-key",
        metavar="KEY",
        envvar="MAJORDOMUS_SERVER_KEY",
        expose_value=False,
        callback=_note_key,
        help="The public key of an encrypted broker.",
    ),
    _file_option(
        "--key", "Your key pair (majordomus keygen), for a broker that accepts known keys only."
    ),
    _file_option("--plain", "A file with one line, user:password, for a broker with --passwords."),
    _file_option("--login", "A file with one line, user:secret, for a broker with --token-key."),
)


def _noted() -> dict[str, Any]:
    """Return the noted values of this command line; {} outside of a command."""
    context = click.get_current_context(silent=True)
    return context.meta if context is not None else {}


def key_flags() -> list[str]:
    """Return the same options as arguments for a child process."""
    meta = _noted()
    names = ("server_key", "key", "plain", "login")
    given = {name: meta.get(f"{__name__}.{name}") for name in names}
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value]


def keys() -> dict[str, Any]:
    """Return the credentials as arguments of Client and Worker. Raises: ConfigurationError."""
    meta = _noted()
    given: dict[str, Any] = {}
    if meta.get(f"{__name__}.server_key"):
        given["server_key"] = meta[f"{__name__}.server_key"]
    if meta.get(f"{__name__}.key"):
        given["certificate"] = meta[f"{__name__}.key"]
    for name in ("plain", "login"):
        if meta.get(f"{__name__}.{name}"):
            from majordomus.security import files

            path = meta[f"{__name__}.{name}"]
            text = files.read_secret(path).strip()
            user, colon, secret = text.partition(":")
            if not (user and colon and secret) or len(text.splitlines()) > 1:
                raise ConfigurationError(f"--{name} {path}: expected one line, user:secret")
            given[name] = (user, secret)
    return given


def timeout_option(seconds: float) -> Callable[[Command], Command]:
    """Add ``--timeout``, `seconds` by default."""
    return click.option(
        "--timeout",
        type=Seconds(min=0, min_open=True),
        metavar="SECONDS",
        envvar="MAJORDOMUS_TIMEOUT",
        default=seconds,
        show_default=True,
        help="How long to wait for the reply.",
    )


def read_stdin() -> bytes:
    """Return all of stdin. Raises: ConfigurationError when it is closed."""
    return stdin_or_refuse('"-" reads').buffer.read()


def check_broker(client: Client, timeout: float) -> None:
    """Wait for the connection to a broker, CONNECT seconds at most.

    Raises: DeadlineExceeded, which tells how the last attempt at each endpoint has ended;
    Unauthenticated.
    """
    try:
        client.ping(timeout=min(timeout, CONNECT))
    except (DeadlineExceeded, Unauthenticated):
        raise
    except StatusError:  # a broker refuses the question, and so one is there
        return


def ask(brokers: tuple[str, ...], timeout: float, question: str, about: str = "") -> Any:
    """Ask a broker one of its ``mmi.`` names and return the JSON of the reply.

    Raises: StatusError when the broker refuses, DeadlineExceeded when no broker replies.
    """
    from majordomus.net.client.client import Client

    with Client(list(brokers), spread=False, **keys()) as client:
        return answer(client, timeout, question, about)


def answer(client: Client, timeout: float, question: str, about: str = "") -> Any:
    """Do the same with a client that is open. The pages of a list are joined."""
    first, *others = pages(client, timeout, question, about)
    for more in others:
        first += more
    return first


def pages(
    client: Client, timeout: float, question: str, about: str = "", cursor: bytes | None = None
) -> Iterator[Any]:
    """Yield the JSON of each page of an answer, from `cursor` on. Raises: as `ask`."""
    while True:
        body = [about.encode()] if cursor is None else [about.encode(), cursor]
        data, cursor = _page(client, timeout, question, body)
        yield data
        if cursor is None or not isinstance(data, list):
            return


def _page(
    client: Client, timeout: float, question: str, body: list[bytes]
) -> tuple[Any, bytes | None]:
    """Return the JSON of one page, and the frame that asks for the next one, if there is one."""
    frames = client.call(question, body, timeout=timeout).frames
    status = bytes(frames[0]) if frames else b""
    if status == b"501" and question.startswith("mmi.durable"):
        raise NotSupported("this broker has no store for durable requests (--store sqlite:FILE)")
    if status == b"501":
        raise NotSupported(f"this broker does not answer {question}")
    if status != b"200":
        raise error_for(
            int(status) if status.isdigit() else 500, [b"the broker refuses " + question.encode()]
        )
    try:
        return json.loads(bytes(frames[1])), bytes(frames[2]) if len(frames) > 2 else None
    except (IndexError, ValueError) as error:
        raise MajordomusError(f"the broker's reply to {question} is not JSON") from error
