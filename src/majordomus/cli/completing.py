"""What the shell completes from a running broker: the names of services, and fields of a body.

The broker is that of the command line so far, or of the environment. Completion never fails and
never waits for longer than `LONGEST`: without a broker it has nothing to offer.
"""

from __future__ import annotations

from typing import Any, Final

import click
from click.shell_completion import CompletionItem

LONGEST: Final = 1.0
"""Seconds."""


def SERVICE(context: click.Context, _parameter: click.Parameter, text: str) -> list[CompletionItem]:  # noqa: N802 - passed as a constant
    """Offer the services whose names begin with `text`."""
    names = [one["service"] for one in _told(context, "mmi.services") or []]
    return [CompletionItem(name) for name in names if name.startswith(text)]


def FIELDS(context: click.Context, _parameter: click.Parameter, text: str) -> list[CompletionItem]:  # noqa: N802 - passed as a constant
    """Offer a JSON body with the fields of the service's request."""
    # While the value of an option is missing, click has not read the arguments before it.
    service = context.params.get("service") or next(iter(context.args), "")
    told = _told(context, "mmi.contract", str(service)) if service else None
    contracts = [one["contract"] for one in (told or {}).get("contracts", []) if one["contract"]]
    if not contracts or text not in ("", "{"):
        return []
    schema = contracts[0].get("request", {}).get("schema", {})
    fields = schema.get("required") or list(schema.get("properties", {}))
    return [CompletionItem("{" + ", ".join(f'"{name}": ' for name in fields) + "}")]


def _told(context: click.Context, question: str, about: str = "") -> Any:
    """Ask the broker; None for every failure."""
    from majordomus.cli.remote import ask

    try:
        with context.scope(cleanup=False):
            return ask(tuple(context.params.get("brokers") or ()), LONGEST, question, about)
    except Exception:
        return None
