"""MDP/0.1 and MDP/0.2 clients and workers on plain sockets, written from RFC 7 and RFC 18.

PyPI's `majortomo` uses the delimited form of MDP/0.2, with one empty frame before each message. Its
client also numbers the commands differently (2, 3, 4 for 1, 2, 3), and expects replies without the
service.
"""

from __future__ import annotations

import zmq

from tests.peers.loop import Answer, Client, Frames, NotUnderstoodError, Worker, expect


class Mdp01Client(Client):
    """RFC 7 client on a DEALER socket: the client 'MUST' send the empty frame 0 itself."""

    def call(self, service: bytes, body: Frames, timeout: float = 5.0) -> Answer:
        self.send([b"", b"MDPC01", service, *body])
        frames = self.receive(timeout)
        expect(frames[:3], [b"", b"MDPC01", service], "head of a reply", frames)
        return Answer([], frames[3:])


class Mdp01ReqClient(Client):
    """RFC 7 client on a REQ socket, which adds and removes the empty frame 0.

    With `correlate` the socket also adds a 4-byte request id before the empty frame, and accepts
    only a reply with that id.
    """

    def __init__(self, endpoint: str, correlate: bool = False) -> None:
        options = {"REQ_CORRELATE": 1, "REQ_RELAXED": 1} if correlate else {}
        super().__init__(endpoint, zmq.REQ, **options)

    def call(self, service: bytes, body: Frames, timeout: float = 5.0) -> Answer:
        self.send([b"MDPC01", service, *body])
        frames = self.receive(timeout)
        expect(frames[:2], [b"MDPC01", service], "head of a reply", frames)
        return Answer([], frames[2:])


class Mdp02Client(Client):
    """RFC 18 client: REQUEST is %x01, PARTIAL %x02, FINAL %x03; no empty frame."""

    def call(self, service: bytes, body: Frames, timeout: float = 5.0) -> Answer:
        self.send([b"MDPC02", b"\x01", service, *body])
        partials: list[Frames] = []
        while True:
            frames = self.receive(timeout)
            expect(frames[0], b"MDPC02", "protocol", frames)
            expect(frames[2], service, "service", frames)
            if frames[1] == b"\x03":
                return Answer(partials, frames[3:])
            expect(frames[1], b"\x02", "command", frames)
            partials.append(frames[3:])


class Mdp02dClient(Client):
    """Delimited MDP/0.2 client: REQUEST %x02, PARTIAL %x03, FINAL %x04; no service in replies."""

    def call(self, service: bytes, body: Frames, timeout: float = 5.0) -> Answer:
        self.send([b"", b"MDPC02", b"\x02", service, *body])
        partials: list[Frames] = []
        while True:
            frames = self.receive(timeout)
            expect(frames[:2], [b"", b"MDPC02"], "head of a reply", frames)
            if frames[2] == b"\x04":
                return Answer(partials, frames[3:])
            expect(frames[2], b"\x03", "command", frames)
            partials.append(frames[3:])


class Mdp01Worker(Worker):
    """RFC 7 worker: READY 1, REQUEST 2, REPLY 3, HEARTBEAT 4, DISCONNECT 5."""

    head: tuple[bytes, ...] = (b"", b"MDPW01")
    partial, final, heartbeat, disconnect = b"", b"\x03", b"\x04", b"\x05"

    def send_ready(self) -> None:
        self.send([*self.head, b"\x01", self.service])

    def send_heartbeat(self) -> None:
        self.send([*self.head, self.heartbeat])

    def send_disconnect(self) -> None:
        self.send([*self.head, self.disconnect])

    def send_part(self, command: bytes, address: bytes, body: Frames) -> None:
        if not command:
            raise NotUnderstoodError("RFC 7 has no partial replies")
        self.send([*self.head, command, address, b"", *body])

    def handle(self, frames: Frames) -> None:
        n = len(self.head)
        expect(tuple(frames[:n]), self.head, "head of a command", frames)
        command, rest = frames[n], frames[n + 1 :]
        if command == b"\x02":
            # "Frame 3: Client address (envelope stack). Frame 4: Empty (envelope delimiter)"
            expect(rest[1], b"", "delimiter", frames)
            self.answer(rest[0], self.handler(rest[2:]))
        elif command == self.disconnect:
            self.renew()
        else:
            expect(command, self.heartbeat, "command", frames)

    def answer(self, address: bytes, parts: list[Frames]) -> None:
        for part in parts[:-1]:
            self.send_part(self.partial, address, part)
        self.send_part(self.final, address, parts[-1])
        self.served += 1


class Mdp02Worker(Mdp01Worker):
    """RFC 18 worker: READY 1, REQUEST 2, PARTIAL 3, FINAL 4, HEARTBEAT 5, DISCONNECT 6."""

    head = (b"MDPW02",)
    partial, final, heartbeat, disconnect = b"\x03", b"\x04", b"\x05", b"\x06"


class Mdp02dWorker(Mdp02Worker):
    """RFC 18 worker with an empty frame before each message."""

    head = (b"", b"MDPW02")
