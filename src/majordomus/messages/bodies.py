"""Bodies: for an annotation, the callables that decode, validate and encode a body.

The worker uses them to call handlers (net/worker/handlers.py), the client to make calls:

    decode = decoder_for(User)              # once, when the handler is registered
    user = decode(frames, type)             # for each request; BadRequest (400) names the field
    encode = encoder_for(UserId)
    body = encode(result, decode.like(frames, type))
    body.frames, body.type                  # `type` goes into the metadata under that key
    encode_body(value)                      # the same, chosen by the class of the value
    typed_body(value)                       # for calls; None for bytes, text, a list …

    annotation                         a body frame holds                   type
    a @record, a protobuf message      protocol buffers, or their JSON      application/protobuf
    Struct, dataclass, int, dict …     MessagePack or JSON, by msgspec      application/msgpack
    a pydantic model, or a list of it  MessagePack or JSON, by pydantic     application/msgpack
    str                                UTF-8                                text/plain
    bytes, list[bytes], tuple[bytes],  raw bytes, in any number of frames   (none)
    Message
    str | None, bytes | None           the same; None is no frame

`type` is the value of the sender's metadata, "" without one. Then a body whose first byte is a
brace or a bracket is JSON. A reply is in JSON when the request was (`like`). The format is chosen
when the callable is made. All callables are safe in any thread.
"""

from __future__ import annotations

import enum
import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, get_args, get_origin, is_typeddict

import msgspec

from majordomus.errors import BadRequest, ConfigurationError, RecordError
from majordomus.messages.message import Message

__all__ = [
    "JSON",
    "MSGPACK",
    "PROTOBUF",
    "TEXT",
    "Body",
    "Decoder",
    "Encoder",
    "decoder_for",
    "encode_body",
    "encoder_for",
    "is_protobuf",
    "is_tuple_of_frames",
    "is_typed",
    "plain_json",
    "pydantic_adapter",
    "typed_body",
    "types_of",
]

PROTOBUF = "application/protobuf"
MSGPACK = "application/msgpack"
JSON = "application/json"
TOO_DEEP = "the body is nested too deeply"
TOO_MANY = "the body has more than {} {}; send them in parts, or in several calls"
TEXT = "text/plain"
_Class = type  # the parameters named `type`, an encoding, shadow the builtin
_ALIASES = {
    "application/x-protobuf": PROTOBUF,
    "application/vnd.google.protobuf": PROTOBUF,
    "application/x-msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
}


class Body(NamedTuple):
    """An encoded body."""

    frames: list[bytes]
    """The body frames, in order; none for the value None."""
    type: str
    """The encoding, for the metadata; "" for raw bytes, whose format only the caller defines."""


class BodyFormat:
    """One row of the table above: encodes and decodes the values of one annotation."""

    types: tuple[str, ...] = ()
    """The supported encodings, the default first. Empty for raw bytes, where any type is valid."""

    def decode(self, frames: Sequence[bytes], type: str) -> Any:
        raise NotImplementedError

    def encode(self, value: Any, type: str) -> list[bytes]:
        raise NotImplementedError


class Decoder:
    """`decoder(frames, type)` returns the value. Raises BadRequest, whose text names the field.

    `type`: the default encoding of the annotation, "" for raw bytes.
    """

    def __init__(self, body_format: BodyFormat) -> None:
        self._format = body_format
        self.type = body_format.types[0] if body_format.types else ""

    def __call__(self, frames: Sequence[bytes], type: str = "") -> Any:
        body_format = self._format
        if not body_format.types:
            return body_format.decode(frames, "")
        if len(frames) > 1:
            raise BadRequest(f"expected one body frame, got {len(frames)}")
        return body_format.decode(frames, self.like(frames, type))

    def lax(self, frames: Sequence[bytes]) -> Any:
        """Decode the JSON of protocol buffers, where integers of 64 bits are text."""
        if isinstance(self._format, _Msgspec):
            return self._format.decode_lax(frames)
        return self._format.decode(frames, JSON)

    def like(self, frames: Sequence[bytes], type: str = "") -> str:
        """Return the encoding of a body. Raises BadRequest for a type that is not supported."""
        types = self._format.types
        if not types:
            return ""
        if not type:
            return JSON if JSON in types and _looks_like_json(frames) else types[0]
        bare = type.partition(";")[0].strip().lower()
        bare = _ALIASES.get(bare, bare)
        if bare not in types:
            raise BadRequest(f"the body is {bare}; this service accepts {' or '.join(types)}")
        return bare


class Encoder:
    """`encoder(value, type)` returns a Body.

    It uses the encoding `type` if the annotation supports it, else the default encoding.
    `type`: the default encoding of the annotation, "" for raw bytes.
    """

    def __init__(self, body_format: BodyFormat) -> None:
        self._format = body_format
        self.type = body_format.types[0] if body_format.types else ""

    def __call__(self, value: Any, type: str = "") -> Body:
        body_format = self._format
        chosen = type if type in body_format.types else self.type
        return Body(body_format.encode(value, chosen), chosen)


def decoder_for(annotation: Any) -> Decoder:
    """Return the decoder of bodies for `annotation`, such as a parameter of a handler.

    Raises: ConfigurationError for a type that cannot be a body.
    """
    return Decoder(_format_of(annotation))


def encoder_for(annotation: Any) -> Encoder:
    """Return the encoder of bodies for `annotation`, such as the return type of a handler.

    Raises: ConfigurationError for a type that cannot be a body.
    """
    return Encoder(_format_of(annotation))


def types_of(annotation: Any) -> tuple[str, ...]:
    """Return the encodings of bodies for `annotation`, the default first; none for raw bytes.

    Raises: ConfigurationError for a type that cannot be a body.
    """
    return _format_of(annotation).types


def encode_body(value: Any, type: str = "") -> Body:
    """Encode any value as a body, in the format of its class.

    Raises: RecordError for a value that does not fit its field, ConfigurationError for a class that
    cannot be a body.
    """
    if value is None:
        return Body([], "")
    if isinstance(value, list | tuple) and all(isinstance(part, bytes) for part in value):
        return Body(list(value), "")
    return Encoder(_format_of(value.__class__))(value, type)


def typed_body(value: Any, type: str = "") -> Body | None:
    """Encode a record, a protobuf message, a Struct, a dataclass or a pydantic model as a body;
    return None for any other value.

    Raises: RecordError for a value that does not fit its field.
    """
    class_ = value.__class__
    if is_typed(class_):
        return Encoder(_format_of(class_))(value, type)
    return None


def is_typed(class_: _Class) -> bool:
    """Whether `typed_body` encodes the values of a class."""
    return bool(
        class_.__dict__.get("__record__")
        or issubclass(class_, msgspec.Struct)
        or "__dataclass_fields__" in class_.__dict__
        or is_protobuf(class_)
        or _is_model(class_)
    )


def plain_json(value: Any) -> bytes:
    """Encode a record or a protobuf message as the JSON that a Struct with the same fields has:
    integers of 64 bits are numbers, and a field that is not set is left out."""
    codec = value.__class__.__dict__.get("__record__")
    message = value if codec is None else codec.to_message(value)
    return msgspec.json.encode(_plain(message))


def _plain(message: Any) -> Any:
    from google.protobuf import json_format

    descriptor = message.DESCRIPTOR
    if descriptor.full_name.startswith("google.protobuf."):
        return json_format.MessageToDict(message)
    fields: dict[str, Any] = {}
    for field in descriptor.fields:
        value = getattr(message, field.name)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            is_message = entry.fields_by_name["value"].message_type is not None
            fields[field.name] = {k: _plain(v) if is_message else v for k, v in value.items()}
        elif field.is_repeated:
            fields[field.name] = [_plain(one) if entry is not None else one for one in value]
        elif not field.has_presence or message.HasField(field.name):
            fields[field.name] = _plain(value) if entry is not None else value
    return fields


@functools.lru_cache(maxsize=1024)
def _format_of(annotation: Any) -> BodyFormat:
    if annotation in (None, type(None)):
        return _Nothing()
    if annotation in (bytes, bytearray, memoryview):
        return _Bytes()
    if annotation is str:
        return _Text()
    if annotation is Message:
        return _Frames(Message)
    if annotation in (str | None, bytes | None):
        return _Optional(_Text() if annotation == str | None else _Bytes())
    if get_origin(annotation) in (list, Sequence) and get_args(annotation) == (bytes,):
        return _Frames(list)
    if is_tuple_of_frames(annotation):
        arguments = get_args(annotation)
        return _Frames(tuple, -1 if arguments[-1] is ... else len(arguments))
    if isinstance(annotation, type):
        if annotation.__dict__.get("__record__"):
            return _Record(annotation)
        if is_protobuf(annotation):
            return _Protobuf(annotation)
    adapter = pydantic_adapter(annotation)
    if adapter is not None:
        return _Pydantic(adapter)
    return _Msgspec(annotation)


def is_tuple_of_frames(annotation: Any) -> bool:
    """Whether values of an annotation are tuples of bytes: each of these is a frame."""
    arguments = get_args(annotation)
    return (
        get_origin(annotation) is tuple
        and bool(arguments)
        and all(one is bytes or one is ... for one in arguments)
    )


def _is_model(type_: type) -> bool:
    # As with protobuf: a program that has a model has imported pydantic already.
    module = sys.modules.get("pydantic")
    return module is not None and issubclass(type_, module.BaseModel)


def pydantic_adapter(annotation: Any) -> Any:
    """Return pydantic's TypeAdapter of an annotation that contains a model; None for others."""
    module = sys.modules.get("pydantic")
    return module.TypeAdapter(annotation) if module and _has_model(annotation) else None


def _has_model(annotation: Any) -> bool:
    if isinstance(annotation, type) and not get_args(annotation):
        return _is_model(annotation)
    return any(_has_model(one) for one in get_args(annotation))


def is_protobuf(type_: type) -> bool:
    """Whether `type_` is a class that protoc generated."""
    # Do not import protobuf here: a program that has such a class has imported it already.
    module = sys.modules.get("google.protobuf.message")
    return module is not None and issubclass(type_, module.Message)


# -- bodies of any number of frames


class _Bytes(BodyFormat):
    """bytes; several frames are joined."""

    def decode(self, frames: Sequence[bytes], type: str) -> bytes:
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def encode(self, value: Any, type: str) -> list[bytes]:
        return [value if value.__class__ is bytes else bytes(memoryview(value))]


class _Nothing(BodyFormat):
    """None: no frame, or frames without a byte."""

    def decode(self, frames: Sequence[bytes], type: str) -> None:
        if any(frames):
            raise BadRequest("expected no body")

    def encode(self, value: Any, type: str) -> list[bytes]:
        return []


class _Optional(BodyFormat):
    """Text or bytes, or None, which has no frame."""

    def __init__(self, inner: BodyFormat) -> None:
        self._inner = inner
        self.types = inner.types

    def decode(self, frames: Sequence[bytes], type: str) -> Any:
        return self._inner.decode(frames, type) if frames else None

    def encode(self, value: Any, type: str) -> list[bytes]:
        return [] if value is None else self._inner.encode(value, type)


class _Frames(BodyFormat):
    """A list of frames, a tuple of them or a Message. `make` makes the value from the frames;
    `count` is their number, -1 for any."""

    def __init__(self, make: Callable[[Iterable[bytes]], Any], count: int = -1) -> None:
        self._make, self._count = make, count

    def decode(self, frames: Sequence[bytes], type: str) -> Any:
        if self._count not in (-1, len(frames)):
            raise BadRequest(f"expected {self._count} body frames, got {len(frames)}")
        return self._make(frames)

    def encode(self, value: Any, type: str) -> list[bytes]:
        return list(value)


# -- bodies of one frame


def _looks_like_json(frames: Sequence[bytes]) -> bool:
    """Whether the body starts with a brace or a bracket and has at least one more byte.

    In MessagePack such a first byte is a complete number, so no byte may follow it. In protocol
    buffers it starts a group, which no encoder of this package writes.
    """
    data = frames[0].lstrip()[:2] if frames else b""
    return len(data) == 2 and data[:1] in (b"{", b"[")


def _single_frame(frames: Sequence[bytes]) -> bytes:
    """The single frame. A body without frames is decoded as one empty frame."""
    return frames[0] if frames else b""


class _Text(BodyFormat):
    """str, as UTF-8."""

    types = (TEXT,)

    def decode(self, frames: Sequence[bytes], type: str) -> str:
        try:
            return _single_frame(frames).decode()
        except UnicodeDecodeError as error:
            raise BadRequest(
                f"the body is not UTF-8: {error.reason} at byte {error.start}"
            ) from None

    def encode(self, value: Any, type: str) -> list[bytes]:
        return [value.encode()]


class _Msgspec(BodyFormat):
    """Any type that msgspec decodes: Structs, dataclasses, TypedDicts, plain values."""

    types = (MSGPACK, JSON)

    def __init__(self, annotation: Any) -> None:
        try:
            known = msgspec.inspect.type_info(annotation)
        except TypeError as error:
            raise ConfigurationError(f"{annotation!r} cannot be a body: {error}") from None
        custom = _custom_class(known, set())
        if custom is not None:
            name = getattr(custom, "__name__", custom)
            raise ConfigurationError(
                f"{name} cannot be a body: use a @record, a Struct, a dataclass, str or bytes"
            )
        self._annotation = annotation
        # A TypedDict is no class to check an instance against: any dict may be one.
        self._checked = (
            isinstance(annotation, _Class)
            and annotation not in (Any, msgspec.Raw)
            and not is_typeddict(annotation)
        )
        self._decode = {
            MSGPACK: msgspec.msgpack.Decoder(annotation).decode,
            JSON: msgspec.json.Decoder(annotation).decode,
        }

    def decode(self, frames: Sequence[bytes], type: str) -> Any:
        try:
            return self._decode[type](_single_frame(frames))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(str(error)) from None
        except RecursionError:
            raise BadRequest(TOO_DEEP) from None

    def decode_lax(self, frames: Sequence[bytes]) -> Any:
        """Decode JSON in which numbers may be text."""
        try:
            return msgspec.json.decode(_single_frame(frames), type=self._annotation, strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(str(error)) from None
        except RecursionError:
            raise BadRequest(TOO_DEEP) from None

    def encode(self, value: Any, type: str) -> list[bytes]:
        # The receiver would answer a value of another class with 400, but the fault is ours.
        if self._checked and not isinstance(value, self._annotation):
            raise TypeError(f"expected {self._annotation.__name__}, got {_name(value)}")
        encode = msgspec.json.encode if type == JSON else msgspec.msgpack.encode
        return [encode(value)]


def _custom_class(info: Any, seen: set[int]) -> Any:
    """Return a class in a type that msgspec cannot decode; None without one."""
    if isinstance(info, msgspec.inspect.CustomType):
        return info.cls
    if isinstance(info, msgspec.inspect.EnumType) and issubclass(info.cls, enum.Flag):
        return info.cls  # msgspec knows single flags alone
    if id(info) in seen or not isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
        return None
    seen.add(id(info))
    for name in info.__struct_fields__:
        value = getattr(info, name)
        for one in value if isinstance(value, tuple) else (value,):
            found = _custom_class(one, seen)
            if found is not None:
                return found
    return None


def _name(value: Any) -> str:
    return str(value.__class__.__name__)


class _Pydantic(BodyFormat):
    """A pydantic model, or a type that contains models."""

    types = (MSGPACK, JSON)

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def decode(self, frames: Sequence[bytes], type: str) -> Any:
        data = _single_frame(frames)
        try:
            if type == JSON:
                return self._adapter.validate_json(data)
            return self._adapter.validate_python(msgspec.msgpack.decode(data))
        except sys.modules["pydantic"].ValidationError as error:
            first = error.errors()[0]
            path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
            raise BadRequest(f"{first['msg']} - at `${path}`") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(str(error)) from None
        except RecursionError:
            raise BadRequest(TOO_DEEP) from None

    def encode(self, value: Any, type: str) -> list[bytes]:
        if type == JSON:
            return [self._adapter.dump_json(value)]
        return [msgspec.msgpack.encode(self._adapter.dump_python(value, mode="json"))]


class _Protobuf(BodyFormat):
    """A message class that protoc generated."""

    types = (PROTOBUF, JSON)

    def __init__(self, message: Any) -> None:
        self._message = message

    def decode(self, frames: Sequence[bytes], type: str) -> Any:
        data = _single_frame(frames)
        if type == JSON:
            return _from_json(data, self._message())
        _check_elements(self._message.DESCRIPTOR, data)
        from google.protobuf.message import DecodeError

        try:
            return self._message.FromString(data)
        except DecodeError as error:
            raise BadRequest(self._explain(data) or str(error)) from None

    def encode(self, value: Any, type: str) -> list[bytes]:
        if not isinstance(value, self._message):
            raise TypeError(f"expected {self._message.__name__}, got {_name(value)}")
        return [_to_json(value) if type == JSON else value.SerializeToString()]

    def _explain(self, data: bytes) -> str:
        """Return the field and byte of the error, "" if they are unknown.

        upb reports only that it failed. A record with the same fields reports where.
        """
        from majordomus.messages.from_proto import record_from_proto

        try:
            record_from_proto(self._message).from_bytes(data)
        except RecordError as error:
            return str(error)
        except ConfigurationError:  # a message that no record can have, with groups
            return ""
        return ""


class _Record(BodyFormat):
    """A class made by @record."""

    types = (PROTOBUF, JSON)

    def __init__(self, record: Any) -> None:
        self._record = record

    def decode(self, frames: Sequence[bytes], type: str) -> Any:
        codec, data = self._record.__record__, _single_frame(frames)
        try:
            if type == JSON:
                return codec.from_parsed(_from_json(data, codec.message()), self._record)
            _check_elements(codec.message.DESCRIPTOR, data)
            return codec.decode_checked(data, self._record)
        except RecordError as error:
            raise BadRequest(str(error)) from None

    def encode(self, value: Any, type: str) -> list[bytes]:
        if not isinstance(value, self._record):
            raise TypeError(f"expected {self._record.__name__}, got {_name(value)}")
        if type == JSON:
            return [_to_json(value.__record__.to_message(value))]
        return [value.to_bytes()]


def _check_elements(descriptor: Any, data: bytes) -> None:
    from majordomus.messages import elements

    if elements.too_many_records(descriptor, data):
        raise BadRequest(f"{descriptor.name}: {TOO_MANY.format(elements.MOST, 'records')}")


def _from_json(data: bytes, message: Any) -> Any:
    from google.protobuf import json_format

    from majordomus.messages import elements

    if elements.too_many_in_json(data):
        raise BadRequest(f"{message.DESCRIPTOR.name}: {TOO_MANY.format(elements.MOST, 'values')}")
    try:
        return json_format.Parse(data, message)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise BadRequest(f"{message.DESCRIPTOR.name}: {error}") from None
    except RecursionError:
        raise BadRequest(f"{message.DESCRIPTOR.name}: {TOO_DEEP}") from None


def _to_json(message: Any) -> bytes:
    from google.protobuf import json_format

    return json_format.MessageToJson(
        message,
        always_print_fields_with_no_presence=True,
        preserving_proto_field_name=True,
        indent=None,
    ).encode()
