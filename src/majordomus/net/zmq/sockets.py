"""Making ZeroMQ sockets: every option that is set on one, and why, is here.

All sockets of a process share `zmq.Context.instance()`, so a client reaches a broker of its own
process over inproc.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import socket as plain
from pathlib import Path
from typing import Final

import zmq

from majordomus.errors import ConfigurationError
from majordomus.net import endpoints

LINGER: Final = 1000
"""Milliseconds that a closed socket may still need for what was handed to it."""
RECONNECT: Final = 1000
"""Milliseconds before libzmq would reconnect by itself, with a routing id that the broker may still
hold for the old connection (what comes over the new one is then never delivered): the shells are
quicker, with a new socket.
"""
HANDSHAKE: Final = 3000
"""Milliseconds for the handshake of ZMTP; a connection that says nothing is cut after it."""
KEEPALIVE: Final = {
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 15,
    zmq.TCP_KEEPALIVE_INTVL: 5,
    zmq.TCP_KEEPALIVE_CNT: 3,
    zmq.TCP_MAXRT: 30_000,
}
"""The kernel ends a connection whose other end has been gone for 30 s (TCP_MAXRT is milliseconds,
the
others are seconds and a count). ZMTP's own heartbeats are off: docs/adr/0005-keepalive.md."""
MAX_SOCKETS: Final = 20_000
ROUTING_ID_SIZE: Final = 16

_prepared_for = 0  # the process for which `context` did its work


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """The context that all sockets of this process share; the first call prepares it."""
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
    """A random id whose first byte is not zero: libzmq keeps those for the ids that it makes
    itself.
    """
    return bytes([1 + int.from_bytes(os.urandom(2)) % 255]) + os.urandom(ROUTING_ID_SIZE - 1)


def router(max_message: int, send_hwm: int) -> zmq.Socket[bytes]:
    """The broker's socket, not yet bound.

    `max_message` is bytes of a body, `send_hwm` messages per peer.
    """
    made = context().socket(zmq.ROUTER)
    made.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a refused send is an event, not a loss
    made.setsockopt(zmq.ROUTER_HANDOVER, 0)  # nobody takes over a routing id that is in use
    made.setsockopt(zmq.SNDHWM, send_hwm)
    made.setsockopt(zmq.LINGER, LINGER)
    made.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE)
    # A larger frame cuts the connection; up to this size the core can still answer 413.
    made.setsockopt(zmq.MAXMSGSIZE, 2 * max_message)
    for option, value in KEEPALIVE.items():
        made.setsockopt(option, value)
    made.setsockopt(zmq.BACKLOG, 4096)
    return made


def dealer() -> zmq.Socket[bytes]:
    """The socket of a client or worker, not yet connected, with a routing id that no other has."""
    made = context().socket(zmq.DEALER)
    made.setsockopt(zmq.ROUTING_ID, routing_id())
    made.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a connection that is not there
    made.setsockopt(zmq.LINGER, LINGER)
    made.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE)
    made.setsockopt(zmq.RECONNECT_IVL, RECONNECT)
    return made


def bind(socket: zmq.Socket[bytes], url: str) -> str:
    """Binds and returns the endpoint that a peer can connect to.

    Raises: ConfigurationError when it cannot be bound.
    """
    if endpoints.needs_ipv6(url):
        socket.setsockopt(zmq.IPV6, 1)
    if url.startswith("ipc://") and _answers(url.removeprefix("ipc://")):
        raise ConfigurationError(f"cannot bind {url}: another process listens there")
    try:
        socket.bind(url)
    except zmq.ZMQError as error:
        raise ConfigurationError(f"cannot bind {url}: {zmq.strerror(error.errno or 0)}") from error
    return socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()  # type: ignore[union-attr]


def unbind(socket: zmq.Socket[bytes], url: str) -> None:
    """Stops listening; the monitor tells when it is done.

    An ipc file, which libzmq leaves behind, is removed first.
    """
    path = url.removeprefix("ipc://")
    if path != url and not path.startswith("@"):
        Path(path).unlink(missing_ok=True)
    with contextlib.suppress(zmq.ZMQError):  # inproc may be gone already
        socket.unbind(url)


def connect(socket: zmq.Socket[bytes], url: str) -> None:
    """Starts to connect; the monitor says what becomes of it.

    Raises: ConfigurationError for a name that means nothing.
    """
    if endpoints.needs_ipv6(url):
        socket.setsockopt(zmq.IPV6, 1)
    try:
        socket.connect(url)
    except zmq.ZMQError as error:
        raise ConfigurationError(
            f"cannot connect to {url}: {zmq.strerror(error.errno or 0)}"
        ) from error


def meets_itself(fd: int) -> bool:
    """Whether a connection has itself at its other end.

    Who tries often enough to reach a port of this machine where nobody listens, out of the range
    for outgoing connections, is given that port itself one day. It would hear itself, and keep the
    port from its broker.
    """
    try:
        with plain.socket(fileno=os.dup(fd)) as seen:
            return seen.family != plain.AF_UNIX and seen.getsockname() == seen.getpeername()
    except OSError:  # it has ended meanwhile
        return False


def _answers(path: str) -> bool:
    """Whether somebody listens on this path: libzmq would take it from them without a word."""
    if path == "*" or path.startswith("@") or not Path(path).exists():
        return False
    with plain.socket(plain.AF_UNIX, plain.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _seed() -> None:
    """Seeds libc's rand, from which libzmq makes its automatic routing ids: otherwise the same in
    every process.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no such libc here
        ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4)))


def _open_sockets(shared: zmq.Context[zmq.Socket[bytes]]) -> list[zmq.Socket[bytes]]:
    return [socket for socket in getattr(shared, "_sockets", ()) if not socket.closed]


def flush_at_exit(pid: int) -> None:
    """Waits (LINGER at most) for what closed sockets still have to write: the process would cut it
    off.

    Only when every socket of the context is closed; one that somebody left open would make this
    wait for ever.
    """
    shared: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    if (
        os.getpid() == pid
        and not shared.closed
        and hasattr(shared, "_sockets")
        and not _open_sockets(shared)
    ):
        shared.term()
