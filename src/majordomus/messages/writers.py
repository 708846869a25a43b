"""Writers: for one field, the closure that writes an ordinary value as protocol buffers have it.

They are the fast way for what nearly every value is: of the field's own type and in its range. For
anything else they raise, and the record is written by upb, which judges, converts or refuses. So
the bytes are upb's in either case, and a test holds that. One call a value: that is why some
closures say again what another says.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any

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
from majordomus.messages.moves import late, put_for

__all__ = ["ODD", "Writer", "row", "writer_for"]

Writer = Callable[[Any], bytes]
"""The value of a field to its bytes, tag included; empty when it is not written."""
ODD = (TypeError, ValueError, AttributeError, KeyError, OverflowError, struct.error)
"""What a writer raises for a value that is not its own."""

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
    """`message` makes the record's upb message, for kinds that are left to upb altogether."""
    left = spec.implicit or spec.shape is FieldShape.DICT
    left = left or (spec.target is not None and spec.kind not in (RECORD, ENUM))
    if left or spec.kind.message:
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
    return _varint(tag << 3 | type_)


@functools.lru_cache(maxsize=256)
def _heads(tag: int, type_: int) -> list[bytes]:
    """Head and one more byte: a small number, or the length of something short."""
    return [_head(tag, type_) + byte for byte in _BYTES]


def _exact(value: Any) -> int:
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
    """Plain varints of two's complement: what is negative takes ten bytes."""
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


def _truth(spec: FieldSpec) -> Writer:
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
        heads[0] = b""  # an empty text is not written

    def write(value: Any) -> bytes:
        data: bytes = value.encode()
        size = len(data)
        return heads[size] + data if size < 0x80 else head + _varint(size) + data

    return write


def _blob(spec: FieldSpec) -> Writer:
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
    class_, inner = spec.target, late(spec.target.__record__, "write")

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
    BOOL: _truth,
    ENUM: _ordinal,
    STRING: _text,
    BYTES: _blob,
    RECORD: _record,
}


# -- lists, and the rest


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
    """A message with this field alone."""
    put = put_for(spec)

    def write(value: Any) -> bytes:
        made = message()
        put(made, value)
        written: bytes = made.SerializeToString(deterministic=True)
        return written

    return write


def row(writers: Sequence[Writer], at: int = 0) -> Callable[[Sequence[Any]], bytes]:
    """The values of a record, from index `at` on, each by its writer, one behind the other.

    A few writers are called in one expression, which costs half of what a loop does.
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
        left, right = row(writers[:4], at), row(writers[4:], at + 4)
        return lambda values: left(values) + right(values)
    parts = [row(writers[start : start + 4], at + start) for start in range(0, len(writers), 4)]
    return lambda values: b"".join([part(values) for part in parts])
