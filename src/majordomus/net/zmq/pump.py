"""Move messages from one socket to another, unchanged and whole. No rule of Majordomo is in it.

`_pump` has the same classes on libzmq itself.
"""

from __future__ import annotations

import importlib
from enum import Enum
from typing import Final, cast

import zmq

BURST: Final = 1000
"""Messages moved in one direction before the other direction and commands get their turn: as many
as libzmq's proxy moves."""


class Moved(Enum):
    """Why a pump has stopped: ALL, the source is empty; SOME, it has moved as many as it may;
    FULL, the target accepts no more."""

    ALL = "the source is empty"
    SOME = "as many as it may"
    FULL = "the target is full"


class Pump:
    """Moves messages from `source` to `target`, in the thread that uses both.

    Nothing is received while the target accepts nothing. If the target becomes full, or loses its
    last peer, the first part of one message waits in the pump, and all others in the source.
    """

    def __init__(self, source: zmq.Socket[bytes], target: zmq.Socket[bytes]) -> None:
        self.source, self.target = source, target
        self.messages = self.bytes = 0
        self._waiting: tuple[bytes, bool] | None = None

    def move(self, most: int) -> Moved:
        """Move up to `most` messages. Never waits."""
        if not int(self.target.getsockopt(zmq.EVENTS)) & zmq.POLLOUT:
            return Moved.FULL
        for _ in range(most):
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


class Mover:
    """Waits for messages and moves them, in one direction or in both, until a command comes.

    waker: a descriptor that is readable when `run` is to end.
    control: a socket that is readable when a command has come; None without one.
    forth, back: the pumps; `back` is None where messages go one way only.
    """

    def __init__(
        self, waker: int, control: zmq.Socket[bytes] | None, forth: Pump, back: Pump | None
    ) -> None:
        self._waker, self._control = waker, control
        self._pumps = [forth] if back is None else [forth, back]
        self._full: dict[Pump, bool] = dict.fromkeys(self._pumps, False)

    def run(self, paused: bool) -> tuple[bool, bool]:
        """Move messages, or none when `paused`. Returns whether the descriptor and the control
        socket are readable. A signal may end it before.

        A pump waits for input while its target accepts messages, else for the target. So neither
        input that cannot be moved nor a target without input keeps the loop busy.
        """
        while True:
            watched: dict[zmq.Socket[bytes] | int, int] = {self._waker: zmq.POLLIN}
            if self._control is not None:
                watched[self._control] = zmq.POLLIN
            if not paused:
                for pump in self._pumps:
                    one, event = self._watches(pump)
                    watched[one] = watched.get(one, 0) | event
            ready: dict[object, int] = dict(zmq.zmq_poll(list(watched.items()), -1))
            woken, commanded = self._waker in ready, self._control in ready
            if woken or commanded:
                return woken, commanded
            for pump in self._pumps:
                one, event = self._watches(pump)
                if ready.get(one, 0) & event:
                    self._full[pump] = pump.move(BURST) is Moved.FULL

    def _watches(self, pump: Pump) -> tuple[zmq.Socket[bytes], int]:
        return (pump.target, zmq.POLLOUT) if self._full[pump] else (pump.source, zmq.POLLIN)


def make_pump(source: zmq.Socket[bytes], target: zmq.Socket[bytes]) -> Pump:
    """Make a native pump where it was built and can call libzmq, else one on pyzmq."""
    try:
        native = importlib.import_module("majordomus.net.zmq._pump")
    except ImportError:
        return Pump(source, target)
    return cast(Pump, native.Pump(source, target))


def make_mover(
    waker: int, control: zmq.Socket[bytes] | None, forth: Pump, back: Pump | None
) -> Mover:
    """Make the mover for pumps of `make_pump`."""
    if isinstance(forth, Pump):
        return Mover(waker, control, forth, back)
    native = importlib.import_module("majordomus.net.zmq._pump")
    return cast(Mover, native.Mover(waker, control, forth, back))
