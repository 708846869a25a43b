"""Middleware of a client: code around its calls, in the order of `using`, the first one outermost.

    class Stamp(ClientMiddleware):
        def send(self, call, send):
            call.metadata["sent"] = time.time()
            return send(call)

    client = Client().using(Retry(3), Stamp())

A Client uses `send` for calls and `stream` for streamed replies, an AsyncClient `send_async` and
`stream_async`. Conversations and events pass by. A client without middleware does not look for any.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeAlias

from majordomus.errors import ConfigurationError
from majordomus.net.bodies import Body, Reply


@dataclasses.dataclass
class OutgoingCall:
    """One call on its way through middleware, which may change it.

    service: the name of the service.
    body: the body, as the caller gave it.
    timeout: seconds; None is the client's.
    metadata: the metadata that the caller gave.
    options: the other options of `call`.
    """

    service: str | bytes
    body: Body
    timeout: float | None
    metadata: dict[str, Any]
    options: dict[str, Any]


Send: TypeAlias = Callable[[OutgoingCall], Reply]
SendAsync: TypeAlias = Callable[[OutgoingCall], Awaitable[Reply]]
Open: TypeAlias = Callable[[OutgoingCall], Iterator[Reply]]
OpenAsync: TypeAlias = Callable[[OutgoingCall], AsyncIterator[Reply]]


class ClientMiddleware:
    """The base class of middleware for calls."""

    def send(self, call: OutgoingCall, send: Send) -> Reply:
        """Send a call of a Client, by `send`, and return its reply."""
        return send(call)

    async def send_async(self, call: OutgoingCall, send: SendAsync) -> Reply:
        """Send a call of an AsyncClient, by `send`, and return its reply."""
        return await send(call)

    def stream(self, call: OutgoingCall, open: Open) -> Iterator[Reply]:
        """Open a stream of a Client, by `open`, and return its parts.

        As a generator it opens the stream at its first step, and is closed when the caller leaves.
        """
        return open(call)

    def stream_async(self, call: OutgoingCall, open: OpenAsync) -> AsyncIterator[Reply]:
        """Open a stream of an AsyncClient, by `open`, and return its parts."""
        return open(call)


def checked(middleware: tuple[ClientMiddleware, ...]) -> tuple[ClientMiddleware, ...]:
    """Return the middleware. Raises: ConfigurationError for an object that is none."""
    for one in middleware:
        if not isinstance(one, ClientMiddleware):
            raise ConfigurationError(
                f"middleware of a client is a ClientMiddleware, not {type(one).__name__}"
            )
    return middleware


def chain(middleware: tuple[ClientMiddleware, ...], last: Send) -> Send:
    """Return a function that sends a call through `middleware`, and then by `last`."""
    for one in reversed(middleware):
        last = _link(one, last)
    return last


def chain_async(middleware: tuple[ClientMiddleware, ...], last: SendAsync) -> SendAsync:
    """As `chain`, for an AsyncClient."""
    for one in reversed(middleware):
        last = _link_async(one, last)
    return last


def chain_parts(middleware: tuple[ClientMiddleware, ...], last: Open) -> Open:
    """As `chain`, for streams."""
    for one in reversed(middleware):
        last = partial(_open_through, one, last)
    return last


def chain_parts_async(middleware: tuple[ClientMiddleware, ...], last: OpenAsync) -> OpenAsync:
    """As `chain`, for streams of an AsyncClient."""
    for one in reversed(middleware):
        last = partial(_open_through_async, one, last)
    return last


class PartsThrough(Iterator[Reply]):
    """The parts of a stream that middleware has changed. It has the methods of a `Stream`."""

    def __init__(self, parts: Iterator[Reply]) -> None:
        self._parts = parts

    def __next__(self) -> Reply:
        return next(self._parts)

    def close(self) -> None:
        """Cancel what has not come yet. May be repeated."""
        close = getattr(self._parts, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncPartsThrough(AsyncIterator[Reply]):
    """As `PartsThrough`, for `async for`."""

    def __init__(self, parts: AsyncIterator[Reply]) -> None:
        self._parts = parts

    async def __anext__(self) -> Reply:
        return await anext(self._parts)

    async def aclose(self) -> None:
        """Cancel what has not come yet. May be repeated."""
        close = getattr(self._parts, "aclose", None)
        if close is not None:
            await close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _open_through(one: ClientMiddleware, then: Open, call: OutgoingCall) -> Iterator[Reply]:
    return iter(one.stream(call, then))


def _open_through_async(
    one: ClientMiddleware, then: OpenAsync, call: OutgoingCall
) -> AsyncIterator[Reply]:
    return aiter(one.stream_async(call, then))


def _link(one: ClientMiddleware, then: Send) -> Send:
    return lambda call: one.send(call, then)


def _link_async(one: ClientMiddleware, then: SendAsync) -> SendAsync:
    return lambda call: one.send_async(call, then)
