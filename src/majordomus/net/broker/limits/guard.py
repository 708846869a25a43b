"""Limits on the connections of a libzmq socket: connections per address, unfinished handshakes per
address, and messages that never end.

It follows the socket's monitor. Each connection that it ends is counted by reason (`mmi.stats`) and
logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import TYPE_CHECKING

from majordomus.net.broker.limits import descriptors
from majordomus.net.broker.limits.connection_limits import crowd_of
from majordomus.net.broker.limits.descriptors import Mark, mark_of
from majordomus.net.broker.limits.non_zmtp_detector import NOT_ZMTP, Strays
from majordomus.net.broker.limits.oversize_detector import Flood
from majordomus.net.zmq.monitor import MonitorEvent, MonitorRecord

if TYPE_CHECKING:
    from majordomus.core.broker.contract import Machine
    from majordomus.net.broker.limits.connections import ConnectionMap

ENDLESS = "endless-message"


class Guard:
    """The limits of one socket. `due`: when `tick` is next needed, in monotonic seconds."""

    def __init__(
        self,
        machine: Machine,
        connections: ConnectionMap,
        find_mark: Callable[[int], Mark | None] = mark_of,
    ) -> None:
        settings = machine.settings
        self._find_mark = find_mark
        self._machine, self._connections = machine, connections
        self._crowd = crowd_of(settings)
        self._flood = Flood(settings.max_message)
        self._strays = Strays()
        self._marks: dict[int, Mark] = {}
        """The mark of every connection, by descriptor."""

    @property
    def due(self) -> float:
        return self._flood.due if self._marks else inf

    def handle(self, seen: MonitorRecord, now: float) -> None:
        """Handle one event of the monitor."""
        fd = seen.value
        stray = self._strays.hear(seen)
        if seen.event is MonitorEvent.LOST:
            if stray:
                mark = self._marks.get(fd)
                self._machine.handshake_failed(NOT_ZMTP, address=mark.host if mark else "")
            self._forget(fd)
        elif seen.event is MonitorEvent.ACCEPTED:
            self._forget(fd)
            mark = self._find_mark(fd)
            if mark is None:
                return
            self._marks[fd] = mark
            reason = self._crowd.accepted(fd, mark.host, now)
            if reason:
                self._end(fd, reason)
            else:
                self._flood.begin(now)

    def opened(self, fd: int) -> None:
        """Note the first message of a connection."""
        self._crowd.spoke(fd)
        self._strays.spoke(fd)

    def delivered(self, batch: Iterable[tuple[bytes, list[bytes]]]) -> None:
        """Note whole messages that have been received."""
        if self._flood.watching:
            found = (self._connections.fd_of(peer) for peer, _ in batch)
            self._flood.delivered(fd for fd in found if fd is not None)

    def tick(self, now: float) -> None:
        """End connections that send an endless message."""
        for fd in self._flood.look(self._marks, self._crowd.silent, now):
            self._end(fd, ENDLESS)

    def _forget(self, fd: int) -> None:
        self._marks.pop(fd, None)
        self._crowd.ended(fd)
        self._flood.ended(fd)

    def _end(self, fd: int, reason: str) -> None:
        mark = self._marks.get(fd)
        self._strays.cut(fd)
        if mark is not None and descriptors.shut(fd, mark):
            self._machine.cut_off(reason, mark.host)
