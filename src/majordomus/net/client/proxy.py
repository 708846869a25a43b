"""Typed proxies: `client.service(Notes)` returns an object with the methods of a Protocol, and each
method calls a service.

    class Notes(Protocol):
        async def put(self, draft: NoteDraft) -> Note: ...          # calls "notes.put"
        def rows(self, query: Query) -> AsyncIterator[Row]: ...     # a streamed reply
        async def load(self, rows: AsyncIterable[Row]) -> int: ...  # the client's stream
        def chat(self) -> AsyncServiceConversation[Line, Line]: ... # streams both ways

A method has one argument for the body, or none. Keyword arguments named as options of `call`
(timeout, once, fail_fast, to, metadata) are passed on. The body is encoded and checked by its
annotation before it is sent: what does not fit is a BadRequest with the path of the field. The
encoding is one that the contract of the service has (negotiation.py).
"""

from __future__ import annotations

import inspect
import typing
from collections import abc
from collections.abc import AsyncIterator, Callable, Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, cast, get_args, get_origin

from majordomus.errors import BadRequest, ConfigurationError, LocalProtocolError
from majordomus.messages.bodies import Decoder, Encoder, decoder_for, encoder_for, plain_json
from majordomus.net.bodies import Reply
from majordomus.net.client.negotiation import CallPlan
from majordomus.net.client.typed import (
    AsyncServiceConversation,
    AsyncServiceStream,
    ServiceConversation,
    TypedStream,
    decode_reply,
)

OPTIONS: Final = frozenset(("timeout", "once", "fail_fast", "to", "metadata"))
_STREAMS: Final = (
    abc.Iterator,
    abc.Iterable,
    abc.Generator,
    abc.AsyncIterator,
    abc.AsyncIterable,
    abc.AsyncGenerator,
)
_CONVERSATIONS: Final = (ServiceConversation, AsyncServiceConversation)
_CALL, _STREAM, _UPLOAD, _CONVERSATION = "call", "stream", "upload", "conversation"
_WANTED: Final = {
    _CALL: ("def", "async def"),
    _UPLOAD: ("def", "async def"),
    _STREAM: ("def … -> Iterator[T]", "def … -> AsyncIterator[T]"),
    _CONVERSATION: (
        "def … -> ServiceConversation[S, T]",
        "def … -> AsyncServiceConversation[S, T]",
    ),
}
"""How a method of each shape is written for a Client and for an AsyncClient."""


class CallingClient(Protocol):
    """What a proxy needs of a client."""

    @property
    def call(self) -> Callable[..., Any]: ...
    @property
    def stream(self) -> Callable[..., Any]: ...
    @property
    def open(self) -> Callable[..., Any]: ...
    @property
    def _plan(self) -> Callable[..., Any]: ...
    @property
    def _forget(self) -> Callable[[str], object]: ...


class ServiceMethod(NamedTuple):
    """One method of a Protocol.

    name: the method's name.
    argument: the name of the argument that is the body, or the iterable of the values of a stream;
        "" without one.
    takes: the annotation of the body or of each part of it; None without one.
    encode, check: encode it, and decode it to check it; None without one.
    returns: the type of the result, or of each part of it.
    shape: how it is called: "call", "stream", "upload" (the client's stream) or "conversation".
    waits: whether it is a method for an AsyncClient.
    signature: the signature, with `self`.
    """

    name: str
    argument: str
    takes: Any
    encode: Encoder | None
    check: Decoder | None
    returns: Any
    shape: str
    waits: bool
    signature: inspect.Signature

    def bind(
        self, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Return the argument that is the body, and the options of a call.

        Raises: TypeError for arguments that do not fit the method.
        """
        bound = self.signature.bind(None, *arguments, **options)
        given = {name: value for name, value in bound.arguments.items() if name in OPTIONS}
        if not self.argument:
            return None, given
        bound.apply_defaults()
        return bound.arguments[self.argument], given

    def frames(self, value: Any, plan: CallPlan) -> list[bytes]:
        """Encode a body, or a part of a stream. Raises: BadRequest for one that does not fit its
        annotation; TypeError for one of another class."""
        if self.encode is None or self.check is None:
            return []
        body = self.encode(value, "" if plan.plain else plan.type)
        if body.type:
            self.check(body.frames, body.type)
        return [plain_json(value)] if plan.plain else body.frames

    def stated(self, options: dict[str, Any], plan: CallPlan) -> dict[str, Any]:
        """Return the options with the encoding of the body in the metadata."""
        type_ = plan.type or (self.encode.type if self.encode is not None else "")
        if not type_:
            return options
        return {**options, "metadata": {"type": type_, **(options.get("metadata") or {})}}

    def request(self, value: Any, options: dict[str, Any], plan: CallPlan) -> dict[str, Any]:
        """Return the arguments of `call` and `stream`. Raises: as `frames`."""
        made = self.stated(options, plan)
        return {"body": self.frames(value, plan), **made} if self.argument else made


def make_proxy(client: CallingClient, protocol: Any, prefix: str | None, *, waits: bool) -> Any:
    """Return an object with the methods of `protocol` that calls services by `client`.

    `prefix`: what comes before the names of the methods, by default the name of the class, in
    lower case, and a dot. `waits`: whether the methods are `async def`.
    Raises: ConfigurationError for a class whose methods cannot be calls.
    """
    if not isinstance(protocol, type):
        raise ConfigurationError(f"service: expected a Protocol, not {protocol!r:.60}")
    start = f"{protocol.__name__.lower()}." if prefix is None else prefix
    made = type(f"{protocol.__name__}Client", (), {"__doc__": protocol.__doc__})()
    for method in methods_of(cast(Any, protocol)):
        if method.waits != waits:
            raise ConfigurationError(
                f"{protocol.__name__}.{method.name}: with {type(client).__name__} it is "
                f"{_WANTED[method.shape][waits]}"
            )
        make = (_ASYNC if waits else _SYNC)[method.shape]
        setattr(made, method.name, make(client, method, start + method.name))
    return made


# -- methods of a Client


def _calls(client: CallingClient, method: ServiceMethod, service: str) -> Callable[..., Any]:
    returns = method.returns

    def calls(*arguments: Any, **options: Any) -> Any:
        value, given = method.bind(arguments, options)
        plan, given = _planned(client, method, service, given)
        try:
            reply = client.call(service, **method.request(value, given, plan))
            return reply if returns is Reply else decode_reply(reply, returns, plan)
        except BadRequest:
            client._forget(service)
            raise

    return calls


def _streams(client: CallingClient, method: ServiceMethod, service: str) -> Callable[..., Any]:
    returns = method.returns

    def streams(*arguments: Any, **options: Any) -> Any:
        value, given = method.bind(arguments, options)
        plan, given = _planned(client, method, service, given)
        stream = client.stream(service, **method.request(value, given, plan))
        return TypedStream[Any](stream, returns, plan, lambda: client._forget(service))

    return streams


def _uploads(client: CallingClient, method: ServiceMethod, service: str) -> Callable[..., Any]:
    returns = method.returns

    def uploads(*arguments: Any, **options: Any) -> Any:
        values, given = method.bind(arguments, options)
        plan, given = _planned(client, method, service, given)
        try:
            with client.open(service, **method.stated(given, plan)) as conversation:
                for value in values:
                    frames = method.frames(value, plan)
                    try:
                        conversation.send(frames)
                    except LocalProtocolError:  # the service has answered before it read all
                        break
                reply = conversation.result()
            return reply if returns is Reply else decode_reply(reply, returns, plan)
        except BadRequest:
            client._forget(service)
            raise

    return uploads


def _converses(client: CallingClient, method: ServiceMethod, service: str) -> Callable[..., Any]:
    returns = method.returns

    def converses(*arguments: Any, **options: Any) -> Any:
        _, given = method.bind(arguments, options)
        plan, given = _planned(client, method, service, given)
        conversation = client.open(service, **method.stated(given, plan))
        return ServiceConversation[Any, Any](
            conversation,
            lambda value: method.frames(value, plan),
            returns,
            plan,
            lambda: client._forget(service),
        )

    return converses


Planned: TypeAlias = tuple[CallPlan, dict[str, Any]]


def _planned(
    client: CallingClient, method: ServiceMethod, service: str, given: dict[str, Any]
) -> Planned:
    """The encodings of a call, and its options with what is left of the timeout."""
    found = client._plan(service, method.takes, method.returns, given.get("timeout"))
    return _with_rest(given, *found)


async def _planned_async(
    client: CallingClient, method: ServiceMethod, service: str, given: dict[str, Any]
) -> Planned:
    """As `_planned`, with an asyncio client."""
    found = await client._plan(service, method.takes, method.returns, given.get("timeout"))
    return _with_rest(given, *found)


def _with_rest(given: dict[str, Any], plan: CallPlan, timeout: float | None) -> Planned:
    return plan, given if timeout is None else {**given, "timeout": timeout}


# -- methods of an AsyncClient


def _waits(client: CallingClient, method: ServiceMethod, service: str) -> Callable[..., Any]:
    returns = method.returns

    async def waits(*arguments: Any, **options: Any) -> Any:
        value, given = method.bind(arguments, options)
        plan, given = await _planned_async(client, method, service, given)
        try:
            reply = await client.call(service, **method.request(value, given, plan))
            return reply if returns is Reply else decode_reply(reply, returns, plan)
        except BadRequest:
            client._forget(service)
            raise

    return waits


def _async_streams(
    client: CallingClient, method: ServiceMethod, service: str
) -> Callable[..., Any]:
    returns = method.returns

    def streams(*arguments: Any, **options: Any) -> Any:
        value, given = method.bind(arguments, options)

        async def open_stream() -> tuple[Any, CallPlan]:
            plan, left = await _planned_async(client, method, service, given)
            return client.stream(service, **method.request(value, left, plan)), plan

        return AsyncServiceStream[Any](open_stream, returns, lambda: client._forget(service))

    return streams


def _async_uploads(
    client: CallingClient, method: ServiceMethod, service: str
) -> Callable[..., Any]:
    returns = method.returns

    async def uploads(*arguments: Any, **options: Any) -> Any:
        values, given = method.bind(arguments, options)
        plan, given = await _planned_async(client, method, service, given)
        try:
            async with client.open(service, **method.stated(given, plan)) as conversation:
                async for value in _each(values):
                    frames = method.frames(value, plan)
                    try:
                        await conversation.send(frames)
                    except LocalProtocolError:  # the service has answered before it read all
                        break
                reply = await conversation.result()
            return reply if returns is Reply else decode_reply(reply, returns, plan)
        except BadRequest:
            client._forget(service)
            raise

    return uploads


async def _each(values: Any) -> AsyncIterator[Any]:
    if isinstance(values, Iterable):
        for value in values:
            yield value
    else:
        async for value in values:
            yield value


def _async_converses(
    client: CallingClient, method: ServiceMethod, service: str
) -> Callable[..., Any]:
    returns = method.returns

    def converses(*arguments: Any, **options: Any) -> Any:
        _, given = method.bind(arguments, options)

        async def open_conversation() -> tuple[Any, CallPlan]:
            plan, left = await _planned_async(client, method, service, given)
            return client.open(service, **method.stated(left, plan)), plan

        return AsyncServiceConversation[Any, Any](
            open_conversation, method.frames, returns, lambda: client._forget(service)
        )

    return converses


_SYNC: Final = {_CALL: _calls, _STREAM: _streams, _UPLOAD: _uploads, _CONVERSATION: _converses}
_ASYNC: Final = {
    _CALL: _waits,
    _STREAM: _async_streams,
    _UPLOAD: _async_uploads,
    _CONVERSATION: _async_converses,
}

# -- Protocols


@lru_cache(maxsize=256)
def methods_of(protocol: Any) -> tuple[ServiceMethod, ...]:
    """Return the methods of a Protocol. Raises: ConfigurationError."""
    names = [
        name
        for name in dir(protocol)
        if not name.startswith("_") and inspect.isfunction(getattr(protocol, name))
    ]
    if not names:
        raise ConfigurationError(f"{protocol.__name__} has no methods: each one is a service")
    return tuple(_method(protocol, name) for name in names)


def _method(protocol: Any, name: str) -> ServiceMethod:
    function = getattr(protocol, name)
    where = f"{protocol.__name__}.{name}"
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    signature = inspect.signature(function)
    bodies = [
        one
        for one in list(signature.parameters.values())[1:]
        if not (one.kind is one.KEYWORD_ONLY and one.name in OPTIONS)
    ]
    if len(bodies) > 1:
        listed = ", ".join(one.name for one in bodies)
        raise ConfigurationError(f"{where}: a service takes one body, and not {listed}")
    if "return" not in hints:
        raise ConfigurationError(f"{where}: its result has no annotation")
    argument, takes = "", None
    returns = hints["return"]
    shape = _CALL
    if bodies:
        argument = bodies[0].name
        if argument not in hints:
            raise ConfigurationError(f"{where}: {argument} has no annotation")
        takes = hints[argument]
        if get_origin(takes) in _STREAMS:
            shape, takes = _UPLOAD, get_args(takes)[0]
    if get_origin(returns) in _CONVERSATIONS:
        if bodies:
            raise ConfigurationError(f"{where}: a conversation is opened without a body")
        shape, (takes, returns) = _CONVERSATION, get_args(returns)
    elif get_origin(returns) in _STREAMS:
        if shape == _UPLOAD:
            raise ConfigurationError(
                f"{where}: streams both ways are a method without a body that returns a "
                "ServiceConversation[Sent, Received]"
            )
        shape, returns = _STREAM, get_args(returns)[0]
    encode = check = None
    if takes is not None:
        encode, check = encoder_for(takes), decoder_for(takes)
    if returns not in (None, type(None), Reply):
        decoder_for(returns)
    waits = inspect.iscoroutinefunction(function)
    if shape in (_STREAM, _CONVERSATION):
        if waits:
            raise ConfigurationError(f"{where}: a stream is opened by def, not by async def")
        waits = get_origin(hints["return"]) in (*_STREAMS[3:], AsyncServiceConversation)
    return ServiceMethod(name, argument, takes, encode, check, returns, shape, waits, signature)
