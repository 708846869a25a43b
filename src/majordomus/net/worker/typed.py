"""Typed handlers: `def create(user: User) -> UserId` becomes a function of a `Request`.

What an annotation means is decided once, when the handler is registered:
- An argument that is annotated with `Request`, or not at all, gets the request.
- Another argument's annotation decodes and validates the body. A body that does not fit is 400
  with the field's name. A handler takes the request, the body or both, in any order.
- The result's annotation encodes the result.
- `Iterator[User]` and `AsyncIterator[User]` decode each part of the client's stream.
- An argument with a default value keeps it, unless it is the handler's only one or a `Request`.
- A handler that takes a `Request` alone stays as it is. So does a result that is a body already:
  bytes, text, a Message, a Reply, a list of frames.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import types
import typing
from collections import abc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final, Self, Union, get_args, get_origin

from majordomus.contracts.facts import ANY, BodyType
from majordomus.errors import ConfigurationError
from majordomus.messages.bodies import (
    Decoder,
    Encoder,
    decoder_for,
    encoder_for,
    is_tuple_of_frames,
)
from majordomus.messages.message import Message
from majordomus.net.bodies import Reply
from majordomus.net.worker.request import Request

EMPTY: Final = inspect.Parameter.empty
_UNTYPED: Final = (EMPTY, Any, object)
_BODIES: Final = (None, type(None), bytes, bytearray, memoryview, str, Message, Reply)
_DESCRIBED: Final = (
    None,
    type(None),
    bytes,
    str,
    list[bytes],
    list[str],
    bytes | None,
    str | None,
)
"""Bodies that have a schema."""
_PARTS: Final = (
    abc.Iterator,
    abc.Iterable,
    abc.Generator,
    abc.AsyncIterator,
    abc.AsyncIterable,
    abc.AsyncGenerator,
)
_SEQUENCES: Final = (list, abc.Sequence)


class Binding(typing.NamedTuple):
    """How a request becomes a handler's arguments, and the handler's result a body.

    decode: decodes an argument from a body; None if no argument is
    encode: encodes the result; None leaves it as it is
    stream: that argument is an iterator of decoded values, one for each of the client's parts
    positional: for each positional argument, whether it is decoded; else it is the `Request`
    named: the same for the arguments that are passed by name
    takes, returns: the annotations of the body and of the result, for the service's contract
    """

    decode: Decoder | None
    encode: Encoder | None
    stream: bool = False
    positional: tuple[bool, ...] = (True,)
    named: tuple[tuple[str, bool], ...] = ()
    takes: BodyType = BodyType()
    returns: BodyType = BodyType()

    @property
    def plain(self) -> bool:
        """Whether the function is a handler of requests as it is."""
        return (
            self.decode is None
            and self.encode is None
            and self.positional == (False,)
            and not self.named
        )

    def call(self, function: Callable[..., Any], request: Request) -> Any:
        """Call the handler. Raises: BadRequest for a body that does not fit."""
        decode = self.decode
        decoded: Any = None
        if decode is not None and self.stream:
            decoded = TypedParts(request, decode, _type_of(request))
        elif decode is not None:
            decoded = decode(request.frames, _type_of(request))
        if not self.named and len(self.positional) == 1:
            return function(decoded if self.positional[0] else request)
        return function(
            *[decoded if wanted else request for wanted in self.positional],
            **{name: decoded if wanted else request for name, wanted in self.named},
        )

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


def binding_of(function: Callable[..., Any], *, parts: bool) -> Binding | None:
    """Read the binding from a function's annotations; `parts`: the function is a generator.

    Return None for a function without a signature. A `plain` one needs no wrapper.

    Raises: ConfigurationError for arguments that a request and its body cannot fill, and for an
    annotation that cannot be decoded from a body.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # builtins
        return None
    names = _names_of(function)
    arguments = _filled(function, signature)
    decoder: Decoder | None = None
    takes = BodyType()
    kinds: dict[str, bool] = {}  # name → whether it is decoded
    for argument in arguments:
        body = _body_of(argument, names)
        kinds[argument.name] = body is not None
        if body is not None:
            decoder, takes = decoder_for(body.annotation), body
    decoded = [name for name, is_decoded in kinds.items() if is_decoded]
    others = [name for name, is_decoded in kinds.items() if not is_decoded]
    if len(decoded) > 1:
        raise ConfigurationError(
            f"a handler takes one body, and {' and '.join(map(repr, decoded))} are annotated as one"
        )
    if len(others) > 1:
        raise ConfigurationError(
            f"{' and '.join(map(repr, others))} would both be the request: annotate the body's"
            " argument with its type"
        )
    positional, named = _places(signature, kinds)
    returns = _result_of(signature.return_annotation, names, parts)
    encode = _encoder(returns.annotation)
    return Binding(decoder, encode, takes.stream, positional, named, takes, returns)


def typed(function: Callable[..., Any], binding: Binding) -> Callable[[Request], Any]:
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
    return functools.wraps(function)(make(function, binding))


# ── the four shapes ───────────────────────────────────────────────────────────────────────────────


def _function(function: Callable[..., Any], binding: Binding) -> Callable[[Request], Any]:
    def call(request: Request) -> Any:
        return binding.result(request, binding.call(function, request))

    return call


def _generator(
    function: Callable[..., Any], binding: Binding
) -> Callable[[Request], Iterator[Any]]:
    def call(request: Request) -> Iterator[Any]:
        with contextlib.closing(binding.call(function, request)) as parts:
            for part in parts:
                yield binding.result(request, part)

    return call


def _coroutine(function: Callable[..., Any], binding: Binding) -> Callable[[Request], Any]:
    async def call(request: Request) -> Any:
        return binding.result(request, await binding.call(function, request))

    return call


def _async_generator(
    function: Callable[..., Any], binding: Binding
) -> Callable[[Request], AsyncIterator[Any]]:
    async def call(request: Request) -> AsyncIterator[Any]:
        async with contextlib.aclosing(binding.call(function, request)) as parts:
            async for part in parts:
                yield binding.result(request, part)

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


def _filled(function: Callable[..., Any], signature: inspect.Signature) -> list[inspect.Parameter]:
    """Return the arguments that a request and its body have to fill.

    Raises: ConfigurationError for none, and for more than two.
    """
    every = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    single = [one for one in every if one.kind is not one.VAR_POSITIONAL]
    names = _names_of(function)
    filled = [one for one in single if one.default is EMPTY or _wants_request(one, names)]
    # A function that has defaults only, or `*args`, gets one argument.
    filled = filled or [one for one in every if one.kind is not one.KEYWORD_ONLY][:1]
    if not filled:
        raise ConfigurationError("a handler takes an argument: the request, or its decoded body")
    if len(filled) > 1 and _takes_one(function):
        return filled[:1]
    if len(filled) > 2:
        listed = ", ".join(one.name for one in filled)
        raise ConfigurationError(
            f"a handler takes the request, its body or both, and not {len(filled)} arguments"
            f" ({listed}): give the others default values"
        )
    return filled


def _takes_one(function: Callable[..., Any]) -> bool:
    """Whether a decorator has replaced the function by one that takes a single argument, and adds
    the others itself. `inspect.signature` shows the arguments of the decorated function."""
    outer = inspect.signature(function, follow_wrapped=False)
    if any(one.kind is one.VAR_POSITIONAL for one in outer.parameters.values()):
        return False
    try:
        outer.bind(None)
    except TypeError:
        return False
    try:
        outer.bind(None, None)
    except TypeError:
        return True
    return False


def _places(
    signature: inspect.Signature, kinds: dict[str, bool]
) -> tuple[tuple[bool, ...], tuple[tuple[str, bool], ...]]:
    """Return which arguments are passed by position and which by name; see `Binding`.

    Raises: ConfigurationError for an argument that can be passed in neither way.
    """
    positional: list[bool] = []
    named: list[tuple[str, bool]] = []
    skipped = False
    for name, one in signature.parameters.items():
        if name not in kinds:
            skipped = True  # what follows cannot be passed by position
        elif one.kind is one.KEYWORD_ONLY or (skipped and one.kind is one.POSITIONAL_OR_KEYWORD):
            named.append((name, kinds[name]))
        elif skipped:
            raise ConfigurationError(f"{name!r} follows an argument that has a default value")
        else:
            positional.append(kinds[name])
    return tuple(positional), tuple(named)


def _wants_request(argument: inspect.Parameter, names: dict[str, Any]) -> bool:
    """Whether an argument is annotated with `Request`."""
    try:
        return _is_request(_resolve(argument.annotation, names))
    except NameError:  # it is imported for type checkers only
        return re.search(r"\bRequest\b", str(argument.annotation)) is not None


def _is_request(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is typing.Annotated or origin in (Union, types.UnionType):
        return any(_is_request(each) for each in get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, Request)


def _body_of(argument: inspect.Parameter, names: dict[str, Any]) -> BodyType | None:
    """Return what an argument decodes from the body; None for one that gets the request."""
    if _wants_request(argument, names):
        return None
    try:
        annotation = _resolve(argument.annotation, names)
    except NameError as error:
        raise ConfigurationError(
            f"the annotation {argument.annotation!r} of {argument.name!r} cannot be resolved: "
            f"{error}"
        ) from None
    if annotation in _UNTYPED:
        return None
    if get_origin(annotation) in _PARTS and get_args(annotation):
        return BodyType(get_args(annotation)[0], True)
    if get_origin(annotation) in _PARTS or annotation in _PARTS:
        raise ConfigurationError(
            f"{argument.name!r}: write the type of the values, for example Iterator[Note]"
        )
    return BodyType(annotation)


def _result_of(annotation: Any, names: dict[str, Any], parts: bool) -> BodyType:
    """Return the annotation of a result, or of each part of it."""
    try:
        annotation = _resolve(annotation, names)
    except NameError:  # the result is then encoded by its class
        return BodyType(ANY, parts)
    if parts and (get_origin(annotation) in _PARTS or annotation in _PARTS):
        annotation = (*get_args(annotation), ANY)[0]
    if annotation in (*_UNTYPED, ANY, Message, Reply, typing.NoReturn, typing.Never):
        return BodyType(ANY, parts)
    if _is_body(annotation) and not (annotation in _DESCRIBED or is_tuple_of_frames(annotation)):
        return BodyType(ANY, parts)
    return BodyType(annotation, parts)


def _encoder(annotation: Any) -> Encoder | None:
    if annotation is ANY or _is_body(annotation):
        return None
    try:
        return encoder_for(annotation)
    except ConfigurationError:
        return None


def _is_body(annotation: Any) -> bool:
    """Whether values of this annotation are bodies already, which `to_frames` takes."""
    if annotation in _BODIES:
        return True
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [one for one in get_args(annotation) if one is not type(None)]
        if len(inner) == 1 and _is_frames(inner[0]):
            return False  # no frames could be None or an empty list: it is a value
        return bool(inner) and all(map(_is_body, inner))
    return _is_frames(annotation)


def _is_frames(annotation: Any) -> bool:
    """Whether values of this annotation are lists of frames. Text in a tuple is a value."""
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple:
        return is_tuple_of_frames(annotation)
    return get_origin(annotation) in _SEQUENCES and bool(arguments) and arguments[0] in _BODIES


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
