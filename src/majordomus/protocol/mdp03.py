"""The header frame of MDP/0.3 lives here: bytes to fields and back, and no rule of a conversation.

docs/spec/mdp-0.3.md is its page. `parse` is the hottest function of the project: it is called for
every message, so it does what the layout asks for and leaves the meaning of the fields to others.
"""

from __future__ import annotations

import struct
from operator import index
from typing import TypeAlias

from majordomus.errors import LocalProtocolError, RemoteProtocolError
from majordomus.protocol import octets
from majordomus.protocol.spec import (
    BROKER_METADATA,
    MAX_METADATA,
    METADATA,
    Frame,
)

Header: TypeAlias = tuple[int, int, int, int, int, bytes, bytes, bytes]
"""command, flags, code, id, ttl, service, address, metadata (the raw rest)."""

HEAD = struct.Struct(">4sBBHQI")
"""Magic, command, flags, code, id, ttl: everything of fixed size."""

_MAPS = METADATA | BROKER_METADATA


def parse(header: Frame) -> Header:
    """The fields of a header. Unknown commands and flags are parsed all the same.

    Neither the service's UTF-8 nor the metadata is looked into: see `metadata.split_raw`.
    Raises: RemoteProtocolError, and nothing else, whatever the bytes.
    """
    whole = header if type(header) is bytes else bytes(header)
    try:
        command, flags, code, number, ttl, length = octets.fields(whole)
        middle = 21 + length
        end = middle + 1 + whole[middle]
    except (struct.error, IndexError):
        raise RemoteProtocolError("truncated-header", f"{len(whole)} bytes") from None
    if not octets.is_mdp03(whole):
        raise RemoteProtocolError("wrong-header", "this is not MDP/0.3")
    if end != len(whole) or flags & _MAPS:
        _check_rest(len(whole) - end, flags)
    return (
        command,
        flags,
        code,
        number,
        ttl,
        octets.piece(whole, 21, middle) if length else b"",
        whole[middle + 1 : end] if end > middle + 1 else b"",
        whole[end:] if end < len(whole) else b"",
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
        header = octets.header(command, flags, code, id, index(ttl), service, address)
    except (struct.error, OverflowError, IndexError, TypeError) as error:
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
