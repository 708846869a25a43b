"""Connections that spoke something else than ZMTP: a browser, a scanner, plain text to an encrypted
port.

libzmq ends them without a word about why. They are found by what is missing: the monitor told that
they came and that they ended, and neither of a handshake that was done nor of one that failed. It
names no descriptor with a handshake, so while some connection is done with it and has said nothing
yet, one that ends may have been that one, and is not counted.
"""

from __future__ import annotations

from typing import Final

from majordomus.net.zmq.monitor import HANDSHAKE_FAILED, MonitorEvent, MonitorRecord

NOT_ZMTP: Final = "not-zmtp"


class Strays:
    """Of one socket that binds; all that its monitor says, in order."""

    def __init__(self) -> None:
        self._silent: set[int] = set()
        self._cut: set[int] = set()
        self._done = 0
        """Connections that are done with their handshakes and have said nothing."""
        self._failed = 0
        """Handshakes that failed; each connection's end is still to be told."""

    def hear(self, seen: MonitorRecord) -> bool:
        """Whether it is the end of one that spoke something else."""
        fd = seen.value
        if seen.event is MonitorEvent.ACCEPTED:
            self._silent.add(fd)
            self._cut.discard(fd)
        elif seen.event is MonitorEvent.CONNECTED:
            self._done += 1
        elif seen.event in HANDSHAKE_FAILED:
            self._failed += 1
        elif seen.event is MonitorEvent.LOST and fd in self._silent:
            self._silent.discard(fd)
            if self._failed:
                self._failed -= 1
            elif self._done:
                self._done -= 1
            elif fd not in self._cut:
                return True
            self._cut.discard(fd)
        return False

    def spoke(self, fd: int) -> None:
        """The first message of a connection has come."""
        if fd in self._silent:
            self._silent.discard(fd)
            self._done = max(0, self._done - 1)

    def cut(self, fd: int) -> None:
        """We end it ourselves."""
        if fd in self._silent:
            self._cut.add(fd)
