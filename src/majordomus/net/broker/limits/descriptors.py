"""Connections by the descriptors that libzmq holds: whose they are, and how to end one.

Descriptors are used again: whatever ends a connection is done to a copy, after a look at whose it
is.
"""

from __future__ import annotations

import contextlib
import os
import socket as plain
from collections.abc import Iterator
from typing import NamedTuple


class Mark(NamedTuple):
    """What tells one connection from another one that has got its descriptor."""

    inode: int
    address: object

    @property
    def host(self) -> str:
        """The other end's address without its port; "" for what is not the internet's."""
        return str(self.address[0]) if isinstance(self.address, tuple) else ""


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[plain.socket]:
    """The connection of `fd` for a moment: nothing is asked of the kernel, and nothing closed."""
    seen = plain.socket(plain.AF_INET, plain.SOCK_STREAM, 0, fileno=fd)
    try:
        yield seen
    finally:
        seen.detach()


def mark_of(fd: int) -> Mark | None:
    """What the connection of `fd` is known by; None when there is none any more."""
    try:
        with _borrowed(fd) as seen:
            return Mark(os.fstat(fd).st_ino, seen.getpeername())
    except OSError:
        return None


def shut(fd: int, mark: Mark) -> bool:
    """Ends the connection of `fd`, if it is still the one of that mark.

    The copy of the descriptor stays that connection's, whatever libzmq closes meanwhile.
    """
    try:
        copy = os.dup(fd)
    except OSError:
        return False
    try:
        with _borrowed(copy) as seen:
            if mark_of(copy) != mark:
                return False
            seen.shutdown(plain.SHUT_RDWR)
            return True
    except OSError:
        return False
    finally:
        os.close(copy)
