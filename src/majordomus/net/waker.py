"""A descriptor that another thread, or a signal handler, makes readable to end somebody's wait."""

from __future__ import annotations

import contextlib
import socket


class Waker:
    """`wake` may be called from any thread and from signal handlers, any number of times; one wait
    takes all.

    The writing end may be given to `signal.set_wakeup_fd`, which writes bytes of its own.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self.fd = self._reader.fileno()
        self.writer_fd = self._writer.fileno()

    def wake(self) -> None:
        """After `close` it does nothing: who was to be woken is gone."""
        with contextlib.suppress(OSError):  # full: the wake-up is there already
            self._writer.send(b"\0")

    def clear(self) -> None:
        """Takes all wake-ups that are there."""
        with contextlib.suppress(OSError):
            while len(self._reader.recv(4096)) == 4096:
                pass

    def close(self) -> None:
        """May be repeated."""
        self._reader.close()
        self._writer.close()
