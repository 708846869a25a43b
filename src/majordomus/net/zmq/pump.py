"""Move messages from one socket to another, unchanged and whole. No rule of Majordomo is in it.

`_native` has the same class on libzmq itself.
"""

from __future__ import annotations

from enum import Enum
from typing import cast

import zmq

from majordomus.net.zmq import select as wires


class Moved(Enum):
    """Why a pump has stopped: ALL, the source is empty; SOME, it has moved as many as it may;
    FULL, the target accepts no more."""

    ALL = "the source is empty"
    SOME = "as many as it may"
    FULL = "the target is full"


class Pump:
    """Moves messages from `source` to `target`, in the thread that uses both.

    A message is received only when the target accepts one. If the target loses its last peer in
    between, the first part waits in the pump, and the others in the source.
    """

    def __init__(self, source: zmq.Socket[bytes], target: zmq.Socket[bytes]) -> None:
        self.source, self.target = source, target
        self.messages = self.bytes = 0
        self._waiting: tuple[bytes, bool] | None = None

    def move(self, most: int) -> Moved:
        """Move up to `most` messages. Never waits."""
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
                part = self.source.recv(zmq.NOBLOCK)  # libzmq hands out whole messages only
                more = bool(self.source.getsockopt(zmq.RCVMORE))
                # Refused when the peer has left in between: libzmq then drops the message.
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
    """Make a native pump where the native wire is used, else one on pyzmq."""
    if wires.WIRE == wires.NATIVE:
        from majordomus.net.zmq import _native

        return cast(Pump, _native.Pump(source, target))
    return Pump(source, target)
