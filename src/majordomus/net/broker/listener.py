"""What accepts the connections of a broker: the interface of a listener, and its constants.

A listener owns the sockets of its endpoints. It reports new and ended connections to the machine
and enforces the limits of each address. `open_listener` chooses the implementation for an endpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from majordomus.core.broker.state.registry import Send

PeerMessage = tuple[bytes, list[bytes]]
"""The routing id of a peer and the frames of one message."""
BATCH: Final = 512
"""Messages received before deadlines and connections get their turn."""
SMALLEST_BATCH: Final = 2
"""The same, at least, while turns take too long: see `BrokerLoop`."""
HEAD_FRAMES: Final = 16
HEAD_BYTES: Final = 64 * 1024
"""Bounds of what surrounds a body: envelope, header, metadata, hash.

The wire drops what is beyond the bounds of a body plus these; the machine applies its own, lower
bounds to the rest.
"""
LINGER: Final = 1.0
"""Seconds at the end in which peers can still read what was sent to them."""
WAKER: Final = 1
"""The bit of `Listener.wait` for the waker: another thread has work for the broker's thread."""
MARK: Final = b"\0tcp"
"""The prefix of routing ids from `ZmtpListener` in a broker that has a `ZmqListener` as well.

`zmq.wire.RouterWire` returns no id that begins with a zero octet. So no peer of one listener can
take over the routing id of a peer of the other.
"""


class Listener(Protocol):
    """The endpoints of one broker. Only `wait` blocks; the broker's thread calls all methods."""

    name: str
    """The wire, as `mmi.broker` reports it."""

    batch: int
    """Messages that `receive` returns at most. The loop sets it."""

    @property
    def due(self) -> float:
        """When `tick` is next needed, in monotonic seconds."""

    def open(self) -> None:
        """Prepare authentication, before anything is bound.

        Raises: ConfigurationError when unauthenticated peers could connect.
        """

    def bind(self, url: str) -> str:
        """Bind an endpoint; return the one that peers connect to. Raises: ConfigurationError."""

    def wait(self, milliseconds: int) -> int:
        """Wait for work. The result is for `receive`, and has WAKER set when the waker was used."""

    def receive(self, ready: int, now: float) -> tuple[list[PeerMessage], bool]:
        """Receive one batch; return it, and whether more may be there.

        `report_connections` must follow.
        """

    def report_connections(self, ready: int, now: float) -> None:
        """Report ended connections and failed handshakes to the machine."""

    def tick(self, now: float) -> None:
        """Do what is due."""

    def send(self, batch: list[Send], now: float) -> list[tuple[int, int]]:
        """Send a batch in order; return (index, errno) of each refused message.

        The errno is EHOSTUNREACH for an unknown peer, EAGAIN for a full one. After a refusal all
        later messages to the same peer are refused too.
        """

    def undelivered(self) -> int:
        """Return how many messages the sockets have not taken, and how many connections have bytes
        on their way. libzmq cannot tell: 0."""

    def buffers(self) -> dict[str, int]:
        """Return the bytes in the buffers of connections, as `mmi.stats` reports them."""

    def close(self, linger: float = LINGER) -> None:
        """Close everything. Sent messages have one second to leave; `linger` seconds where the
        listener cannot tell what is `undelivered`. May be repeated."""
