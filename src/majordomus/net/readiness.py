"""Waits for a few descriptors in one system call.

The descriptor of a ZeroMQ socket is edge-triggered: it reports a change once, and the use of the
socket may consume that report. So after each use the caller must ask the socket itself whether it
is readable (see `SessionConnection.stale`).
"""

from __future__ import annotations

import select

from majordomus import system


class Readiness:
    """Called with milliseconds to wait. Bit n of the result is set if descriptor n is readable.

    It uses poll(2), which has no limit of descriptors; select(2) only where there is no poll.
    """

    def __init__(self, *descriptors: int) -> None:
        self._bits = {fd: 1 << n for n, fd in enumerate(descriptors)}
        self._poll = system.poller()
        if self._poll is not None:
            for fd in descriptors:
                self._poll.register(fd, system.POLLIN)

    def __call__(self, milliseconds: int) -> int:
        ready = 0
        if self._poll is not None:
            for fd, _ in self._poll.poll(milliseconds):
                ready |= self._bits[fd]
        else:
            for fd in select.select(list(self._bits), [], [], milliseconds / 1000)[0]:
                ready |= self._bits[fd]
        return ready
