"""The ZAP handler (RFC 27): libzmq asks it whether a connection may be, before the first message.

There can be one in a context, on `inproc://zeromq.zap.01`; all brokers of a process share it, each
by a domain of its own. A thread answers, another one watches over it: should it die, it is there
again within a second. Sockets set ZAP_ENFORCE_DOMAIN, so while it is dead nobody new gets in;
connections that were let in stay.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import zmq

from majordomus.errors import ConfigurationError
from majordomus.net.broker.security.authenticator import BusyError
from majordomus.net.waker import Waker
from majordomus.net.zmq import sockets

ENDPOINT: Final = "inproc://zeromq.zap.01"
VERSION: Final = b"1.0"
OK, BUSY, REFUSED, FAILED = b"200", b"300", b"400", b"500"
FRAMES: Final = 8
"""Of a request at least: routing id, ∅, version, request id, domain, address, identity, mechanism;
credentials follow."""
LOOK: Final = 0.2
"""Seconds between two looks at the files that say who may come in."""
RESTART: Final = 0.1
"""Seconds before one that has died is there again."""
BIND_WITHIN: Final = 2.0
"""Seconds for the name to become free: libzmq closes sockets in a thread of its own."""

logger = logging.getLogger("majordomus.zap")


class Door(Protocol):
    """Who may come in by one domain. Called in the handler's thread."""

    def judge(self, mechanism: str, address: str, credentials: Sequence[bytes]) -> str:
        """The `User-Id` that every message of the connection will carry; "" refuses it.

        Raises: BusyError.
        """

    def look(self) -> None:
        """Called every LOOK seconds."""


class ZapRequest(NamedTuple):
    """What libzmq asks."""

    sender: bytes
    id: bytes
    domain: str
    address: str
    mechanism: str
    credentials: list[bytes]


class ZapHandler:
    """Answers for all doors until `close`. `deaths` counts what the watching thread has seen."""

    def __init__(self) -> None:
        self.deaths = 0
        self._doors: dict[str, Door] = {}
        self._waker = Waker()
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._failure: Exception | None = None
        self.thread: threading.Thread | None = None
        self._watch = threading.Thread(target=self._supervise, name="majordomus-zap", daemon=True)
        self._watch.start()
        self._settled.wait()
        if self._failure is not None:
            self.close()
            raise ConfigurationError(
                f"{ENDPOINT} is taken: another ZAP handler, as pyzmq's, runs in this process"
            ) from self._failure

    def open(self, domain: str, door: Door) -> None:
        """From now on `door` judges who comes by `domain`."""
        self._doors = {**self._doors, domain: door}

    def shut(self, domain: str) -> bool:
        """Nobody comes in by `domain` any more. True when that was the last."""
        self._doors = {name: door for name, door in self._doors.items() if name != domain}
        return not self._doors

    def close(self) -> None:
        """May be repeated."""
        self._stopping.set()
        self._waker.wake()
        self._watch.join()
        self._waker.close()

    # ── the watching thread ───────────────────────────────────────────────────────────────────────

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            self.thread = threading.Thread(
                target=self._serve, name="majordomus-zap-handler", daemon=True
            )
            self.thread.start()
            self.thread.join()
            if self._stopping.is_set() or self._failure is not None:
                return
            self.deaths += 1
            self._stopping.wait(RESTART)

    # ── the thread that answers ───────────────────────────────────────────────────────────────────

    def _serve(self) -> None:
        socket = sockets.context().socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 0)
        try:
            if self._bind(socket):
                self._settled.set()
                self._answer(socket)
        except BaseException:  # whatever it was: the watching thread starts another one
            logger.critical("the ZAP handler has died; nobody new gets in for now", exc_info=True)
        finally:
            with contextlib.suppress(zmq.ZMQError):
                socket.unbind(ENDPOINT)
            socket.close()
            self._settled.set()

    def _bind(self, socket: zmq.Socket[bytes]) -> bool:
        until = time.monotonic() + BIND_WITHIN
        while True:
            try:
                socket.bind(ENDPOINT)
            except zmq.ZMQError as error:
                if time.monotonic() > until and not self._settled.is_set():
                    self._failure = error
                    return False
                if self._stopping.wait(0.01):
                    return False
            else:
                return True

    def _answer(self, socket: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(self._waker.fd, zmq.POLLIN)
        next_look = time.monotonic() + LOOK
        while not self._stopping.is_set():
            poller.poll(max(0, int(1000 * (next_look - time.monotonic())) + 1))
            with contextlib.suppress(zmq.Again):
                while time.monotonic() < next_look:
                    self._reply(socket, socket.recv_multipart(zmq.NOBLOCK))
            if time.monotonic() >= next_look:
                for door in self._doors.values():
                    _guarded_look(door)
                next_look = time.monotonic() + LOOK

    def _reply(self, socket: zmq.Socket[bytes], frames: list[bytes]) -> None:
        request = _parsed(frames)
        if request is None:
            logger.error(
                "somebody in this process speaks to the ZAP handler, and does not know how"
            )
            return
        status, user = self._judge(request)
        answer = [request.sender, b"", VERSION, request.id, status, b"", user, b""]
        with contextlib.suppress(zmq.ZMQError):  # who asked has gone
            socket.send_multipart(answer, zmq.NOBLOCK)

    def _judge(self, request: ZapRequest) -> tuple[bytes, bytes]:
        door = self._doors.get(request.domain)
        if door is None:
            return REFUSED, b""
        try:
            user = door.judge(request.mechanism, request.address, request.credentials)
        except BusyError:
            return BUSY, b""
        except Exception:  # a fault of ours lets nobody in
            logger.critical("a ZAP request could not be judged; please report this", exc_info=True)
            return FAILED, b""
        return (OK, user.encode()) if user else (REFUSED, b"")


def _guarded_look(door: Door) -> None:
    try:
        door.look()
    except Exception:  # who was known stays known
        logger.critical("the files of a broker cannot be looked at", exc_info=True)


def _parsed(frames: list[bytes]) -> ZapRequest | None:
    """RFC 27: "A version frame, which SHALL contain the three octets "1.0"."""
    if len(frames) < FRAMES or frames[1] or frames[2] != VERSION:
        return None
    domain, address, _identity, mechanism = (
        frame.decode("utf-8", "replace") for frame in frames[4:8]
    )
    return ZapRequest(frames[0], frames[3], domain, address, mechanism, frames[8:])


_lock = threading.Lock()
_handlers: dict[int, ZapHandler] = {}
"""By process: after a fork the parent's threads are not there."""


def open_door(domain: str, door: Door) -> ZapHandler:
    """Has `door` judge who comes by `domain`; the handler is started for the first.

    Raises: ConfigurationError when somebody else's handler is there.
    """
    with _lock:
        handler = _handlers.get(os.getpid())
        if handler is None:
            handler = ZapHandler()
            _handlers.clear()
            _handlers[os.getpid()] = handler
        handler.open(domain, door)
        return handler


def shut_door(domain: str) -> None:
    """The end of `open_door`; with the last one the handler ends. May be repeated."""
    with _lock:
        handler = _handlers.get(os.getpid())
        if handler is not None and handler.shut(domain):
            del _handlers[os.getpid()]
            handler.close()
