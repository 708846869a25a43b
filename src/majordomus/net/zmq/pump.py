"""Messages moved from one socket to another as they are; none is left begun. No rule is in it.

The native one is in `_wire.pyx`, and this is its twin on plain pyzmq.
"""

from __future__ import annotations

from enum import Enum
from typing import cast

import zmq

from majordomus.net.zmq import select as wires


class Moved(Enum):
    """Why a pump has stopped."""

    ALL = "the source has no more"
    SOME = "it has moved as many as it might"
    FULL = "the target takes no more"


class Pump:
    """From `source` to `target`, in the thread that uses both.

    A message is taken only when the target can have it. Should the target lose its last peer in
    that very moment, the first part waits here, and the others in the source.
    """

    def __init__(self, source: zmq.Socket[bytes], target: zmq.Socket[bytes]) -> None:
        self.source, self.target = source, target
        self.messages = self.bytes = 0
        self._waiting: tuple[bytes, bool] | None = None

    def move(self, most: int) -> Moved:
        """Up to `most` messages. It never waits."""
        for _ in range(most):
            if not int(self.target.getsockopt(zmq.EVENTS)) & zmq.POLLOUT:
                return Moved.FULL
            if self._waiting is None:
                try:
                    part = self.source.recv(zmq.NOBLOCK)
                except zmq.Again:
                    return Moved.ALL
                self._waiting = part, bool(self.source.getsockopt(zmq.RCVMORE))
            if not self._send(*self._waiting):
                return Moved.FULL
            more, self._waiting = self._waiting[1], None
            while more:
                part = self.source.recv(zmq.NOBLOCK)  # a message is there as a whole
                more = bool(self.source.getsockopt(zmq.RCVMORE))
                # Refused when the peer has left in the middle: libzmq drops the message then.
                self._send(part, more)
            self.messages += 1
        return Moved.SOME

    def _send(self, part: bytes, more: bool) -> bool:
        try:
            self.target.send(part, zmq.NOBLOCK | (zmq.SNDMORE if more else 0))
        except zmq.Again:
            return False
        self.bytes += len(part)
        return True


def make_pump(source: zmq.Socket[bytes], target: zmq.Socket[bytes]) -> Pump:
    """The native pump where the native wire serves, else its twin."""
    if wires.WIRE == wires.NATIVE:
        from majordomus.net.zmq import _native as _wire

        return cast(Pump, _wire.Pump(source, target))
    return Pump(source, target)
