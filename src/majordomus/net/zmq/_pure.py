"""Batches of messages in, batches out, on plain pyzmq: the twin of the native wire.

No rule is in it.

Both wires belong to one thread at a time and never wait. Their sockets are somebody else's to make
and close.
"""

from __future__ import annotations

import errno
import sys
from typing import Final

import zmq

from majordomus.net.bodies import Cut

GONE: Final = errno.EHOSTUNREACH
FULL: Final = errno.EAGAIN
REFUSALS: Final = frozenset((GONE, FULL))

NO_FD: Final = -1
"""The descriptor of a connection that has none: inproc."""
MAX_INPROC: Final = 10_000
NO_FRAMES: Final = "a message has at least one frame: one that was begun could not be ended"

_MORE: Final = zmq.SNDMORE | zmq.NOBLOCK


class RouterWire:
    """A ROUTER with MANDATORY set. It notes which descriptor a routing id's first message came
    from.

    A noted id is looked up no more until `forget`: one entry for each connection that the owner has
    not seen the end of. What is beyond `max_frames` or `max_bytes` of one message (0: no bound; the
    routing id does not count) is read and dropped; a `Cut` stands for it.
    """

    def __init__(
        self, socket: zmq.Socket[bytes], *, max_frames: int = 0, max_bytes: int = 0
    ) -> None:
        _check_kind(socket, zmq.ROUTER)
        self._socket = socket
        self._max_frames = max_frames or sys.maxsize
        self._max_bytes = max_bytes or sys.maxsize
        self._noted: dict[bytes, int] = {}
        self._inproc: set[bytes] = set()
        self._new: list[tuple[bytes, int]] = []

    def receive(self, most: int) -> list[tuple[bytes, list[bytes]]]:
        """Up to `most` messages that are there now; fewer mean that the socket was found empty."""
        recv, noted, inproc = self._socket.recv, self._noted, self._inproc
        batch: list[tuple[bytes, list[bytes]]] = []
        try:
            while len(batch) < most:
                peer = recv(zmq.NOBLOCK)
                known = peer in noted or peer in inproc
                first = recv(zmq.NOBLOCK) if known else self._noting(peer).bytes
                batch.append((peer, self._message(first)))
        except zmq.Again:
            pass
        return batch

    def receive_with_users(self, most: int) -> list[tuple[bytes, list[bytes], str]]:
        """The same, each message with the `User-Id` of its connection; "" when there is none."""
        batch: list[tuple[bytes, list[bytes], str]] = []
        try:
            while len(batch) < most:
                peer = self._socket.recv(zmq.NOBLOCK)
                frame = self._noting(peer)
                batch.append((peer, self._message(frame.bytes), _user_of(frame)))
        except zmq.Again:
            pass
        return batch

    def send(self, batch: list[tuple[bytes, list[bytes]]]) -> list[tuple[int, int]]:
        """Sends in order; the result is (index, errno) of what was refused, GONE or FULL.

        After a refusal all later messages to the same peer are refused likewise: order is kept.
        Raises: ValueError for a message without frames.
        """
        refused: list[tuple[int, int]] = []
        stopped: dict[bytes, int] = {}
        send = self._socket.send
        for index, (peer, frames) in enumerate(batch):
            if stopped and peer in stopped:
                refused.append((index, stopped[peer]))
                continue
            if not frames:
                raise ValueError(NO_FRAMES)
            try:
                send(peer, _MORE)  # MANDATORY: only the routing id can be refused
            except zmq.ZMQError as error:
                if error.errno not in REFUSALS:
                    raise
                stopped[peer] = error.errno
                refused.append((index, error.errno))
                continue
            for frame in frames[:-1]:
                send(frame, _MORE)
            send(frames[-1], zmq.NOBLOCK)
        return refused

    def connections(self) -> list[tuple[bytes, int]]:
        """(routing id, descriptor) noted since the last call.

        An id appears again after `forget`.
        """
        new, self._new = self._new, []
        return new

    def forget(self, peer: bytes) -> None:
        """The connection of this routing id has ended; may be repeated."""
        self._noted.pop(peer, None)

    def _noting(self, peer: bytes) -> zmq.Frame:
        """The next part, the first behind `peer`; what connection it came by is noted."""
        frame = self._socket.recv(zmq.NOBLOCK, copy=False)
        if peer in self._noted or peer in self._inproc:
            return frame
        try:
            fd = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:
            fd = NO_FD
        if fd == NO_FD:
            if len(self._inproc) >= MAX_INPROC:
                self._inproc.clear()
            self._inproc.add(peer)
        else:
            self._noted[peer] = fd
            self._new.append((peer, fd))
        return frame

    def _message(self, first: bytes) -> list[bytes]:
        """All frames of the message that begins with `first`, within the bounds."""
        frames: list[bytes] = []
        kept = dropped = 0
        cutting = False
        part = first
        while True:
            kept += len(part)
            cutting = cutting or kept > self._max_bytes or len(frames) >= self._max_frames
            if cutting:
                dropped += len(part)
            else:
                frames.append(part)
            if not self._socket.getsockopt(zmq.RCVMORE):
                break
            part = self._socket.recv(zmq.NOBLOCK)
        if cutting:
            frames.append(Cut(dropped))
        return frames


class DealerWire:
    """A DEALER with one connection."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        _check_kind(socket, zmq.DEALER)
        self._socket = socket

    def receive(self, most: int) -> list[list[bytes]]:
        """Up to `most` messages that are there now; fewer mean that the socket was found empty."""
        recv = self._socket.recv_multipart
        batch: list[list[bytes]] = []
        try:
            while len(batch) < most:
                batch.append(recv(zmq.NOBLOCK))
        except zmq.Again:
            pass
        return batch

    def send(self, batch: list[list[bytes]]) -> list[tuple[int, int]]:
        """Sends in order; from the first refusal (FULL: no room, or no connection) on all are
        refused.

        Raises: ValueError for a message without frames.
        """
        for index, frames in enumerate(batch):
            if not frames:
                raise ValueError(NO_FRAMES)
            if not self._sent(frames):
                return [(later, FULL) for later in range(index, len(batch))]
        return []

    def readable(self) -> bool:
        """Whether something is there to receive. Asking also makes libzmq notice new connections,
        and is needed after every send: the descriptor is edge-triggered, and a send may take its
        news away.
        """
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def _sent(self, frames: list[bytes]) -> bool:
        """False when the message was refused. None is left begun.

        Only a first part can be refused, with one exception (libzmq's lb_t::send): when the
        connection ends in the middle of a message, the next part gets EAGAIN, what was written is
        taken back, and the parts after it are swallowed up to the last. So the rest has to be sent
        all the same.
        """
        last = len(frames) - 1
        sent = True
        for at, frame in enumerate(frames):
            try:
                self._socket.send(frame, _MORE if at < last else zmq.NOBLOCK)
            except zmq.Again:
                sent = False
                if at == 0:
                    break
        return sent


class Wait:
    """Waits until one of several sockets or descriptors is readable. Called with milliseconds (-1:
    for ever).

    The result has bit n set when source n is readable; 0 after the time, or when a signal was
    handled.
    """

    def __init__(self, *sources: zmq.Socket[bytes] | int) -> None:
        self._items = [(source, int(zmq.POLLIN)) for source in sources]
        self._bits = {source: 1 << n for n, source in enumerate(sources)}
        self._sockets = [source for source in sources if isinstance(source, zmq.Socket)]

    def __call__(self, milliseconds: int) -> int:
        for socket in self._sockets:
            if socket.closed:
                raise zmq.ZMQError(errno.ENOTSOCK)
        return sum(self._bits[source] for source, _ in zmq.zmq_poll(self._items, milliseconds))


def _check_kind(socket: zmq.Socket[bytes], kind: int) -> None:
    if socket.closed:
        raise zmq.ZMQError(errno.ENOTSOCK)
    if socket.type != kind:
        raise TypeError(f"a socket of type {socket.type!r}, where {kind} is needed")


def _user_of(frame: zmq.Frame) -> str:
    try:
        user = frame.get("User-Id")
    except zmq.ZMQError:
        return ""
    return user if isinstance(user, str) else ""
