"""Which listener serves an endpoint.

`ZmtpListener` (our own ZMTP) serves TCP and ipc where the extension was built: plain, with
passwords, and encrypted if libsodium can be called. `ZmqListener` (libzmq) serves everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from majordomus.net import endpoints
from majordomus.net.broker.listener import BATCH, LINGER, MARK, WAKER, Listener, PeerMessage
from majordomus.net.waker import Waker
from majordomus.net.zmq import select as wires
from majordomus.net.zmq.wire import Wait
from majordomus.net.zmtp import ipc, tcp

if wires.OWN_ZMTP:
    from majordomus.net.broker.security.direct_authentication import DirectAuthentication
    from majordomus.net.broker.zmtp_listener import ZmtpListener

if TYPE_CHECKING:
    from majordomus.core.broker.contract import Machine
    from majordomus.core.broker.state.registry import Send
    from majordomus.net.broker.security.authenticator import AuthenticationPlan
    from majordomus.net.broker.zmq_listener import ZmqListener


def open_listener(
    machine: Machine, waker: Waker, urls: Sequence[str], plan: AuthenticationPlan | None
) -> Listener:
    """Make the listener of these endpoints; nothing is bound yet. Raises: ConfigurationError."""
    encrypted = plan is not None and plan.certificate is not None
    own = [url for url in urls if is_own(url, encrypted=encrypted)]
    if not own:
        return _zmq_listener(machine, waker, urls, plan)
    direct = None if plan is None else DirectAuthentication(*plan)
    if len(own) == len(urls):
        return ZmtpListener(machine, waker, authentication=direct)
    others = [url for url in urls if url not in own]
    return ListenerPair(
        _zmq_listener(machine, waker, others, plan),
        ZmtpListener(machine, waker, MARK, direct),
        waker,
        encrypted=encrypted,
    )


def _zmq_listener(
    machine: Machine, waker: Waker, urls: Sequence[str], plan: AuthenticationPlan | None
) -> ZmqListener:
    """Make the listener of the endpoints that libzmq serves; most brokers on Linux have none."""
    from majordomus.net.broker.security.authentication import Authentication
    from majordomus.net.broker.zmq_listener import ZmqListener

    authentication = None  # as for peers of the same process: libzmq authenticates none of them
    if plan is not None and not all(map(endpoints.is_inproc, urls)):
        authentication = Authentication(*plan)
    return ZmqListener(machine, waker, authentication, urls)


def is_own(url: str, *, encrypted: bool = False) -> bool:
    """Return whether our own ZMTP serves this endpoint, in a broker that is encrypted or not."""
    own = wires.OWN_ZMTP and (tcp.is_plain(url) or url.startswith(ipc.SCHEME))
    return own and not (encrypted and wires.curve_problem())


class ListenerPair:
    """A ZmqListener and a ZmtpListener as one listener.

    A message for a peer that the ZmtpListener does not have is sent, or refused, by the other.
    """

    def __init__(
        self, zmq: ZmqListener, zmtp: ZmtpListener, waker: Waker, *, encrypted: bool = False
    ) -> None:
        self._encrypted = encrypted
        self.name = f"{zmtp.name}, {zmq.name}"
        self._zmq, self._zmtp = zmq, zmtp
        self._zmtp_bit = WAKER << (1 + len(zmq.sources))
        self._wait = Wait(waker.fd, *zmq.sources, zmtp.fd)
        self.batch = BATCH

    @property
    def due(self) -> float:
        return min(self._zmq.due, self._zmtp.due)

    def open(self) -> None:
        self._zmq.open()
        self._zmtp.open()

    def bind(self, url: str) -> str:
        own = is_own(url, encrypted=self._encrypted)
        return (self._zmtp if own else self._zmq).bind(url)

    def wait(self, milliseconds: int) -> int:
        if self._zmtp.pending:
            return self._wait(0) | self._zmtp_bit
        return self._wait(milliseconds)

    def receive(self, ready: int, now: float) -> tuple[list[PeerMessage], bool]:
        self._zmtp.batch = self._zmq.batch = self.batch
        zmtp, more_zmtp = self._zmtp.receive(ready & self._zmtp_bit, now)
        zmq, more_zmq = self._zmq.receive(ready, now)
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
