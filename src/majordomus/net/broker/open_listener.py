"""Which listener serves an endpoint.

`ZmtpListener` (our own ZMTP) serves plain TCP where the extension was built. `ZmqListener` (libzmq)
serves everything else: encrypted endpoints, endpoints with passwords, ipc and inproc.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from majordomus.net.broker.listener import BATCH, LINGER, MARK, WAKER, Listener, PeerMessage
from majordomus.net.broker.zmq_listener import ZmqListener
from majordomus.net.waker import Waker
from majordomus.net.zmq import select as wires
from majordomus.net.zmtp import tcp

if wires.OWN_ZMTP:
    from majordomus.net.broker.zmtp_listener import ZmtpListener

if TYPE_CHECKING:
    from majordomus.core.broker.contract import Machine
    from majordomus.core.broker.state.registry import Send
    from majordomus.net.broker.security.authentication import Authentication


def open_listener(
    machine: Machine, waker: Waker, urls: Sequence[str], authentication: Authentication | None
) -> Listener:
    """Make the listener of these endpoints; nothing is bound yet. Raises: ConfigurationError."""
    own = [url for url in urls if authentication is None and is_own(url)]
    if not own:
        return ZmqListener(machine, waker, authentication)
    if len(own) == len(urls):
        return ZmtpListener(machine, waker)
    return ListenerPair(
        ZmqListener(machine, waker, None), ZmtpListener(machine, waker, MARK), waker
    )


def is_own(url: str) -> bool:
    """Return whether our own ZMTP serves this endpoint in a broker without authentication."""
    return wires.OWN_ZMTP and tcp.is_plain(url)


class ListenerPair:
    """A ZmqListener and a ZmtpListener as one listener.

    A message for a peer that the ZmtpListener does not have is sent, or refused, by the other.
    """

    def __init__(self, zmq: ZmqListener, zmtp: ZmtpListener, waker: Waker) -> None:
        self.name = f"{zmtp.name}, {zmq.name}"
        self._zmq, self._zmtp = zmq, zmtp
        self._zmtp_bit = WAKER << (1 + len(zmq.sources))
        self._wait = wires.make_wait(waker.fd, *zmq.sources, zmtp.fd)
        self.batch = BATCH

    @property
    def due(self) -> float:
        return min(self._zmq.due, self._zmtp.due)

    def open(self) -> None:
        self._zmq.open()

    def bind(self, url: str) -> str:
        return (self._zmtp if is_own(url) else self._zmq).bind(url)

    def wait(self, milliseconds: int) -> int:
        if self._zmtp.pending:
            return self._wait(0) | self._zmtp_bit
        return self._wait(milliseconds)

    def receive(self, ready: int, now: float) -> tuple[list[PeerMessage], bool]:
        self._zmtp.batch = self._zmq.batch = self.batch
        zmtp, more_zmtp = self._zmtp.receive(ready & self._zmtp_bit, now)
        zmq, more_zmq = self._zmq.receive(ready, now)
        zmq = [message for message in zmq if not message[0].startswith(MARK)]
        return zmtp + zmq, more_zmtp or more_zmq

    def report_connections(self, ready: int, now: float) -> None:
        self._zmtp.report_connections(ready, now)
        self._zmq.report_connections(ready, now)

    def tick(self, now: float) -> None:
        self._zmtp.tick(now)
        self._zmq.tick(now)

    def send(self, batch: list[Send], now: float) -> list[tuple[int, int]]:
        by_zmtp = [self._zmtp.has_peer(send[0]) for send in batch]
        zmtp = [index for index, own in enumerate(by_zmtp) if own]
        zmq = [index for index, own in enumerate(by_zmtp) if not own]
        return sorted(
            _send_share(self._zmtp, batch, zmtp, now) + _send_share(self._zmq, batch, zmq, now)
        )

    def undelivered(self) -> int:
        return self._zmtp.undelivered() + self._zmq.undelivered()

    def buffers(self) -> dict[str, int]:
        return self._zmtp.buffers()

    def close(self, linger: float = LINGER) -> None:
        self._zmtp.close(linger)
        self._zmq.close(linger)


def _send_share(
    listener: Listener, batch: list[Send], share: list[int], now: float
) -> list[tuple[int, int]]:
    """Send the messages at these indices; the refusals keep the indices of the batch."""
    refusals = listener.send([batch[index] for index in share], now)
    return [(share[index], number) for index, number in refusals]
