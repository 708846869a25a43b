"""Receive and send batches of messages on pyzmq sockets. No rule of Majordomo is in it.

It serves inproc, and TCP and ipc where our own ZMTP does not (macOS, Windows). A wire belongs to
one thread at a time and never waits. The caller makes and closes its socket.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, Final

import zmq

from majordomus.net.bodies import Cut

GONE: Final = errno.EHOSTUNREACH
FULL: Final = errno.EAGAIN
REFUSALS: Final = frozenset((GONE, FULL))

NO_FD: Final = -1
"""The descriptor of an inproc connection."""
MAX_INPROC: Final = 10_000
"""Routing ids of inproc peers that are remembered."""
ASSIGNED: Final = b"\x01zmq:"
"""The first octets of the routing ids that stand for those that libzmq assigns.

libzmq counts them up from a random number, and ends the process when it assigns one that a peer has
chosen. So no peer may learn one.
"""
_ASSIGNED_SIZE: Final = 5
"""Octets of a routing id that libzmq assigns: a zero octet and the number."""
_RESERVED: Final = 2
"""Routing ids whose first octet is less than this are looked at."""
NO_FRAMES: Final = "a message has at least one frame: one that was begun could not be ended"

_MORE: Final = zmq.SNDMORE | zmq.NOBLOCK


class RouterWire:
    """A ROUTER with MANDATORY set.

    It records the descriptor that the first message of a routing id came from. `forget` removes the
    record, so there is one for each connection whose end the owner has not reported.

    `max_frames` and `max_bytes` bound one message, without its routing id; 0 is no bound. What is
    beyond is read and dropped, and a `Cut` stands for it.

    No routing id that it returns begins with a zero octet. One that libzmq has assigned is replaced
    by a random one. A message of a peer that has chosen such an id, or one that begins with
    ASSIGNED, is dropped and counted in `rejected`. A chosen id that has the form of an assigned one
    cannot be told from it.
    """

    def __init__(
        self, socket: zmq.Socket[bytes], *, max_frames: int = 0, max_bytes: int = 0
    ) -> None:
        _check_kind(socket, zmq.ROUTER)
        self._socket = socket
        self._max_frames = max_frames or sys.maxsize
        self._max_bytes = max_bytes or sys.maxsize
        self._recorded: dict[bytes, int] = {}
        self._inproc: set[bytes] = set()
        self._new: list[tuple[bytes, int]] = []
        self._shown: dict[bytes, bytes] = {}
        self._assigned: dict[bytes, bytes] = {}
        self.rejected = 0

    def receive(self, most: int) -> list[tuple[bytes, list[bytes]]]:
        """Return up to `most` messages; fewer mean that the socket was found empty or messages were
        dropped."""
        recv, recorded, inproc = self._socket.recv, self._recorded, self._inproc
        batch: list[tuple[bytes, list[bytes]]] = []
        enough = self.rejected + most
        try:
            while len(batch) < most and self.rejected < enough:
                peer = recv(zmq.NOBLOCK)
                if peer[0] < _RESERVED and not (peer := self._shown_id(peer)):
                    self._drop_message()
                    continue
                known = peer in recorded or peer in inproc
                first = recv(zmq.NOBLOCK) if known else self._receive_first(peer).bytes
                batch.append((peer, self._message(first)))
        except zmq.Again:
            pass
        return batch

    def receive_with_users(self, most: int) -> list[tuple[bytes, list[bytes], str]]:
        """Receive as `receive` does, each message with the `User-Id` of its connection, or ""."""
        batch: list[tuple[bytes, list[bytes], str]] = []
        enough = self.rejected + most
        try:
            while len(batch) < most and self.rejected < enough:
                peer = self._socket.recv(zmq.NOBLOCK)
                if peer[0] < _RESERVED and not (peer := self._shown_id(peer)):
                    self._drop_message()
                    continue
                frame = self._receive_first(peer)
                batch.append((peer, self._message(frame.bytes), _user_of(frame)))
        except zmq.Again:
            pass
        return batch

    def send(self, batch: list[Any]) -> list[tuple[int, int]]:
        """Send in order; return (index, errno) of each refused message, GONE or FULL.

        Each entry is a tuple: a routing id, a list of frames, and what the caller adds to them.
        After a refusal all later messages to the same peer are refused too: order is kept.
        Raises: ValueError for a message without frames.
        """
        refused: list[tuple[int, int]] = []
        stopped: dict[bytes, int] = {}
        send, assigned = self._socket.send, self._assigned
        for index, message in enumerate(batch):
            peer, frames = message[0], message[1]
            if stopped and peer in stopped:
                refused.append((index, stopped[peer]))
                continue
            if not frames:
                raise ValueError(NO_FRAMES)
            try:
                send(
                    assigned.get(peer, peer), _MORE
                )  # MANDATORY: only the routing id can be refused
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
        """Return (routing id, descriptor) of the connections recorded since the last call."""
        new, self._new = self._new, []
        return new

    def forget(self, peer: bytes) -> None:
        """Remove the record of this routing id: its connection has ended. May be repeated."""
        self._recorded.pop(peer, None)
        assigned = self._assigned.pop(peer, None)
        if assigned is not None:
            del self._shown[assigned]

    def _shown_id(self, peer: bytes) -> bytes:
        """Return what stands for a routing id of libzmq's; b"" for an id that no peer may have."""
        if peer[0]:
            return b"" if peer.startswith(ASSIGNED) else peer
        if len(peer) != _ASSIGNED_SIZE:
            return b""
        shown = self._shown.get(peer)
        if shown is None:
            shown = self._shown[peer] = ASSIGNED + os.urandom(8)
            self._assigned[shown] = peer
        return shown

    def _drop_message(self) -> None:
        """Receive the rest of a message and drop it."""
        self.rejected += 1
        while self._socket.getsockopt(zmq.RCVMORE):
            self._socket.recv(zmq.NOBLOCK, copy=False)

    def _receive_first(self, peer: bytes) -> zmq.Frame:
        """Receive the part after the routing id, and record its connection."""
        frame = self._socket.recv(zmq.NOBLOCK, copy=False)
        if peer in self._recorded or peer in self._inproc:
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
            self._recorded[peer] = fd
            self._new.append((peer, fd))
        return frame

    def _message(self, first: bytes) -> list[bytes]:
        """Receive the rest of the message that begins with `first`, within the bounds."""
        frames: list[bytes] = []
        kept = dropped = 0
        truncating = False
        part = first
        while True:
            kept += len(part)
            truncating = truncating or kept > self._max_bytes or len(frames) >= self._max_frames
            if truncating:
                dropped += len(part)
            else:
                frames.append(part)
            if not self._socket.getsockopt(zmq.RCVMORE):
                break
            part = self._socket.recv(zmq.NOBLOCK)
        if truncating:
            frames.append(Cut(dropped))
        return frames


class DealerWire:
    """A DEALER with one connection. `net.zmtp.dealer` has the same methods."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        _check_kind(socket, zmq.DEALER)
        self._socket = socket

    def receive(self, most: int) -> list[list[bytes]]:
        """Return up to `most` messages; fewer mean that the socket was found empty."""
        recv = self._socket.recv_multipart
        batch: list[list[bytes]] = []
        try:
            while len(batch) < most:
                batch.append(recv(zmq.NOBLOCK))
        except zmq.Again:
            pass
        return batch

    def send(self, batch: list[list[bytes]]) -> list[tuple[int, int]]:
        """Send in order; from the first refusal on all messages are refused.

        The errno is FULL: the queue is full, or there is no connection.
        Raises: ValueError for a message without frames.
        """
        for index, frames in enumerate(batch):
            if not frames:
                raise ValueError(NO_FRAMES)
            if not self._sent(frames):
                return [(later, FULL) for later in range(index, len(batch))]
        return []

    def readable(self) -> bool:
        """Return whether a message can be received. The call also lets libzmq process its commands.

        It is needed after every send: the socket's descriptor is edge-triggered, and a send may
        consume the edge.
        """
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def _sent(self, frames: list[bytes]) -> bool:
        """Send one message as a whole; return False when it was refused.

        Only a first part can be refused, with one exception (libzmq's lb_t::send): when the
        connection ends in the middle of a message, the next part gets EAGAIN, libzmq withdraws the
        parts before, and drops the parts after. So the remaining parts must be sent all the same.
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
    """Waits until one of several sockets or descriptors is readable.

    Called with milliseconds, -1 for no limit. The result has bit n set when source n is readable;
    it is 0 after the time, or when a signal was handled.
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
