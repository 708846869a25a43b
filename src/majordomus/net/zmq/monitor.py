"""What libzmq says about a socket's connections, as events.

A monitor belongs to the thread that uses its socket. It is closed before its socket is.
"""

from __future__ import annotations

import itertools
import os
import struct
from enum import IntEnum
from typing import Final, NamedTuple

import zmq

from majordomus.net.zmq import sockets

_EVENT: Final = struct.Struct("=Hi")
_numbers = itertools.count()


class MonitorEvent(IntEnum):
    """What may be watched for."""

    # Connecting: the system's connection with this descriptor is there, ZMTP's handshake is not.
    ATTACHED = zmq.EVENT_CONNECTED
    # Connecting: messages can be sent from now on.
    CONNECTED = zmq.EVENT_HANDSHAKE_SUCCEEDED
    # Connecting: this try was in vain, libzmq would wait and try again.
    FAILED = zmq.EVENT_CONNECT_RETRIED
    # Binding: the system's connection with this descriptor is there, ZMTP's handshake is not.
    ACCEPTED = zmq.EVENT_ACCEPTED
    # Both sides: the connection with this descriptor has ended, also in its handshake.
    LOST = zmq.EVENT_DISCONNECTED
    # Binding: a listener is closed.
    UNBOUND = zmq.EVENT_CLOSED
    # Both sides, in the handshake: the key or password is refused; what came is no ZMTP, or of
    # another mechanism; it was broken off, or took too long.
    AUTH_FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH
    PROTOCOL_FAILED = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    BROKEN_OFF = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


HANDSHAKE_FAILED: Final = (
    MonitorEvent.AUTH_FAILED,
    MonitorEvent.PROTOCOL_FAILED,
    MonitorEvent.BROKEN_OFF,
)
_EVENTS: Final = {int(event): event for event in MonitorEvent}


class MonitorRecord(NamedTuple):
    event: MonitorEvent
    value: int
    """The descriptor for ATTACHED, ACCEPTED and LOST; ZAP's status, a code or an errno for
    failures."""


class Monitor:
    """Watches one socket from its making on.

    `socket` becomes readable when there is something to `read`.
    """

    def __init__(self, watched: zmq.Socket[bytes], *events: MonitorEvent) -> None:
        self._watched = watched
        address = f"inproc://majordomus.monitor.{os.getpid()}.{next(_numbers)}"
        watched.monitor(address, sum(events))
        self.socket = sockets.context().socket(zmq.PAIR)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(
            zmq.RCVHWM, 0
        )  # libzmq's own thread would wait for us when it is full
        self.socket.connect(address)

    def read(self) -> list[MonitorRecord]:
        """All that is there now, in order."""
        seen: list[MonitorRecord] = []
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return seen
            number, value = _EVENT.unpack(frames[0])
            if number in _EVENTS:
                seen.append(MonitorRecord(_EVENTS[number], value))

    def close(self) -> None:
        """May be repeated."""
        if not self.socket.closed:
            if not self._watched.closed:
                self._watched.disable_monitor()
            self.socket.close()
