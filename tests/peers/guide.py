"""Peers that send the frames of the Majordomo programs in the ZeroMQ guide (docs/peers.md).

Written from the frames that the programs put on the wire; none of their code is here. All speak
MDP/0.1. The workers never send DISCONNECT, and reconnect at once when they receive one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import zmq

from tests.peers.loop import Answer, Client, Frames, Handler, NotUnderstoodError, expect
from tests.peers.rfc import Mdp01ReqClient, Mdp01Worker


def s_set_id() -> bytes:
    """A routing id as the C++ programs choose one."""
    return f"{secrets.randbits(16):04X}-{secrets.randbits(16):04X}".encode()


class MdClient(Mdp01ReqClient):
    """mdclient: REQ socket, a timeout of 2.5 s, three attempts on new sockets."""

    def __init__(self, endpoint: str, **options: int | bytes) -> None:
        self.endpoint, self.options = endpoint, options
        Client.__init__(self, endpoint, zmq.REQ, **options)

    def call(self, service: bytes, body: Frames, timeout: float = 2.5) -> Answer:
        for _ in range(2):
            try:
                return super().call(service, body, timeout)
            except TimeoutError:
                self.socket.close(0)
                Client.__init__(self, self.endpoint, zmq.REQ, **self.options)
        return super().call(service, body, timeout)


class MdClient2(Client):
    """mdclient2: DEALER socket, all requests first, then all replies."""

    def call_many(self, service: bytes, bodies: list[Frames]) -> list[Frames]:
        for body in bodies:
            self.send([b"", b"MDPC01", service, *body])
        replies = []
        for _ in bodies:
            frames = self.receive(2.5)
            if len(frames) < 4:
                raise NotUnderstoodError(f"a reply has at least 4 frames: {frames!r}")
            expect(frames[:2], [b"", b"MDPC01"], "head of a reply", frames)
            replies.append(frames[3:])
        return replies

    def call(self, service: bytes, body: Frames, timeout: float = 2.5) -> Answer:
        return Answer([], self.call_many(service, [body])[0])


class CppClient(MdClient):
    """The mdclient in C++, which chooses its routing id."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint, IDENTITY=s_set_id())


class CppClient2(MdClient2):
    """The mdclient2 in C++, which chooses its routing id."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint, IDENTITY=s_set_id())


class MdWorker(Mdp01Worker):
    """mdworker in C, Java, Python and Ruby: address and empty frame in front of the reply."""

    def renew(self) -> None:
        self.socket.close(0)
        self.open()

    def close(self) -> None:
        self.socket.close(0)

    def handle(self, frames: Frames) -> None:
        if len(frames) < 3:
            raise NotUnderstoodError(f"a command has at least 3 frames: {frames!r}")
        super().handle(frames)


class CppWorker(MdWorker):
    """mdworker in C++: it keeps the address as a C string, and a 17-byte frame that begins with
    NUL as hexadecimal text."""

    def handle(self, frames: Frames) -> None:
        texts = [
            b"@" + frame[1:].hex().upper().encode() if len(frame) == 17 and not frame[0] else frame
            for frame in frames
        ]
        super().handle(texts)

    def send_part(self, command: bytes, address: bytes, body: Frames) -> None:
        super().send_part(command, address.partition(b"\0")[0], body)


class PhpWorker(MdWorker):
    """mdworker in PHP: no empty frame behind the address of a reply."""

    def send_part(self, command: bytes, address: bytes, body: Frames) -> None:
        if address[:1] == b"@" and len(address) == 33:
            address = bytes.fromhex(address[1:].decode())
        self.send([*self.head, command, address, *body])


CLIENTS: dict[str, Callable[[str], Client]] = {
    "C mdclient": MdClient,
    "C mdclient2": MdClient2,
    "C++ mdclient": CppClient,
    "C++ mdclient2": CppClient2,
    "Java mdclient": MdClient,
    "Java mdclient2": MdClient2,
    "PHP mdclient": MdClient,
    "PHP mdclient2": MdClient2,
    "Python mdclient": MdClient,
    "Python mdclient2": MdClient2,
    "Ruby mdclient2": MdClient2,
}
WORKERS: dict[str, type[MdWorker]] = {
    "C mdworker": MdWorker,
    "C++ mdworker": CppWorker,
    "Java mdworker": MdWorker,
    "PHP mdworker": PhpWorker,
    "Python mdworker": MdWorker,
    "Ruby mdworker": MdWorker,
}


class Titanic:
    """titanic: three workers, and a dispatcher that is a client (RFC 9). What the programs write to
    files is kept in memory."""

    def __init__(self, endpoint: str, worker: type[MdWorker]) -> None:
        self.requests: dict[bytes, Frames] = {}
        self.replies: dict[bytes, Frames] = {}
        self.pending: list[bytes] = []
        self.client = MdClient(endpoint)
        services: dict[bytes, Handler] = {
            b"titanic.request": self._request,
            b"titanic.reply": self._reply,
            b"titanic.close": self._close,
        }
        self.workers = [worker(endpoint, name, handler) for name, handler in services.items()]

    def _request(self, body: Frames) -> list[Frames]:
        uuid = secrets.token_hex(16).encode()
        self.requests[uuid] = body
        self.pending.append(uuid)
        return [[b"200", uuid]]

    def _reply(self, body: Frames) -> list[Frames]:
        if body[0] in self.replies:
            return [[b"200", *self.replies[body[0]]]]
        return [[b"300" if body[0] in self.requests else b"400"]]

    def _close(self, body: Frames) -> list[Frames]:
        self.requests.pop(body[0], None)
        self.replies.pop(body[0], None)
        return [[b"200"]]

    def dispatch(self) -> None:
        """Try every pending request once."""
        for uuid in list(self.pending):
            service, *body = self.requests[uuid]
            if self.client.call(b"mmi.service", [service]).final[0] == b"200":
                self.replies[uuid] = self.client.call(service, body).final
                self.pending.remove(uuid)
