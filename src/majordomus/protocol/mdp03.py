"""The header frame of MDP/0.3 lives here: bytes to fields and back, and no rule of a conversation.

docs/spec/mdp-0.3.md is its page. `parse` is the hottest function of the project: it is called for
every message, so it does what the layout asks for and leaves the meaning of the fields to others.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

from majordomus.errors import LocalProtocolError, RemoteProtocolError
from majordomus.protocol.spec import (
    BROKER_METADATA,
    MAX_METADATA,
    MAX_NAME,
    MDP03_MAGIC,
    METADATA,
    Frame,
)

Header: TypeAlias = tuple[int, int, int, int, int, bytes, bytes, bytes]
"""command, flags, code, id, ttl, service, address, metadata (the raw rest)."""

HEAD = struct.Struct(">4sBBHQI")
"""Magic, command, flags, code, id, ttl: everything of fixed size."""

_HEAD_AND_LENGTH = struct.Struct(">4sBBHQIB")
_MAPS = METADATA | BROKER_METADATA
_LENGTHS = tuple(bytes((length,)) for length in range(MAX_NAME + 1))
_MAGIC = MDP03_MAGIC


def parse(header: Frame) -> Header:
    """The fields of a header. Unknown commands and flags are parsed all the same.

    Neither the service's UTF-8 nor the metadata is looked into: see `metadata.split_raw`.
    Raises: RemoteProtocolError, and nothing else, whatever the bytes.
    """
    try:
        magic, command, flags, code, number, ttl, length = _HEAD_AND_LENGTH.unpack_from(header)
        middle = 21 + length
        end = middle + 1 + header[middle]
    except (struct.error, IndexError):
        raise RemoteProtocolError("truncated-header", f"{len(header)} bytes") from None
    if magic != _MAGIC:
        raise RemoteProtocolError("wrong-header", "this is not MDP/0.3")
    if end == len(header) and not flags & _MAPS:
        return command, flags, code, number, ttl, header[21:middle], header[middle + 1 :], b""
    _check_rest(len(header) - end, flags)
    return (
        command,
        flags,
        code,
        number,
        ttl,
        header[21:middle],
        header[middle + 1 : end],
        header[end:],
    )


def pack(
    command: int,
    flags: int = 0,
    code: int = 0,
    id: int = 0,
    ttl: int = 0,
    service: bytes = b"",
    address: bytes = b"",
    metadata: bytes = b"",
) -> Frame:
    """The header frame of these fields.

    Raises: LocalProtocolError for a field out of its range, a name of over 255 bytes, metadata
    without its flag, a flag without its metadata.
    """
    try:
        head = _HEAD_AND_LENGTH.pack(_MAGIC, command, flags, code, id, ttl, len(service))
        header = head + service + _LENGTHS[len(address)] + address
    except (struct.error, IndexError) as error:
        raise LocalProtocolError("out-of-range", str(error)) from None
    if not metadata and not flags & _MAPS:
        return header
    try:
        _check_rest(len(metadata), flags)
    except RemoteProtocolError as error:
        raise LocalProtocolError(error.reason, error.detail) from None
    return header + metadata


def _check_rest(size: int, flags: int) -> None:
    """Metadata are there exactly when a flag says so, and at most 4 KiB for each flag."""
    if size < 0:
        raise RemoteProtocolError("truncated-header", f"{-size} bytes are missing")
    maps = (flags & METADATA != 0) + (flags & BROKER_METADATA != 0)
    if not maps and size:
        raise RemoteProtocolError("trailing-bytes", f"{size} bytes after the address")
    if maps and not size:
        raise RemoteProtocolError("no-metadata", "a flag announces metadata")
    if size > maps * MAX_METADATA:
        raise RemoteProtocolError("long-metadata", f"{size} bytes")
