"""The fixed fields of an MDP/0.3 header, bytes to numbers and back, live here and nowhere else.

What is compiled calls the functions of the same names in octets.pxd instead, which do the same in C
(docs/adr/0008-compiled-rules.md); the vectors in docs/spec and tests/protocol hold for both.
"""

from __future__ import annotations

import struct
from functools import partial

from majordomus.protocol.spec import MAX_NAME, MDP03_MAGIC, Frame

_HEAD = struct.Struct(">4sBBHQIB")
"""Magic, command, flags, code, id, ttl, length of the service."""
_LENGTHS = tuple(bytes((length,)) for length in range(MAX_NAME + 1))
_FIELDS = struct.Struct(">4xBBHQIB")

fields = _FIELDS.unpack_from
"""command, flags, code, id, ttl and the service's length of a header that has these 21 bytes."""

start = partial(struct.Struct(">4sBBHQI").pack, MDP03_MAGIC)
"""The fixed part of a header: command, flags, code, id and ttl. Raises: struct.error."""


eight = struct.Struct(">Q").pack
"""A number as its eight bytes, the highest first. Raises: struct.error."""


def is_mdp03(frame: Frame) -> bool:
    """Whether `frame` begins as a header of MDP/0.3."""
    return frame[:4] == MDP03_MAGIC


def piece(frame: bytes, start: int, end: int) -> bytes:
    """Some bytes of `frame`, which has them."""
    return frame[start:end]


def header(
    command: int, flags: int, code: int, id: int, ttl: int, service: bytes, address: bytes
) -> Frame:
    """A header without metadata.

    Raises: struct.error, OverflowError or IndexError for a field out of its range.
    """
    head = _HEAD.pack(MDP03_MAGIC, command, flags, code, id, ttl, len(service))
    return head + service + _LENGTHS[len(address)] + address
