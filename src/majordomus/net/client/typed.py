"""Typed replies: what a client returns for `returns=`, `of=` and the methods of a typed proxy.

A reply, or each part of it, is decoded as a value of a type. What does not fit is a BadRequest that
names the field: the service does not keep to its contract, or another type was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar

from majordomus.errors import BadRequest, LocalProtocolError, RemoteProtocolError
from majordomus.messages.bodies import decoder_for, types_of
from majordomus.net.bodies import Body, Reply
from majordomus.net.client.conversation import AsyncConversation, Conversation
from majordomus.net.client.middleware import AsyncPartsThrough, PartsThrough
from majordomus.net.client.negotiation import DEFAULT, CallPlan
from majordomus.net.client.streams import AsyncStream, Stream
from majordomus.protocol import metadata as packing

S = TypeVar("S")
T = TypeVar("T")
Encode: TypeAlias = Callable[[Any], list[bytes]]


def _nothing() -> None:
    """The default of `failed`."""


def decode_reply(reply: Reply, returns: Any, plan: CallPlan = DEFAULT) -> Any:
    """Return the value of a reply. Raises: BadRequest for one that does not fit.

    A handler that returns `list[str]` sends one frame for each text.
    """
    if returns is None or returns is type(None):
        return None
    if plan is DEFAULT and not packing.packed_metadata(reply) and returns != list[str]:
        return decoder_for(returns)(reply.frames)
    return decoder_of(returns, plan)(reply)


def decoder_of(of: Any, plan: CallPlan = DEFAULT) -> Callable[[Reply], Any]:
    """Return the decoder of replies, or of parts, of a type. Raises: ConfigurationError.

    A reply whose metadata have an encoding that the type supports is read in that one.
    """
    if of == list[str] and not plan.reply:
        text = decoder_for(str)
        return lambda reply: [text([frame]) for frame in reply.frames]
    decode, types = decoder_for(of), types_of(of)
    if plan.lax:
        return lambda reply: decode.lax(reply.frames)

    def decoded(reply: Reply) -> Any:
        type_ = plan.reply
        packed = packing.packed_metadata(reply)
        if packed and types:
            type_ = _stated(packed, types) or type_
        return decode(reply.frames, type_)

    return decoded


def _stated(packed: bytes, types: tuple[str, ...]) -> str:
    """The encoding that the sender states, if it is one of `types`."""
    try:
        stated = packing.unpack(packed).get("type")
    except RemoteProtocolError:
        return ""
    return stated if isinstance(stated, str) and stated in types else ""


class TypedStream(Generic[T], Iterator[T]):
    """The parts of one answer as values. Raises: BadRequest for a part that does not fit."""

    def __init__(
        self,
        stream: Stream | PartsThrough,
        of: Any,
        plan: CallPlan = DEFAULT,
        failed: Callable[[], object] = _nothing,
    ) -> None:
        """`failed` is called before a BadRequest is raised."""
        self._stream = stream
        self._decode = decoder_of(of, plan)
        self._failed = failed

    def __next__(self) -> T:
        try:
            value: T = self._decode(next(self._stream))
        except BadRequest:
            self._failed()
            raise
        return value

    def close(self) -> None:
        """Cancel what has not come yet. May be repeated."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class TypedConversation(TypedStream[T]):
    """A conversation whose received parts are values."""

    def __init__(self, conversation: Conversation, of: Any) -> None:
        super().__init__(conversation, of)
        self._conversation = conversation

    def send(self, body: Body) -> None:
        """Send one part. See `Conversation.send`."""
        self._conversation.send(body)

    def finish(self, body: Body = None) -> None:
        """End this side. See `Conversation.finish`."""
        self._conversation.finish(body)


class ServiceConversation(TypedStream[T], Generic[S, T]):
    """A conversation by a method of a typed proxy: sent and received parts are values."""

    def __init__(
        self,
        conversation: Conversation,
        encode: Encode,
        of: Any,
        plan: CallPlan,
        failed: Callable[[], object],
    ) -> None:
        super().__init__(conversation, of, plan, failed)
        self._conversation, self._encode = conversation, encode

    def send(self, value: S) -> None:
        """Send one value. Waits until the other side takes it.

        Raises: BadRequest for a value that does not fit, TypeError for one of another class; as
        `Conversation.send`.
        """
        self._conversation.send(self._encode(value))

    def finish(self) -> None:
        """End this side. The other side may go on. May be repeated."""
        self._conversation.finish()


class AsyncTypedStream(Generic[T], AsyncIterator[T]):
    """As `TypedStream`, for `async for`."""

    def __init__(self, stream: AsyncStream | AsyncPartsThrough, of: Any) -> None:
        self._stream = stream
        self._decode = decoder_of(of)

    async def __anext__(self) -> T:
        value: T = self._decode(await anext(self._stream))
        return value

    async def aclose(self) -> None:
        """Cancel what has not come yet. May be repeated."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class AsyncTypedConversation(AsyncTypedStream[T]):
    """A conversation whose received parts are values."""

    def __init__(self, conversation: AsyncConversation, of: Any) -> None:
        super().__init__(conversation, of)
        self._conversation = conversation

    async def send(self, body: Body) -> None:
        """Send one part. See `AsyncConversation.send`."""
        await self._conversation.send(body)

    async def finish(self, body: Body = None) -> None:
        """End this side. See `AsyncConversation.finish`."""
        await self._conversation.finish(body)


class AsyncServiceStream(Generic[T], AsyncIterator[T]):
    """The parts of an answer, by a method of a typed proxy. The request is sent at the first step.

    `open` asks for the contract if need be, sends the request, and returns its stream and its plan.
    """

    def __init__(
        self,
        open: Callable[[], Awaitable[tuple[Any, CallPlan]]],
        of: Any,
        failed: Callable[[], object],
    ) -> None:
        self._open, self._of, self._failed = open, of, failed
        self._stream: Any = None
        self._plan = DEFAULT
        self._closed = False
        self._lock = asyncio.Lock()

    async def _opened(self) -> Any:
        async with self._lock:  # one task may read while another one sends
            if self._closed:
                raise LocalProtocolError("closed", "this stream is closed")
            if self._stream is None:
                self._stream, self._plan = await self._open()
                self._decode = decoder_of(self._of, self._plan)
        return self._stream

    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        stream = self._stream or await self._opened()
        part = await anext(stream)
        try:
            value: T = self._decode(part)
        except BadRequest:
            self._failed()
            raise
        return value

    async def aclose(self) -> None:
        """Cancel what has not come yet. May be repeated."""
        self._closed = True
        if self._stream is not None:
            await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class AsyncServiceConversation(AsyncServiceStream[T], Generic[S, T]):
    """As `ServiceConversation`, for `async for`. It is opened at the first step."""

    def __init__(
        self,
        open: Callable[[], Awaitable[tuple[Any, CallPlan]]],
        encode: Callable[[Any, CallPlan], list[bytes]],
        of: Any,
        failed: Callable[[], object],
    ) -> None:
        super().__init__(open, of, failed)
        self._encode = encode

    async def send(self, value: S) -> None:
        """Send one value. Waits until the other side takes it.

        Raises: BadRequest for a value that does not fit, TypeError for one of another class; as
        `AsyncConversation.send`.
        """
        conversation = self._stream or await self._opened()
        await conversation.send(self._encode(value, self._plan))

    async def finish(self) -> None:
        """End this side. The other side may go on. May be repeated."""
        conversation = self._stream or await self._opened()
        await conversation.finish()
