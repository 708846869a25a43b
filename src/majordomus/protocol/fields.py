"""Checks of service, address and body that all legacy dialects share.

Readers and writers apply the same limits. A reader raises RemoteProtocolError (the peer's fault), a
writer LocalProtocolError (ours).
"""

from __future__ import annotations

from majordomus.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from majordomus.protocol.spec import MAX_NAME, Frame


def frame_at(frames: list[Frame], at: int) -> Frame:
    """Frame `at`. Raises: RemoteProtocolError("truncated") when the message ends before it."""
    if len(frames) <= at:
        raise RemoteProtocolError("truncated", f"frame {at} is missing")
    return frames[at]


def no_more(frames: list[Frame], at: int) -> None:
    """Check that the message ends before `at`. Raises: RemoteProtocolError("extra-frames")."""
    if len(frames) > at:
        raise RemoteProtocolError("extra-frames", f"{len(frames)} frames where {at} are allowed")


def read_service(frames: list[Frame], at: int) -> bytes:
    """The service name in frame `at`: UTF-8 of 1 to 255 bytes. Raises: RemoteProtocolError."""
    service = frame_at(frames, at)
    _check_service(service, RemoteProtocolError)
    return service


def read_address(frames: list[Frame], at: int) -> bytes:
    """The address in frame `at`, never empty. Raises: RemoteProtocolError("empty-address")."""
    address = frame_at(frames, at)
    if not address:
        raise RemoteProtocolError("empty-address")
    return address


def written_service(service: bytes) -> bytes:
    """The same name, checked. Raises: LocalProtocolError when a reader would refuse it."""
    _check_service(service, LocalProtocolError)
    return service


def written_address(address: bytes) -> bytes:
    """The same address, checked. Raises: LocalProtocolError("empty-address")."""
    if not address:
        raise LocalProtocolError("empty-address")
    return address


def written_body(body: list[Frame]) -> list[Frame]:
    """The same frames, or one empty frame: the legacy grammars require `body+`."""
    return body or [b""]


def service_problem(name: bytes) -> str:
    """Describe the error in the name of a service; empty for a valid one."""
    if not name:
        return "a service needs a name"
    if len(name) > MAX_NAME:
        return f"the name of a service has at most {MAX_NAME} bytes"
    try:
        name.decode()
    except UnicodeDecodeError:
        return "the name of a service must be UTF-8"
    return ""


def _check_service(service: bytes, fault: type[ProtocolError]) -> None:
    if not service:
        raise fault("empty-service")
    if len(service) > MAX_NAME:
        raise fault("long-service", f"{len(service)} bytes, at most {MAX_NAME} are allowed")
    if service.isascii():
        return
    try:
        service.decode()
    except UnicodeDecodeError:
        raise fault("bad-utf8", "a service name is UTF-8") from None
