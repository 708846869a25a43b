"""One session and the socket that it speaks through: the whole of what a client's or worker's shell
does to a socket.

A `Line` belongs to one thread at a time. It never waits: whoever owns it waits on `pollable`, tells
it what became readable, and calls `flush` after everything that was asked of the session.
"""

from __future__ import annotations

import errno
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Final, Generic, Protocol, TypeVar

import zmq

from majordomus.net import endpoints
from majordomus.net.connection.credentials import Access, Refusal
from majordomus.net.connection.zmq_link import ZmqLink
from majordomus.net.zmq import select as wires
from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import HANDSHAKE_FAILED, MonitorEvent, MonitorRecord
from majordomus.net.zmtp import tcp

BATCH: Final = 256
"""Messages read before sends and deadlines get their turn."""
NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
FIRST_RETRY: Final = 0.05
LAST_RETRY: Final = 0.5
"""Seconds between tries of an endpoint where nobody listens yet: growing, with some chance in it.
"""

logger = logging.getLogger("majordomus.net")

E = TypeVar("E")


class Session(Protocol[E]):
    """What the client's and the worker's machine have in common (docs/rules.md)."""

    def connected(self, now: float) -> None: ...
    def lost(self, now: float) -> None: ...
    def receive(self, frames: list[bytes], now: float) -> None: ...
    def refused(self, frames: list[bytes], tag: object, now: float) -> None: ...
    def tick(self, now: float) -> None: ...
    def next_deadline(self) -> float: ...
    def close(self, now: float) -> None: ...
    def take_effects(self) -> tuple[list[list[bytes]], list[object], list[E], bool]: ...


class Link(Protocol):
    """A connection to one endpoint, or the way to it.

    `fds` become readable: the first when there is something to receive, the last when there is news
    of the connection (they may be one). Where `tells_once` is true the first tells of a change
    once, and using the link may take that news away: then `readable` has to be asked. `due`: when
    `look` is next needed, in monotonic seconds.
    """

    url: str
    up: bool
    due: float
    tells_once: bool
    fds: tuple[int, ...]

    @property
    def unsent(self) -> int:
        """Bytes that leave only while somebody waits on `fds`; 0 where a thread of libzmq's sees to
        it."""

    def wait_with(self, fd: int) -> Callable[[int], int]:
        """What waits for `fd` and `fds`, once for a link: see `readiness.Readiness`, where `fd` is
        the first."""

    def receive(self, most: int) -> list[list[bytes]]:
        """As `wire.DealerWire.receive`."""

    def send(self, batch: list[list[bytes]]) -> list[tuple[int, int]]:
        """As `wire.DealerWire.send`."""

    def readable(self) -> bool:
        """Whether something is there to receive that `fds` do not tell of."""

    def news(self) -> Sequence[MonitorRecord]:
        """What has happened to the connection since the last call, in order."""

    def look(self, now: float) -> None:
        """What time alone causes."""

    def close(self) -> None:
        """What was sent may still leave, for a second at most. May be repeated."""


def open_link(url: str, access: Access | None, place: tcp.Address | None) -> Link:
    """The way to this endpoint: our own ZMTP over plain TCP where that was built, else libzmq.

    `place` is where a name was found to be; without it the link may be one that looks it up.
    """
    if not wires.OWN_ZMTP or not tcp.is_plain(url) or (access is not None and access.asked(url)):
        return ZmqLink(url, access)
    from majordomus.net.connection.zmtp_link import ResolvingLink, ZmtpLink

    there = place or tcp.parse_address(url)
    return ResolvingLink(url) if there is None else ZmtpLink(url, there)


class Line(Generic[E]):
    """Drives one session over one link after the other.

    `where` says which endpoint the next link goes to. `opened` and `closing` tell the owner, who
    waits on the link's sockets, of each change; between `closing` and `opened` there is nothing to
    wait on. `refusal` is why the last try was in vain, where a broker did not let us in. `stale`:
    something may be there to read of which the socket's descriptor does not tell any more, because
    a full batch was read, or because something was sent; `Link.readable` finds out.
    """

    def __init__(
        self,
        session: Session[E],
        where: Callable[[], str],
        opened: Callable[[Link], None],
        closing: Callable[[Link], None],
        access: Access | None = None,
    ) -> None:
        self.session = session
        self.refusal: Refusal | None = None
        self.stale = True
        self._access = access
        self._where, self._opened, self._closing = where, opened, closing
        self._link: Link | None = None
        self._begun = False
        self._retry_at = inf
        self._retry_delay = FIRST_RETRY
        self._found: tuple[str, tcp.Address] | None = None
        """Where the name of an endpoint was found to be, for the next try."""

    @property
    def link(self) -> Link | None:
        """The link of this moment; None before `open` and after `close`."""
        return self._link

    @property
    def up(self) -> bool:
        """Whether there is a connection."""
        return self._link is not None and self._link.up

    def open(self, now: float) -> None:
        """Starts to connect. Only the first time counts: from then on the session decides."""
        if not self._begun:
            self._begun = True
            self._again(now)

    def give_up(self, now: float) -> None:
        """What has been read of the connection may be incomplete: it is lost, and another begun."""
        self.close()
        self.session.lost(now)
        self._retry_at = now

    def close(self) -> None:
        """Closes the socket, without a word to the session. May be repeated."""
        self._retry_at = inf
        if self._link is not None:
            link, self._link = self._link, None
            self._closing(link)
            link.close()

    def heard_of_connection(self, now: float) -> None:
        """The monitor is readable."""
        link = self._link
        if link is None:
            return
        self.stale = link.tells_once
        for seen in link.news():
            self._hear(link, seen, now)
            if self._link is not link:
                return

    def receive(self, now: float) -> bool:
        """The socket is readable: one batch of it. True when there may be more."""
        link = self._link
        if link is None:
            return False
        batch = link.receive(BATCH)
        self.stale = len(batch) == BATCH
        news = () if link.tells_once else link.news()
        for seen in news:
            if seen.event is MonitorEvent.CONNECTED:
                self._connected(link, now)
        receive = self.session.receive
        for frames in batch:
            receive(frames, now)
        for seen in news:
            if seen.event is not MonitorEvent.CONNECTED and self._link is link:
                self._hear(link, seen, now)
        return self.stale

    def flush(self, now: float) -> list[E]:
        """Judges the time, sends what is to be sent, changes the link when the session says so;
        returns its events.
        """
        session = self.session
        if self._retry_at <= now:
            self._again(now)
        if self._link is not None and self._link.due <= now:
            self._link.look(now)
            self.heard_of_connection(now)
        if session.next_deadline() <= now:
            session.tick(now)
        events: list[E] = []
        while True:
            sends, tags, new, renew = session.take_effects()
            if new:
                events += new
            if sends:
                self._send(sends, tags, now)
            if not renew:
                return events
            self._retry_delay = FIRST_RETRY
            self._again(now)

    def next_deadline(self) -> float:
        """When `flush` is next needed, in monotonic seconds."""
        deadline = min(self.session.next_deadline(), self._retry_at)
        return deadline if self._link is None else min(deadline, self._link.due)

    def _hear(self, link: Link, seen: MonitorRecord, now: float) -> None:
        """One thing that has happened to the connection."""
        if seen.event is MonitorEvent.ATTACHED and sockets.is_self_connected(seen.value):
            self.close()
            self._retry_later(now)
        elif seen.event is MonitorEvent.CONNECTED:
            self._connected(link, now)
        elif seen.event is MonitorEvent.LOST and link.up:
            while self.receive(now):  # what arrived before the end counts
                pass
            self.close()  # before libzmq connects anew by itself
            logger.info("the connection to %s has ended", link.url)
            self.session.lost(now)
        elif seen.event in HANDSHAKE_FAILED and not link.up:
            self._refused(link, seen, now)
        elif seen.event is MonitorEvent.FAILED and not link.up and self._retry_at == inf:
            place: tcp.Address | None = getattr(link, "place", None)
            if place is not None:
                self._found = link.url, place
                self._retry_at = now
            else:
                self._retry_later(now)

    def _connected(self, link: Link, now: float) -> None:
        link.up = True
        self.refusal = None
        self._retry_at, self._retry_delay = inf, FIRST_RETRY
        logger.info("connected to %s", link.url)
        if link.tells_once:
            link.readable()
        self.session.connected(now)

    def _send(self, sends: list[list[bytes]], tags: list[object], now: float) -> None:
        link = self._link
        if link is not None and link.up:
            self.stale = self.stale or link.tells_once
            refused: Iterable[int] = [index for index, _ in link.send(sends)]
        else:
            refused = range(len(sends))
        for index in refused:
            self.session.refused(sends[index], tags[index], now)

    def _refused(self, link: Link, seen: MonitorRecord, now: float) -> None:
        """libzmq tries no more after what it takes for a verdict; a key may be added any time."""
        refusal = self._access.refusal(link.url, seen, now) if self._access is not None else None
        if refusal is not None:
            if self.refusal is None or self.refusal.text != refusal.text:
                logger.warning("%s", refusal.text)
            self.refusal = refusal
        if self._retry_at == inf:
            self._retry_later(now)

    def _retry_later(self, now: float) -> None:
        self._retry_at = now + self._retry_delay * (0.5 + random.random())  # noqa: S311
        self._retry_delay = min(2 * self._retry_delay, LAST_RETRY)

    def _again(self, now: float) -> None:
        self.close()
        try:
            self._make(now)
        except (zmq.ZMQError, OSError) as error:
            if error.errno in NO_ROOM:
                logger.warning("no socket: %s", error)
                self._retry_at = now + LAST_RETRY
            else:  # as an endpoint where nobody listens
                self._retry_later(now)

    def _make(self, now: float) -> None:
        found, self._found = self._found, None
        url = self._where()
        place = found[1] if found is not None and found[0] == url else None
        link = self._link = open_link(url, self._access, place)
        self.stale = link.tells_once
        self._opened(link)
        if endpoints.is_inproc(link.url):
            link.up = True  # there is no handshake, and no monitor event
            self.session.connected(now)
