"""The connections of a libzmq socket that other processes can reach: limits for each address, and
ends.

libzmq's monitor names connections by descriptor only, and reports an end before the connection is
torn down. So a map from descriptor to routing id is kept, and ends are confirmed by probes. Each
connection that is ended here is counted by reason (`mmi.stats`) and logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from majordomus.net.broker.limits.connection_limits import crowd_of
from majordomus.net.broker.limits.connections import ConnectionMap, Probes
from majordomus.net.broker.limits.descriptors import Mark, mark_of, shut
from majordomus.net.broker.security.authentication import Authentication, report_failure
from majordomus.net.zmq.monitor import HANDSHAKE_FAILED, Monitor, MonitorEvent, MonitorRecord

if TYPE_CHECKING:
    import zmq

    from majordomus.core.broker.contract import Machine

WATCHED: Final = (
    MonitorEvent.ACCEPTED,
    MonitorEvent.LOST,
    MonitorEvent.UNBOUND,
    *HANDSHAKE_FAILED,
)


class ConnectionWatch:
    """The connections of one socket. `forget` is called with the routing id of one that has ended.

    `due`: when `tick` is next needed, in monotonic seconds.
    """

    def __init__(
        self,
        machine: Machine,
        socket: zmq.Socket[bytes],
        forget: Callable[[bytes], None],
        authentication: Authentication | None,
    ) -> None:
        self.monitor = Monitor(socket, *WATCHED)
        self._machine, self._forget, self._authentication = machine, forget, authentication
        self._crowd = crowd_of(machine.settings)
        self._marks: dict[int, Mark] = {}
        """The mark of every connection, by descriptor."""
        self._connections = ConnectionMap()
        self._probes = Probes()

    @property
    def due(self) -> float:
        return self._probes.next()

    def opened(self, new: Iterable[tuple[bytes, int]], now: float) -> None:
        """Note the first messages of connections, by routing id and descriptor.

        libzmq reports an end before it reuses the descriptor: call `read` before.
        """
        for peer, fd in new:
            self._crowd.spoke(fd)
            self._probes.received(peer, fd)
            replaced = self._connections.opened(peer, fd)
            if replaced is not None:
                self._ended(replaced, fd, now)
            if self._authentication is not None:
                self._authentication.opened(peer, fd)

    def read(self, now: float) -> None:
        """Handle what the monitor has reported."""
        for seen in self.monitor.read():
            if seen.event in HANDSHAKE_FAILED:
                report_failure(self._authentication, seen, self._machine)
            elif seen.event is MonitorEvent.ACCEPTED:
                self._accepted(seen, now)
            elif seen.event is MonitorEvent.LOST:
                self._lost(seen, now)

    def gone(self, peer: bytes) -> None:
        """Note a send that was refused because `peer` is gone."""
        self._probes.gone(peer)

    def tick(self, now: float) -> None:
        """Probe the peers whose connections have ended."""
        for peer in self._probes.due(now):
            self._machine.connection_ended(peer, now)

    def close(self) -> None:
        """Close the monitor, before its socket is closed. May be repeated."""
        self.monitor.close()

    def _accepted(self, seen: MonitorRecord, now: float) -> None:
        fd = seen.value
        self._marks.pop(fd, None)
        self._probes.accepted(fd)
        mark = mark_of(fd)
        if mark is None:
            self._crowd.ended(fd)
            return
        self._marks[fd] = mark
        reason = self._crowd.accepted(fd, mark.host, now)
        if reason and shut(fd, mark):
            self._machine.cut_off(reason, mark.host)

    def _lost(self, seen: MonitorRecord, now: float) -> None:
        fd = seen.value
        self._marks.pop(fd, None)
        self._crowd.ended(fd)
        peer = self._connections.ended(fd)
        if peer is not None:
            self._ended(peer, fd, now)

    def _ended(self, peer: bytes, fd: int, now: float) -> None:
        if self._authentication is not None:
            self._authentication.ended(peer)
        self._forget(peer)
        self._probes.begin(peer, fd, now)
        self._machine.connection_ended(peer, now)
