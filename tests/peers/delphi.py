"""A Delphi client and worker, written from docs/spec/delphi.md, that behave as real ones do.

Every message ends with a 4-byte little-endian MurmurHash2A, seed 0, of all frames before it.
`LOADS` has the load in the formats that Linux and Windows workers send.
"""

from __future__ import annotations

import os
import struct

from tests.peers.loop import Answer, Client, Frames, Handler, Worker, expect

LOADS: dict[str, bytes] = {
    "one number": b"0.25",
    "comma": b"0,25",  # a Windows locale's decimal point
    "loadavg": b"0.25 0.31 0.20 1/345 6789\n",
    "NULs behind": b"0.25 0.31 0.20 1/345 6789\n".ljust(1024, b"\0"),
    "rubbish behind": b"0.25 0.31 0.20 1/345 6789\n\0" + os.urandom(997),
    "unreadable": b"n/a",
    "never": b"-1",
    "empty": b"",
}

READY, HEARTBEAT, DISCONNECT, REPLY, REQUEST = (bytes([n]) for n in (1, 2, 3, 4, 5))
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def _mix(h: int, k: int) -> int:
    k = k * _M & _MASK
    k = (k ^ k >> 24) * _M & _MASK
    return h * _M & _MASK ^ k


def murmur2a(data: bytes) -> int:
    """Austin Appleby's CMurmurHash2A, seed 0.

    The result is the same for any split of the data into frames.
    """
    h = 0
    whole = len(data) & ~3
    for (k,) in struct.iter_unpack("<I", data[:whole]):
        h = _mix(h, k)
    h = _mix(h, int.from_bytes(data[whole:], "little"))
    h = _mix(h, len(data) & _MASK)
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def seal(frames: Frames) -> Frames:
    """`frames` followed by their hash."""
    return [*frames, struct.pack("<I", murmur2a(b"".join(frames)))]


def unseal(frames: Frames) -> Frames:
    """The frames without their hash; NotUnderstoodError when it is wrong."""
    expect(frames[-1], seal(frames[:-1])[-1], "hash", frames)
    return frames[:-1]


class DelphiClient(Client):
    """A client without correlation: the next message is the reply to its only call."""

    def call(self, service: bytes, body: Frames, timeout: float = 5.0) -> Answer:
        self.request(service, body)
        return Answer([], self.reply(service, timeout))

    def request(self, service: bytes, body: Frames) -> None:
        self.send(seal([b"", REQUEST, service, *body]))

    def reply(self, service: bytes, timeout: float = 5.0) -> Frames:
        frames = unseal(self.receive(timeout))
        expect(frames[:3], [b"", REQUEST, service], "head of a reply", frames)
        return frames[3:]


class DelphiWorker(Worker):
    """A worker that sends a heartbeat every interval, also when it sends other messages.

    `delimit`: whether an empty frame follows the client's handle in replies.
    `load`: a key of LOADS, or the bytes to send.
    `ready_again`: whether the worker answers the broker's first READY with a second READY.
    """

    expiry_intervals = 2.0  # "expiry 5 s"
    every_interval = True

    def __init__(
        self,
        endpoint: str,
        service: bytes,
        handler: Handler,
        interval: float = 2.5,
        *,
        delimit: bool = True,
        load: str | bytes = "loadavg",
        ready_again: bool = False,
    ) -> None:
        self.delimit, self.ready_again = delimit, ready_again
        self.load = LOADS[load] if isinstance(load, str) else load
        self.ids: list[bytes] = []  # the worker id in each READY from the broker
        self.handles: list[bytes] = []  # the client's handle of each request, in order
        super().__init__(endpoint, service, handler, interval)

    def send_ready(self) -> None:
        self.send(seal([b"", READY, self.service]))

    def send_heartbeat(self) -> None:
        self.send(seal([b"", HEARTBEAT, self.service, self.load]))

    def send_disconnect(self) -> None:
        self.send(seal([b"", DISCONNECT, self.service]))

    def send_reply(self, client: bytes, body: Frames) -> None:
        """Send a reply. May be repeated with the handle of an answered request, at any time."""
        delimiter = [b""] if self.delimit else []
        self.send(seal([b"", REPLY, self.service, client, *delimiter, *body]))

    def handle(self, frames: Frames) -> None:
        empty, command, *rest = unseal(frames)
        expect(empty, b"", "first frame", frames)
        if command == REQUEST:
            expect(rest[1], b"", "delimiter", frames)
            self.handles.append(rest[0])
            for part in self.handler(rest[2:]):
                self.send_reply(rest[0], part)
            self.served += 1
        elif command == READY:
            self.ids.append(rest[0])
            if self.ready_again and len(self.ids) == 1:
                self.send_ready()
        elif command == DISCONNECT:
            self.renew()
        else:
            expect(command, HEARTBEAT, "command", frames)
