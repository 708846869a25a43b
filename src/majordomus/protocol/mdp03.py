"""The header frame of MDP/0.3: bytes to fields and back (docs/spec/mdp-0.3.md).

Only the layout is checked here, not the meaning of the fields. `Fields.read` runs for every
message, so it must stay short.
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

SHORTEST = HEAD.size + 2
"""Of a header: what is of fixed size, and the lengths of the service and of the address."""
_MAPS = METADATA | BROKER_METADATA


class LongMetadataError(RemoteProtocolError):
    """The metadata of a header are too long. All other fields of `Fields` have been read."""

    def __init__(self, size: int) -> None:
        super().__init__("long-metadata", f"{size} bytes")


class Fields:
    """The fields of a header, one after the other of many in the same object: a message of a broker
    makes none of its own. ``metadata`` is the raw rest."""

    __slots__ = ("address", "code", "command", "flags", "id", "metadata", "service", "ttl")

    def read(self, header: Frame) -> None:
        """Read the fields of `header`. Unknown commands and flags are no error.

        Does not check the UTF-8 of the service, nor the metadata: see `metadata.split_raw`.

        Raises: RemoteProtocolError, for any bytes. Then only the fixed fields may be valid.
        """
        whole = header if type(header) is bytes else bytes(header)
        size = len(whole)
        if size < SHORTEST:
            raise RemoteProtocolError("truncated-header", f"{size} bytes")
        self.command, self.flags, self.code, self.id, self.ttl, length = octets.fields(whole)
        middle = 21 + length
        if size <= middle:
            raise RemoteProtocolError("truncated-header", f"{size} bytes")
        end = middle + 1 + whole[middle]
        if not octets.is_mdp03(whole):
            raise RemoteProtocolError("wrong-header", "this is not MDP/0.3")
        if end != size or self.flags & _MAPS:
            _check_rest(size - end, self.flags)
        self.service = octets.piece(whole, 21, middle) if length else b""
        self.address = whole[middle + 1 : end] if end > middle + 1 else b""
        self.metadata = whole[end:] if end < size else b""


def parse(header: Frame) -> Header:
    """The fields of a header, as `Fields.read` finds them."""
    found = Fields()
    found.read(header)
    return (
        found.command,
        found.flags,
        found.code,
        found.id,
        found.ttl,
        found.service,
        found.address,
        found.metadata,
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

    Raises: LocalProtocolError for a field out of range, a name over 255 bytes, metadata without
    their flag, or a flag without metadata.
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
    """Check that metadata are present exactly when a flag is set: at most 4 KiB for each flag."""
    if size < 0:
        raise RemoteProtocolError("truncated-header", f"{-size} bytes are missing")
    maps = (flags & METADATA != 0) + (flags & BROKER_METADATA != 0)
    if not maps and size:
        raise RemoteProtocolError("trailing-bytes", f"{size} bytes after the address")
    if maps and not size:
        raise RemoteProtocolError("no-metadata", "a flag announces metadata")
    if size > maps * MAX_METADATA:
        raise LongMetadataError(size)
