"""What `call`, `services` and `workers` share: flags that name a broker, one question to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from majordomus.errors import MajordomusError, NotSupported, error_for
from majordomus.net import endpoints

Command = TypeVar("Command", bound=Callable[..., Any])

broker_option = click.option(
    "--broker",
    "brokers",
    multiple=True,
    metavar="URL",
    envvar="MAJORDOMUS_BROKER",
    default=[endpoints.DEFAULT],
    show_default=True,
    help="The broker; several times for several, the next is taken when one is lost.",
)


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
    from majordomus.net.client import Client

    with Client(list(brokers)) as client:
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
