"""A descriptor that another thread, or a signal handler, makes readable to end a wait.

It is a socket pair, because `signal.set_wakeup_fd` of Windows takes sockets only.
"""

from __future__ import annotations

import contextlib
import socket


class Waker:
    """Ends the wait of one thread.

    `wake` may be called from any thread and from signal handlers, any number of times; one `clear`
    takes all wake-ups.

    fd: the descriptor to wait on.
    writer_fd: the writing end, which may be given to `signal.set_wakeup_fd`.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self.fd = self._reader.fileno()
        self.writer_fd = self._writer.fileno()

    def wake(self) -> None:
        """Make `fd` readable. Has no effect after `close`."""
        with contextlib.suppress(OSError):  # full: it is readable already
            self._writer.send(b"\0")

    def clear(self) -> None:
        """Take all wake-ups: `fd` is not readable afterwards."""
        with contextlib.suppress(OSError):
            while len(self._reader.recv(4096)) == 4096:
                pass

    def close(self) -> None:
        """Close both ends. May be repeated."""
        self._reader.close()
        self._writer.close()
