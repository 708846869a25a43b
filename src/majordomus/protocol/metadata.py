"""The MessagePack maps behind an MDP/0.3 header: pack, unpack, split and check them.

A map has at most 4 KiB and at most 4 levels; the map itself is the first. Its keys are strings at
every level, and unique at the first. Its values are nil, booleans, numbers, strings, binary, arrays
and maps; extension types are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from majordomus.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from majordomus.protocol.spec import (
    BROKER_METADATA,
    MAX_METADATA,
    MAX_METADATA_DEPTH,
    METADATA,
)

_MAPS = METADATA | BROKER_METADATA
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode


def pack(values: Mapping[str, Any]) -> bytes:
    """`values` as one packed map. Raises: LocalProtocolError when a reader would refuse it."""
    _check_value(dict(values), 1, LocalProtocolError)
    try:
        data = _encode(dict(values))
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError("bad-metadata", str(error)) from None
    if len(data) > MAX_METADATA:
        raise LocalProtocolError("long-metadata", f"{len(data)} bytes")
    return data


def unpack(data: bytes) -> dict[str, Any]:
    """The single map in `data`. Raises: RemoteProtocolError, for any bytes that are not valid."""
    if not data:
        raise RemoteProtocolError("no-metadata", "a flag announces metadata")
    if len(data) > MAX_METADATA:
        raise RemoteProtocolError("long-metadata", f"{len(data)} bytes")
    try:
        values = _decode(data)
    except RecursionError:
        raise RemoteProtocolError("deep-metadata") from None
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise RemoteProtocolError("bad-metadata", str(error)) from None
    if len(values) != _pairs(data):
        raise RemoteProtocolError("bad-metadata", "a key comes twice")
    _check_value(values, 1, RemoteProtocolError)
    return values


def packed_metadata(reply: object) -> bytes:
    """Return the packed metadata of a reply; empty where it has none."""
    packed: bytes | None = getattr(reply, "_packed", None)
    return b"" if packed is None else packed


def without(data: bytes, key: str) -> bytes:
    """The map `data`, which must be valid, without `key`; `b""` when nothing is left.

    The other pairs are copied byte for byte, not packed again.
    """
    first = at = _HEADS.get(data[0], 1)
    pairs = _pairs(data)
    for _ in range(pairs):
        value = _end_of_first(data, at)
        end = _end_of_first(data, value)
        if msgspec.msgpack.decode(data[at:value]) == key:
            rest = data[first:at] + data[end:]
            return _head(pairs - 1) + rest if rest else b""
        at = end
    return data


def split(data: bytes, flags: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The broker's map and the sender's; an empty map when its flag is not set.

    Raises: RemoteProtocolError.
    """
    ours, theirs = _part(data, flags)
    return (
        unpack(ours) if flags & BROKER_METADATA else {},
        unpack(theirs) if flags & METADATA else {},
    )


def split_raw(data: bytes, flags: int) -> tuple[bytes, bytes]:
    """The same two maps, packed and checked; `b""` when its flag is not set.

    Raises: RemoteProtocolError.
    """
    ours, theirs = _part(data, flags)
    if flags & BROKER_METADATA:
        unpack(ours)
    if flags & METADATA:
        unpack(theirs)
    return ours, theirs


def _part(data: bytes, flags: int) -> tuple[bytes, bytes]:
    present = flags & _MAPS
    if present == METADATA:
        return b"", data
    if present == BROKER_METADATA:
        return data, b""
    if present:
        end = _end_of_first(data)
        return data[:end], data[end:]
    if data:
        raise RemoteProtocolError("trailing-bytes", f"{len(data)} bytes of no announced metadata")
    return b"", b""


def _check_value(value: Any, depth: int, fault: type[ProtocolError]) -> None:
    """Check the types, keys and depth of one value. Stops at the first level that is too deep."""
    if value is None or isinstance(value, (str, bytes, bool, int, float)):
        return
    if depth > MAX_METADATA_DEPTH:
        raise fault("deep-metadata", f"more than {MAX_METADATA_DEPTH} levels")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise fault("bad-metadata", "a key is not a string")
            _check_value(inner, depth + 1, fault)
        return
    if isinstance(value, (list, tuple)):
        for inner in value:
            _check_value(inner, depth + 1, fault)
        return
    raise fault("bad-metadata", f"a value is a {type(value).__name__}")


def _pairs(data: bytes) -> int:
    """The number of pairs in a valid map, from its head."""
    head = data[0]
    if head == 0xDE:
        return int.from_bytes(data[1:3], "big")
    if head == 0xDF:
        return int.from_bytes(data[1:5], "big")
    return head & 0x0F


_HEADS = {0xDE: 3, 0xDF: 5}
"""The size of a map's head in bytes, by its first byte; one byte for all others."""


def _head(pairs: int) -> bytes:
    """The head of a map of `pairs`. A map of at most 4 KiB never needs the 32-bit form."""
    return bytes((0x80 | pairs,)) if pairs < 16 else b"\xde" + pairs.to_bytes(2, "big")


# How to find the end of a MessagePack value, by its first byte.
# _FIXED: the size of the payload. _SIZED: the size of a length field that counts bytes.
# _COUNTED: the size of a length field that counts elements, and the number of values in each
# element. Extension types are in none of them, so they are refused.
_FIXED = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8,
    0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
}  # fmt: skip
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_COUNTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def _end_of_first(data: bytes, at: int = 0) -> int:
    """The index after the value at `at`. Each step consumes a byte, so that the loop ends."""
    open_values = 1
    while open_values:
        if at >= len(data):
            raise RemoteProtocolError("bad-metadata", "the first map does not end")
        at, inner = _skip(data, at)
        open_values += inner - 1
    return at


def _skip(data: bytes, at: int) -> tuple[int, int]:
    """The index after the head and payload at `at`, and the number of values nested in it."""
    head = data[at]
    at += 1
    if head <= 0x7F or head >= 0xE0:
        return at, 0
    if head <= 0x8F:
        return at, 2 * (head & 0x0F)
    if head <= 0x9F:
        return at, head & 0x0F
    if head <= 0xBF:
        return at + (head & 0x1F), 0
    if head in _FIXED:
        return at + _FIXED[head], 0
    if head in _SIZED:
        end = at + _SIZED[head]
        return end + int.from_bytes(data[at:end], "big"), 0
    if head in _COUNTED:
        width, each = _COUNTED[head]
        return at + width, each * int.from_bytes(data[at : at + width], "big")
    raise RemoteProtocolError("bad-metadata", f"a value starts with {head:#04x}")
