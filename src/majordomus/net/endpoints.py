"""Endpoints and dialects as text: checks them, and explains what is wrong with an invalid one.

An endpoint is `tcp://host:port`, `ipc://path` or `inproc://name`. Nothing here opens a socket.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Final

from majordomus.errors import ConfigurationError
from majordomus.protocol.spec import Dialect

DEFAULT: Final = "tcp://127.0.0.1:5555"
TRANSPORTS: Final = {"tcp": "host:port", "ipc": "a path or @name", "inproc": "a name"}
"""What comes after each transport and `://`."""
MEMORY: Final = "memory://"
"""A broker of `majordomus.testing` in the same thread. For clients and workers only."""
SCHEME: Final = "majordomus://"
"""tcp with the broker's public key: `majordomus://host:port?key=…`.
For clients and workers only."""
KEY_SIZE: Final = 40
MAX_IPC_PATH: Final = 107  # sun_path of Linux, less its NUL

_TCP = re.compile(r"(?P<host>\[[0-9a-fA-F:.%\w]+\]|[^\[\]:/\s]+):(?P<port>[0-9]+|\*)")


def to_bind(endpoints: str | Sequence[str]) -> list[str]:
    """Check the endpoints that a broker binds.

    Wildcards are allowed for the host and port of tcp (`0` is `*`) and the path of ipc.
    Raises: ConfigurationError.
    """
    return [_checked(url, wildcard=True) for url in several(endpoints)]


def key_of(url: str) -> str:
    """Return the public key in a `majordomus://host:port?key=…`; "" for any other URL.

    Raises: ConfigurationError.
    """
    if not url.startswith(SCHEME):
        return ""
    _, found, query = url.partition("?")
    if not found:
        return ""
    name, _, value = query.partition("=")
    if name != "key" or not value:
        raise ConfigurationError(f"{url!r} is no endpoint: behind ? comes key=KEY alone")
    # Z85 uses %, & and #. An escaped key is longer than KEY_SIZE; a key that is not escaped is
    # accepted too.
    return value if len(value) == KEY_SIZE else urllib.parse.unquote(value)


def without_key(url: str) -> str:
    """Convert `majordomus://host:port?key=…` to the `tcp://host:port` to connect to."""
    if not isinstance(url, str) or not url.startswith(SCHEME):
        return url
    return "tcp://" + url.removeprefix(SCHEME).partition("?")[0].removesuffix("/")


def with_key(url: str, key: str) -> str:
    """Convert `tcp://host:port` to the URL that carries the broker's public key."""
    return f"{SCHEME}{url.removeprefix('tcp://')}?key={urllib.parse.quote(key, safe='')}"


def is_local(url: str) -> bool:
    """Return whether only this machine can reach what is bound to `url`."""
    if not url.startswith("tcp://"):
        return True
    host = url.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def to_connect(endpoints: str | Sequence[str]) -> list[str]:
    """Check the endpoints that a client or worker connects to, in the order of attempts.

    Raises: ConfigurationError.
    """
    return [_checked(url, wildcard=False) for url in several(endpoints)]


def dialect(name: str) -> Dialect:
    """Return the dialect of this name. Raises: ConfigurationError."""
    try:
        return Dialect(name)
    except ValueError:
        known = ", ".join(Dialect)
        raise ConfigurationError(f"there is no dialect {name!r}; there are {known}") from None


def is_inproc(url: str) -> bool:
    """Return whether `url` is inproc.

    Such a connection is made at once, and the monitor of the socket does not report it.
    """
    return url.startswith("inproc://")


def needs_ipv6(url: str) -> bool:
    """Return whether `url` has a literal IPv6 address: libzmq parses one only with ZMQ_IPV6 set."""
    return url.startswith("tcp://[")


def listed(text: str, origin: str) -> list[str]:
    """Return the endpoints in the value of a variable, separated by commas or spaces.

    Raises: ConfigurationError, which names `origin`, for one that cannot be connected to.
    """
    urls = [url for url in re.split(r"[,\s]+", text) if url]
    for url in urls:
        try:
            to_connect(without_key(url))
        except ConfigurationError as error:
            raise ConfigurationError(f"{origin}: {error}") from None
    return urls


def several(endpoints: str | Sequence[str]) -> list[str]:
    """Return one or more endpoints as a list. Raises: ConfigurationError for none, or no text."""
    if isinstance(endpoints, (bytes, bytearray)) or not isinstance(endpoints, Iterable):
        raise ConfigurationError(
            f"give an endpoint like {DEFAULT}, or a list of them, not {type(endpoints).__name__}"
        )
    urls = [endpoints] if isinstance(endpoints, str) else list(endpoints)
    if not urls:
        raise ConfigurationError(f"no endpoint given; one looks like {DEFAULT}")
    for url in urls:
        if not isinstance(url, str):
            raise ConfigurationError(
                f"an endpoint is text like {DEFAULT}, not {type(url).__name__}"
            )
    return urls


def _checked(url: str, *, wildcard: bool) -> str:
    if url.startswith(MEMORY) and not wildcard:
        return url
    if not url.isprintable():  # a line break would be one in the log, too
        raise ConfigurationError(
            f"{url!r} is no endpoint: it has characters that are not printable"
        )
    transport, found, rest = url.partition("://")
    if not found or transport not in TRANSPORTS:
        if wildcard and url.startswith(SCHEME):
            raise ConfigurationError(
                f"{url!r} is for clients and workers: bind tcp:// with --curve"
            )
        known = ", ".join(f"{name}://" for name in TRANSPORTS)
        raise ConfigurationError(f"{url!r} is no endpoint: it has to start with one of {known}")
    if not rest:
        raise ConfigurationError(
            f"{url!r} is no endpoint: after {transport}:// comes {TRANSPORTS[transport]}"
        )
    if transport == "tcp":
        return _checked_tcp(url, rest, wildcard=wildcard)
    if transport == "ipc":
        return _checked_ipc(url, rest, wildcard=wildcard)
    return url


def _checked_tcp(url: str, rest: str, *, wildcard: bool) -> str:
    match = _TCP.fullmatch(rest)
    if match is None:
        raise ConfigurationError(f"{url!r} is no endpoint: after tcp:// comes host:port")
    host, port = match["host"], match["port"]
    if port != "*" and int(port) > 65_535:
        raise ConfigurationError(f"{url!r} is no endpoint: a port is at most 65535")
    anything = port == "*" or int(port) == 0
    if not wildcard and (anything or host == "*"):
        raise ConfigurationError(f"{url!r} can be bound, but not connected to")
    return f"tcp://{host}:*" if anything else f"tcp://{host}:{int(port)}"


def _checked_ipc(url: str, rest: str, *, wildcard: bool) -> str:
    if rest == "*" and not wildcard:
        raise ConfigurationError(f"{url!r} can be bound, but not connected to")
    if rest == "@":
        raise ConfigurationError(f"{url!r} is no endpoint: after @ comes the name of a socket")
    if len(rest.encode()) > MAX_IPC_PATH:
        raise ConfigurationError(
            f"{url!r} is no endpoint: the path is longer than {MAX_IPC_PATH} bytes"
        )
    return url
