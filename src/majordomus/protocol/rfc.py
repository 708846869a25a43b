"""The codec of the three dialects of the Majordomo RFCs.

MDP/0.1 (RFC 7), MDP/0.2 (RFC 18) and the delimited 0.2 of the package `majortomo` differ only in
their `Layout`.
"""

from __future__ import annotations

from typing import NamedTuple

from majordomus.errors import LocalProtocolError, RemoteProtocolError
from majordomus.protocol.command import Command, of_all_fields
from majordomus.protocol.fields import (
    frame_at,
    no_more,
    read_address,
    read_service,
    written_address,
    written_body,
    written_service,
)
from majordomus.protocol.spec import (
    DISCONNECT,
    FINAL,
    HEARTBEAT,
    PARTIAL,
    READY,
    REQUEST,
    Dialect,
    Frame,
)


class Layout(NamedTuple):
    """The differences between the three dialects."""

    dialect: Dialect
    """The dialect of this layout."""
    delimited: bool
    """Whether each message starts with an empty frame."""
    client: bytes
    """The frame that names the protocol in a client's half."""
    worker: bytes
    """The frame that names the protocol in a worker's half."""
    client_commands: dict[int, bytes]
    """The command frames of the client's half. Empty when it has none; then replies are FINALs."""
    worker_commands: dict[int, bytes]
    """The command frames of the worker's half."""
    replies_name_service: bool
    """Whether the broker's replies to clients repeat the service."""


class RfcCodec:
    """Reader and writer of one `Layout`. `command.Codec` documents the methods."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._start = 1 if layout.delimited else 0
        self._client = layout.client
        self._worker = layout.worker
        self._client_commands = layout.client_commands
        self._worker_commands = layout.worker_commands
        self._from_client = _numbers(layout.client_commands, REQUEST)
        self._to_client = _numbers(layout.client_commands, PARTIAL, FINAL)
        self._from_worker = _numbers(
            layout.worker_commands, READY, PARTIAL, FINAL, HEARTBEAT, DISCONNECT
        )
        self._to_worker = _numbers(layout.worker_commands, REQUEST, HEARTBEAT, DISCONNECT)

    @property
    def dialect(self) -> Dialect:
        return self.layout.dialect

    # Readers

    def read_broker(self, frames: list[Frame]) -> Command:
        name, at = self._open(frames)
        if name == self._worker:
            return self._read_from_worker(frames, at)
        if name != self._client:
            raise RemoteProtocolError("wrong-header", "neither a client's nor a worker's half")
        number, at = self._client_number(frames, at, self._from_client, REQUEST)
        fields = (number, False, read_service(frames, at), b"", frames[at + 1 :], None)
        return of_all_fields(Command, fields)

    def read_client(self, frames: list[Frame]) -> Command:
        name, at = self._open(frames)
        if name != self._client:
            raise RemoteProtocolError("wrong-header", "not the client's half")
        number, at = self._client_number(frames, at, self._to_client, FINAL)
        if not self.layout.replies_name_service:
            return Command(number, False, b"", b"", frames[at:])
        return Command(number, False, read_service(frames, at), b"", frames[at + 1 :])

    def read_worker(self, frames: list[Frame]) -> Command:
        name, at = self._open(frames)
        if name != self._worker:
            raise RemoteProtocolError("wrong-header", "not the worker's half")
        number = _number(frames, at, self._to_worker)
        if number == REQUEST:
            return _read_request(frames, at + 1)
        no_more(frames, at + 1)
        return Command(number, False, b"", b"", [])

    def _open(self, frames: list[Frame]) -> tuple[Frame, int]:
        """The frame that names the protocol and the half, and the index of the next frame."""
        start = self._start
        name = frame_at(frames, start)
        if start and frames[0]:
            raise RemoteProtocolError("wrong-header", "the first frame is not empty")
        return name, start + 1

    def _client_number(
        self, frames: list[Frame], at: int, numbers: dict[bytes, int], implied: int
    ) -> tuple[int, int]:
        """The command in the client's half and the index after it. MDP/0.1 has no command frame."""
        if not self._client_commands:
            return implied, at
        return _number(frames, at, numbers), at + 1

    def _read_from_worker(self, frames: list[Frame], at: int) -> Command:
        number = _number(frames, at, self._from_worker)
        at += 1
        if number == READY:
            no_more(frames, at + 1)
            return Command(number, True, read_service(frames, at), b"", [])
        if number in (PARTIAL, FINAL):
            return _read_reply(number, frames, at)
        no_more(frames, at)
        return Command(number, True, b"", b"", [])

    # Writers

    def c2b_request(self, service: bytes, body: list[Frame]) -> list[Frame]:
        head = self._client_head(REQUEST)
        return [*head, written_service(service), *written_body(body)]

    def b2c_partial(self, service: bytes, body: list[Frame]) -> list[Frame]:
        if PARTIAL not in self._client_commands:
            raise LocalProtocolError("no-partial", f"{self.dialect} clients take one reply")
        return self._reply(PARTIAL, service, body)

    def b2c_final(self, service: bytes, body: list[Frame]) -> list[Frame]:
        return self._reply(FINAL, service, body)

    def w2b_ready(self, service: bytes) -> list[Frame]:
        return [*self._worker_head(READY), written_service(service)]

    def w2b_partial(self, service: bytes, address: bytes, body: list[Frame]) -> list[Frame]:
        if PARTIAL not in self._worker_commands:
            raise LocalProtocolError("no-partial", f"{self.dialect} workers send one reply")
        return self._addressed(PARTIAL, address, body)

    def w2b_final(self, service: bytes, address: bytes, body: list[Frame]) -> list[Frame]:
        return self._addressed(FINAL, address, body)

    def w2b_heartbeat(self, service: bytes, load: float | None) -> list[Frame]:
        return self._worker_head(HEARTBEAT)

    def w2b_disconnect(self, service: bytes) -> list[Frame]:
        return self._worker_head(DISCONNECT)

    def b2w_ready(self, worker_id: bytes) -> list[Frame]:
        raise LocalProtocolError("no-ready", f"{self.dialect} brokers do not answer READY")

    def b2w_request(self, address: bytes, body: list[Frame]) -> list[Frame]:
        return self._addressed(REQUEST, address, body)

    def b2w_heartbeat(self) -> list[Frame]:
        return self._worker_head(HEARTBEAT)

    def b2w_disconnect(self) -> list[Frame]:
        return self._worker_head(DISCONNECT)

    def _client_head(self, number: int) -> list[Frame]:
        head = [b"", self._client] if self._start else [self._client]
        if self._client_commands:
            head.append(self._client_commands[number])
        return head

    def _worker_head(self, number: int) -> list[Frame]:
        command = self._worker_commands[number]
        return [b"", self._worker, command] if self._start else [self._worker, command]

    def _reply(self, number: int, service: bytes, body: list[Frame]) -> list[Frame]:
        head = self._client_head(number)
        if self.layout.replies_name_service:
            head.append(written_service(service))
        return head + written_body(body)

    def _addressed(self, number: int, address: bytes, body: list[Frame]) -> list[Frame]:
        return [*self._worker_head(number), written_address(address), b"", *written_body(body)]


def _numbers(commands: dict[int, bytes], *wanted: int) -> dict[bytes, int]:
    return {commands[number]: number for number in wanted if number in commands}


def _number(frames: list[Frame], at: int, numbers: dict[bytes, int]) -> int:
    command = frame_at(frames, at)
    number = numbers.get(command) if len(command) == 1 else None
    if number is None:
        raise RemoteProtocolError("unexpected-command", command[:8].hex() or "an empty frame")
    return number


def _read_request(frames: list[Frame], at: int) -> Command:
    """`address ∅ body*` (∅ is an empty frame): REQUEST of a broker.

    Without ∅ a second frame could be the rest of an address of several frames.
    """
    address = read_address(frames, at)
    if frame_at(frames, at + 1):
        raise RemoteProtocolError("no-delimiter", "an empty frame follows the address")
    fields = (REQUEST, False, b"", address, frames[at + 2 :], None)
    return of_all_fields(Command, fields)


def _read_reply(number: int, frames: list[Frame], at: int) -> Command:
    """`address ∅ body*`: PARTIAL and REPLY of a worker. ∅ may be missing.

    The broker knows the one frame of its address, so it needs no delimiter. The PHP worker of the
    ZeroMQ guide writes none, and the brokers of the guide accept that.
    """
    address = read_address(frames, at)
    at += 1
    if at < len(frames) and not frames[at]:
        at += 1
    fields = (number, True, b"", address, frames[at:], None)
    return of_all_fields(Command, fields)
