"""Wire: a reader of protocol buffers' bytes that finds out where they go wrong.

upb says only that they do. This runs after upb has refused, or has set a field aside because its
wire type was another: never on the hot path, and never to get at a value.
"""

from __future__ import annotations

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
_DEEPEST = 100
_MOST_FIELDS = 16 * 1024
"""Fields and list elements that one explanation looks at: some 64 KiB of small ones."""


class _Bad(Exception):
    """Carries the reason from the bytes up to the field."""


class _Known(NamedTuple):
    """What is known of one tag. `inner`: the tags of the message that it holds, if it is one."""

    name: str
    type: int
    packable: bool = False
    text: bool = False
    inner: Callable[[], Mapping[int, _Known]] | None = None


_Fields = Mapping[int, _Known]


def explain(codec: RecordCodec, data: bytes, *, strict: bool = False) -> tuple[str, str]:
    """Path and reason of the first field at which `data` goes wrong; ("", "") if none does, or none
    of the first _MOST_FIELDS.

    `strict`: a known field whose wire type is not its own is wrong too.
    """
    return _explain(_fields(codec), data, strict, 0, [_MOST_FIELDS])


def _fields(codec: RecordCodec) -> _Fields:
    return {spec.tag: _known(spec) for spec in codec.specs}


def _known(spec: FieldSpec) -> _Known:
    if spec.shape is FieldShape.DICT and spec.key is not None:
        key, value = _one("key", spec.key, None), _one("value", spec.kind, spec)
        return _Known(spec.name, _LEN, inner=lambda: {1: key, 2: value})
    return _one(spec.name, spec.kind, spec)._replace(packable=spec.repeated and spec.kind.packable)


def _one(name: str, kind: Kind, spec: FieldSpec | None) -> _Known:
    if kind is RECORD and spec is not None:
        return _Known(name, _LEN, inner=lambda: _fields(spec.target.__record__))
    if kind.number == _MESSAGE:  # Timestamp and Duration
        parts = {1: _Known("seconds", _VARINT), 2: _Known("nanos", _VARINT)}
        return _Known(name, _LEN, inner=lambda: parts)
    return _Known(name, _TYPES.get(kind.number, _VARINT), text=kind.number == _STRING)


def _explain(
    fields: _Fields, data: bytes, strict: bool, depth: int, left: list[int]
) -> tuple[str, str]:
    """`left` has one number: of the fields that may still be looked at."""
    at = 0
    if depth > _DEEPEST:
        return "", "nested too deeply"
    while at < len(data) and left[0] > 0:
        left[0] -= 1
        known = None
        try:
            key, at = _varint(data, at)
            known = fields.get(key >> 3)
            start, at = at, _skip(data, at, key)
            path, reason = _look(known, key & 7, data[start:at], strict, depth, left)
        except _Bad as error:
            return (known.name if known else ""), f"{error} at byte {at}"
        if reason:
            return path, reason
    return "", ""


def _look(
    known: _Known | None, type_: int, data: bytes, strict: bool, depth: int, left: list[int]
) -> tuple[str, str]:
    if known is None:
        return "", ""
    if type_ == _LEN and known.packable:
        return _packed(known, data, left)
    if type_ != known.type:
        reason = f"{_NAMES[type_]} on the wire, expected {_NAMES[known.type]}"
        return (known.name, reason) if strict else ("", "")
    if known.text:
        return _utf8(known, _payload(data))
    if known.inner is not None:
        path, reason = _explain(known.inner(), _payload(data), strict, depth + 1, left)
        return f"{known.name}.{path}".rstrip("."), reason
    return "", ""


def _payload(data: bytes) -> bytes:
    """What stands behind the length."""
    return data[_varint(data, 0)[1] :]


def _packed(known: _Known, data: bytes, left: list[int]) -> tuple[str, str]:
    payload, at = _payload(data), 0
    if known.type in _SIZES:
        odd = len(payload) % _SIZES[known.type]
        return (known.name, f"{odd} bytes too many in a list") if odd else ("", "")
    while at < len(payload) and left[0] > 0:
        left[0] -= 1
        _, at = _varint(payload, at)
    return "", ""


def _utf8(known: _Known, payload: bytes) -> tuple[str, str]:
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        return known.name, f"no UTF-8: {error.reason} at byte {error.start}"
    return "", ""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise _Bad("the bytes end within a number")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise _Bad("a number of more than 10 bytes")


def _skip(data: bytes, at: int, key: int) -> int:
    """The end of the value at `at` whose tag and wire type are `key`."""
    number, type_ = key >> 3, key & 7
    if not 1 <= number < 1 << 29:
        raise _Bad(f"{number} is no tag")
    if type_ == _VARINT:
        return _varint(data, at)[1]
    if type_ == _LEN:
        size, at = _varint(data, at)
        return _within(data, at, size)
    if type_ in _SIZES:
        return _within(data, at, _SIZES[type_])
    if type_ == _START:
        return _skip_group(data, at, number)
    raise _Bad(f"wire type {type_}")


def _within(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise _Bad(f"{size} bytes announced, {len(data) - at} are there,")
    return at + size


def _skip_group(data: bytes, at: int, number: int) -> int:
    """Groups nest; a flat count of the open ones is enough to find the end."""
    open_groups = [number]
    while open_groups:
        key, at = _varint(data, at)
        if key & 7 == _END:
            if open_groups.pop() != key >> 3:
                raise _Bad("a group ends that did not start")
        elif key & 7 == _START:
            open_groups.append(key >> 3)
        else:
            at = _skip(data, at, key)
    return at
