"""Make TCP sockets from `tcp://host:port`: every option of a socket is set here."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket as plain
import struct
from typing import Final

from majordomus.errors import ConfigurationError

BACKLOG: Final = 4096
"""Connections that the kernel holds until they are accepted."""
_SIOCGIFADDR: Final = 0x8915
KEEPALIVE: Final = (
    (plain.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (plain.IPPROTO_TCP, "TCP_KEEPIDLE", 15),
    (plain.IPPROTO_TCP, "TCP_KEEPINTVL", 5),
    (plain.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    (plain.IPPROTO_TCP, "TCP_USER_TIMEOUT", 30_000),
)
"""The kernel ends a connection whose other end has been gone for 30 s: docs/adr/0005-keepalive.md.
Accepted connections inherit the options of the listening socket."""

Address = tuple[plain.AddressFamily, tuple[object, ...]]
"""Address family and socket address, as `socket.connect` takes it."""


def listen(url: str) -> tuple[plain.socket, str]:
    """Make a non-blocking listening socket; return it, and the endpoint that peers connect to.

    Raises: ConfigurationError when the endpoint cannot be bound.
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


def connect(address: Address) -> plain.socket:
    """Make a non-blocking socket and start to connect it; it becomes writable when that is done.

    Raises: OSError when the attempt fails at once.
    """
    family, there = address
    made = plain.socket(family, plain.SOCK_STREAM | plain.SOCK_NONBLOCK)
    try:
        _set_options(made)
        with contextlib.suppress(BlockingIOError):
            made.connect(there)
    except BaseException:
        made.close()
        raise
    return made


def parse_address(url: str) -> Address | None:
    """Return the address of a numeric host or localhost; None for a name, which `resolve` takes."""
    host, port = split(url)
    if host == "localhost":
        host = "127.0.0.1"
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return _resolve(host, port, plain.AI_NUMERICHOST, address.version)


def resolve(url: str) -> Address:
    """Resolve the host of an endpoint. May block for a name server. Raises: OSError."""
    host, port = split(url)
    try:
        return _resolve(host, port, 0, 0)
    except UnicodeError as error:
        raise OSError(0, f"{host!r} is not a valid host name") from error


def is_plain(url: str) -> bool:
    """Return whether this is `tcp://host:port`, without a source address as libzmq takes one."""
    return url.startswith("tcp://") and ";" not in url


def split(url: str) -> tuple[str, int]:
    """Return the host without brackets, and the port; 0 for `*`."""
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), 0 if port == "*" else int(port)


def _resolve(host: str, port: int, flags: int, version: int) -> Address:
    family = {4: plain.AF_INET, 6: plain.AF_INET6}.get(version, plain.AF_INET)
    try:
        found = plain.getaddrinfo(host, port, family, plain.SOCK_STREAM, 0, flags)
    except plain.gaierror:
        if version:
            raise
        found = plain.getaddrinfo(host, port, plain.AF_INET6, plain.SOCK_STREAM, 0, flags)
    return found[0][0], found[0][4]


def _to_bind(host: str, port: int) -> Address:
    if host == "*":
        return plain.AF_INET, ("0.0.0.0", port)  # noqa: S104 - the endpoint names every interface
    with contextlib.suppress(OSError):
        return _of_interface(host, port)
    try:
        found = plain.getaddrinfo(host, port, 0, plain.SOCK_STREAM, 0, plain.AI_PASSIVE)
    except plain.gaierror as error:
        raise OSError(0, "No such device") from error
    return min((one[0], one[4]) for one in found if one[0] in (plain.AF_INET, plain.AF_INET6))


def _of_interface(name: str, port: int) -> Address:
    """Return the address of an interface, as eth0. Raises: OSError when it does not exist."""
    plain.if_nametoindex(name)
    with plain.socket(plain.AF_INET, plain.SOCK_DGRAM) as probe:
        packed = struct.pack("256s", name.encode()[:15])
        found = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, packed)
    return plain.AF_INET, (plain.inet_ntoa(found[20:24]), port)


def _set_options(made: plain.socket) -> None:
    made.setsockopt(plain.IPPROTO_TCP, plain.TCP_NODELAY, 1)
    for level, name, value in KEEPALIVE:
        with contextlib.suppress(AttributeError, OSError):  # not available on this system
            made.setsockopt(level, getattr(plain, name), value)
