"""What `call`, `services` and `workers` share: flags that name a broker, one question to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from majordomus.errors import MajordomusError, NotSupported, error_for
from majordomus.net import endpoints
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.net.client.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])

_broker = click.option(
    "--broker",
    "brokers",
    multiple=True,
    metavar="URL",
    envvar="MAJORDOMUS_BROKER",
    default=[endpoints.DEFAULT],
    show_default=True,
    help="The broker; several times for several, the next is taken when one is lost.",
)


dialect_option = click.option(
    "--dialect",
    type=click.Choice([dialect.value for dialect in Dialect]),
    envvar="MAJORDOMUS_DIALECT",
    default=Dialect.MDP03.value,
    show_default=True,
    help="What to speak, for brokers that are not ours.",
)


def broker_option(command: Command) -> Command:
    """``--broker``, and what an encrypted one asks for; `keys` has what was said of that."""
    return _broker(key_options(command))


def key_options(command: Command) -> Command:
    """``--server-key``, ``--key``, ``--plain`` and ``--login``."""
    for option in reversed(_KEYS):
        command = option(command)
    return command


def _note(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    ctx.meta[f"{__name__}.{parameter.name}"] = value


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
        callback=_note,
        help="The public key of an encrypted broker.",
    ),
    _file_option(
        "--key", "Your own key pair, for a broker that lets in only known ones (majordomus keygen)."
    ),
    _file_option(
        "--plain", "A file with one line, user:password, for a broker that asks for that."
    ),
    _file_option("--login", "A file with one line, user:secret, for a broker that makes tokens."),
)


def _noted() -> dict[str, Any]:
    """What the options of this command line said; nothing where no command runs."""
    context = click.get_current_context(silent=True)
    return context.meta if context is not None else {}


def key_flags() -> list[str]:
    """The same options, for a process of ours."""
    meta = _noted()
    names = ("server_key", "key", "plain", "login")
    given = {name: meta.get(f"{__name__}.{name}") for name in names}
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value]


def keys() -> dict[str, Any]:
    """What these options say, as arguments of clients and workers. Raises: ConfigurationError."""
    meta = _noted()
    given: dict[str, Any] = {}
    if meta.get(f"{__name__}.server_key"):
        given["server_key"] = meta[f"{__name__}.server_key"]
    if meta.get(f"{__name__}.key"):
        given["certificate"] = meta[f"{__name__}.key"]
    for name in ("plain", "login"):
        if meta.get(f"{__name__}.{name}"):
            from majordomus.security import files

            user, _, secret = files.read_secret(meta[f"{__name__}.{name}"]).strip().partition(":")
            given[name] = (user, secret)
    return given


def timeout_option(seconds: float) -> Callable[[Command], Command]:
    """``--timeout``, `seconds` by default."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        envvar="MAJORDOMUS_TIMEOUT",
        default=seconds,
        show_default=True,
        help="How long to wait for the answer.",
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def ask(brokers: tuple[str, ...], timeout: float, question: str, about: str = "") -> Any:
    """The JSON that the broker answers to one of its ``mmi.`` names.

    Raises: a StatusError for a refusal, DeadlineExceeded when no broker is there.
    """
    from majordomus.net.client.client import Client

    with Client(list(brokers), **keys()) as client:
        return answer(client, timeout, question, about)


def answer(client: Client, timeout: float, question: str, about: str = "") -> Any:
    """The same over a client that is there."""
    frames = client.call(question, about.encode(), timeout=timeout).frames
    status = bytes(frames[0]) if frames else b""
    if status == b"501":
        raise NotSupported(f"this broker does not answer {question}")
    if status != b"200":
        raise error_for(
            int(status) if status.isdigit() else 500, [b"the broker refuses " + question.encode()]
        )
    try:
        return json.loads(bytes(frames[1]))
    except (IndexError, ValueError) as error:
        raise MajordomusError(f"the broker's answer to {question} is not JSON") from error
