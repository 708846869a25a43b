"""A link to a broker in the same thread, without a socket: for `majordomus.testing`.

A `MemoryEndpoint` listens at a URL `memory://NAME`. Messages are handed over as they are. The owner
of the link is notified by a call, since there is no descriptor to wait on. A sync client waits by
running the endpoint's loop.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Final, Protocol

from majordomus.core.session.connection import Probe
from majordomus.net.zmq.monitor import MonitorEvent, MonitorRecord

SOCKET: Final = 2
"""The bit of a wait's result for the link, as in `readiness.Readiness` with a waker first."""
_endpoints: dict[str, MemoryEndpoint] = {}


class MemoryEndpoint(Protocol):
    """What listens at a URL."""

    def accept(self, link: MemoryLink) -> None:
        """Take a new link; it is connected by `link.connected`."""

    def deliver(self, link: MemoryLink, frames: list[bytes]) -> bool:
        """Take one message of a link. Returns False when it is full."""

    def closed(self, link: MemoryLink) -> None:
        """The owner of the link has closed it."""

    def run_until(self, done: Callable[[], bool], seconds: float) -> None:
        """Run the loop until `done`, or for `seconds` of its time."""


def listen(url: str, endpoint: MemoryEndpoint) -> None:
    """Let links to `url` be connected to `endpoint`."""
    _endpoints[url] = endpoint


def unlisten(url: str) -> None:
    """Refuse links to `url` from now on."""
    _endpoints.pop(url, None)


def wait_without_link(url: str) -> Callable[[int], int]:
    """Return a function that waits while there is no link to `url`."""

    def wait(milliseconds: int) -> int:
        endpoint = _endpoints.get(url)
        if endpoint is not None:
            endpoint.run_until(lambda: False, milliseconds / 1000)
        return 0

    return wait


class MemoryLink:
    """See `link.Link`. Without descriptors: `notify` is called when there is something to receive.

    id: the routing id of this connection.
    Raises: OSError where nothing listens.
    """

    due = inf
    edge_triggered = False
    unsent = 0
    received = 0
    truncated = 0
    fds: tuple[int, ...] = ()
    probe = Probe.NONE

    def __init__(self, url: str) -> None:
        endpoint = _endpoints.get(url)
        if endpoint is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "no TestBroker is open at this URL")
        self.url = url
        self.up = False
        self.waits_for = "no answer"
        self.id = b"\1" + os.urandom(15)
        self.notify: Callable[[], object] = lambda: None
        self._endpoint = endpoint
        self._inbox: deque[list[bytes]] = deque()
        self._news: list[MonitorRecord] = []
        self._closed = False
        endpoint.accept(self)

    # ── the endpoint ──────────────────────────────────────────────────────────────────────────────

    def connected(self) -> None:
        """Report that the connection is made."""
        self._report(MonitorEvent.CONNECTED)

    def lost(self) -> None:
        """Report that the connection has ended."""
        self._report(MonitorEvent.LOST)

    def put(self, frames: list[bytes]) -> None:
        """Add a message for the owner."""
        self._inbox.append(list(frames))
        self.notify()

    @property
    def unread(self) -> int:
        """Messages that the owner has not received."""
        return len(self._inbox)

    def _report(self, event: MonitorEvent) -> None:
        if not self._closed:
            self._news.append(MonitorRecord(event, 0))
            self.notify()

    # ── the owner ─────────────────────────────────────────────────────────────────────────────────

    def bound(self, most: int) -> None:
        """Do nothing: a message is in memory before it comes."""

    def ping(self) -> None:
        """Do nothing: `probe` is NONE."""

    def wait_with(self, fd: int) -> Callable[[int], int]:
        def wait(milliseconds: int) -> int:
            self._endpoint.run_until(self.readable, milliseconds / 1000)
            return SOCKET if self.readable() else 0

        return wait

    def receive(self, most: int) -> list[list[bytes]]:
        inbox = self._inbox
        return [inbox.popleft() for _ in range(min(most, len(inbox)))]

    def send(self, batch: list[list[bytes]]) -> list[tuple[int, int]]:
        for index, frames in enumerate(batch):
            if not self._endpoint.deliver(self, frames):
                return [(late, errno.EAGAIN) for late in range(index, len(batch))]
        return []

    def readable(self) -> bool:
        return bool(self._inbox or self._news)

    def news(self) -> Sequence[MonitorRecord]:
        news, self._news = self._news, []
        return news

    def tick(self, now: float) -> None:
        """Do nothing: a memory link has no timers."""

    def close(self) -> None:
        """Close the connection. May be repeated."""
        if not self._closed:
            self._closed = True
            self._endpoint.closed(self)
