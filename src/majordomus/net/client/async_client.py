"""The asyncio client.

It keeps presence, so the end of a broker is noticed while no call is open. The public methods only
pack arguments. Calls run in async_call_runner.py, which waits in the calling task; their
bookkeeping is in calls.py, the I/O in net/connection/async_link.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from majordomus.core.client.session import ClientSettings
from majordomus.net import endpoints
from majordomus.net.bodies import Body, Reply
from majordomus.net.client.async_call_runner import AsyncCallRunner
from majordomus.net.client.base import BROKER_PROBE, DEFAULT_TIMEOUT, make_session
from majordomus.net.client.calls import (
    ConversationCall,
    PendingCall,
    make_call,
    make_options,
    result,
)
from majordomus.net.client.conversation import AsyncConversation
from majordomus.net.client.events import AsyncClientEvents
from majordomus.net.client.gather import AsyncGathering, Wait
from majordomus.net.client.hedge import hedged_async
from majordomus.net.client.streams import AsyncStream
from majordomus.net.connection.credentials import Access
from majordomus.net.deadline import HANDLING, within
from majordomus.net.events import TaskQueue
from majordomus.protocol.spec import Dialect
from majordomus.security.certificates import Certificate


class AsyncClient(AsyncClientEvents):
    """Calls services through a broker, or through the next of several when one is lost.

    For one event loop. It connects at the first use, or in `async with`. The arguments are those of
    `Client`.
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
        access = Access(broker, server_key, certificate, plain)
        session = make_session(access.urls, dialect, settings, presence=True, login=login)
        super().__init__(access, session, timeout)
        self._runner = AsyncCallRunner(session, access)
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
        """Call `service` and await its answer; the parts of a streamed answer are joined.

        Cancelling the awaiting task cancels the call at the broker too. Arguments and errors are
        those of `Client.call`.
        """
        # As AsyncCallRunner.call, without its frame of a coroutine: this is the hot path.
        seconds = self.timeout if timeout is None else timeout
        if HANDLING.get() != inf:
            seconds = within(seconds)
        call = make_call(service, body, seconds, fail_fast, once, to, metadata)
        if hedge_after is not None:
            return await hedged_async(self._runner, call.options, hedge_after)
        runner = self._runner
        waiter = runner.calls.launch(call, runner.connection())
        if waiter is not None:
            try:
                await waiter
            except asyncio.CancelledError:
                runner.abandon(call)
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
        """Call every worker that serves `service`; `async for` over the replies as they come.

        The workers are called, and errors are raised, at the first step. Arguments and errors are
        those of `Client.gather`.
        """
        options = self._options(service, body, timeout, False, once, b"", metadata)
        return AsyncGathering(self._runner, options, wait, stall)

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
        """Call `service`; `async for` over the parts of its answer as they come.

        `timeout` is for all of them. Leaving the loop early cancels what has not come yet.
        """
        options = self._options(service, body, timeout, fail_fast, once, to, metadata)
        return AsyncStream(self._runner, PendingCall(options, reads=True))

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
        """Open a conversation with `service`: parts go both ways until both sides have finished.

        `timeout` is for all of it. Leaving its context cancels what has not ended.
        """
        options = self._options(service, body, timeout, fail_fast, once, to, metadata, more=True)
        return AsyncConversation(self._runner, ConversationCall(options))

    async def send(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        to: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Send a one-way request: no reply comes. Returns when a broker's connection has taken it.

        Raises: DeadlineExceeded when there is no connection within `timeout`.
        """
        seconds = self._seconds(timeout)
        options = make_options(service, body, seconds, one_way=True, to=to, metadata=metadata)
        call = PendingCall(options)
        await self._runner.run(call)
        result(call)

    async def ping(self, *, timeout: float | None = None) -> float:
        """Measure the seconds that a call to the broker itself takes. Raises: as `call`."""
        began = time.perf_counter()
        await self.call(BROKER_PROBE, BROKER_PROBE.encode(), timeout=timeout)
        return time.perf_counter() - began

    async def serves(self, service: str, *, timeout: float | None = None) -> bool:
        """Return whether the broker has a live worker for `service`. Raises: as `call`."""
        return (await self.call(BROKER_PROBE, service, timeout=timeout)).frames[:1] == [b"200"]

    async def close(self) -> None:
        """Cancel what is open, announce the end and close the connection. May be repeated."""
        if self._runner.close():
            self._handlers.close()

    async def __aenter__(self) -> Self:
        self._runner.connection()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
