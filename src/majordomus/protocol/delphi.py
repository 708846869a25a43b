"""The dialect of grijjy/DelphiZeroMQ (docs/spec/delphi.md).

Every message ends with the MurmurHash2A of all its other frames, little-endian.
"""

from __future__ import annotations

import math
import re

from majordomus.errors import LocalProtocolError, RemoteProtocolError
from majordomus.protocol import spec
from majordomus.protocol.command import Codec, Command
from majordomus.protocol.fields import (
    frame_at,
    no_more,
    read_address,
    read_service,
    written_address,
    written_body,
    written_service,
)
from majordomus.protocol.murmur import murmur2a
from majordomus.protocol.spec import Dialect, Frame

_NUMBER = re.compile(rb"\+?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TOKEN_END = re.compile(rb"[ \x00\t\r\n]")


def digest(frames: list[Frame]) -> Frame:
    """The hash frame that ends a message of `frames`. An envelope is not part of them."""
    return murmur2a(frames).to_bytes(spec.DELPHI_HASH_SIZE, "little")


def read_load(text: Frame) -> float | None:
    """The load in a HEARTBEAT: None for an empty frame, -1.0 when it is not a number.

    Linux workers send /proc/loadavg in a buffer of 1,024 bytes, with garbage after the text.
    Windows workers send one number, with the decimal separator of their locale. Only the first
    token counts.

    Raises: RemoteProtocolError("long-load") for more than 4 KiB.
    """
    if not text:
        return None
    if len(text) > spec.DELPHI_MAX_LOAD_TEXT:
        raise RemoteProtocolError("long-load", f"{len(text)} bytes")
    token = _TOKEN_END.split(text, maxsplit=1)[0].replace(b",", b".")
    if not _NUMBER.fullmatch(token):
        return spec.LOAD_UNREADABLE
    load = float(token)
    return load if load < math.inf else spec.LOAD_UNREADABLE


def write_load(load: float | None) -> Frame:
    """The frame for `load`. A negative, NaN or infinite load is -1: the worker is never chosen."""
    if load is None:
        return b""
    if not 0 <= load < math.inf:
        return b"-1"
    return repr(float(load)).encode()


class DelphiCodec:
    """Reader and writer of Delphi messages. `command.Codec` documents the methods."""

    def __init__(self, *, verified: bool) -> None:
        self.verified = verified
        """False: a hash of 0 is accepted, too, as peers without verification send it."""

    @property
    def dialect(self) -> Dialect:
        return Dialect.DELPHI

    # Readers

    def read_broker(self, frames: list[Frame]) -> Command:
        command, frames = self._open(frames)
        if command == spec.DELPHI_CLIENT_MESSAGE:
            return Command(spec.REQUEST, False, read_service(frames, 2), b"", frames[3:])
        if command == spec.DELPHI_WORKER_MESSAGE:
            return _read_reply(frames)
        if command == spec.DELPHI_HEARTBEAT:
            service = read_service(frames, 2)
            load = read_load(frame_at(frames, 3))
            no_more(frames, 4)
            return Command(spec.HEARTBEAT, True, service, b"", [], load)
        if command == spec.DELPHI_READY:
            no_more(frames, 3)
            return Command(spec.READY, True, read_service(frames, 2), b"", [])
        if command == spec.DELPHI_DISCONNECT:
            no_more(frames, 3)
            service = read_service(frames, 2) if len(frames) > 2 else b""
            return Command(spec.DISCONNECT, True, service, b"", [])
        raise _unexpected(command)

    def read_client(self, frames: list[Frame]) -> Command:
        command, frames = self._open(frames)
        if command != spec.DELPHI_CLIENT_MESSAGE:
            raise _unexpected(command)
        return Command(spec.FINAL, False, read_service(frames, 2), b"", frames[3:])

    def read_worker(self, frames: list[Frame]) -> Command:
        command, frames = self._open(frames)
        if command == spec.DELPHI_CLIENT_MESSAGE:
            address = read_address(frames, 2)
            if frame_at(frames, 3):
                raise RemoteProtocolError("no-delimiter", "an empty frame follows the address")
            return Command(spec.REQUEST, False, b"", address, frames[4:])
        if command == spec.DELPHI_READY:
            no_more(frames, 3)
            return Command(spec.READY, False, b"", read_address(frames, 2), [])
        if command == spec.DELPHI_HEARTBEAT:
            no_more(frames, 2)
            return Command(spec.HEARTBEAT, False, b"", b"", [])
        if command == spec.DELPHI_DISCONNECT:
            no_more(frames, 2)
            return Command(spec.DISCONNECT, False, b"", b"", [])
        raise _unexpected(command)

    def _open(self, frames: list[Frame]) -> tuple[Frame, list[Frame]]:
        """Check the hash. Returns the command frame, and the frames without the hash."""
        if len(frames) < 3:
            raise RemoteProtocolError("truncated", f"{len(frames)} frames")
        if frames[0]:
            raise RemoteProtocolError("wrong-header", "the first frame is not empty")
        covered, closing = frames[:-1], frames[-1]
        unchecked = not self.verified and closing == spec.DELPHI_NO_HASH
        if not unchecked and closing != digest(covered):
            raise RemoteProtocolError("wrong-hash")
        return covered[1], covered

    # Writers

    def c2b_request(self, service: bytes, body: list[Frame]) -> list[Frame]:
        return _closed(spec.DELPHI_CLIENT_MESSAGE, written_service(service), *written_body(body))

    def b2c_partial(self, service: bytes, body: list[Frame]) -> list[Frame]:
        raise LocalProtocolError("no-partial", "Delphi clients take one reply")

    def b2c_final(self, service: bytes, body: list[Frame]) -> list[Frame]:
        return _closed(spec.DELPHI_CLIENT_MESSAGE, written_service(service), *written_body(body))

    def w2b_ready(self, service: bytes) -> list[Frame]:
        return _closed(spec.DELPHI_READY, written_service(service))

    def w2b_partial(self, service: bytes, address: bytes, body: list[Frame]) -> list[Frame]:
        raise LocalProtocolError("no-partial", "Delphi workers send one reply")

    def w2b_final(self, service: bytes, address: bytes, body: list[Frame]) -> list[Frame]:
        return _closed(
            spec.DELPHI_WORKER_MESSAGE,
            written_service(service),
            written_address(address),
            b"",
            *written_body(body),
        )

    def w2b_heartbeat(self, service: bytes, load: float | None) -> list[Frame]:
        return _closed(spec.DELPHI_HEARTBEAT, written_service(service), write_load(load))

    def w2b_disconnect(self, service: bytes) -> list[Frame]:
        return _closed(spec.DELPHI_DISCONNECT, written_service(service))

    def b2w_ready(self, worker_id: bytes) -> list[Frame]:
        return _closed(spec.DELPHI_READY, written_address(worker_id).hex().upper().encode())

    def b2w_request(self, address: bytes, body: list[Frame]) -> list[Frame]:
        return _closed(
            spec.DELPHI_CLIENT_MESSAGE, written_address(address), b"", *written_body(body)
        )

    def b2w_heartbeat(self) -> list[Frame]:
        return _closed(spec.DELPHI_HEARTBEAT)

    def b2w_disconnect(self) -> list[Frame]:
        return _closed(spec.DELPHI_DISCONNECT)


def _closed(*frames: Frame) -> list[Frame]:
    """An empty frame, `frames`, and the hash of all of them."""
    covered = [b"", *frames]
    covered.append(digest(covered))
    return covered


def _read_reply(frames: list[Frame]) -> Command:
    """`service client [∅] body*`: an empty frame (∅) after `client` is the delimiter, not body."""
    service = read_service(frames, 2)
    client = read_address(frames, 3)
    at = 5 if len(frames) > 4 and not frames[4] else 4
    return Command(spec.FINAL, True, service, client, frames[at:])


def _unexpected(command: Frame) -> RemoteProtocolError:
    return RemoteProtocolError("unexpected-command", command[:8].hex() or "an empty frame")


CODEC: Codec = DelphiCodec(verified=True)
UNVERIFIED: Codec = DelphiCodec(verified=False)
