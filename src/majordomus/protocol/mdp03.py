"""The header frame of MDP/0.3: bytes to fields and back (docs/spec/mdp-0.3.md).

Only the layout is checked here, not the meaning of the fields. `Fields.read` runs for every
message, so it must stay short.
"""

from __future__ import annotations

import struct
from operator import index

from majordomus.errors import LocalProtocolError, RemoteProtocolError
from majordomus.protocol import octets
from majordomus.protocol.spec import (
    BROKER_METADATA,
    MAX_METADATA,
    METADATA,
    REQUEST,
    Frame,
)

HEAD = octets.HEAD
"""The fixed part of a header: magic, command, flags, code, id, ttl."""
SHORTEST = HEAD.size + 2
"""Bytes of the shortest header: the fixed part, and the lengths of the service and the address."""
NO_NAMES = b"\x00\x00"
"""The rest of a header behind its fixed part, without service, address and metadata."""
_SERVICE_AT = octets.SERVICE_AT
_MAPS = METADATA | BROKER_METADATA


class LongMetadataError(RemoteProtocolError):
    """The metadata of a header are too long. All other fields of `Fields` have been read."""

    def __init__(self, size: int) -> None:
        super().__init__("long-metadata", f"{size} bytes")


class Fields:
    """The fields of a header. A state machine has one object and reads every header into it, so
    that a message needs no object of its own.

    ``command``: one of `spec.COMMAND_NAMES`, or a number that is not known.
    ``flags``: a bit each, see `spec`.
    ``code``: a status, a capacity, a load or a number of parts, by the command.
    ``id``: of the conversation that the message belongs to; 0 = of none.
    ``ttl``: milliseconds, 0 = no limit.
    ``service``: the service's or the topic's name; its UTF-8 is not checked.
    ``address``: a handle or a routing id, by the command.
    ``metadata``: packed maps, not checked: see `metadata.split_raw`.
    ``_name``: the name of a service that the next header is likely to have. Most requests of a
    batch call the same one, so it is the last one, unless `expect` has told another.
    """

    __slots__ = ("_name", "address", "code", "command", "flags", "id", "metadata", "service", "ttl")

    def __init__(self) -> None:
        self._name = b""

    def expect(self, name: bytes) -> None:
        """The next header is likely to have the service `name`. If so, and where this module is
        compiled, ``service`` is then this object, and no other one is made."""
        self._name = name

    def read(self, header: Frame) -> None:
        """Read the fields of `header`. Unknown commands and flags are no error.

        Does not check the UTF-8 of the service, nor the metadata: see `metadata.split_raw`.

        Raises: RemoteProtocolError, for any bytes. Then only the fixed fields may be valid.
        """
        if len(header) >= SHORTEST and not octets.is_mdp03(header):
            raise RemoteProtocolError("wrong-header", "this is not MDP/0.3")
        self.read_recognised(header)

    def read_recognised(self, header: Frame) -> None:
        """`read` for a frame that begins as a header of MDP/0.3."""
        whole = header if type(header) is bytes else bytes(header)
        size = len(whole)
        if size < SHORTEST:
            raise RemoteProtocolError("truncated-header", f"{size} bytes")
        self.command, self.flags, self.code, self.id, self.ttl, length = octets.fields(whole)
        middle = _SERVICE_AT + length
        if size <= middle:
            raise RemoteProtocolError("truncated-header", f"{size} bytes")
        end = middle + 1 + whole[middle]
        if end != size or self.flags & _MAPS:
            _check_rest(size - end, self.flags)
        if length:
            self._name = octets.name_at(whole, _SERVICE_AT, middle, self._name)
            self.service = self._name
        else:
            self.service = b""
        self.address = octets.piece(whole, middle + 1, end) if end > middle + 1 else b""
        self.metadata = whole[end:] if end < size else b""


def with_ttl(header: Frame, ttl: int) -> Frame:
    """`header` with another ttl, in milliseconds; everything else is copied."""
    magic, command, flags, code, id, _ = HEAD.unpack_from(header)
    return HEAD.pack(magic, command, flags, code, id, ttl) + header[HEAD.size :]


def parse(header: Frame) -> Fields:
    """The fields of one header, in an object of their own. Raises: RemoteProtocolError."""
    found = Fields()
    found.read(header)
    return found


def called_name_hash(frames: list[Frame]) -> int:
    """`octets.name_hash` of the service that a REQUEST without an envelope calls; -1 for any other
    message.

    Only as much is read as that takes: a header that `Fields.read` refuses may have a name here.
    """
    if not frames or type(frames[0]) is not bytes or not octets.is_mdp03(frames[0]):
        return -1
    header = frames[0]
    if len(header) < SHORTEST or octets.command_in(header) != REQUEST:
        return -1
    end = SHORTEST - 1 + octets.service_length(header)
    return octets.name_hash(header, SHORTEST - 1, end) if end < len(header) else -1


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


def tail(service: bytes, address: bytes = b"", metadata: bytes = b"") -> bytes:
    """What follows the fixed part in a header of these names: `octets.start` makes the fixed part.

    Raises: LocalProtocolError as `pack` does.
    """
    flags = METADATA if metadata else 0
    return pack(0, flags, service=service, address=address, metadata=metadata)[HEAD.size :]


def split_tail(tail: bytes) -> tuple[bytes, bytes]:
    """The names (service and address, with their lengths) and the metadata of a `tail`."""
    address_at = 1 + tail[0]
    end = address_at + 1 + tail[address_at]
    return tail[:end], tail[end:]


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
