"""The ids of requests in the lines that handlers log.

    worker.use(LogIds())
    log.addFilter(RequestIds())       # of a logging.Handler

`LogIds` notes the id of the request while its handler runs. `RequestIds` gives each record the
attributes `request_id` and `trace_id`. Both are what `majordomus explain` takes. A worker that does
not use `LogIds` pays nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from majordomus.net.deadline import REQUEST
from majordomus.net.worker.declare.middleware import HandlerMiddleware
from majordomus.net.worker.request import Request


class LogIds(HandlerMiddleware):
    """Notes the id of the request that a handler has, for `RequestIds`."""

    def call(self, request: Request, handler: Callable[[Request], Any]) -> Any:
        noted = REQUEST.set(request.id)
        try:
            return handler(request)
        finally:
            REQUEST.reset(noted)

    async def call_async(
        self, request: Request, handler: Callable[[Request], Awaitable[Any]]
    ) -> Any:
        REQUEST.set(request.id)  # the context ends with the handler
        return await handler(request)

    def parts(self, request: Request, handler: Callable[[Request], Iterator[Any]]) -> Iterator[Any]:
        noted = REQUEST.set(request.id)
        try:
            yield from handler(request)
        finally:
            REQUEST.reset(noted)

    async def parts_async(
        self, request: Request, handler: Callable[[Request], AsyncIterator[Any]]
    ) -> AsyncIterator[Any]:
        REQUEST.set(request.id)
        async for part in handler(request):
            yield part
