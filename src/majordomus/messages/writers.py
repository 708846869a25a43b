"""Writers: for one field, a closure that encodes an ordinary value as protocol buffers.

An ordinary value has exactly the field's type and is in its range. For any other value a writer
raises one of ODD; then upb encodes the record, and converts or rejects the value. A test checks
that a writer and upb give the same bytes.

A writer encodes a value with one call, for speed. Therefore some closures repeat code of others.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any

from majordomus.messages.conversions import closure_of, put_for
from majordomus.messages.fields import FieldShape, FieldSpec
from majordomus.messages.kinds import (
    BOOL,
    BYTES,
    DOUBLE,
    ENUM,
    FIXED32,
    FIXED64,
    INT32,
    INT64,
    RECORD,
    SFIXED32,
    SFIXED64,
    SINGLE,
    SINT32,
    SINT64,
    STRING,
    UINT32,
    UINT64,
    Kind,
)

__all__ = ["ODD", "Writer", "join_writers", "writer_for"]

Writer = Callable[[Any], bytes]
"""Encodes the value of a field, tag included; b"" for a value that is not written."""
ODD = (TypeError, ValueError, AttributeError, KeyError, OverflowError, struct.error)
"""The exceptions that a writer raises for a value that is not ordinary."""

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_FIXED = {
    DOUBLE: (_I64, "d"),
    SINGLE: (_I32, "f"),
    FIXED64: (_I64, "Q"),
    FIXED32: (_I32, "I"),
    SFIXED32: (_I32, "i"),
    SFIXED64: (_I64, "q"),
}
_BITS = {SINT32: 32, SINT64: 64, UINT32: 32, UINT64: 64, INT32: 32, INT64: 64}
_BYTES = [bytes((number,)) for number in range(128)]
_WORD = 1 << 64


def writer_for(spec: FieldSpec, message: Callable[[], Any]) -> Writer:
    """Make the writer of a field. `message` makes an empty upb message of the record.

    upb encodes the kinds that are rare or complex: implicit fields, dicts, flags, dates.
    """
    only_upb = spec.implicit or spec.shape is FieldShape.DICT
    only_upb = only_upb or (spec.target is not None and spec.kind not in (RECORD, ENUM))
    if only_upb or spec.kind.message:
        return _by_upb(spec, message)
    if spec.repeated:
        return _many(spec)
    one = _SINGLE[spec.kind](spec)
    if spec.shape is FieldShape.ONE:
        return one
    return lambda value: b"" if value is None else one(value)


# -- numbers


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _BYTES[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


@functools.lru_cache(maxsize=4096)
def _head(tag: int, type_: int) -> bytes:
    """The key of a field: its tag and wire type."""
    return _varint(tag << 3 | type_)


@functools.lru_cache(maxsize=256)
def _heads(tag: int, type_: int) -> list[bytes]:
    """The key followed by each possible one-byte varint: a small number, or a short length."""
    return [_head(tag, type_) + byte for byte in _BYTES]


def _exact(value: Any) -> int:
    """Return an int; raise TypeError for any other class, also bool and IntEnum."""
    if value.__class__ is not int:
        raise TypeError
    number: int = value
    return number


# -- single values


def _zigzag(spec: FieldSpec) -> Writer:
    head, heads = _head(spec.tag, _VARINT), _heads(spec.tag, _VARINT)
    beyond = 1 << _BITS[spec.kind]

    def write(value: Any) -> bytes:
        if value.__class__ is not int:
            raise TypeError
        number = value << 1 if value >= 0 else ~(value << 1)
        if number < 0x80:
            return heads[number]
        if number >= beyond:
            raise OverflowError
        return head + _varint(number)

    return write


def _unsigned(spec: FieldSpec) -> Writer:
    head, heads = _head(spec.tag, _VARINT), _heads(spec.tag, _VARINT)
    beyond = 1 << _BITS[spec.kind]

    def write(value: Any) -> bytes:
        if value.__class__ is not int or not 0 <= value < beyond:
            raise TypeError
        return heads[value] if value < 0x80 else head + _varint(value)

    return write


def _signed(spec: FieldSpec) -> Writer:
    """Plain varints of the 64-bit two's complement: a negative number takes ten bytes."""
    head = _head(spec.tag, _VARINT)
    beyond = 1 << (_BITS[spec.kind] - 1)

    def write(value: Any) -> bytes:
        if not -beyond <= _exact(value) < beyond:
            raise OverflowError
        return head + _varint(value if value >= 0 else value + _WORD)

    return write


def _ordinal(spec: FieldSpec) -> Writer:
    head, heads = _head(spec.tag, _VARINT), _heads(spec.tag, _VARINT)

    def write(value: Any) -> bytes:
        number = _exact(value._value_)
        if 0 <= number < 0x80:
            return heads[number]
        return head + _varint(number if number >= 0 else number + _WORD)

    return write


def _bool(spec: FieldSpec) -> Writer:
    no, yes = _heads(spec.tag, _VARINT)[:2]

    def write(value: Any) -> bytes:
        if value.__class__ is not bool:
            raise TypeError
        return yes if value else no

    return write


def _fixed(spec: FieldSpec) -> Writer:
    type_, letter = _FIXED[spec.kind]
    head, pack = _head(spec.tag, type_), struct.Struct(f"<{letter}").pack
    return lambda value: head + pack(value)


def _text(spec: FieldSpec) -> Writer:
    head, heads = _head(spec.tag, _LEN), list(_heads(spec.tag, _LEN))
    if not spec.explicit and not spec.repeated:
        heads[0] = b""  # an empty str is not written

    def write(value: Any) -> bytes:
        data: bytes = value.encode()
        size = len(data)
        return heads[size] + data if size < 0x80 else head + _varint(size) + data

    return write


def _bytes(spec: FieldSpec) -> Writer:
    head, heads = _head(spec.tag, _LEN), list(_heads(spec.tag, _LEN))
    if not spec.explicit and not spec.repeated:
        heads[0] = b""

    def write(value: Any) -> bytes:
        if value.__class__ is not bytes:
            raise TypeError
        size = len(value)
        return heads[size] + value if size < 0x80 else head + _varint(size) + value

    return write


def _record(spec: FieldSpec) -> Writer:
    head, heads = _head(spec.tag, _LEN), _heads(spec.tag, _LEN)
    class_, inner = spec.target, closure_of(spec.target.__record__, "write")

    def write(value: Any) -> bytes:
        if value.__class__ is not class_:
            raise TypeError
        data: bytes = inner(value)
        size = len(data)
        return heads[size] + data if size < 0x80 else head + _varint(size) + data

    return write


_SINGLE: dict[Kind, Callable[[FieldSpec], Writer]] = {
    **dict.fromkeys(_FIXED, _fixed),
    SINT32: _zigzag,
    SINT64: _zigzag,
    UINT32: _unsigned,
    UINT64: _unsigned,
    INT32: _signed,
    INT64: _signed,
    BOOL: _bool,
    ENUM: _ordinal,
    STRING: _text,
    BYTES: _bytes,
    RECORD: _record,
}


# -- lists, and fields that upb encodes


def _many(spec: FieldSpec) -> Writer:
    one = _SINGLE[spec.kind](spec)
    if not spec.kind.packable or not spec.packed:
        return lambda values: b"".join(map(one, values))
    head, skip = _head(spec.tag, _LEN), len(_head(spec.tag, _VARINT))

    def write(values: Any) -> bytes:
        data = b"".join([one(value)[skip:] for value in values])
        return head + _varint(len(data)) + data if data else b""

    return write


def _by_upb(spec: FieldSpec, message: Callable[[], Any]) -> Writer:
    """Encode a upb message that has only this field."""
    put = put_for(spec)

    def write(value: Any) -> bytes:
        made = message()
        put(made, value)
        written: bytes = made.SerializeToString(deterministic=True)
        return written

    return write


def join_writers(writers: Sequence[Writer], at: int = 0) -> Callable[[Sequence[Any]], bytes]:
    """Return a function that encodes the values from index `at` on, each by its writer, and joins.

    Up to four writers are called in one expression, which takes half the time of a loop.
    """
    at1, at2, at3 = at + 1, at + 2, at + 3
    match writers:
        case []:
            return lambda values: b""
        case [a]:
            return lambda values: a(values[at])
        case [a, b]:
            return lambda values: a(values[at]) + b(values[at1])
        case [a, b, c]:
            return lambda values: a(values[at]) + b(values[at1]) + c(values[at2])
        case [a, b, c, d]:
            return lambda values: a(values[at]) + b(values[at1]) + c(values[at2]) + d(values[at3])
    if len(writers) <= 8:
        left, right = join_writers(writers[:4], at), join_writers(writers[4:], at + 4)
        return lambda values: left(values) + right(values)
    parts = [
        join_writers(writers[start : start + 4], at + start) for start in range(0, len(writers), 4)
    ]
    return lambda values: b"".join([part(values) for part in parts])
