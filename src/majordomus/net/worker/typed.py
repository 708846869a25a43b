"""Typed handlers: `def create(user: User) -> UserId` becomes a function of a `Request`.

What an annotation means is decided once, when the handler is registered:
- The first argument's annotation decodes and validates the body. A body that does not fit is 400
  with the field's name.
- The result's annotation encodes the result.
- `Iterator[User]` and `AsyncIterator[User]` decode each part of the client's stream.
- A handler that takes a `Request`, or has no annotation, stays as it is. So does a result that is a
  body already: bytes, text, a Message, a Reply, a list of frames.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
import typing
from collections import abc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final, Self, Union, get_args, get_origin

from majordomus.errors import ConfigurationError
from majordomus.messages.bodies import Decoder, Encoder, decoder_for, encoder_for
from majordomus.messages.message import Message
from majordomus.net.bodies import Reply
from majordomus.net.worker.request import Request

EMPTY: Final = inspect.Parameter.empty
_UNTYPED: Final = (EMPTY, Any, object)
_BODIES: Final = (None, type(None), bytes, bytearray, memoryview, str, Message, Reply)
_PARTS: Final = (
    abc.Iterator,
    abc.Iterable,
    abc.Generator,
    abc.AsyncIterator,
    abc.AsyncIterable,
    abc.AsyncGenerator,
)
_SEQUENCES: Final = (list, tuple, abc.Sequence)


class Contract(typing.NamedTuple):
    """How a request becomes a handler's argument, and the handler's result a body.

    decode: decodes the argument from a body; None passes the `Request`
    encode: encodes the result; None leaves it as it is
    stream: the argument is an iterator of decoded values, one for each of the client's parts
    """

    decode: Decoder | None
    encode: Encoder | None
    stream: bool = False

    def argument(self, request: Request) -> Any:
        """Make the handler's argument. Raises: BadRequest for a body that does not fit."""
        if self.decode is None:
            return request
        if self.stream:
            return TypedParts(request, self.decode, _type_of(request))
        return self.decode(request.frames, _type_of(request))

    def result(self, request: Request, value: Any) -> Any:
        """Encode a result or a part, as JSON if the request was JSON."""
        if self.encode is None or isinstance(value, Reply):
            return value
        type_ = _type_of(request)
        if self.decode is None or self.stream:  # no decoded body shows the format
            like = type_
        else:
            like = self.decode.like(request.frames, type_)
        return Reply(self.encode(value, like).frames)


def contract_of(function: Callable[..., Any], *, parts: bool) -> Contract | None:
    """Read the contract from a function's annotations; `parts`: the function is a generator.

    Return None for a function that takes a `Request` and returns a body.

    Raises: ConfigurationError for an annotation that cannot be decoded from a body.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # builtins
        return None
    names = _names_of(function)
    first = next(iter(signature.parameters.values()), None)
    decode, stream = (None, False) if first is None else _decoder(first, names)
    encode = _encoder(signature.return_annotation, names, parts)
    return Contract(decode, encode, stream) if decode or encode else None


def typed(function: Callable[..., Any], contract: Contract) -> Callable[[Request], Any]:
    """Wrap `function` in a handler of requests of the same shape."""
    routine = unwrapped(function)
    if inspect.isasyncgenfunction(routine):
        make: Callable[..., Callable[[Request], Any]] = _async_generator
    elif inspect.iscoroutinefunction(routine):
        make = _coroutine
    elif inspect.isgeneratorfunction(routine):
        make = _generator
    else:
        make = _function
    return functools.wraps(function)(make(function, contract))


# ── the four shapes ───────────────────────────────────────────────────────────────────────────────


def _function(function: Callable[..., Any], contract: Contract) -> Callable[[Request], Any]:
    def call(request: Request) -> Any:
        return contract.result(request, function(contract.argument(request)))

    return call


def _generator(
    function: Callable[..., Any], contract: Contract
) -> Callable[[Request], Iterator[Any]]:
    def call(request: Request) -> Iterator[Any]:
        with contextlib.closing(function(contract.argument(request))) as parts:
            for part in parts:
                yield contract.result(request, part)

    return call


def _coroutine(function: Callable[..., Any], contract: Contract) -> Callable[[Request], Any]:
    async def call(request: Request) -> Any:
        return contract.result(request, await function(contract.argument(request)))

    return call


def _async_generator(
    function: Callable[..., Any], contract: Contract
) -> Callable[[Request], AsyncIterator[Any]]:
    async def call(request: Request) -> AsyncIterator[Any]:
        async with contextlib.aclosing(function(contract.argument(request))) as parts:
            async for part in parts:
                yield contract.result(request, part)

    return call


class TypedParts:
    """The parts of a client's stream as values: the argument of a handler annotated with
    `Iterator[User]`, or `AsyncIterator[User]` on the event loop.

    The body of the request is the first value, if it has any frame: a plain call is a stream of
    one. Raises: BadRequest for a part that cannot be decoded.
    """

    def __init__(self, request: Request, decode: Decoder, type: str) -> None:
        self._decode, self._type = decode, type
        self._first: Sequence[bytes] | None = request.frames or None
        self._parts = request.parts

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        first, self._first = self._first, None
        return self._value(next(self._parts).frames if first is None else first)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        first, self._first = self._first, None
        if first is not None:
            return self._value(first)
        part: Reply = await anext(self._parts)
        return self._value(part.frames)

    def _value(self, frames: Sequence[bytes]) -> Any:
        return self._decode(frames, self._type)


# ── annotations ───────────────────────────────────────────────────────────────────────────────────


def _type_of(request: Request) -> str:
    type_ = request.metadata.get("type", "")
    return type_ if isinstance(type_, str) else ""


def _decoder(first: inspect.Parameter, names: dict[str, Any]) -> tuple[Decoder | None, bool]:
    """Return the argument's decoder, and whether it is for each of the client's parts."""
    annotation = first.annotation
    try:
        annotation = _resolve(annotation, names)
    except NameError as error:
        if "Request" in str(annotation):  # it is imported for type checkers only
            return None, False
        raise ConfigurationError(
            f"the annotation {annotation!r} of {first.name!r} cannot be resolved: {error}"
        ) from None
    if annotation in _UNTYPED:
        return None, False
    if isinstance(annotation, type) and issubclass(annotation, Request):
        return None, False
    if get_origin(annotation) in _PARTS:
        return decoder_for(get_args(annotation)[0]), True
    return decoder_for(annotation), False


def _encoder(annotation: Any, names: dict[str, Any], parts: bool) -> Encoder | None:
    try:
        annotation = _resolve(annotation, names)
    except NameError:  # the result is then encoded by its class
        return None
    if parts and get_origin(annotation) in _PARTS:
        annotation = get_args(annotation)[0]
    if annotation in _UNTYPED or _is_body(annotation):
        return None
    try:
        return encoder_for(annotation)
    except ConfigurationError:
        return None


def _is_body(annotation: Any) -> bool:
    """Whether values of this annotation are bodies already, which `to_frames` takes."""
    if annotation in _BODIES:
        return True
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_is_body(each) for each in arguments if each is not type(None))
    return origin in _SEQUENCES and bool(arguments) and _is_body(arguments[0])


def _resolve(annotation: Any, names: dict[str, Any]) -> Any:
    """Resolve an annotation that may be text. Raises: NameError."""
    if not isinstance(annotation, str):
        return annotation
    holder = types.SimpleNamespace(__annotations__={"value": annotation})
    return typing.get_type_hints(holder, globalns=names, include_extras=True)["value"]


def _names_of(function: Callable[..., Any]) -> dict[str, Any]:
    return getattr(inspect.unwrap(unwrapped(function)), "__globals__", {})


def unwrapped(function: Callable[..., Any]) -> Any:
    """Return the function behind partials, methods and objects with `__call__`."""
    target: Any = function
    while isinstance(target, functools.partial):
        target = target.func
    if not inspect.isroutine(target) and not inspect.isclass(target):
        target = type(target).__call__
    return target
