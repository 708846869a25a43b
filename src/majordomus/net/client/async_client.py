"""The asyncio client.

It keeps presence, so a broker that is gone is noticed while nothing is called.

The rules are the session's, the calls' bookkeeping is calls.py's, the socket is async_line.py's
matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from asyncio import get_running_loop
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from majordomus.core.client.session import ClientEvent, ClientSettings
from majordomus.errors import LocalProtocolError
from majordomus.net import endpoints, forks
from majordomus.net.bodies import Body, Reply
from majordomus.net.client.async_events import AsyncClientEvents
from majordomus.net.client.calls import (
    ConversationCall,
    PendingCall,
    PendingCalls,
    final,
    make_ask,
    make_call,
    result,
)
from majordomus.net.client.client import DEFAULT_TIMEOUT, make_session
from majordomus.net.client.gather import AsyncGathering, Wait
from majordomus.net.client.hedge import hedged_async
from majordomus.net.connection.async_link import AsyncLine
from majordomus.net.connection.credentials import Access, Refusal
from majordomus.net.deadline import HANDLING, within
from majordomus.net.events import TaskQueue
from majordomus.protocol.spec import Dialect
from majordomus.security.certificates import Certificate

if TYPE_CHECKING:
    from majordomus.net.client.conversation import AsyncConversation


class AsyncClient(AsyncClientEvents):
    """Calls services through a broker, or through the next of several when one is lost.

    For one event loop.

    It connects at the first use, or in `async with`. The arguments are those of `Client`.
    """

    def __init__(
        self,
        broker: str | Sequence[str] = endpoints.DEFAULT,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        dialect: str = Dialect.MDP03,
        settings: ClientSettings | None = None,
        server_key: str = "",
        certificate: Certificate | str | Path | None = None,
        plain: tuple[str, str] | None = None,
        login: Sequence[str | bytes] | None = None,
    ) -> None:
        self._access = Access(broker, server_key, certificate, plain)
        self.endpoints = self._access.urls
        self.timeout = timeout
        self._session = make_session(self.endpoints, dialect, settings, presence=True, login=login)
        self._calls = PendingCalls(self._session, self.endpoints, self._up, self._refusal)
        self._line: AsyncLine[ClientEvent] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._generation = forks.generation
        self._handlers = TaskQueue()

    async def call(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        fail_fast: bool = False,
        once: bool = False,
        to: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
        hedge_after: float | None = None,
    ) -> Reply:
        """Asks `service` and awaits its answer; the parts of a streamed answer are joined.

        Cancelling the awaiting task cancels the call at the broker too. Arguments and errors are
        those of `Client.call`.
        """
        seconds = self.timeout if timeout is None else timeout
        if HANDLING.get() != inf:
            seconds = within(seconds)
        call = make_call(service, body, seconds, fail_fast, once, to, metadata)
        if hedge_after is not None:
            return await hedged_async(self, call.ask, hedge_after)
        waiter = self._calls.launch(call, self._ready())
        if waiter is not None:
            try:
                await waiter
            except asyncio.CancelledError:
                self._given_up(call)
                raise
        return result(call)

    def gather(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        wait: Wait = "all",
        timeout: float | None = None,
        stall: float | None = None,
        once: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncGathering:
        """Asks every worker that serves `service`; `async for` over the replies as they come.

        Arguments and errors are those of `Client.gather`; they are asked, and it fails, at the
        first step.
        """
        ask = make_ask(service, body, self._seconds(timeout), once=once, metadata=metadata)
        return AsyncGathering(self, ask, wait, stall)

    def stream(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        fail_fast: bool = False,
        once: bool = False,
        to: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncStream:
        """Asks `service`;

        `async for` over the parts of its answer as they come. `timeout` is for all of them.

        Leaving the loop early cancels what has not come yet.
        """
        ask = make_ask(
            service,
            body,
            self._seconds(timeout),
            fail_fast=fail_fast,
            once=once,
            to=to,
            metadata=metadata,
        )
        return AsyncStream(self, self._begin(PendingCall(ask, reads=True)))

    def open(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        fail_fast: bool = False,
        once: bool = False,
        to: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncConversation:
        """Asks `service` and goes on talking: parts go both ways until both sides have finished.

        `timeout` is for all of it. Leaving its context cancels what has not ended.
        """
        from majordomus.net.client.conversation import AsyncConversation

        ask = make_ask(
            service,
            body,
            self._seconds(timeout),
            fail_fast=fail_fast,
            once=once,
            more=True,
            to=to,
            metadata=metadata,
        )
        call = ConversationCall(ask)
        self._begin(call)
        return AsyncConversation(self, call)

    async def send(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        to: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """One-way: nothing comes back. Returns when the request is handed to a broker's connection.

        Raises: DeadlineExceeded when there is none within `timeout`.
        """
        ask = make_ask(
            service, body, self._seconds(timeout), one_way=True, to=to, metadata=metadata
        )
        call = self._begin(PendingCall(ask))
        while call.outcome is None:
            await self._news(call)
        result(call)

    async def ping(self, *, timeout: float | None = None) -> float:
        """Seconds that one question to the broker itself takes. Raises: as `call`."""
        began = time.perf_counter()
        await self.call("mmi.service", b"mmi.service", timeout=timeout)
        return time.perf_counter() - began

    async def serves(self, service: str, *, timeout: float | None = None) -> bool:
        """Whether the broker has a live worker for `service`. Raises: as `call`."""
        return (await self.call("mmi.service", service, timeout=timeout)).frames[:1] == [b"200"]

    async def close(self) -> None:
        """Cancels what is open, says goodbye and closes the connection. May be repeated."""
        if self._closed:
            return
        self._closed = True
        if self._line is not None and forks.generation == self._generation:
            self._calls.close(time.monotonic())
            self._line.flush()
            self._line.close()
            self._handlers.close()

    async def __aenter__(self) -> Self:
        self._ready()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # ── inside ────────────────────────────────────────────────────────────────────────────────────

    def _up(self) -> bool:
        return self._line is not None and self._line.up

    def _refusal(self) -> Refusal | None:
        return self._line.refusal if self._line is not None else None

    def _ready(self) -> AsyncLine[ClientEvent]:
        """The line, opened by the first use.

        Raises: LocalProtocolError after the end, and in another loop or process.
        """
        line = self._line
        if (
            line is not None
            and not self._closed
            and forks.generation == self._generation  # first: no loop runs in a child
            and line.loop is get_running_loop()
        ):
            return line
        return self._first_use()

    def _first_use(self) -> AsyncLine[ClientEvent]:
        if self._closed:
            raise LocalProtocolError("closed", "this client is closed")
        if self._line is not None and forks.generation != self._generation:
            text = "this client belongs to the parent process; make a new one after a fork"
            raise LocalProtocolError("forked", text)
        if self._line is not None:
            raise LocalProtocolError("other-loop", "this client belongs to another event loop")
        session = self._session
        self._generation, self._loop = forks.generation, asyncio.get_running_loop()
        self._line = AsyncLine(
            session,
            lambda: self.endpoints[session.endpoint],
            take=self._calls.take,
            broken=self._fail,
            loop=self._loop,
            access=self._access,
        )
        self._line.open()
        return self._line

    def _fail(self, error: Exception) -> None:
        self._closed = True
        self._calls.fail(error)

    def _begin(self, call: PendingCall) -> PendingCall:
        line = self._ready()
        self._calls.begin(call, call.began)
        line.touch()
        return call

    def _launch(self, call: PendingCall, begin: Callable[[float], None] | None = None) -> None:
        """Begins `call`, by `begin` if given; whoever waits is told by its `notify`."""
        line = self._ready()
        (begin or (lambda now: self._calls.begin(call, now)))(time.monotonic())
        line.touch()

    async def _news(self, call: PendingCall) -> None:
        """Until something comes for `call`. A cancelled wait cancels the call."""
        waiter = self._ready().loop.create_future()
        call.wait_on(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            self._given_up(call)
            raise

    def _given_up(self, call: PendingCall) -> None:
        call.wait_on(None)
        self._calls.cancel(call, time.monotonic())
        self._ready().touch()

    def _tell_read(self, call: PendingCall, parts: int) -> None:
        self._calls.was_read(call, parts)
        self._ready().touch()

    def _push(self, call: ConversationCall) -> None:
        line = self._ready()
        self._calls.push(call)
        line.touch()

    def _cancel_from_anywhere(self, call: PendingCall) -> None:
        """For finalizers, which may run in any thread, or in the middle of the session's work."""
        if self._line is None or self._loop is None or self._closed:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cancel, call)

    def _cancel(self, call: PendingCall) -> None:
        if self._line is not None and not self._closed:
            self._calls.cancel(call, time.monotonic())
            self._line.touch()

    def _seconds(self, timeout: float | None) -> float:
        asked = self.timeout if timeout is None else timeout
        return asked if HANDLING.get() == inf else within(asked)


class AsyncStream(AsyncIterator[Reply]):
    """The parts of one answer, in order; the FINAL is one more if it carries anything.

    For one task at a time.
    """

    def __init__(self, client: AsyncClient, call: PendingCall) -> None:
        self._client, self._call = client, call
        self._over = False

    async def __anext__(self) -> Reply:
        call = self._call
        if self._over:
            raise StopAsyncIteration
        while not call.has_news():
            await self._client._news(call)
        if call.parts:
            frames, read = call.read_one()
            if read:
                self._client._tell_read(call, read)
            return Reply(frames)
        self._over = True
        last = final(call)
        if any(last.frames):
            return last
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancels what has not come yet. May be repeated."""
        if not self._over:
            self._over = True
            self._client._cancel(self._call)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not getattr(self, "_over", True) and not self._call.ended():
            self._client._cancel_from_anywhere(self._call)
