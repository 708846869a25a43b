"""What a contract is made of: the annotations of a handler, and the arguments of its decorator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from majordomus.errors import ConfigurationError, class_name

ANY: Final = object()
"""The annotation of a body that may be anything."""


class BodyType(NamedTuple):
    """The annotation of a request or a reply, and whether it has any number of values."""

    annotation: Any = ANY
    stream: bool = False


class Facts(NamedTuple):
    """The arguments of `add` and `service` that describe a service.

    version: the version that the service states.
    examples: example values of the request.
    errors: the failures that it states: classes, or tuples of a class and the type of its detail.
    publishes: the types of the events that it publishes, by topic or pattern.
    idempotent: whether a repeated request has no further effect.
    once: whether callers have to send it as ONCE.
    """

    version: str = ""
    examples: Sequence[Any] = ()
    errors: Sequence[Any] = ()
    publishes: Sequence[tuple[str, Any]] = ()
    idempotent: bool = False
    once: bool = False


NO_FACTS: Final = Facts()


def make_facts(
    version: str, examples: Any, errors: Any, publishes: Any, idempotent: bool, once: bool
) -> Facts:
    """Return the facts that the arguments of a decorator state. Raises: ConfigurationError."""
    for name, given in (("examples", examples), ("errors", errors)):
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise ConfigurationError(f"{name} is a list, not {class_name(given)}")
    if not isinstance(publishes, Mapping):
        raise ConfigurationError(
            f"publishes is {{topic: type of its events}}, not {class_name(publishes)}"
        )
    return Facts(
        version, tuple(examples), tuple(errors), tuple(publishes.items()), idempotent, once
    )
