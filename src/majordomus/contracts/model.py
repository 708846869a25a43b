"""The contract of a service: its fields, its canonical bytes, its hash, and the parser.

The bytes are JSON with sorted keys and without spaces. The hash is the SHA-256 of these bytes. So
equal contracts have equal hashes, and a receiver can check the bytes that it asked for.

`parse` reads bytes of a peer: whatever they are, it raises nothing but RemoteProtocolError. What it
returns is well formed: compare.py may read its schemas without checks of its own.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from majordomus.errors import RemoteProtocolError

FORMAT: Final = 1
"""The version of the form of a contract. A reader ignores fields that it does not know."""
MAX_CONTRACT: Final = 64 * 1024
"""Bytes of a contract."""
MAX_DEPTH: Final = 64
"""Levels of nested JSON in a contract."""
HASH_SIZE: Final = 64
"""Characters of a hash."""


class BodyContract(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a request or a reply is made of.

    schema: the JSON Schema (2020-12) of a value; {} is any value.
    types: the encodings that are accepted, the default first; none for raw bytes.
    message: the full name of its protobuf message in the descriptor, "" if it has none.
    stream: whether there is any number of values, one in each part.
    """

    schema: dict[str, Any] = {}
    types: tuple[str, ...] = ()
    message: str = ""
    stream: bool = False


class ErrorContract(msgspec.Struct, frozen=True, omit_defaults=True):
    """One failure that the service may answer with.

    status: its status code.
    name: the name of the exception's class.
    doc: one sentence about it.
    detail: the JSON Schema of its detail; None when it has none.
    """

    status: int
    name: str = ""
    doc: str = ""
    detail: dict[str, Any] | None = None


class TopicContract(msgspec.Struct, frozen=True, omit_defaults=True):
    """Events that the service publishes.

    topic: the topic, or a pattern of it.
    schema: the JSON Schema of the body of an event.
    types: its encodings, the default first; none for raw bytes.
    """

    topic: str
    schema: dict[str, Any] = {}
    types: tuple[str, ...] = ()


class Contract(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a service takes and returns.

    contract: the version of this form, `FORMAT`.
    request: the body of the request; None for any body.
    reply: the body of the reply; None for any body.
    version: the version that the service states.
    doc: the handler's docstring.
    errors: the failures that it states, by status.
    publishes: the events that it publishes, by topic.
    idempotent: whether a repeated request has no further effect.
    once: whether callers have to send it as ONCE.
    examples: example values of the request, as JSON.
    descriptor: a serialized FileDescriptorSet with the messages that `request` and `reply` name.
    """

    contract: int = FORMAT
    request: BodyContract | None = None
    reply: BodyContract | None = None
    version: str = ""
    doc: str = ""
    errors: tuple[ErrorContract, ...] = ()
    publishes: tuple[TopicContract, ...] = ()
    idempotent: bool = False
    once: bool = False
    examples: tuple[Any, ...] = ()
    descriptor: bytes = b""

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.partition("\n")[0].strip()


_DECODER: Final = msgspec.json.Decoder(Contract)


def to_bytes(contract: Contract) -> bytes:
    """Return the canonical bytes of a contract."""
    values = msgspec.to_builtins(contract)
    return msgspec.json.encode({"contract": contract.contract, **values}, order="sorted")


def hash_of(data: bytes) -> str:
    """Return the hash of a contract's canonical bytes."""
    return hashlib.sha256(data).hexdigest()


def is_hash(text: object) -> bool:
    """Whether `text` has the form of a hash."""
    return (
        isinstance(text, str)
        and len(text) == HASH_SIZE
        and all(letter in "0123456789abcdef" for letter in text)
    )


def parse(data: bytes) -> Contract:
    """Read the canonical bytes of a contract. Raises: RemoteProtocolError for any other bytes."""
    if len(data) > MAX_CONTRACT:
        raise RemoteProtocolError(
            "bad-contract", f"{len(data)} bytes; a contract has {MAX_CONTRACT} at most"
        )
    try:
        value = msgspec.json.decode(data)
        if msgspec.json.encode(value, order="sorted") != data:
            raise RemoteProtocolError("bad-contract", "the bytes are not in the canonical form")
        found = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError) as error:
        raise RemoteProtocolError("bad-contract", str(error)) from None
    if found.contract != FORMAT:
        raise RemoteProtocolError("bad-contract", f"version {found.contract} of the form")
    for where, body in (("request", found.request), ("reply", found.reply)):
        if body is not None:
            _check(where, body.schema)
    for failure in found.errors:
        if failure.detail is not None:
            _check(f"errors.{failure.status}", failure.detail)
    for topic in found.publishes:
        _check(f"publishes.{topic.topic}", topic.schema)
    return found


_ONE: Final = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS: Final = ("properties", "$defs", "patternProperties")


def _check(where: str, schema: object, depth: int = 0) -> None:
    """Check the form of the keywords that readers of schemas use. Raises: RemoteProtocolError."""
    if depth > MAX_DEPTH:
        raise RemoteProtocolError("bad-contract", f"{where}: the schema is nested too deeply")
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise RemoteProtocolError("bad-contract", f"{where}: a schema is an object or a boolean")
    kind = schema.get("type", "")
    if not (isinstance(kind, str) or _texts(kind)):
        raise RemoteProtocolError("bad-contract", f"{where}.type: expected a name or names")
    if not _texts(schema.get("required", [])):
        raise RemoteProtocolError("bad-contract", f"{where}.required: expected names")
    if not isinstance(schema.get("$ref", ""), str):
        raise RemoteProtocolError("bad-contract", f"{where}.$ref: expected text")
    if not isinstance(schema.get("enum", []), list):
        raise RemoteProtocolError("bad-contract", f"{where}.enum: expected a list")
    for name in _ONE:
        if name in schema:
            _check(f"{where}.{name}", schema[name], depth + 1)
    for name in _LISTS:
        inner = schema.get(name, [])
        if not isinstance(inner, list):
            raise RemoteProtocolError("bad-contract", f"{where}.{name}: expected a list")
        for number, one in enumerate(inner):
            _check(f"{where}.{name}[{number}]", one, depth + 1)
    for name in _MAPS:
        inner = schema.get(name, {})
        if not isinstance(inner, dict):
            raise RemoteProtocolError("bad-contract", f"{where}.{name}: expected an object")
        for key, one in inner.items():
            _check(f"{where}.{key}", one, depth + 1)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
