"""The connection of one session to its broker: all that a client or worker does to a socket.

A `Link` is one connection to one endpoint. A `SessionConnection` drives a session over one link
after another: it reconnects when a link ends. It belongs to one thread at a time and never waits.
Its owner waits on the descriptors of the link, calls `receive` or `read_monitor` when they are
readable, and calls `flush` after every change of the session.
"""

from __future__ import annotations

import errno
import logging
import random
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final, Protocol

import zmq

from majordomus.core.session.connection import Probe
from majordomus.core.session.machine import Session
from majordomus.net import endpoints
from majordomus.net.bodies import Cut
from majordomus.net.connection.credentials import NO_HANDSHAKE, Access, Refusal, failure
from majordomus.net.connection.home_probe import LOOK, HomeProbe
from majordomus.net.connection.memory_link import MemoryLink
from majordomus.net.connection.resolving_link import ResolvingLink
from majordomus.net.connection.zmq_link import ZmqLink
from majordomus.net.zmq import select as wires
from majordomus.net.zmq import sockets
from majordomus.net.zmq.monitor import HANDSHAKE_FAILED, MonitorEvent, MonitorRecord
from majordomus.net.zmtp import ipc, tcp

if wires.OWN_ZMTP:  # it needs native modules; not later, because no import works at exit
    from majordomus.net.connection.zmtp_link import ZmtpLink

BATCH: Final = 256
"""Messages that are received before sends and deadlines are handled."""
NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors of a system that has no descriptor or memory for another socket."""
FIRST_RETRY: Final = 0.05
LAST_RETRY: Final = 0.5
"""Seconds between two attempts to connect: the delay doubles from the first to the last value, and
each delay is randomized."""

logger = logging.getLogger("majordomus.net")


class Link(Protocol):
    """One connection to one endpoint, or the attempt to make it.

    url: the endpoint.
    up: whether the connection is made; the SessionConnection sets it.
    waits_for: what an attempt that has not ended lacks, in a few words.
    due: when `tick` is next needed, in monotonic seconds.
    edge_triggered: True if the first descriptor reports a change only once, and the use of the link
        may consume that report. Then `readable` must be asked after each use.
    fds: descriptors to wait on. The first is readable when there is something to receive, the last
        when `news` has something. They may be one.
    received: bytes that came, as far as the link counts them.
    truncated: messages that came and exceeded the bound: a `Cut` is their last frame.

    A `MemoryLink` has no `fds`: its owner sets its `notify`.
    """

    url: str
    up: bool
    waits_for: str
    due: float
    edge_triggered: bool
    fds: tuple[int, ...]

    @property
    def received(self) -> int: ...

    @property
    def truncated(self) -> int: ...

    def bound(self, most: int) -> None:
        """Keep at most `most` bytes of one message from now on, as far as the link can."""

    @property
    def probe(self) -> Probe:
        """How this connection can be probed. May be asked when it is made."""

    def ping(self) -> None:
        """Send a PING of ZMTP, which the peer answers. Only where `probe` is PING."""

    @property
    def unsent(self) -> int:
        """Bytes that are sent only while the owner waits on `fds`; 0 where libzmq's own thread
        sends them."""

    def wait_with(self, fd: int) -> Callable[[int], int]:
        """Return a function that waits for `fd` and `fds`, as `readiness.Readiness` with `fd`
        first. May be called once for a link."""

    def receive(self, most: int) -> list[list[bytes]]:
        """Receive at most `most` messages, without waiting; see `net.zmq.wire.DealerWire`."""

    def send(self, batch: list[list[bytes]]) -> list[tuple[int, int]]:
        """Send messages, without waiting. Returns index and errno of each one not taken."""

    def readable(self) -> bool:
        """Return whether there is something to receive that `fds` no longer report."""

    def news(self) -> Sequence[MonitorRecord]:
        """Return the changes of the connection since the last call, in order."""

    def tick(self, now: float) -> None:
        """Handle what time alone causes."""

    def close(self) -> None:
        """Close the connection. Sent messages may still leave for a second. May be repeated."""


def open_link(
    url: str,
    access: Access | None,
    place: tcp.Address | None,
    more: bool = False,
    most: int = 0,
) -> Link:
    """Begin a connection to `url`: by our own ZMTP over TCP and ipc where it was built, else by
    libzmq.

    `place` is one address of the host; without it, the returned link resolves the name. `more`:
    whether there are other addresses that are not tried yet. `most`: bytes of one message that are
    kept; 0 for no bound.
    """
    if url.startswith(endpoints.MEMORY):
        return MemoryLink(url)
    encrypted = access is not None and access.keys(url) is not None
    own = wires.OWN_ZMTP and not (encrypted and wires.curve_problem())
    if own and url.startswith(ipc.SCHEME):
        return ZmtpLink(url, None, access=access, most=most)
    if not tcp.is_plain(url):
        return ZmqLink(url, access, most=most)
    if place is None:
        return ResolvingLink(url)
    if not own:
        return ZmqLink(url, access, place, more, most)
    return ZmtpLink(url, place, more, access, most)


class SessionConnection:
    """Drives one session over one link after another.

    session: the state machine of the client or worker.
    link: the current link; None before `open` and after `close`. Set here alone.
    refusal: why the last handshake was refused; None after a connection was made.
    attempts: for each URL that was tried, how the last attempt ended; empty after a connection was
        made.
    stale: whether there may be something to receive that the descriptors of the link no longer
        report: a full batch was received, or something was sent. `Link.readable` decides.

    `where` returns the URL of the next link. `opened` and `closing` are called with each link, so
    that the owner knows which descriptors to wait on. There are none between the two calls.
    """

    def __init__(
        self,
        session: Session,
        where: Callable[[], str],
        opened: Callable[[Link], None],
        closing: Callable[[Link], None],
        access: Access | None = None,
    ) -> None:
        self.session = session
        self.refusal: Refusal | None = None
        self.attempts: dict[str, str] = {}
        self.stale = True
        self._access = access
        self._where, self._opened, self._closing = where, opened, closing
        self.link: Link | None = None
        self._url = ""  # that of the last attempt
        self._begun = False
        self._retry_at = inf
        self._retry_delay = FIRST_RETRY
        self._received = 0  # bytes of the link that the session knows of
        self._truncated = 0  # messages of the link that exceeded the bound
        self._state = session.connection
        self._most = self._state.max_received
        self._home = self._state.home if access is not None else None
        self._probe: HomeProbe | None = None
        self._look_at = inf
        self._untried: tuple[str, list[tcp.Address]] | None = None
        """A URL, and those addresses of its host that the next attempts use, in their order."""

    @property
    def up(self) -> bool:
        """Whether there is a connection now."""
        return self.link is not None and self.link.up

    def is_away(self) -> bool:
        """Whether the connection is to another broker than the first, to which it returns."""
        return self._home is not None and self._home.away

    def tried(self) -> dict[str, str]:
        """Return how the last attempt at each URL ended, in a few words; of the first attempt, what
        it waits for."""
        link = self.link
        if link is None or link.up:
            return self.attempts
        return {link.url: link.waits_for} | self.attempts

    def open(self, now: float) -> None:
        """Begin to connect. Only the first call has an effect; later the session decides."""
        if not self._begun:
            self._begun = True
            self._reconnect(now)

    def give_up(self, now: float) -> None:
        """Close the link and connect again, because a message may have been cut in two."""
        self.close()
        self.session.lost(now)
        self._retry_at = now

    def close(self) -> None:
        """Close the link. The session is not informed. May be repeated."""
        self._retry_at = inf
        if self.link is not None:
            link, self.link = self.link, None
            self._closing(link)
            link.close()

    def read_monitor(self, now: float) -> None:
        """Handle the changes of the connection. To be called when the link's last descriptor is
        readable."""
        link = self.link
        if link is None:
            return
        self.stale = link.edge_triggered
        for seen in link.news():
            self._handle(link, seen, now)
            if self.link is not link:
                return

    def receive(self, now: float) -> bool:
        """Receive one batch. To be called when the link's first descriptor is readable.

        Returns whether there may be more.
        """
        link = self.link
        if link is None:
            return False
        batch = link.receive(BATCH)
        self.stale = len(batch) == BATCH
        news = () if link.edge_triggered else link.news()
        for seen in news:
            if seen.event is MonitorEvent.CONNECTED:
                self._connected(link, now)
        session = self.session
        if link.truncated != self._truncated:
            self._receive_cut(link, batch, now)
        else:
            for frames in batch:
                session.receive(frames, now)
        if self._state.max_received != self._most:
            self._most = self._state.max_received
            link.bound(self._most)
        for seen in news:
            if seen.event is not MonitorEvent.CONNECTED and self.link is link:
                self._handle(link, seen, now)
        return self.stale

    def _receive_cut(self, link: Link, batch: list[list[bytes]], now: float) -> None:
        """Hand on a batch with messages that are larger than this side takes."""
        self._truncated = link.truncated
        for frames in batch:
            if type(frames[-1]) is not Cut:
                self.session.receive(frames, now)
            elif not self.session.receive_cut(frames, now):
                logger.warning("%s sends more than this side takes: disconnecting", link.url)
                self.give_up(now)
                return

    def flush(self, now: float) -> list[Any]:
        """Run the timers, send what the session has to send, and reconnect when it asks for that.

        Returns the events of the session.
        """
        session = self.session
        if self._retry_at <= now:
            self._reconnect(now)
        if self.link is not None and self.link.due <= now:
            self.link.tick(now)
            self.read_monitor(now)
        if self._probe is not None:
            self._read_probe(now)
        if session.next_deadline() <= now:
            self._tick(now)
        events: list[Any] = []
        while True:
            sends, tags, new, renew = session.take_effects()
            if new:
                events += new
            if sends:
                self._send(sends, tags, now)
            if not renew:
                return events
            self._retry_delay = FIRST_RETRY
            self._reconnect(now)

    def next_deadline(self) -> float:
        """Return when `flush` is next needed, in monotonic seconds."""
        deadline = min(self.session.next_deadline(), self._retry_at)
        if self._probe is not None:
            deadline = min(deadline, self._look_at)
        return deadline if self.link is None else min(deadline, self.link.due)

    def _tick(self, now: float) -> None:
        """Tick the session. Before, report the bytes that came, where the session waits for them:
        what has arrived must be known before a broker is declared silent."""
        connection, link = self._state, self.link
        if connection.waits_for_bytes and link is not None:
            if link.up:
                self.receive(now)
            if self.link is link and link.received != self._received:
                self._received = link.received
                connection.progressed(now)
        self.session.tick(now)
        if connection.probe_wanted:
            connection.probe_wanted = False
            link = self.link
            if link is not None:
                self._received = link.received
                link.ping()
        home = self._home
        if home is not None and home.wanted and self._access is not None:
            home.wanted = False
            self._probe = HomeProbe(self._access.urls[connection.order[0]], self._access, open_link)
            self._look_at = now + LOOK

    def _read_probe(self, now: float) -> None:
        """Report the end of a probe of the first broker."""
        probe, home = self._probe, self._home
        if probe is not None and home is not None and probe.answer is not None:
            self._probe = None
            home.answered(probe.answer, now)
        self._look_at = now + LOOK

    def _handle(self, link: Link, seen: MonitorRecord, now: float) -> None:
        """Handle one change of the connection."""
        if seen.event is MonitorEvent.ATTACHED:
            link.waits_for = NO_HANDSHAKE
            if sockets.is_self_connected(seen.value):
                self.close()
                self._retry_later(now)
        elif seen.event is MonitorEvent.CONNECTED:
            self._connected(link, now)
        elif seen.event is MonitorEvent.LOST and link.up:
            while self.receive(now):  # messages that arrived before the end are delivered
                pass
            self.close()  # before libzmq connects anew by itself
            logger.info("the connection to %s has ended", link.url)
            self.session.lost(now)
        elif seen.event in HANDSHAKE_FAILED and not link.up:
            self.attempts[link.url] = failure(seen)
            self._refused(link, seen, now)
        elif seen.event is MonitorEvent.FAILED and not link.up and self._retry_at == inf:
            if isinstance(link, ResolvingLink):
                self._untried = link.url, list(link.places)
            if self._untried is not None and self._untried[1]:
                self._retry_at = now
            else:
                self.attempts[link.url] = getattr(link, "problem", "") or failure(seen)
                self._unreached(now)

    def _connected(self, link: Link, now: float) -> None:
        link.up = True
        self.refusal = None
        self.attempts.clear()
        self._retry_at, self._retry_delay = inf, FIRST_RETRY
        self._untried = None  # a later attempt resolves the name again
        logger.info("connected to %s", link.url)
        if link.edge_triggered:
            link.readable()
        self._state.probe = link.probe
        self.session.connected(now)

    def _send(self, sends: list[list[bytes]], tags: list[object], now: float) -> None:
        link = self.link
        if link is not None and link.up:
            self.stale = self.stale or link.edge_triggered
            for index, _ in link.send(sends):
                self.session.refused(sends[index], tags[index], now)
        else:
            for frames, tag in zip(sends, tags, strict=True):
                self.session.refused(frames, tag, now)

    def _refused(self, link: Link, seen: MonitorRecord, now: float) -> None:
        """Handle a refused handshake.

        libzmq does not try again after it, but a key may be added to the broker at any time. So
        the link is replaced later.
        """
        refusal = self._access.refusal(link.url, seen, now) if self._access is not None else None
        if refusal is not None:
            if self.refusal is None or self.refusal.text != refusal.text:
                logger.warning("%s", refusal.text)
            self.refusal = refusal
        if self._retry_at == inf:
            self._unreached(now)

    def _unreached(self, now: float) -> None:
        """Try the next endpoint at once, or later when each of them has failed."""
        if self._state.unreached(now):
            self._retry_at = now
        else:
            self._retry_later(now)

    def _retry_later(self, now: float) -> None:
        self._retry_at = now + self._retry_delay * (0.5 + random.random())  # noqa: S311
        self._retry_delay = min(2 * self._retry_delay, LAST_RETRY)

    def _reconnect(self, now: float) -> None:
        self.close()
        try:
            self._connect(now)
        except (zmq.ZMQError, OSError) as error:
            if error.errno in NO_ROOM:
                logger.warning("no socket: %s", error)
                self._retry_at = now + LAST_RETRY
            else:  # as after a refused connection
                if self._url:
                    self.attempts[self._url] = (error.strerror or str(error)).lower()
                self._unreached(now)

    def _connect(self, now: float) -> None:
        url = self._url = self._where()
        places = self._addresses(url)
        while True:
            place = places.pop(0) if places else None
            try:
                link = open_link(url, self._access, place, bool(places), self._most)
                break
            except OSError as error:
                if not places or error.errno in NO_ROOM:
                    raise
        self._untried = url, places
        self.link = link
        self.stale = link.edge_triggered
        self._received = self._truncated = 0
        self._state.begin_try(now)
        self._opened(link)
        if endpoints.is_inproc(link.url):
            link.up = True  # there is no handshake, and the monitor reports nothing
            self.session.connected(now)

    def _addresses(self, url: str) -> list[tcp.Address]:
        """The addresses to try: those that are left, or all again. None for a name that must be
        resolved, and for an endpoint that is not TCP."""
        untried, self._untried = self._untried, None
        if untried is not None and untried[0] == url and untried[1]:
            return untried[1]
        return tcp.parse_addresses(url) if tcp.is_plain(url) else []
