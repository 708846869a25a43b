"""Which wire is used, decided once at import.

Plain TCP has our own ZMTP (`net.zmtp`) where the extension was built. libzmq's sockets have the
native wire where it loads, else the wire on pyzmq. MAJORDOMUS_WIRE=zmtp, =native or =pyzmq forces
one of them; with the last two libzmq serves plain TCP too.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import zmq

from majordomus.errors import ConfigurationError
from majordomus.net.zmq import wire

VARIABLE: Final = "MAJORDOMUS_WIRE"
NATIVE: Final = "native"
TWIN: Final = "pyzmq"
OWN: Final = "zmtp"

logger = logging.getLogger("majordomus")


class Router(Protocol):
    """The wire of a broker's socket; net/zmq/wire.py documents each method."""

    def receive(self, most: int) -> list[tuple[bytes, list[bytes]]]: ...
    def receive_with_users(self, most: int) -> list[tuple[bytes, list[bytes], str]]: ...
    def send(self, batch: list[Any]) -> list[tuple[int, int]]: ...
    def connections(self) -> list[tuple[bytes, int]]: ...
    def forget(self, peer: bytes) -> None: ...


class Dealer(Protocol):
    """The wire of a client's or worker's socket; net/zmq/wire.py documents each method."""

    def receive(self, most: int) -> list[list[bytes]]: ...
    def send(self, batch: list[list[bytes]]) -> list[tuple[int, int]]: ...
    def readable(self) -> bool: ...


class _Kind(NamedTuple):
    name: str  # "native", or "pyzmq: " and the reason
    asked_for: bool
    router: Callable[..., Router]
    dealer: Callable[[zmq.Socket[bytes]], Dealer]
    wait: Callable[..., Callable[[int], int]]


def _choose(wanted: str) -> _Kind:
    if wanted == TWIN:
        return _twin(f"{VARIABLE} asks for it", asked_for=True)
    try:
        native = importlib.import_module("majordomus.net.zmq._native")
    except ModuleNotFoundError:
        return _twin("the native wire was not built when this was installed")
    except ImportError as error:
        return _twin(f"the native wire refuses to load: {error}")
    return _Kind(NATIVE, True, native.RouterWire, native.DealerWire, native.Wait)


def _twin(why: str, *, asked_for: bool = False) -> _Kind:
    return _Kind(f"{TWIN}: {why}", asked_for, wire.RouterWire, wire.DealerWire, wire.Wait)


def _has_own_zmtp(wanted: str) -> bool:
    if wanted not in ("", OWN):
        return False
    try:
        importlib.import_module("majordomus.net.zmtp.router")
        importlib.import_module("majordomus.net.zmtp.dealer")
    except ImportError:
        return False
    return True


_wanted: Final = os.environ.get(VARIABLE, "")
_kind: Final = _choose(_wanted)
_warned: list[str] = []

WIRE: Final = _kind.name
"""The wire of libzmq's sockets: `native`, or `pyzmq: ` and the reason."""
OWN_ZMTP: Final = _has_own_zmtp(_wanted)
"""Whether our own ZMTP serves plain TCP; it needs epoll, so it is built on Linux only."""


def make_router(socket: zmq.Socket[bytes], *, max_frames: int = 0, max_bytes: int = 0) -> Router:
    """Make the wire of a broker's socket.

    Raises: ConfigurationError when the forced wire is not available.
    """
    check()
    return _kind.router(socket, max_frames=max_frames, max_bytes=max_bytes)


def make_dealer(socket: zmq.Socket[bytes]) -> Dealer:
    """Make the wire of a client's or worker's socket.

    Raises: ConfigurationError when the forced wire is not available.
    """
    check()
    return _kind.dealer(socket)


def make_wait(*sources: zmq.Socket[bytes] | int) -> Callable[[int], int]:
    """Make a function that waits for sockets and descriptors; see `wire.Wait`."""
    check()
    return _kind.wait(*sources)


def problem() -> str:
    """Return why the wire that MAJORDOMUS_WIRE names is not available; "" when it is."""
    if _wanted not in ("", OWN, NATIVE, TWIN):
        return f"{VARIABLE}={_wanted} is unknown; use {OWN}, {NATIVE} or {TWIN}"
    if _wanted == OWN and not OWN_ZMTP:
        return f"{VARIABLE}={OWN} is not available: our own ZMTP was not built at installation"
    if _wanted == NATIVE and WIRE != NATIVE:
        return f"{VARIABLE}={NATIVE} is not available: {WIRE.removeprefix(f'{TWIN}: ')}"
    return ""


def check() -> None:
    """Warn once when the wire on pyzmq is used without being forced.

    Raises: ConfigurationError when the forced wire is unknown or not available.
    """
    if reason := problem():
        raise ConfigurationError(reason)
    if not _kind.asked_for and not _warned:
        _warned.append(WIRE)
        logger.warning("this is the slow wire, several times slower than the native one (%s)", WIRE)
