"""Wire: parses protocol buffers to find the field and the byte at which they are wrong.

upb reports only that it failed. This parser runs after upb has rejected the bytes, or has treated a
field as unknown because of its wire type. It is never on the hot path, and it returns no values. It
takes a bounded number of steps, whatever the bytes are, and copies none of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from majordomus.messages.fields import FieldShape, FieldSpec
from majordomus.messages.kinds import RECORD, Kind

if TYPE_CHECKING:
    from majordomus.messages.codec import RecordCodec

__all__ = ["explain"]

_VARINT, _I64, _LEN, _START, _END, _I32 = range(6)
_NAMES = ("varint", "64-bit", "length-delimited", "group", "end of group", "32-bit")
_SIZES = {_I64: 8, _I32: 4}
_STRING, _MESSAGE = 9, 11
_TYPES = {1: _I64, 2: _I32, 6: _I64, 7: _I32, 15: _I32, 16: _I64, 9: _LEN, 11: _LEN, 12: _LEN}
_MAX_DEPTH = 100  # upb's limit
_MOST_FIELDS = 16 * 1024
"""Fields and list elements that one explanation looks at: some 64 KiB of small ones."""
_MOST_TABLES = 1024


class _WireError(Exception):
    """Carries the reason of an error from the parser up to the field."""


class _EnoughError(Exception):
    """The explanation has looked at as many fields as it may."""


class _Steps:
    """Counts the fields that are looked at. Raises: _EnoughError after `left` of them."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _EnoughError


class _KnownField(NamedTuple):
    """A known field.

    `name`: its name, for the path in the error.
    `type`: its wire type.
    `packable`: whether it is a list that may be packed or not.
    `text`: whether its bytes must be UTF-8.
    `inner`: for a message, returns its fields by tag; a function, because records may be recursive.
    """

    name: str
    type: int
    packable: bool = False
    text: bool = False
    inner: Callable[[], Mapping[int, _KnownField]] | None = None


_Fields = Mapping[int, _KnownField]


def explain(codec: RecordCodec, data: bytes, *, strict: bool = False) -> tuple[str, str]:
    """Return the path and the reason of the first error in `data`, ("", "") if there is none among
    the first _MOST_FIELDS fields.

    `strict`: a known field with the wrong wire type is an error too.
    """
    try:
        return _explain(_fields(codec), memoryview(data), strict, 0, _Steps(_MOST_FIELDS))
    except _EnoughError:
        return "", ""


@functools.lru_cache(maxsize=_MOST_TABLES)
def _fields(codec: RecordCodec) -> _Fields:
    return {spec.tag: _known(spec) for spec in codec.specs}


def _known(spec: FieldSpec) -> _KnownField:
    if spec.shape is FieldShape.DICT and spec.key is not None:
        key, value = _known_value("key", spec.key, None), _known_value("value", spec.kind, spec)
        return _KnownField(spec.name, _LEN, inner=lambda: {1: key, 2: value})
    return _known_value(spec.name, spec.kind, spec)._replace(
        packable=spec.repeated and spec.kind.packable
    )


def _known_value(name: str, kind: Kind, spec: FieldSpec | None) -> _KnownField:
    if kind is RECORD and spec is not None:
        return _KnownField(name, _LEN, inner=lambda: _fields(spec.target.__record__))
    if kind.number == _MESSAGE:  # Timestamp and Duration
        parts = {1: _KnownField("seconds", _VARINT), 2: _KnownField("nanos", _VARINT)}
        return _KnownField(name, _LEN, inner=lambda: parts)
    return _KnownField(name, _TYPES.get(kind.number, _VARINT), text=kind.number == _STRING)


def _explain(
    fields: _Fields, data: memoryview, strict: bool, depth: int, steps: _Steps
) -> tuple[str, str]:
    at = 0
    if depth > _MAX_DEPTH:
        return "", "nested too deeply"
    while at < len(data):
        steps.take()
        known = None
        try:
            key, at = _varint(data, at)
            known = fields.get(key >> 3)
            start, at = at, _skip(data, at, key, steps)
            path, reason = _check_value(known, key & 7, data[start:at], strict, depth, steps)
        except _WireError as error:
            return (known.name if known else ""), f"{error} at byte {at}"
        if reason:
            return path, reason
    return "", ""


def _check_value(
    known: _KnownField | None, type_: int, data: memoryview, strict: bool, depth: int, steps: _Steps
) -> tuple[str, str]:
    """Return the path and the reason of an error in one value, ("", "") if there is none."""
    if known is None:
        return "", ""
    if type_ == _LEN and known.packable:
        return _packed(known, data, steps)
    if type_ != known.type:
        reason = f"{_NAMES[type_]} on the wire, expected {_NAMES[known.type]}"
        return (known.name, reason) if strict else ("", "")
    if known.text:
        return _utf8(known, _payload(data))
    if known.inner is not None:
        path, reason = _explain(known.inner(), _payload(data), strict, depth + 1, steps)
        return f"{known.name}.{path}".rstrip("."), reason
    return "", ""


def _payload(data: memoryview) -> memoryview:
    """The bytes after the length."""
    return data[_varint(data, 0)[1] :]


def _packed(known: _KnownField, data: memoryview, steps: _Steps) -> tuple[str, str]:
    payload, at = _payload(data), 0
    if known.type in _SIZES:
        odd = len(payload) % _SIZES[known.type]
        return (known.name, f"a packed list has {odd} bytes too many") if odd else ("", "")
    while at < len(payload):
        steps.take()
        _, at = _varint(payload, at)
    return "", ""


def _utf8(known: _KnownField, payload: memoryview) -> tuple[str, str]:
    try:
        str(payload, "utf-8")
    except UnicodeDecodeError as error:
        return known.name, f"not UTF-8: {error.reason} at byte {error.start}"
    return "", ""


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the varint at `at`, and its end."""
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise _WireError("the bytes end within a varint")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise _WireError("a varint of more than 10 bytes")


def _skip(data: memoryview, at: int, key: int, steps: _Steps) -> int:
    """Return the end of the value at `at`; `key` holds its tag and wire type."""
    number, type_ = key >> 3, key & 7
    if not 1 <= number < 1 << 29:
        raise _WireError(f"{number} is not a valid tag")
    if type_ == _VARINT:
        return _varint(data, at)[1]
    if type_ == _LEN:
        size, at = _varint(data, at)
        return _check_size(data, at, size)
    if type_ in _SIZES:
        return _check_size(data, at, _SIZES[type_])
    if type_ == _START:
        return _skip_group(data, at, number, steps)
    raise _WireError(f"unknown wire type {type_}")


def _check_size(data: memoryview, at: int, size: int) -> int:
    """Return the end of `size` bytes at `at`."""
    if at + size > len(data):
        raise _WireError(f"{size} bytes announced, only {len(data) - at} left,")
    return at + size


def _skip_group(data: memoryview, at: int, number: int, steps: _Steps) -> int:
    """The end of group `number`, whose start was at `at`.

    The loop keeps a stack of open groups instead of recursing, so depth cannot overflow the stack.
    """
    open_groups = [number]
    while open_groups:
        steps.take()
        key, at = _varint(data, at)
        if key & 7 == _END:
            if open_groups.pop() != key >> 3:
                raise _WireError("the end of a group that was not started")
        elif key & 7 == _START:
            open_groups.append(key >> 3)
        else:
            at = _skip(data, at, key, steps)
    return at
