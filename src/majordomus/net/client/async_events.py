"""What an asyncio client does with events: hears pushes and topics, and publishes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

from majordomus.core.session.events import check_name
from majordomus.errors import BrokerLost, DeadlineExceeded, LocalProtocolError, StatusError
from majordomus.net.bodies import Body
from majordomus.net.client.calls import PendingCall, PendingCalls, make_publication, result
from majordomus.net.events import (
    MOST_WAITING,
    AsyncSubscription,
    Handler,
    Listening,
    Receiver,
    TaskQueue,
    name_of,
)
from majordomus.protocol.spec import Dialect

if TYPE_CHECKING:
    from majordomus.core.client.session import ClientEvent, ClientSession
    from majordomus.net.bodies import Reply
    from majordomus.net.connection.async_link import AsyncLine


class AsyncClientEvents:
    """The part of `AsyncClient` that is about events."""

    _session: ClientSession
    _calls: PendingCalls
    _handlers: TaskQueue
    _closed: bool
    _line: AsyncLine[ClientEvent] | None

    if TYPE_CHECKING:

        async def call(
            self,
            service: str | bytes,
            body: Body = None,
            *,
            timeout: float | None = None,
            fail_fast: bool = False,
        ) -> Reply: ...
        def _ready(self) -> AsyncLine[ClientEvent]: ...
        def _begin(self, call: PendingCall) -> PendingCall: ...
        async def _news(self, call: PendingCall) -> None: ...
        def _seconds(self, timeout: float | None) -> float: ...

    def events(self, *, limit: int = MOST_WAITING) -> AsyncSubscription:
        """Every event that comes from now on: `async for event in client.events()`.

        At most `limit` wait; then the oldest is dropped, and counted in `dropped`.
        """
        self._hear()
        made = AsyncSubscription(b"", limit, self._left)
        self._calls.hub.add(made)
        return made

    def on_event(self, handler: Handler) -> Listening:
        """`handler(event)`, a function or a coroutine function, is called for every event that
        comes from now on, one after the other. `close` of what is returned ends it."""
        self._hear()
        made = Listening(b"", handler, self._handlers.put, self._left)
        self._calls.hub.add(made)
        return made

    @overload
    async def subscribe(
        self, pattern: str | bytes, *, timeout: float | None = None, limit: int = MOST_WAITING
    ) -> AsyncSubscription: ...
    @overload
    async def subscribe(
        self, pattern: str | bytes, handler: Handler, *, timeout: float | None = None
    ) -> Listening: ...
    async def subscribe(
        self,
        pattern: str | bytes,
        handler: Handler | None = None,
        *,
        timeout: float | None = None,
        limit: int = MOST_WAITING,
    ) -> AsyncSubscription | Listening:
        """Hears of the topics that `pattern` stands for, until it is closed. As
        `Client.subscribe`."""
        name = name_of(pattern)
        check_name(name, pattern=True)
        self._hear()
        if handler is None:
            made: AsyncSubscription | Listening = AsyncSubscription(name, limit, self._left)
        else:
            made = Listening(name, handler, self._handlers.put, self._left)
        self._calls.hub.add(made)
        try:
            self._session.subscribe(name, time.monotonic())
            await self._confirm(timeout)
            made.check()
        except BaseException:
            made.end(None)
            self._left(made)
            raise
        return made

    async def unsubscribe(self, pattern: str | bytes) -> None:
        """Ends every iterator and handler of `pattern`."""
        for one in self._calls.hub.of(name_of(pattern)):
            one.end(None)
            self._left(one)

    async def publish(
        self,
        topic: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        confirm: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """An event for everybody who subscribed to `topic`, at most once. As `Client.publish`."""
        self._check_dialect()
        name = name_of(topic)
        call = PendingCall(make_publication(name, body, self._seconds(timeout), metadata))
        if confirm:
            self._calls.hub.watch(call)
        try:
            self._begin(call)
            while call.outcome is None:
                await self._news(call)
            result(call)
            if confirm:
                await self._confirm(timeout)
        finally:
            self._calls.hub.seen(call)

    # ── inside ────────────────────────────────────────────────────────────────────────────────────

    def _check_dialect(self) -> None:
        if self._session.settings.dialect is not Dialect.MDP03:
            raise LocalProtocolError("not-in-dialect", "events need MDP/0.3")

    def _hear(self) -> None:
        self._check_dialect()
        self._ready()

    async def _confirm(self, timeout: float | None) -> None:
        """One question on the same connection: whatever the answer is, all that was said before has
        been heard."""
        try:
            await self.call("mmi.service", b"mmi.service", timeout=timeout, fail_fast=True)
        except (DeadlineExceeded, BrokerLost):
            raise
        except StatusError:
            pass

    def _left(self, receiver: Receiver) -> None:
        others = self._calls.hub.remove(receiver)
        if not receiver.pattern or others or self._closed or self._line is None:
            return
        self._session.unsubscribe(receiver.pattern, time.monotonic())
        self._line.touch()
