"""Middleware of a worker: code around its handlers, in the order of `use`, the first one outermost.

    class Timing(HandlerMiddleware):
        def call(self, request, handler):
            began = time.monotonic()
            try:
                return handler(request)
            finally:
                print(request.service, time.monotonic() - began)

Each shape of handler has its method: `call` for `def`, `call_async` for `async def`, `parts` and
`parts_async` for generators. A method that is not overridden is not called. What a method raises is
the outcome, as of a handler; what it returns is the reply.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from majordomus.errors import ConfigurationError
from majordomus.net.worker.request import Request


class HandlerMiddleware:
    """The base class of middleware for handlers."""

    def call(self, request: Request, handler: Callable[[Request], Any]) -> Any:
        """Call a `def` handler, in its thread, and return its reply."""
        return handler(request)

    async def call_async(
        self, request: Request, handler: Callable[[Request], Awaitable[Any]]
    ) -> Any:
        """Await an `async def` handler and return its reply."""
        return await handler(request)

    def parts(self, request: Request, handler: Callable[[Request], Iterator[Any]]) -> Iterator[Any]:
        """Yield the parts of a generator, in its thread."""
        yield from handler(request)

    async def parts_async(
        self, request: Request, handler: Callable[[Request], AsyncIterator[Any]]
    ) -> AsyncIterator[Any]:
        """Yield the parts of an async generator."""
        async for part in handler(request):
            yield part


def around(
    function: Callable[[Request], Any], middleware: tuple[HandlerMiddleware, ...]
) -> Callable[[Request], Any]:
    """Return a handler of the same shape with `middleware` around it.

    Raises: ConfigurationError for an object that is no middleware.
    """
    for one in reversed(middleware):
        if not isinstance(one, HandlerMiddleware):
            raise ConfigurationError(
                f"middleware of a worker is a HandlerMiddleware, not {type(one).__name__}"
            )
        function = _around(function, one)
    return function


def _around(
    function: Callable[[Request], Any], middleware: HandlerMiddleware
) -> Callable[[Request], Any]:
    if inspect.isasyncgenfunction(function):
        name = "parts_async"
    elif inspect.iscoroutinefunction(function):
        name = "call_async"
    elif inspect.isgeneratorfunction(function):
        name = "parts"
    else:
        name = "call"
    if getattr(type(middleware), name) is getattr(HandlerMiddleware, name):
        return function
    method = getattr(middleware, name)
    return functools.wraps(function)(_shaped(name, method, function))


def _shaped(
    name: str, method: Callable[..., Any], function: Callable[[Request], Any]
) -> Callable[[Request], Any]:
    if name == "parts_async":

        async def parts_async(request: Request) -> AsyncIterator[Any]:
            async for part in method(request, function):
                yield part

        return parts_async
    if name == "call_async":

        async def call_async(request: Request) -> Any:
            return await method(request, function)

        return call_async
    if name == "parts":

        def parts(request: Request) -> Iterator[Any]:
            yield from method(request, function)

        return parts

    def call(request: Request) -> Any:
        return method(request, function)

    return call
