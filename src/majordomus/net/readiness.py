"""Which of a few descriptors is readable, in one system call.

The descriptor of a ZeroMQ socket tells of a change once, and using the socket may take that news
away: who waits for one here asks the socket itself after it was used (see `Line.stale`).
"""

from __future__ import annotations

import select


class Readiness:
    """Called with milliseconds to wait; the result has bit n set when descriptor n is readable."""

    def __init__(self, *descriptors: int) -> None:
        self._bits = {fd: 1 << n for n, fd in enumerate(descriptors)}
        self._poll = None
        if hasattr(select, "poll"):
            self._poll = select.poll()
            for fd in descriptors:
                self._poll.register(fd, select.POLLIN)

    def __call__(self, milliseconds: int) -> int:
        ready = 0
        if self._poll is not None:
            for fd, _ in self._poll.poll(milliseconds):
                ready |= self._bits[fd]
        else:
            for fd in select.select(list(self._bits), [], [], milliseconds / 1000)[0]:
                ready |= self._bits[fd]
        return ready
