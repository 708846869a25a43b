"""Connections by the descriptors that libzmq holds: whose they are, what they have brought, and how
to end one.

Descriptors are used again. Whatever is done to one is done to a copy, after a look at whose it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket as plain
import struct
import sys
import termios
from typing import Final, NamedTuple

_TCP_INFO_SIZE: Final = 136
_BYTES_RECEIVED: Final = struct.Struct("=Q")
_BYTES_RECEIVED_AT: Final = 128
"""Of `tcpi_bytes_received` in Linux's struct tcp_info, since 4.1."""
MEASURES: Final = sys.platform == "linux"
"""Whether `brought` can say anything."""


class Mark(NamedTuple):
    """What tells one connection from another one that has got its descriptor."""

    inode: int
    address: object

    @property
    def host(self) -> str:
        """The other end's address without its port; "" for what is not the internet's."""
        return str(self.address[0]) if isinstance(self.address, tuple) else ""


def mark_of(fd: int) -> Mark | None:
    """What the connection of `fd` is known by; None when there is none any more."""
    try:
        with plain.socket(fileno=os.dup(fd)) as seen:
            return Mark(os.fstat(seen.fileno()).st_ino, seen.getpeername())
    except OSError:
        return None


def shut(fd: int, mark: Mark) -> bool:
    """Ends the connection of `fd`, if it is still the one of that mark.

    The copy of the descriptor stays that connection's, whatever libzmq closes meanwhile.
    """
    with contextlib.suppress(OSError), plain.socket(fileno=os.dup(fd)) as seen:
        if Mark(os.fstat(seen.fileno()).st_ino, seen.getpeername()) == mark:
            seen.shutdown(plain.SHUT_RDWR)
            return True
    return False


def brought(fd: int) -> int:
    """Bytes that libzmq has read from the connection of `fd` since it began; -1 where that cannot
    be known."""
    if not MEASURES:
        return -1
    try:
        with plain.socket(fileno=os.dup(fd)) as seen:
            info = seen.getsockopt(plain.IPPROTO_TCP, plain.TCP_INFO, _TCP_INFO_SIZE)
            unread = fcntl.ioctl(seen, termios.FIONREAD, bytes(4))
    except OSError:
        return -1
    if len(info) < _TCP_INFO_SIZE:
        return -1
    arrived = int(_BYTES_RECEIVED.unpack_from(info, _BYTES_RECEIVED_AT)[0])
    return max(0, arrived - int.from_bytes(unread, sys.byteorder))
