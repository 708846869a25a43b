"""Make TCP sockets from `tcp://host:port`: every option of a socket is set here."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import socket as plain
from typing import Final

from majordomus import system
from majordomus.errors import ConfigurationError

BACKLOG: Final = 4096
"""Connections that the kernel holds until they are accepted."""
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
        made = system.stream_socket(family)
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
    made = system.stream_socket(family)
    try:
        _set_options(made)
        with contextlib.suppress(BlockingIOError):
            made.connect(there)
    except BaseException:
        made.close()
        raise
    return made


def parse_addresses(url: str) -> list[Address]:
    """Return the addresses of a numeric host or localhost; none for a name, which `resolve`
    takes. `localhost` is ::1 and 127.0.0.1, whatever the hosts file says (RFC 6761)."""
    host, port = split(url)
    if host == "localhost":
        return [(plain.AF_INET6, ("::1", port, 0, 0)), (plain.AF_INET, ("127.0.0.1", port))]
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return []
    return _found(host, port, plain.AI_NUMERICHOST)


def resolve(url: str) -> list[Address]:
    """Resolve the host of an endpoint to all its addresses, in the order of attempts. May block
    for a name server. Raises: OSError."""
    host, port = split(url)
    try:
        return in_order(_found(host, port, 0))
    except UnicodeError as error:
        raise OSError(0, f"{host!r} is not a valid host name") from error


def in_order(found: list[Address]) -> list[Address]:
    """Order addresses for attempts, as RFC 8305 (section 4) says.

    The system has sorted them (RFC 6724). The two families take turns, beginning with that of the
    first address, so that one that leads nowhere does not hold up the other.
    """
    unique = list(dict.fromkeys(found))
    first = [one for one in unique if one[0] == unique[0][0]]
    second = [one for one in unique if one[0] != unique[0][0]]
    pairs = itertools.zip_longest(first, second)
    return [one for pair in pairs for one in pair if one is not None]


def to_url(address: Address) -> str:
    """Return the numeric endpoint of an address, as libzmq takes it."""
    family, there = address
    host, port = there[:2]
    if family != plain.AF_INET6:
        return f"tcp://{host}:{port}"
    scope = f"%{plain.if_indextoname(int(str(there[3])))}" if there[3] else ""
    return f"tcp://[{host}{scope}]:{port}"


def is_plain(url: str) -> bool:
    """Return whether this is `tcp://host:port`, without a source address as libzmq takes one."""
    return url.startswith("tcp://") and ";" not in url


def split(url: str) -> tuple[str, int]:
    """Return the host without brackets, and the port; 0 for `*`."""
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), 0 if port == "*" else int(port)


def _found(host: str, port: int, flags: int) -> list[Address]:
    found = plain.getaddrinfo(host, port, 0, plain.SOCK_STREAM, 0, flags)
    return [(one[0], one[4]) for one in found if one[0] in (plain.AF_INET, plain.AF_INET6)]


def _to_bind(host: str, port: int) -> Address:
    if host == "*":
        return plain.AF_INET, ("0.0.0.0", port)  # noqa: S104 - the endpoint names every interface
    with contextlib.suppress(OSError):
        return plain.AF_INET, (system.interface_address(host), port)
    try:
        found = plain.getaddrinfo(host, port, 0, plain.SOCK_STREAM, 0, plain.AI_PASSIVE)
    except plain.gaierror as error:
        raise OSError(
            0, "No such device: this is no address and no network interface of this machine"
        ) from error
    return min((one[0], one[4]) for one in found if one[0] in (plain.AF_INET, plain.AF_INET6))


def _set_options(made: plain.socket) -> None:
    made.setsockopt(plain.IPPROTO_TCP, plain.TCP_NODELAY, 1)
    for level, name, value in KEEPALIVE:
        with contextlib.suppress(AttributeError, OSError):  # not available on this system
            made.setsockopt(level, getattr(plain, name), value)
