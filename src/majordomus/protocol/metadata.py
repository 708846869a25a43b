"""The MessagePack maps behind an MDP/0.3 header live here: packed, unpacked, parted, and bounded.

A map is at most 4 KiB and 4 deep (the map itself is the first level), its keys are strings at
every level, none twice at the first, and its values are nil, booleans, numbers, strings, binary,
arrays and maps: no extension types.
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
    """`values` as one map. Raises: LocalProtocolError for what no reader would take."""
    _check_value(dict(values), 1, LocalProtocolError)
    try:
        data = _encode(dict(values))
    except (ValueError, OverflowError) as error:
        raise LocalProtocolError("bad-metadata", str(error)) from None
    if len(data) > MAX_METADATA:
        raise LocalProtocolError("long-metadata", f"{len(data)} bytes")
    return data


def unpack(data: bytes) -> dict[str, Any]:
    """The one map in `data`. Raises: RemoteProtocolError, and nothing else, whatever the bytes."""
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


def without(data: bytes, key: str) -> bytes:
    """The same map, already known to be valid, without `key`; `b""` when nothing is left of it.

    What stays is not written anew: other values pass byte for byte.
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
    """The broker's own map and the sender's; an empty one where the flag is not set. Total."""
    ours, theirs = _part(data, flags)
    return (
        unpack(ours) if flags & BROKER_METADATA else {},
        unpack(theirs) if flags & METADATA else {},
    )


def split_raw(data: bytes, flags: int) -> tuple[bytes, bytes]:
    """The same two maps, still packed but checked; `b""` where the flag is not set. Total."""
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
    """Types, keys and depth of one value; ends at the first level that is too deep."""
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
    """How many pairs the head of a map, already known to be valid, announces."""
    head = data[0]
    if head == 0xDE:
        return int.from_bytes(data[1:3], "big")
    if head == 0xDF:
        return int.from_bytes(data[1:5], "big")
    return head & 0x0F


_HEADS = {0xDE: 3, 0xDF: 5}
"""Bytes of the head of a map, by its first byte, where they are more than one."""


def _head(pairs: int) -> bytes:
    """The head of a map of `pairs`. No map within the bounds needs the third, 32-bit form."""
    return bytes((0x80 | pairs,)) if pairs < 16 else b"\xde" + pairs.to_bytes(2, "big")


# Where a MessagePack value ends, by its first byte: bytes of payload; bytes of a length that counts
# bytes; bytes of a length that counts values, and how many values one count stands for. Extension
# types are in none of them: they are refused.
_FIXED = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8,
    0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
}  # fmt: skip
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_COUNTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def _end_of_first(data: bytes, at: int = 0) -> int:
    """The index after the MessagePack value at `at`: every step consumes a byte, so this ends."""
    open_values = 1
    while open_values:
        if at >= len(data):
            raise RemoteProtocolError("bad-metadata", "the first map does not end")
        at, inner = _skip(data, at)
        open_values += inner - 1
    return at


def _skip(data: bytes, at: int) -> tuple[int, int]:
    """The index after the head and payload at `at`, and how many values are nested in it."""
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
