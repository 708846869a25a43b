"""Middleware for calls: Retry, Timeout, Log and Cache of clients; Log and Cache of workers, too.

client = Client().using(Log(), Retry(3), Timeout(2.0), Cache(ttl=10, services=["price"]))
worker.use(Log(), Cache(ttl=10, services=["price"]))
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from majordomus.errors import (
    BrokerLost,
    ConfigurationError,
    TooManyRequests,
    Unavailable,
    WorkerLost,
)
from majordomus.net.bodies import Reply, to_frames
from majordomus.net.client.middleware import (
    ClientMiddleware,
    Open,
    OpenAsync,
    OutgoingCall,
    Send,
    SendAsync,
)
from majordomus.net.worker.declare.middleware import HandlerMiddleware
from majordomus.net.worker.request import Request
from majordomus.protocol import spec

LOST: Final = (WorkerLost, BrokerLost, Unavailable, TooManyRequests)
"""Failures after which `Retry` sends a call again, unless other ones are given."""
_MISSING: Final = object()

logger = logging.getLogger("majordomus.calls")


class Retry(ClientMiddleware):
    """Send a call again after a failure, except with `once`.

    attempts: calls at most, the first one included.
    delay: seconds before the second attempt; each further delay is twice as long.
    errors: the exceptions after which a call is sent again.
    """

    def __init__(
        self,
        attempts: int = 3,
        *,
        delay: float = 0.1,
        errors: tuple[type[Exception], ...] = LOST,
    ) -> None:
        if attempts < 1 or not delay >= 0:
            raise ConfigurationError("Retry: at least 1 attempt, and a delay of 0 seconds or more")
        self.attempts, self.delay, self.errors = attempts, delay, errors

    def send(self, call: OutgoingCall, send: Send) -> Reply:
        for number in range(self._most(call) - 1):
            try:
                return send(call)
            except self.errors:
                time.sleep(self.delay * 2**number)
        return send(call)

    async def send_async(self, call: OutgoingCall, send: SendAsync) -> Reply:
        for number in range(self._most(call) - 1):
            try:
                return await send(call)
            except self.errors:
                await asyncio.sleep(self.delay * 2**number)
        return await send(call)

    def _most(self, call: OutgoingCall) -> int:
        return 1 if call.options.get("once") else self.attempts


class Timeout(ClientMiddleware):
    """Give every call `seconds` at most; a shorter timeout of the call remains."""

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ConfigurationError(f"Timeout: more than 0 seconds, not {seconds}")
        self.seconds = seconds

    def send(self, call: OutgoingCall, send: Send) -> Reply:
        self._limit(call)
        return send(call)

    async def send_async(self, call: OutgoingCall, send: SendAsync) -> Reply:
        self._limit(call)
        return await send(call)

    def stream(self, call: OutgoingCall, open: Open) -> Iterator[Reply]:
        self._limit(call)
        return open(call)

    def stream_async(self, call: OutgoingCall, open: OpenAsync) -> AsyncIterator[Reply]:
        self._limit(call)
        return open(call)

    def _limit(self, call: OutgoingCall) -> None:
        given = self.seconds if call.timeout is None else call.timeout
        call.timeout = min(given, self.seconds)


class Log(ClientMiddleware, HandlerMiddleware):
    """Log every call or request: the service, the status and the milliseconds.

    level: the level of a success; a failure is one level higher.
    """

    def __init__(self, level: int = logging.INFO, *, log: logging.Logger = logger) -> None:
        self.level, self.log = level, log

    def send(self, call: OutgoingCall, send: Send) -> Reply:
        reply: Reply = self._around(call.service, lambda: send(call))
        return reply

    async def send_async(self, call: OutgoingCall, send: SendAsync) -> Reply:
        reply: Reply = await self._around_async(call.service, lambda: send(call))
        return reply

    def stream(self, call: OutgoingCall, open: Open) -> Iterator[Reply]:
        return self._around_parts(call.service, lambda: open(call))

    def stream_async(self, call: OutgoingCall, open: OpenAsync) -> AsyncIterator[Reply]:
        return self._around_async_parts(call.service, lambda: open(call))

    def parts(self, request: Request, handler: Callable[[Request], Iterator[Any]]) -> Iterator[Any]:
        return self._around_parts(request.service, lambda: handler(request))

    def parts_async(
        self, request: Request, handler: Callable[[Request], AsyncIterator[Any]]
    ) -> AsyncIterator[Any]:
        return self._around_async_parts(request.service, lambda: handler(request))

    def call(self, request: Request, handler: Callable[[Request], Any]) -> Any:
        return self._around(request.service, lambda: handler(request))

    async def call_async(
        self, request: Request, handler: Callable[[Request], Awaitable[Any]]
    ) -> Any:
        return await self._around_async(request.service, lambda: handler(request))

    def _around(self, service: str | bytes, work: Callable[[], Any]) -> Any:
        began = time.monotonic()
        try:
            result = work()
        except BaseException as error:
            self._write(service, began, error)
            raise
        self._write(service, began, None)
        return result

    async def _around_async(self, service: str | bytes, work: Callable[[], Awaitable[Any]]) -> Any:
        began = time.monotonic()
        try:
            result = await work()
        except BaseException as error:
            self._write(service, began, error)
            raise
        self._write(service, began, None)
        return result

    def _around_parts(
        self, service: str | bytes, open: Callable[[], Iterator[Any]]
    ) -> Iterator[Any]:
        began = time.monotonic()
        try:
            yield from open()
        except BaseException as error:
            self._write_parts(service, began, error)
            raise
        self._write(service, began, None)

    async def _around_async_parts(
        self, service: str | bytes, open: Callable[[], AsyncIterator[Any]]
    ) -> AsyncIterator[Any]:
        began = time.monotonic()
        try:
            async for part in open():
                yield part
        except BaseException as error:
            self._write_parts(service, began, error)
            raise
        self._write(service, began, None)

    def _write_parts(self, service: str | bytes, began: float, error: BaseException) -> None:
        """The caller may leave a stream before its end: that is no failure."""
        self._write(service, began, None if isinstance(error, GeneratorExit) else error)

    def _write(self, service: str | bytes, began: float, error: BaseException | None) -> None:
        name = service if isinstance(service, str) else service.decode("utf-8", "replace")
        status = 200 if error is None else getattr(error, "status", 500)
        level = self.level if error is None else self.level + 10
        took = 1000 * (time.monotonic() - began)
        self.log.log(level, "%s %s %.1f ms", name, status, took)


class Cache(ClientMiddleware, HandlerMiddleware):
    """Keep replies for `ttl` seconds, by service and body.

    services: the services whose replies are kept; None is every one.
    key: returns the key of a call from the service's name and the frames of the body; None for a
        call whose reply must not be kept.
    most: replies that are kept at a time; the oldest is dropped.
    """

    def __init__(
        self,
        ttl: float,
        *,
        services: Iterable[str] | None = None,
        key: Callable[[str, list[bytes]], Any] | None = None,
        most: int = 1024,
    ) -> None:
        if not ttl > 0 or most < 1:
            raise ConfigurationError("Cache: ttl is more than 0 seconds, and most at least 1")
        self.ttl, self.most = ttl, most
        self.services = None if services is None else frozenset(services)
        self._key = key or (lambda service, frames: (service, *frames))
        self._kept: OrderedDict[Any, tuple[float, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def send(self, call: OutgoingCall, send: Send) -> Reply:
        key = self._key_of(call.service, call.body, call.metadata)
        found: Reply = self._get(key)
        if found is _MISSING:
            found = self._put(key, send(call))
        return found

    async def send_async(self, call: OutgoingCall, send: SendAsync) -> Reply:
        key = self._key_of(call.service, call.body, call.metadata)
        found: Reply = self._get(key)
        if found is _MISSING:
            found = self._put(key, await send(call))
        return found

    def call(self, request: Request, handler: Callable[[Request], Any]) -> Any:
        key = self._key_of(request.service, request.frames, request.metadata)
        found = self._get(key)
        return self._put(key, handler(request)) if found is _MISSING else found

    async def call_async(
        self, request: Request, handler: Callable[[Request], Awaitable[Any]]
    ) -> Any:
        key = self._key_of(request.service, request.frames, request.metadata)
        found = self._get(key)
        return self._put(key, await handler(request)) if found is _MISSING else found

    def clear(self) -> None:
        """Forget every reply."""
        with self._lock:
            self._kept.clear()

    def _key_of(self, service: str | bytes, body: Any, metadata: Mapping[str, Any]) -> Any:
        """The key of a call. A reply is in the encoding that the request states."""
        name = service if isinstance(service, str) else service.decode("utf-8", "replace")
        if self.services is not None and name not in self.services:
            return None
        key = self._key(name, to_frames(body))
        return None if key is None else (str(metadata.get("type", "")), key)

    def _get(self, key: Any) -> Any:
        if key is None:
            return _MISSING
        with self._lock:
            until, value = self._kept.get(key, (0.0, _MISSING))
            return value if until > time.monotonic() else _MISSING

    def _put(self, key: Any, value: Any) -> Any:
        if key is None or (isinstance(value, Reply) and value.status != spec.OK):
            return value
        with self._lock:
            self._kept[key] = (time.monotonic() + self.ttl, value)
            self._kept.move_to_end(key)
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        return value
