"""Typed events: a handler's annotation, or the argument `of`, decodes the body of an event.

    def paid(order: Order) -> None: ...              # the body, as a value
    def paid(order: Order, event: Event) -> None: ...

An event whose body does not fit is dropped, and logged with the field.
"""

from __future__ import annotations

import functools
import inspect
import logging
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from majordomus.errors import BadRequest, ConfigurationError
from majordomus.messages.bodies import Decoder, decoder_for
from majordomus.net.events import AsyncSubscription, Event, Subscription

logger = logging.getLogger("majordomus.events")

T = TypeVar("T")


def value_of(event: Event, decode: Decoder) -> Any:
    """Return the value of an event. Raises: BadRequest."""
    type_ = event.metadata.get("type", "")
    return decode(event.frames, type_ if isinstance(type_, str) else "")


def typed_handler(function: Callable[..., Any], of: Any = None) -> Callable[[Event], Any]:
    """Return a handler of events for `function`; itself, if it takes an event.

    `of`: the type of the body, for a function without annotations.
    Raises: ConfigurationError for arguments that an event cannot fill.
    """
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError, NameError):  # a builtin, a partial, a name for type checkers
        hints, parameters = {}, []
    wanted = [one for one in parameters if one.default is one.empty and one.kind in _FILLED]
    kinds = [hints.get(one.name, of) for one in wanted] or [of]
    bodies = [kind for kind in kinds if kind not in (Event, None, Any)]
    if not bodies:
        return function
    if len(kinds) > 2 or len(bodies) > 1:
        raise ConfigurationError("a handler of events takes the body, the event or both")
    decode = decoder_for(bodies[0])

    def arguments(event: Event) -> list[Any] | None:
        try:
            value = value_of(event, decode)
        except BadRequest as error:
            logger.warning("an event of %s was dropped: %s", event.topic, error.text)
            return None
        return [event if kind is Event else value for kind in kinds]

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def handle(event: Event) -> Any:
            filled = arguments(event)
            return None if filled is None else await function(*filled)

        return handle

    @functools.wraps(function)
    def call(event: Event) -> Any:
        filled = arguments(event)
        return None if filled is None else function(*filled)

    return call


_FILLED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class TypedSubscription(Generic[T], Iterator[T]):
    """The values of events as they come; events that do not fit are left out and logged."""

    def __init__(self, subscription: Subscription, of: Any) -> None:
        self._subscription = subscription
        self._decode = decoder_for(of)

    def __next__(self) -> T:
        while True:
            event = next(self._subscription)
            try:
                value: T = value_of(event, self._decode)
            except BadRequest as error:
                logger.warning("an event of %s was dropped: %s", event.topic, error.text)
            else:
                return value

    def close(self) -> None:
        """End the subscription. May be repeated."""
        self._subscription.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncTypedSubscription(Generic[T], AsyncIterator[T]):
    """As `TypedSubscription`, for `async for`."""

    def __init__(self, subscription: AsyncSubscription, of: Any) -> None:
        self._subscription = subscription
        self._decode = decoder_for(of)

    async def __anext__(self) -> T:
        while True:
            event = await anext(self._subscription)
            try:
                value: T = value_of(event, self._decode)
            except BadRequest as error:
                logger.warning("an event of %s was dropped: %s", event.topic, error.text)
            else:
                return value

    async def aclose(self) -> None:
        """End the subscription. May be repeated."""
        await self._subscription.aclose()
