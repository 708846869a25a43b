"""Bodies: from an annotation to the callables that decode, validate and encode a body.

The interface for whoever calls handlers (net/worker/handlers.py) and makes calls:

    decode = decoder_for(User)              # once, when the handler is registered
    user = decode(frames, type)             # each request; BadRequest (400) names the field
    encode = encoder_for(UserId)
    body = encode(result, decode.like(frames, type))
    body.frames, body.type                  # `type` goes into the metadata under that key
    encode_body(value)                      # the same by the value's own class
    typed_body(value)                       # None for what is bytes, text, a list …: for calls

    annotation                         one body frame holds                 type
    a @record, a protobuf message      protocol buffers, or their JSON      application/protobuf
    Struct, dataclass, int, dict …     MessagePack or JSON, by msgspec      application/msgpack
    str                                UTF-8                                text/plain
    bytes, list[bytes], Message        what it is, of any number of frames  (none)

`type` is what the sender's metadata says, "" if it says nothing: then JSON is known by its first
byte, a brace or bracket. An answer is in JSON when the question was (`like`). Everything is chosen
when the callable is made; all are safe in any thread.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, get_args, get_origin

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
    "typed_body",
]

PROTOBUF = "application/protobuf"
MSGPACK = "application/msgpack"
JSON = "application/json"
TOO_DEEP = "the body is nested too deeply"
TEXT = "text/plain"
_ALIASES = {
    "application/x-protobuf": PROTOBUF,
    "application/vnd.google.protobuf": PROTOBUF,
    "application/x-msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
}


class Body(NamedTuple):
    """An encoded body. `type` is "" when the bytes are the caller's own."""

    frames: list[bytes]
    type: str


class Family:
    """One row of the table above: how values of one annotation become bytes and back."""

    types: tuple[str, ...] = ()
    """Encodings, the usual one first; none: any."""

    def decode(self, frames: Sequence[bytes], type: str) -> Any:
        raise NotImplementedError

    def encode(self, value: Any, type: str) -> list[bytes]:
        raise NotImplementedError


class Decoder:
    """`decoder(frames, type)` is the value. Raises BadRequest, whose text names the field."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self.type = family.types[0] if family.types else ""

    def __call__(self, frames: Sequence[bytes], type: str = "") -> Any:
        family = self._family
        if not family.types:
            return family.decode(frames, "")
        if len(frames) > 1:
            raise BadRequest(f"one body frame expected, {len(frames)} came")
        return family.decode(frames, self.like(frames, type))

    def like(self, frames: Sequence[bytes], type: str = "") -> str:
        """The encoding of such a body. Raises BadRequest for a type that is not taken."""
        types = self._family.types
        if not types:
            return ""
        if not type:
            return JSON if JSON in types and _looks_like_json(frames) else types[0]
        bare = type.partition(";")[0].strip().lower()
        bare = _ALIASES.get(bare, bare)
        if bare not in types:
            raise BadRequest(f"the body is {bare}; this service takes {' or '.join(types)}")
        return bare


class Encoder:
    """`encoder(value, type)` is a Body, in the encoding `type` if it can be."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self.type = family.types[0] if family.types else ""

    def __call__(self, value: Any, type: str = "") -> Body:
        family = self._family
        chosen = type if type in family.types else self.type
        return Body(family.encode(value, chosen), chosen)


def decoder_for(annotation: Any) -> Decoder:
    """Raises: ConfigurationError for an annotation that no body can be."""
    return Decoder(_family(annotation))


def encoder_for(annotation: Any) -> Encoder:
    """For the value that a handler returns. Raises: ConfigurationError like `decoder_for`."""
    return Encoder(_family(annotation))


def encode_body(value: Any, type: str = "") -> Body:
    """The body for any value, by its class. Raises: RecordError, ConfigurationError."""
    if value is None:
        return Body([], "")
    if isinstance(value, list | tuple) and all(isinstance(part, bytes) for part in value):
        return Body(list(value), "")
    return Encoder(_family(value.__class__))(value, type)


def typed_body(value: Any, type: str = "") -> Body | None:
    """`encode_body` for a record, a protobuf message or a Struct, which can be nothing but a typed
    body; None for anything else. Raises: RecordError.
    """
    class_ = value.__class__
    if (
        class_.__dict__.get("__record__")
        or issubclass(class_, msgspec.Struct)
        or _is_protobuf(class_)
    ):
        return Encoder(_family(class_))(value, type)
    return None


@functools.lru_cache(maxsize=1024)
def _family(annotation: Any) -> Family:
    if annotation in (bytes, bytearray, memoryview):
        return _Bytes()
    if annotation is str:
        return _Text()
    if annotation is Message:
        return _Frames(Message)
    if get_origin(annotation) in (list, Sequence) and get_args(annotation) == (bytes,):
        return _Frames(list)
    if isinstance(annotation, type):
        if annotation.__dict__.get("__record__"):
            return _Record(annotation)
        if _is_protobuf(annotation):
            return _Protobuf(annotation)
    return _Packed(annotation)


def _is_protobuf(type_: type) -> bool:
    """Without importing protobuf: who has such a class has imported it."""
    module = sys.modules.get("google.protobuf.message")
    return module is not None and issubclass(type_, module.Message)


# -- bodies of any number of frames


class _Bytes(Family):
    def decode(self, frames: Sequence[bytes], type: str) -> bytes:
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def encode(self, value: Any, type: str) -> list[bytes]:
        return [value if value.__class__ is bytes else bytes(memoryview(value))]


class _Frames(Family):
    def __init__(self, make: Callable[[Iterable[bytes]], Any]) -> None:
        self._make = make

    def decode(self, frames: Sequence[bytes], type: str) -> Any:
        return self._make(frames)

    def encode(self, value: Any, type: str) -> list[bytes]:
        return list(value)


# -- bodies of one frame


def _looks_like_json(frames: Sequence[bytes]) -> bool:
    """A brace or bracket and more. In MessagePack each is a number, of one byte in all; in protocol
    buffers a group, which nothing here writes."""
    data = frames[0].lstrip()[:2] if frames else b""
    return len(data) == 2 and data[:1] in (b"{", b"[")


def _only(frames: Sequence[bytes]) -> bytes:
    return frames[0] if frames else b""


class _Text(Family):
    types = (TEXT,)

    def decode(self, frames: Sequence[bytes], type: str) -> str:
        try:
            return _only(frames).decode()
        except UnicodeDecodeError as error:
            raise BadRequest(
                f"the body is no UTF-8: {error.reason} at byte {error.start}"
            ) from None

    def encode(self, value: Any, type: str) -> list[bytes]:
        return [value.encode()]


class _Packed(Family):
    """Whatever msgspec decodes: Structs, dataclasses, TypedDicts, plain values."""

    types = (MSGPACK, JSON)

    def __init__(self, annotation: Any) -> None:
        try:
            known = msgspec.inspect.type_info(annotation)
        except TypeError as error:
            raise ConfigurationError(f"{annotation!r} cannot be a body: {error}") from None
        if isinstance(known, msgspec.inspect.CustomType):
            name = getattr(annotation, "__name__", annotation)
            raise ConfigurationError(
                f"{name} cannot be a body: use a @record, a Struct, a dataclass, str or bytes"
            )
        self._annotation = annotation
        self._decode = {
            MSGPACK: msgspec.msgpack.Decoder(annotation).decode,
            JSON: msgspec.json.Decoder(annotation).decode,
        }

    def decode(self, frames: Sequence[bytes], type: str) -> Any:
        try:
            return self._decode[type](_only(frames))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(str(error)) from None
        except RecursionError:
            raise BadRequest(TOO_DEEP) from None

    def encode(self, value: Any, type: str) -> list[bytes]:
        # A value of another class than announced would be the receiver's 400: it is our error.
        if isinstance(self._annotation, _Class) and not isinstance(value, self._annotation):
            raise TypeError(f"{_name(value)} given, {self._annotation.__name__} announced")
        encode = msgspec.json.encode if type == JSON else msgspec.msgpack.encode
        return [encode(value)]


_Class = type  # `type` is what encodings are called here


def _name(value: Any) -> str:
    return str(value.__class__.__name__)


class _Protobuf(Family):
    """A message class that protoc or the like has made."""

    types = (PROTOBUF, JSON)

    def __init__(self, message: Any) -> None:
        self._message = message

    def decode(self, frames: Sequence[bytes], type: str) -> Any:
        data = _only(frames)
        if type == JSON:
            return _from_json(data, self._message())
        from google.protobuf.message import DecodeError

        try:
            return self._message.FromString(data)
        except DecodeError as error:
            raise BadRequest(self._explain(data) or str(error)) from None

    def encode(self, value: Any, type: str) -> list[bytes]:
        if not isinstance(value, self._message):
            raise TypeError(f"{_name(value)} given, {self._message.__name__} announced")
        return [_to_json(value) if type == JSON else value.SerializeToString()]

    def _explain(self, data: bytes) -> str:
        """Where the bytes go wrong, found by way of a record of the same fields."""
        from majordomus.messages.from_proto import record_from_proto

        try:
            record_from_proto(self._message).from_bytes(data)
        except RecordError as error:
            return str(error)
        except ConfigurationError:  # what records cannot be: groups and the like
            return ""
        return ""


class _Record(Family):
    types = (PROTOBUF, JSON)

    def __init__(self, record: Any) -> None:
        self._record = record

    def decode(self, frames: Sequence[bytes], type: str) -> Any:
        codec, data = self._record.__record__, _only(frames)
        try:
            if type == JSON:
                return codec.around(_from_json(data, codec.message()), self._record)
            return codec.decode_checked(data, self._record)
        except RecordError as error:
            raise BadRequest(str(error)) from None

    def encode(self, value: Any, type: str) -> list[bytes]:
        if not isinstance(value, self._record):
            raise TypeError(f"{_name(value)} given, {self._record.__name__} announced")
        if type == JSON:
            return [_to_json(value.__record__.to_message(value))]
        return [value.to_bytes()]


def _from_json(data: bytes, message: Any) -> Any:
    from google.protobuf import json_format

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
