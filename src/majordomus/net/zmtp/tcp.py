"""Plain TCP sockets: every option that is set on one, and how `tcp://host:port` becomes one."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket as plain
import struct
from typing import Final

from majordomus.errors import ConfigurationError

BACKLOG: Final = 4096
_SIOCGIFADDR: Final = 0x8915
KEEPALIVE: Final = (
    (plain.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (plain.IPPROTO_TCP, "TCP_KEEPIDLE", 15),
    (plain.IPPROTO_TCP, "TCP_KEEPINTVL", 5),
    (plain.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    (plain.IPPROTO_TCP, "TCP_USER_TIMEOUT", 30_000),
)
"""The kernel ends a connection whose other end has been gone for 30 s: docs/adr/0005-keepalive.md.
Accepted connections have the options of their listening socket."""

Place = tuple[plain.AddressFamily, tuple[object, ...]]


def listen(url: str) -> tuple[plain.socket, str]:
    """A socket that listens and does not block, and the endpoint that a peer can connect to.

    Raises: ConfigurationError when it cannot be bound.
    """
    host, port = split(url)
    try:
        family, address = _to_bind(host, port)
        made = plain.socket(family, plain.SOCK_STREAM | plain.SOCK_NONBLOCK)
        try:
            made.setsockopt(plain.SOL_SOCKET, plain.SO_REUSEADDR, 1)
            _set_options(made)
            made.bind(address)
            made.listen(BACKLOG)
        except BaseException:
            made.close()
            raise
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"cannot bind {url}: {why}") from error
    real = made.getsockname()
    name = f"[{real[0]}]" if family == plain.AF_INET6 else real[0]
    return made, f"tcp://{name}:{real[1]}"


def connect(place: Place) -> plain.socket:
    """A socket that is being connected and does not block; it tells by being writable what came of
    it.

    Raises: OSError when not even that can be had.
    """
    family, address = place
    made = plain.socket(family, plain.SOCK_STREAM | plain.SOCK_NONBLOCK)
    try:
        _set_options(made)
        with contextlib.suppress(BlockingIOError):
            made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def at_once(url: str) -> Place | None:
    """Where that is, if nobody has to be asked; else `look_up` may take its time."""
    host, port = split(url)
    if host == "localhost":
        host = "127.0.0.1"
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return _place(host, port, plain.AI_NUMERICHOST, address.version)


def look_up(url: str) -> Place:
    """Where a name is. It may wait for other machines. Raises: OSError."""
    host, port = split(url)
    try:
        return _place(host, port, 0, 0)
    except UnicodeError as error:
        raise OSError(0, f"{host!r} is no name of a host") from error


def is_plain(url: str) -> bool:
    """Whether this is `tcp://host:port` and nothing else; libzmq knows more, as where to call
    from."""
    return url.startswith("tcp://") and ";" not in url


def split(url: str) -> tuple[str, int]:
    """Host, without brackets, and port, 0 for any."""
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), 0 if port == "*" else int(port)


def _place(host: str, port: int, flags: int, version: int) -> Place:
    family = {4: plain.AF_INET, 6: plain.AF_INET6}.get(version, plain.AF_INET)
    try:
        found = plain.getaddrinfo(host, port, family, plain.SOCK_STREAM, 0, flags)
    except plain.gaierror:
        if version:
            raise
        found = plain.getaddrinfo(host, port, plain.AF_INET6, plain.SOCK_STREAM, 0, flags)
    return found[0][0], found[0][4]


def _to_bind(host: str, port: int) -> Place:
    if host == "*":
        return plain.AF_INET, ("0.0.0.0", port)  # noqa: S104 - it was asked for
    with contextlib.suppress(OSError):
        return _of_interface(host, port)
    try:
        found = plain.getaddrinfo(host, port, 0, plain.SOCK_STREAM, 0, plain.AI_PASSIVE)
    except plain.gaierror as error:
        raise OSError(0, "No such device") from error
    return min((one[0], one[4]) for one in found if one[0] in (plain.AF_INET, plain.AF_INET6))


def _of_interface(name: str, port: int) -> Place:
    """The address of eth0 and its like. Raises: OSError when there is none of that name."""
    plain.if_nametoindex(name)
    with plain.socket(plain.AF_INET, plain.SOCK_DGRAM) as asked:
        packed = struct.pack("256s", name.encode()[:15])
        found = fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, packed)
    return plain.AF_INET, (plain.inet_ntoa(found[20:24]), port)


def _set_options(made: plain.socket) -> None:
    made.setsockopt(plain.IPPROTO_TCP, plain.TCP_NODELAY, 1)
    for level, name, value in KEEPALIVE:
        with contextlib.suppress(AttributeError, OSError):  # not of this system
            made.setsockopt(level, getattr(plain, name), value)
