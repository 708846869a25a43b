"""Make ZeroMQ sockets: every option of a socket, with its reason, is set here.

All sockets of a process share `zmq.Context.instance()`, so that a client can reach a broker of its
own process over inproc.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import os
import socket as plain
from pathlib import Path
from typing import Final

import zmq

from majordomus import system
from majordomus.errors import ConfigurationError
from majordomus.net import endpoints

LINGER: Final = 1000
"""Milliseconds that a closed socket has to write its queued messages."""
RECONNECT: Final = 1000
"""Milliseconds before libzmq reconnects by itself. Clients and workers make a new socket earlier.

libzmq keeps the routing id. The broker may still have it for the old connection, and would then
never deliver what comes over the new one.
"""
HANDSHAKE: Final = 3000
"""Milliseconds for the ZMTP handshake; libzmq ends a connection that does not complete it."""
KEEPALIVE: Final = {
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 15,
    zmq.TCP_KEEPALIVE_INTVL: 5,
    zmq.TCP_KEEPALIVE_CNT: 3,
    zmq.TCP_MAXRT: 30_000,
}
"""The kernel ends a connection whose other end has been gone for 30 s.

TCP_MAXRT is in milliseconds, the others are seconds and a count. ZMTP's own heartbeats are off:
docs/adr/0005-keepalive.md.
"""
MAX_SOCKETS: Final = 20_000
ROUTING_ID_SIZE: Final = 16

_prepared_for = 0  # the id of the process that `context` has prepared


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return the context that all sockets of this process share; the first call prepares it."""
    global _prepared_for  # noqa: PLW0603 - once per process, also after a fork
    shared: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    if _prepared_for != os.getpid():
        _prepared_for = os.getpid()
        if not list(_open_sockets(shared)):
            shared.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        _seed()
        atexit.register(flush_at_exit, os.getpid())
    return shared


def routing_id() -> bytes:
    """Make a random routing id. Its first byte is not zero: libzmq reserves zero for its own."""
    return bytes([1 + int.from_bytes(os.urandom(2)) % 255]) + os.urandom(ROUTING_ID_SIZE - 1)


def router(max_message: int, send_hwm: int) -> zmq.Socket[bytes]:
    """Make a broker's socket; it is not bound yet.

    `max_message` is in bytes of a body, `send_hwm` in messages per peer.
    """
    made = context().socket(zmq.ROUTER)
    made.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a send that fails is reported, not dropped
    made.setsockopt(zmq.ROUTER_HANDOVER, 0)  # a new peer cannot take over a routing id in use
    made.setsockopt(zmq.SNDHWM, send_hwm)
    made.setsockopt(zmq.LINGER, LINGER)
    made.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE)
    # A larger frame ends the connection; up to this size the machine can answer 413.
    made.setsockopt(zmq.MAXMSGSIZE, 2 * max_message)
    for option, value in KEEPALIVE.items():
        made.setsockopt(option, value)
    made.setsockopt(zmq.BACKLOG, 4096)
    return made


def dealer(most: int = 0) -> zmq.Socket[bytes]:
    """Make the socket of a client or worker, with a random routing id; it is not connected yet.

    `most`: bytes of one frame, at most; a larger one ends the connection. 0 for no bound.
    """
    made = context().socket(zmq.DEALER)
    made.setsockopt(zmq.ROUTING_ID, routing_id())
    made.setsockopt(zmq.IMMEDIATE, 1)  # queue nothing before there is a connection
    made.setsockopt(zmq.LINGER, LINGER)
    made.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE)
    made.setsockopt(zmq.RECONNECT_IVL, RECONNECT)
    if most:
        made.setsockopt(zmq.MAXMSGSIZE, most)
    return made


def bind(socket: zmq.Socket[bytes], url: str) -> str:
    """Bind an endpoint; return the one that peers can connect to.

    Raises: ConfigurationError when it cannot be bound.
    """
    if endpoints.needs_ipv6(url):
        socket.setsockopt(zmq.IPV6, 1)
    if url.startswith("ipc://") and _is_listening(url.removeprefix("ipc://")):
        raise ConfigurationError(f"cannot bind {url}: another process listens there")
    try:
        socket.bind(url)
    except zmq.ZMQError as error:
        raise ConfigurationError(f"cannot bind {url}: {zmq.strerror(error.errno or 0)}") from error
    return socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()  # type: ignore[union-attr]


def unbind(socket: zmq.Socket[bytes], url: str) -> None:
    """Stop listening; the monitor reports when it is done.

    The file of an ipc endpoint is removed first: libzmq leaves it behind.
    """
    remove_file(url)
    with contextlib.suppress(zmq.ZMQError):  # an inproc endpoint may be unbound already
        socket.unbind(url)


def remove_file(url: str) -> None:
    """Remove the file of an ipc endpoint; any other has none. May be repeated."""
    path = url.removeprefix("ipc://")
    if path != url and not path.startswith("@"):
        Path(path).unlink(missing_ok=True)


def is_free(url: str) -> bool:
    """Return whether a tcp endpoint, as `bind` returned it, may be bound again. Others may always:
    the file of an ipc endpoint is removed."""
    address, _, port = url.removeprefix("tcp://").rpartition(":")
    if not url.startswith("tcp://"):
        return True
    host = address.strip("[]")
    try:
        with plain.socket(plain.AF_INET6 if ":" in host else plain.AF_INET) as probe:
            if os.name == "posix":
                probe.setsockopt(plain.SOL_SOCKET, plain.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True


def connect(socket: zmq.Socket[bytes], url: str) -> None:
    """Start to connect; the monitor reports the outcome.

    Raises: ConfigurationError for an invalid endpoint.
    """
    if endpoints.needs_ipv6(url):
        socket.setsockopt(zmq.IPV6, 1)
    try:
        socket.connect(url)
    except zmq.ZMQError as error:
        raise ConfigurationError(
            f"cannot connect to {url}: {zmq.strerror(error.errno or 0)}"
        ) from error


def is_self_connected(fd: int) -> bool:
    """Return whether a socket is connected to itself.

    A client that often connects to a local port without a listener, in the range of outgoing
    ports, is one day given that very port as its own (TCP simultaneous open). It would receive its
    own messages, and keep the port from its broker.
    """
    try:
        with plain.socket(fileno=os.dup(fd)) as seen:
            return not system.is_unix(seen) and seen.getsockname() == seen.getpeername()
    except OSError:  # the connection has ended
        return False


def _is_listening(path: str) -> bool:
    """Return whether a process listens on this ipc path: libzmq would take it over silently."""
    return Path(path).exists() and system.is_listening(path)


def _seed() -> None:
    """Seed libc's rand: libzmq derives its automatic routing ids from it, and without a seed they
    are the same in every process."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no libc of this kind
        ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4)))


def _open_sockets(shared: zmq.Context[zmq.Socket[bytes]]) -> list[zmq.Socket[bytes]]:
    return [socket for socket in getattr(shared, "_sockets", ()) if not socket.closed]


def flush_at_exit(pid: int) -> None:
    """Wait, for LINGER at most, until closed sockets have written their messages.

    It waits only when every socket of the context is closed: an open one would block it forever.
    """
    shared: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    if (
        os.getpid() == pid
        and not shared.closed
        and hasattr(shared, "_sockets")
        and not _open_sockets(shared)
    ):
        shared.term()
