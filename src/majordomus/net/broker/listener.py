"""How a broker is reached: a port has the sockets of its endpoints, tells the machine who came and
who left, and keeps out who takes without asking.

Which of them serves an endpoint is decided here: plain TCP is our own ZMTP's, where that was built;
what is encrypted, asks for a password, or is on ipc or inproc is libzmq's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from majordomus.net.waker import Waker
from majordomus.net.zmq import select as wires
from majordomus.net.zmtp import tcp

if TYPE_CHECKING:
    from majordomus.core.broker.machine import BrokerMachine
    from majordomus.core.broker.state.registry import Send
    from majordomus.net.broker.security.authentication import Authentication
    from majordomus.net.broker.zmq_listener import ZmqListener
    from majordomus.net.broker.zmtp_listener import ZmtpListener

Message = tuple[bytes, list[bytes]]
BATCH: Final = 256
"""Messages received before the core's deadlines and the connections get their turn."""
HEAD_FRAMES: Final = 16
HEAD_BYTES: Final = 64 * 1024
"""What a message may have around its body, generously: envelope, header, metadata, hash. The wire
drops what is beyond the bounds of a body and this; the core's own bounds refuse what is left."""
WAKER: Final = 1
"""The bit of `wait` that says that somebody has woken us."""


MARK: Final = b"\0tcp"
"""Stands in front of our routing ids where there are libzmq's as well, which never begin so: nobody
takes over another's by coming in at the other door."""


class Listener(Protocol):
    """All of it but `wait` belongs to the broker's thread; nothing of it waits."""

    name: str
    """Which wire it is, for `mmi.broker`."""

    @property
    def due(self) -> float:
        """When `look` is next needed, in monotonic seconds."""

    def open(self) -> None:
        """Before anything is bound. Raises: ConfigurationError when strangers could come in."""

    def bind(self, url: str) -> str:
        """Returns the endpoint that peers can connect to. Raises: ConfigurationError."""

    def wait(self, milliseconds: int) -> int:
        """Until something is to be done, or the time is over. The result is for `receive`; WAKER is
        in it when somebody has woken us."""

    def receive(self, ready: int, now: float) -> tuple[list[Message], bool]:
        """One batch, and whether there may be more; `hear` has to follow."""

    def hear(self, ready: int, now: float) -> None:
        """Tells the machine which connections have ended, and why some were not let in."""

    def look(self, now: float) -> None:
        """What time alone causes."""

    def send(self, batch: list[Send], now: float) -> list[tuple[int, int]]:
        """As `wire.RouterWire.send`."""

    def close(self) -> None:
        """Closes everything; what was sent may still leave, within a second. May be repeated."""


def open_port(
    machine: BrokerMachine, waker: Waker, urls: Sequence[str], gate: Authentication | None
) -> Listener:
    """What serves these endpoints. Raises: ConfigurationError."""
    ours = [url for url in urls if gate is None and is_ours(url)]
    if not ours:
        return _theirs(machine, waker, gate)
    from majordomus.net.broker.zmtp_listener import ZmtpListener

    if len(ours) == len(urls):
        return ZmtpListener(machine, waker)
    return ListenerPair(_theirs(machine, waker, None), ZmtpListener(machine, waker, MARK), waker)


def _theirs(machine: BrokerMachine, waker: Waker, gate: Authentication | None) -> ZmqListener:
    from majordomus.net.broker.zmq_listener import ZmqListener

    return ZmqListener(machine, waker, gate)


def is_ours(url: str) -> bool:
    """Whether our own ZMTP serves this endpoint, as long as nobody is asked who he is."""
    return wires.OWN_ZMTP and tcp.is_plain(url)


class ListenerPair:
    """libzmq's endpoints and ours in one broker. A peer that is not ours is libzmq's to refuse."""

    def __init__(self, theirs: ZmqListener, ours: ZmtpListener, waker: Waker) -> None:
        self.name = f"{ours.name}, {theirs.name}"
        self._theirs, self._ours = theirs, ours
        self._our_bit = WAKER << (1 + len(theirs.sources))
        self._wait = wires.make_wait(waker.fd, *theirs.sources, ours.fd)

    @property
    def due(self) -> float:
        return min(self._theirs.due, self._ours.due)

    def open(self) -> None:
        self._theirs.open()

    def bind(self, url: str) -> str:
        return (self._ours if is_ours(url) else self._theirs).bind(url)

    def wait(self, milliseconds: int) -> int:
        if self._ours.pending:
            return self._wait(0) | self._our_bit
        return self._wait(milliseconds)

    def receive(self, ready: int, now: float) -> tuple[list[Message], bool]:
        ours, more_of_ours = self._ours.receive(ready & self._our_bit, now)
        theirs, more_of_theirs = self._theirs.receive(ready, now)
        theirs = [message for message in theirs if not message[0].startswith(MARK)]
        return ours + theirs, more_of_ours or more_of_theirs

    def hear(self, ready: int, now: float) -> None:
        self._ours.hear(ready, now)
        self._theirs.hear(ready, now)

    def look(self, now: float) -> None:
        self._ours.look(now)
        self._theirs.look(now)

    def send(self, batch: list[Send], now: float) -> list[tuple[int, int]]:
        mine = [self._ours.knows(send[0]) for send in batch]
        ours = [index for index, is_mine in enumerate(mine) if is_mine]
        theirs = [index for index, is_mine in enumerate(mine) if not is_mine]
        return sorted(
            _shared(self._ours, batch, ours, now) + _shared(self._theirs, batch, theirs, now)
        )

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


def _shared(
    port: Listener, batch: list[Send], share: list[int], now: float
) -> list[tuple[int, int]]:
    """Sends these of the batch by one port; refusals are numbered as in the batch."""
    refusals = port.send([batch[index] for index in share], now)
    return [(share[index], number) for index, number in refusals]
