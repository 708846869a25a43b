"""A proxy between two sockets that can be paused, resumed, asked for statistics and ended.

It has the control protocol of libzmq's `zmq_proxy_steerable` (PAUSE, RESUME, STATISTICS, TERMINATE
over REP), but a loop of its own. In libzmq 4.3.5 a paused proxy still moves messages, and a proxy
with input that no peer of the other side accepts keeps a processor busy: docs/proxies.md.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

import zmq

from majordomus.errors import (
    ConfigurationError,
    DeadlineExceeded,
    LocalProtocolError,
    MajordomusError,
)
from majordomus.net import endpoints
from majordomus.net.waker import Waker
from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import Monitor, MonitorEvent
from majordomus.net.zmq.pump import Mover, make_mover, make_pump

HWM: Final = 1000
LINGER: Final = 1000
UNBIND_WAIT: Final = 1.0
CONNECT: Final = ">"
"""The prefix of an endpoint to connect to instead of binding it, as in czmq's proxies."""
COUNTS: Final = struct.Struct("=Q")

KINDS: Final = {
    "xsub-xpub": (zmq.XSUB, zmq.XPUB),
    "pull-push": (zmq.PULL, zmq.PUSH),
    "router-dealer": (zmq.ROUTER, zmq.DEALER),
}
"""Pattern → the sockets of frontend and backend."""
PAUSE, RESUME, TERMINATE = b"PAUSE", b"RESUME", b"TERMINATE"
STATISTICS, STATE = b"STATISTICS", b"STATE"
COMMANDS: Final = (PAUSE, RESUME, STATISTICS, STATE, TERMINATE)
UNKNOWN: Final = b"there is no such command: "

logger = logging.getLogger("majordomus.proxy")


class Traffic(NamedTuple):
    """Messages and bytes that one socket has received and sent."""

    received: int = 0
    received_bytes: int = 0
    sent: int = 0
    sent_bytes: int = 0


class Statistics(NamedTuple):
    """The traffic of both sockets since the start. Subscriptions count as messages."""

    frontend: Traffic
    backend: Traffic
    paused: bool


class Proxy:
    """A proxy between the endpoints `frontend` and `backend`.

    An endpoint is bound, or connected to if it begins with ">". `pattern`: one of KINDS. `control`:
    an endpoint for commands; any peer that reaches it can end the proxy. `hwm`: messages that may
    wait in each direction for each peer. A paused proxy receives nothing, so that the queues of its
    senders fill. It runs in the caller's thread (`run`) or in one of its own (`start`, `with`).

    Raises: ConfigurationError.
    """

    def __init__(
        self,
        pattern: str,
        frontend: str | Sequence[str],
        backend: str | Sequence[str],
        control: str | None = None,
        *,
        hwm: int = HWM,
    ) -> None:
        if pattern not in KINDS:
            raise ConfigurationError(
                f"there is no pattern {pattern!r}; there are {', '.join(KINDS)}"
            )
        if hwm < 0:
            raise ConfigurationError(f"hwm is a number of messages, 0 for no limit, not {hwm}")
        self.pattern = pattern
        self._urls = _checked(frontend), _checked(backend)
        self._control_url = None if control is None else endpoints.to_bind(control)[0]
        self._hwm = hwm
        self.frontends: list[str] = []
        """The endpoints of the frontend, once it is open."""
        self.backends: list[str] = []
        self.control = ""
        self._loop: _Loop | None = None
        self._thread: threading.Thread | None = None

    @property
    def paused(self) -> bool:
        """Whether the proxy is paused."""
        return self._loop is not None and self._loop.paused

    def open(self) -> None:
        """Bind and connect. Raises: ConfigurationError when an endpoint cannot be used."""
        if self._loop is not None:
            return
        loop = _Loop(self.pattern, self._hwm)
        try:
            self.frontends = [loop.attach(loop.frontend, url) for url in self._urls[0]]
            self.backends = [loop.attach(loop.backend, url) for url in self._urls[1]]
            if self._control_url is not None:
                self.control = loop.attach(loop.make_control(), self._control_url)
        except BaseException:
            loop.close()
            raise
        self._loop = loop

    def run(self, ready: Callable[[], None] | None = None) -> None:
        """Run until `stop`, TERMINATE, or SIGINT and SIGTERM in the main thread.

        `ready` is called when the proxy is open and its signal handlers are set.

        Raises: ConfigurationError.
        """
        if self._thread is not None:
            raise LocalProtocolError("running", "this proxy runs in its own thread already")
        self.open()
        loop = self._loop
        if loop is None:
            return
        try:
            with _signals(loop):
                if ready is not None:
                    ready()
                loop.run()
        finally:
            self._loop = None

    def start(self) -> None:
        """Run in a new thread. Raises: ConfigurationError."""
        if self._thread is not None:
            return
        self.open()
        loop = self._loop
        if loop is not None:
            self._thread = threading.Thread(target=loop.run, name="majordomus-proxy", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the proxy. Any thread may call it; may be repeated. Does not wait for `run`."""
        loop, thread = self._loop, self._thread
        if loop is None:
            return
        loop.ask(TERMINATE)
        if thread is not None:
            thread.join()
            self._thread = self._loop = None

    def pause(self) -> None:
        """Receive nothing from the next turn on. Any thread may call it."""
        self._ask(PAUSE)

    def resume(self) -> None:
        """Receive again. Any thread may call it."""
        self._ask(RESUME)

    def statistics(self) -> Statistics:
        """Return the traffic so far. Any thread may call it.

        Raises: LocalProtocolError before `open`.
        """
        if self._loop is None:
            raise LocalProtocolError("closed", "this proxy does not run")
        return self._loop.statistics()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _ask(self, command: bytes) -> None:
        if self._loop is None:
            raise LocalProtocolError("closed", "this proxy does not run")
        self._loop.ask(command)


class _Loop:
    """The sockets of a proxy and its loop. Any thread may call `ask` and `statistics`."""

    def __init__(self, pattern: str, hwm: int) -> None:
        self.paused = self.ended = self._signalled = False
        self.waker = Waker()
        front, back = KINDS[pattern]
        self.frontend, self.backend = _socket(front, hwm), _socket(back, hwm)
        self._control: zmq.Socket[bytes] | None = None
        self._bound: list[tuple[zmq.Socket[bytes], str]] = []
        self._forth = make_pump(self.frontend, self.backend)
        self._back = make_pump(self.backend, self.frontend)
        self._both_ways = pattern != "pull-push"
        self._mover: Mover | None = None

    def attach(self, socket: zmq.Socket[bytes], url: str) -> str:
        """Bind or connect; return the endpoint. Raises: ConfigurationError."""
        if url.startswith(CONNECT):
            sockets.connect(socket, url.removeprefix(CONNECT))
            return url
        real = sockets.bind(socket, url)
        self._bound.append((socket, real))
        return real

    def make_control(self) -> zmq.Socket[bytes]:
        self._control = _socket(zmq.REP, 0)
        return self._control

    def ask(self, command: bytes) -> None:
        self._execute(command)
        self.waker.wake()

    def terminate(self) -> None:
        """End the loop. For signal handlers: it takes no lock, so `run` logs it."""
        self._signalled = self.ended = True
        self.waker.wake()

    def statistics(self) -> Statistics:
        forth, back = self._forth, self._back
        front = Traffic(forth.messages, forth.bytes, back.messages, back.bytes)
        rear = Traffic(back.messages, back.bytes, forth.messages, forth.bytes)
        return Statistics(front, rear, self.paused)

    def run(self) -> None:
        """Run until TERMINATE; close everything and free the endpoints."""
        try:
            while not self.ended:
                self._turn()
            if self._signalled:
                logger.info("%s", TERMINATE.decode())
        finally:
            self.close()

    def close(self) -> None:
        for bound, url in self._bound:
            _unbind(bound, url)
        for socket in (self.frontend, self.backend, self._control):
            if socket is not None:
                socket.close()
        self.waker.close()

    def _turn(self) -> None:
        """Move messages until a command or a call of this program comes, and act on it."""
        if self._mover is None:
            back = self._back if self._both_ways else None
            self._mover = make_mover(self.waker.fd, self._control, self._forth, back)
        woken, commanded = self._mover.run(self.paused)
        if woken:
            self.waker.clear()
        if commanded and self._control is not None:
            self._answer(self._control)

    def _answer(self, control: zmq.Socket[bytes]) -> None:
        command = b" ".join(control.recv_multipart())
        reply = self._execute(command.strip().upper())
        # Never full: REP has one request to answer, and drops the answer if its peer is gone.
        control.send_multipart(reply, zmq.NOBLOCK)

    def _execute(self, command: bytes) -> list[bytes]:
        if command == STATISTICS:
            found = self.statistics()
            return [COUNTS.pack(number) for number in (*found.frontend, *found.backend)]
        if command == STATE:
            return [b"paused" if self.paused else b"active"]
        if command not in COMMANDS:
            return [UNKNOWN + command[:40]]
        logger.info("%s", command.decode())
        if command == TERMINATE:
            self.ended = True
        else:
            self.paused = command == PAUSE
        return [b""]


class Control:
    """Sends commands to the control endpoint of a proxy, ours or libzmq's.

    Each method raises DeadlineExceeded when no answer comes within `timeout` seconds.
    """

    def __init__(self, url: str, timeout: float = 5.0) -> None:
        self._url, self._timeout = endpoints.to_connect(url)[0], timeout
        self._socket = _socket(zmq.REQ, 0)
        self._socket.setsockopt(zmq.LINGER, 0)
        try:
            sockets.connect(self._socket, self._url)
        except BaseException:
            self._socket.close()
            raise

    def pause(self) -> None:
        """Let the proxy receive nothing."""
        self._command(PAUSE)

    def resume(self) -> None:
        """Let the proxy receive again."""
        self._command(RESUME)

    def terminate(self) -> None:
        """End the proxy."""
        self._command(TERMINATE)

    def statistics(self) -> Statistics:
        """Return the traffic so far. Raises: MajordomusError for an invalid answer."""
        counts = self._ask(STATISTICS)
        if [len(one) for one in counts] != [COUNTS.size] * 8:
            raise MajordomusError(f"{self._url} does not answer as a steerable proxy does")
        numbers = [int(COUNTS.unpack(one)[0]) for one in counts]
        paused = self._ask(STATE) == [b"paused"]
        return Statistics(Traffic(*numbers[:4]), Traffic(*numbers[4:]), paused)

    def close(self) -> None:
        """Close the socket. May be repeated."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _command(self, command: bytes) -> None:
        if self._ask(command) != [b""]:
            raise MajordomusError(f"{self._url} does not know {command.decode()}")

    def _ask(self, command: bytes) -> list[bytes]:
        self._socket.send(command)
        if not self._socket.poll(int(self._timeout * 1000)):
            raise DeadlineExceeded(f"no proxy answers at {self._url} within {self._timeout:g} s")
        return self._socket.recv_multipart()


def _socket(kind: int, hwm: int) -> zmq.Socket[bytes]:
    made = sockets.context().socket(kind)
    made.set_hwm(hwm)
    made.setsockopt(zmq.LINGER, LINGER)
    made.setsockopt(zmq.HANDSHAKE_IVL, sockets.HANDSHAKE)
    for option, value in sockets.KEEPALIVE.items():
        made.setsockopt(option, value)
    return made


def _checked(urls: str | Sequence[str]) -> list[str]:
    """Return the endpoints in full form. Raises: ConfigurationError."""
    given = [urls] if isinstance(urls, str) else list(urls)
    if not given:
        raise ConfigurationError("a proxy has at least one endpoint on each side")
    return [
        CONNECT + endpoints.to_connect(url.removeprefix(CONNECT))[0]
        if url.startswith(CONNECT)
        else endpoints.to_bind(url)[0]
        for url in given
    ]


def _unbind(socket: zmq.Socket[bytes], url: str) -> None:
    """Unbind, and wait until libzmq's own thread has closed the listening socket."""
    if endpoints.is_inproc(url):
        sockets.unbind(socket, url)
        return
    monitor = Monitor(socket, MonitorEvent.UNBOUND)
    sockets.unbind(socket, url)
    until = time.monotonic() + UNBIND_WAIT
    while not monitor.read() and time.monotonic() < until:
        monitor.socket.poll(50)
    monitor.close()


@contextlib.contextmanager
def _signals(loop: _Loop) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the loop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_: loop.terminate())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    fd_before = signal.set_wakeup_fd(loop.waker.writer_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd_before)
        for number, handler in before.items():
            signal.signal(number, handler)
