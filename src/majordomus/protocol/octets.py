"""The layout of an MDP/0.3 header, bytes to numbers and back, lives here and nowhere else.

`_MAGIC` and `_NUMBERS` describe the fixed part; every offset and size is computed from them.
Compiled modules call the functions of the same names in octets.pxd, which do the same in C
(docs/adr/0008-compiled-rules.md); the vectors in docs/spec and tests/protocol hold for both.
"""

from __future__ import annotations

import struct
import sys
from functools import partial

from majordomus.protocol.spec import MAX_NAME, MDP03_MAGIC, Frame

_MAGIC = ">4s"
_NUMBERS = "BBHQI"
"""Command, flags, code, id, ttl. The service's length (one byte) and name follow, then the
address's length (one byte) and the address, then the metadata."""

HEAD = struct.Struct(_MAGIC + _NUMBERS)
"""The fixed part of a header: magic, command, flags, code, id, ttl."""
COMMAND_AT = struct.calcsize(_MAGIC)
SERVICE_AT = HEAD.size + 1
"""Where the service's name begins, one byte behind its length."""

_LENGTHS = tuple(bytes((length,)) for length in range(MAX_NAME + 1))
_NO_MAGIC = _MAGIC.replace("s", "x")

fields = struct.Struct(_NO_MAGIC + _NUMBERS + "B").unpack_from
"""command, flags, code, id, ttl and the service's length of a header of at least `SERVICE_AT`
bytes."""

start = partial(HEAD.pack, MDP03_MAGIC)
"""The fixed part of a header: command, flags, code, id and ttl. Raises: struct.error."""


def start_with(command: int, flags: int, code: int, id: int, ttl: int, tail: bytes) -> bytes:
    """A header: its fixed part, and the `tail` behind it. Raises: struct.error."""
    return start(command, flags, code, id, ttl) + tail


def digits(number: int) -> bytes:
    """A number of at most 64 bits as 16 hexadecimal digits, in lower case."""
    return b"%016x" % number


def is_mdp03(frame: Frame) -> bool:
    """Whether `frame` begins as a header of MDP/0.3."""
    return frame[:4] == MDP03_MAGIC


def command_of(header: Frame) -> int:
    """The command of a frame that begins as a header of MDP/0.3; -1 where it ends before."""
    return header[COMMAND_AT] if len(header) > COMMAND_AT else -1


def command_in(header: bytes) -> int:
    """The command of a header of at least `SERVICE_AT` bytes."""
    return header[COMMAND_AT]


def service_length(header: bytes) -> int:
    """The length of the service's name, of a header of at least `SERVICE_AT` bytes."""
    return header[SERVICE_AT - 1]


def name_hash(frame: bytes, start: int, end: int) -> int:
    """A hash of the bytes of `frame` from `start` to `end`, which must lie within it; never
    negative. Compiled, it makes no object, and is another number than in Python."""
    return hash(frame[start:end]) & sys.maxsize


def ttl(seconds: float) -> int:
    """`seconds`, which fit into a header, in its milliseconds: at least 1, for 0 is no limit."""
    return int(seconds * 1000) or 1


def drop_header(frames: list[Frame]) -> None:
    """Remove the first frame of a message."""
    del frames[0]


def piece(frame: bytes, start: int, end: int) -> bytes:
    """The bytes of `frame` from `start` to `end`, which must lie within it."""
    return frame[start:end]


def name_at(frame: bytes, start: int, end: int, last: bytes) -> bytes:
    """`piece`; compiled, it is the object `last` where that has the same bytes."""
    return frame[start:end]


def header(
    command: int, flags: int, code: int, id: int, ttl: int, service: bytes, address: bytes
) -> Frame:
    """A header without metadata.

    Raises: struct.error, OverflowError or IndexError for a field out of its range.
    """
    head = HEAD.pack(MDP03_MAGIC, command, flags, code, id, ttl)
    return head + _LENGTHS[len(service)] + service + _LENGTHS[len(address)] + address
