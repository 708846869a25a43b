"""The asyncio client.

It keeps presence, so the end of a broker is noticed while no call is open. The public methods only
pack arguments. Calls run in async_call_runner.py, which waits in the calling task; their
bookkeeping is in calls.py, the I/O in net/connection/async_link.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from majordomus.core.client.session import ClientSession, ClientSettings
from majordomus.errors import BadRequest, DeadlineExceeded, MajordomusError
from majordomus.net import deadline
from majordomus.net.bodies import Body, Reply
from majordomus.net.client.async_call_runner import AsyncCallRunner, start_call
from majordomus.net.client.base import BROKER_PROBE, DEFAULT_TIMEOUT, make_session
from majordomus.net.client.calls import (
    ConversationCall,
    PendingCall,
    make_call,
    make_options,
    result,
)
from majordomus.net.client.conversation import AsyncConversation
from majordomus.net.client.durable import (
    AsyncDurableMethods,
    call_options,
    check_durable,
    durable_metadata,
)
from majordomus.net.client.events import AsyncClientEvents
from majordomus.net.client.gather import AsyncGathering, Wait
from majordomus.net.client.hedge import hedged_async
from majordomus.net.client.middleware import (
    AsyncPartsThrough,
    ClientMiddleware,
    OpenAsync,
    OutgoingCall,
    SendAsync,
    chain_async,
    chain_parts_async,
    checked,
)
from majordomus.net.client.negotiation import (
    CONTRACT,
    CallPlan,
    ServiceTypes,
    Value,
    body_class,
    name_of,
)
from majordomus.net.client.proxy import make_proxy
from majordomus.net.client.streams import AsyncStream
from majordomus.net.client.typed import AsyncTypedConversation, AsyncTypedStream, decode_reply
from majordomus.net.connection.credentials import Access
from majordomus.net.deadline import HANDLING, LEAST, within
from majordomus.net.events import TaskQueue
from majordomus.protocol.spec import Dialect
from majordomus.security.certificates import Certificate

T = TypeVar("T")


class AsyncClient(AsyncClientEvents, AsyncDurableMethods):
    """Calls services through a broker, or through the next of several when one is lost.

    For one event loop. It connects at the first use, or in `async with`. The arguments are those of
    `Client`.
    """

    def __init__(
        self,
        broker: str | Sequence[str] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        dialect: str = Dialect.MDP03,
        settings: ClientSettings | None = None,
        server_key: str = "",
        certificate: Certificate | str | Path | None = None,
        plain: tuple[str, str] | None = None,
        login: Sequence[str | bytes] | None = None,
        require_encryption: bool = False,
        spread: bool = True,
    ) -> None:
        access = Access(broker, server_key, certificate, plain, require_encryption)

        def make() -> tuple[ClientSession, AsyncCallRunner, TaskQueue]:
            session = make_session(
                access.urls, dialect, settings, presence=True, spread=spread, login=login
            )
            return session, AsyncCallRunner(session, access), TaskQueue()

        super().__init__(access, timeout, make)

    @overload
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
        durable: bool = False,
        key: str | bytes | None = None,
        expires: float | None = None,
        keep: float | None = None,
        returns: None = None,
    ) -> Reply: ...
    @overload
    async def call(
        self,
        service: str | bytes,
        body: Body | Value = None,
        *,
        timeout: float | None = None,
        fail_fast: bool = False,
        once: bool = False,
        to: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
        hedge_after: float | None = None,
        durable: bool = False,
        key: str | bytes | None = None,
        expires: float | None = None,
        keep: float | None = None,
        returns: type[T],
    ) -> T: ...
    async def call(
        self,
        service: str | bytes,
        body: Any = None,
        *,
        timeout: float | None = None,
        fail_fast: bool = False,
        once: bool = False,
        to: bytes = b"",
        metadata: Mapping[str, Any] | None = None,
        hedge_after: float | None = None,
        durable: bool = False,
        key: str | bytes | None = None,
        expires: float | None = None,
        keep: float | None = None,
        returns: Any = None,
    ) -> Any:
        """Call `service` and await its answer; the parts of a streamed answer are joined.

        Cancelling the awaiting task cancels the call at the broker too. Arguments and errors are
        those of `Client.call`.
        """
        # As AsyncCallRunner.call, without its frame of a coroutine: this is the hot path.
        if returns is not None:
            options: dict[str, Any] = {
                "fail_fast": fail_fast,
                "once": once,
                "to": to,
                "hedge_after": hedge_after,
                "durable": durable,
                "key": key,
                "expires": expires,
                "keep": keep,
            }
            return await self._call_typed(service, body, timeout, metadata, returns, options)
        seconds = self.timeout if timeout is None else timeout
        if deadline.value(HANDLING) is not inf:
            seconds, metadata = within(seconds), self._inherited(metadata)
        if durable or key is not None:
            metadata = durable_metadata(metadata, key, expires, keep)
        if durable:
            check_durable(once=once, to=to, hedge_after=hedge_after)
            stored = call_options(service, body, seconds, metadata, fail_fast=fail_fast)
            return await self._runner.call(stored)
        call = make_call(service, body, seconds, fail_fast, once, to, metadata)
        if hedge_after is not None:
            return await hedged_async(self._runner, call.options, hedge_after)
        runner = self._runner
        waiter = start_call(runner, call)
        if waiter is not None:
            try:
                await waiter
            except asyncio.CancelledError:
                runner.abandon(call)
                raise
        return result(call)

    async def _call_typed(
        self,
        service: str | bytes,
        body: Any,
        timeout: float | None,
        metadata: Mapping[str, Any] | None,
        returns: Any,
        options: dict[str, Any],
    ) -> Any:
        """Make a call whose reply is a value. Raises: as `call`; BadRequest for a reply that does
        not fit."""
        takes = body_class(body)
        plan = self._encodings.plans.get((service, takes, returns))
        if plan is None:
            plan, timeout = await self._plan(service, takes, returns, timeout)
        try:
            body, metadata = plan.request(body, metadata)
            reply = await self._reply(service, body, timeout, metadata, options)
            return decode_reply(reply, returns, plan)
        except BadRequest:
            self._forget(service)
            raise

    def _reply(
        self,
        service: str | bytes,
        body: Body,
        timeout: float | None,
        metadata: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> Awaitable[Reply]:
        """Make a call whose reply is a Reply."""
        made: Awaitable[Reply] = AsyncClient.call(
            self, service, body, timeout=timeout, metadata=metadata, **options
        )
        return made

    async def _plan(
        self, service: str | bytes, takes: Any, returns: Any, timeout: float | None
    ) -> tuple[CallPlan, float | None]:
        """Choose the encodings of a call, by the contract of its service. Return them, and what is
        left of the timeout.

        Raises: BadRequest when the client and the service have none in common.
        """
        encodings, key = self._encodings, (service, takes, returns)
        plan = encodings.plans.get(key)
        if plan is not None:
            return plan, timeout
        name = name_of(service)
        known = encodings.known(name)
        if known is None and self._asks_contracts:
            seconds, loop = self._seconds(timeout), asyncio.get_running_loop()
            began = loop.time()
            known = await self._types_of(name, seconds)
            timeout = max(LEAST, seconds - (loop.time() - began))
        return encodings.plan(name, known, takes, returns, key), timeout

    async def _types_of(self, service: str, left: float) -> ServiceTypes | None:
        """Ask for a contract: one question for all calls that begin meanwhile.

        Raises: DeadlineExceeded.
        """
        asked, loop = self._encodings.asked, asyncio.get_running_loop()
        until = loop.time() + left
        while True:
            question = asked.get(service)
            mine = question is None
            if question is None:
                question = asyncio.ensure_future(self._ask_contract(service, left))
                asked[service] = question
                question.add_done_callback(lambda _: asked.pop(service, None))
            await asyncio.wait([question], timeout=None if mine else left)
            if not question.done():
                raise DeadlineExceeded(f"the broker did not answer within {left:g} s")
            found = question.result()
            if not isinstance(found, DeadlineExceeded):
                return found
            if mine:
                raise found
            left = max(LEAST, until - loop.time())  # the other call had less time than this one

    async def _ask_contract(
        self, service: str, timeout: float
    ) -> ServiceTypes | DeadlineExceeded | None:
        """Return the encodings of a service, or the failure of every call that waits for them."""
        try:
            reply: Reply = await AsyncClient.call(self, CONTRACT, service, timeout=timeout)
        except DeadlineExceeded as error:
            return error
        except MajordomusError:  # the call itself fails in the same way, if it has to
            return None
        return self._encodings.note(service, reply.frames)

    def using(self, *middleware: ClientMiddleware) -> AsyncClient:
        """Return a client with middleware around its calls; it shares this one's connection.

        Raises: ConfigurationError for an object that is no `ClientMiddleware`.
        """
        made = _UsingAsyncClient.__new__(_UsingAsyncClient)
        made.__dict__.update(self.__dict__)
        self._family.add(made)
        made._send = chain_async(checked(middleware), self._send_call)
        made._opening = chain_parts_async(middleware, self._open_stream)
        return made

    async def _send_call(self, call: OutgoingCall) -> Reply:
        reply: Reply = await self.call(
            call.service,
            call.body,
            timeout=call.timeout,
            metadata=call.metadata or None,
            **call.options,
        )
        return reply

    def _open_stream(self, call: OutgoingCall) -> AsyncIterator[Reply]:
        stream: AsyncIterator[Reply] = self.stream(
            call.service,
            call.body,
            timeout=call.timeout,
            metadata=call.metadata or None,
            **call.options,
        )
        return stream

    def service(self, protocol: Callable[..., T], *, prefix: str | None = None) -> T:
        """Return an object with the methods of a Protocol, each of which calls a service.

        A method `put` of `class Notes(Protocol)` calls `notes.put`; `prefix` replaces `notes.`.
        Methods are made with `async def`; those that return an AsyncIterator with `def`.
        The body is checked by its annotation before it is sent (docs/contracts.md).

        Raises: ConfigurationError for a class whose methods cannot be calls.
        """
        made: T = make_proxy(self, protocol, prefix, waits=True)
        return made

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

    @overload
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
        of: None = None,
    ) -> AsyncStream: ...
    @overload
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
        of: type[T],
    ) -> AsyncTypedStream[T]: ...
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
        of: Any = None,
    ) -> Any:
        """Call `service`; `async for` over the parts of its answer as they come.

        `timeout` is for all of them. Leaving the loop early cancels what has not come yet.
        """
        options = self._options(service, body, timeout, fail_fast, once, to, metadata)
        stream = AsyncStream(self._runner, PendingCall(options, reads=True))
        return stream if of is None else AsyncTypedStream(stream, of)

    @overload
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
        of: None = None,
    ) -> AsyncConversation: ...
    @overload
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
        of: type[T],
    ) -> AsyncTypedConversation[T]: ...
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
        of: Any = None,
    ) -> Any:
        """Open a conversation with `service`: parts go both ways until both sides have finished.

        `timeout` is for all of it. Leaving its context cancels what has not ended.
        """
        options = self._options(service, body, timeout, fail_fast, once, to, metadata, more=True)
        made = AsyncConversation(self._runner, ConversationCall(options))
        return made if of is None else AsyncTypedConversation(made, of)

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

    @property
    def _used(self) -> bool:
        return self._runner.used

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


class _UsingAsyncClient(AsyncClient):
    """A client with middleware."""

    _send: SendAsync
    _opening: OpenAsync

    async def call(
        self,
        service: str | bytes,
        body: Any = None,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        returns: Any = None,
        **options: Any,
    ) -> Any:
        if returns is None:
            return await self._reply(service, body, timeout, metadata, options)
        return await self._call_typed(service, body, timeout, metadata, returns, options)

    def _reply(
        self,
        service: str | bytes,
        body: Body,
        timeout: float | None,
        metadata: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> Awaitable[Reply]:
        return self._send(OutgoingCall(service, body, timeout, dict(metadata or {}), options))

    def stream(
        self,
        service: str | bytes,
        body: Body = None,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        of: Any = None,
        **options: Any,
    ) -> Any:
        call = OutgoingCall(service, body, timeout, dict(metadata or {}), options)
        stream = AsyncPartsThrough(self._opening(call))
        return stream if of is None else AsyncTypedStream(stream, of)
