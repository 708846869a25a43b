"""A SessionConnection on an asyncio loop: the loop watches the descriptors, and what is sent in one
turn of the loop is sent together, or in a few parts (`PendingCalls.launch`).

The descriptor of a ZeroMQ socket is edge-triggered: it reports a change once, and a send may
consume that report. So after every flush libzmq is asked whether there is something to receive.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from math import inf
from typing import Any

from majordomus import system
from majordomus.core.session.machine import Session
from majordomus.net.connection.credentials import Access, Refusal
from majordomus.net.connection.link import Link, SessionConnection
from majordomus.net.connection.memory_link import MemoryLink

logger = logging.getLogger("majordomus.net")


class AsyncSessionConnection:
    """Drives one session on `loop`. All methods must be called in the loop's thread.

    `where` returns the URL to connect to. `take` gets the session's events, after every flush.
    `broken` gets an exception of the session or of `take`; the connection is closed by then.
    `changed` is called when a link was opened and when one is about to be closed.

    planned: whether a flush at the end of this turn of the loop is planned.
    """

    def __init__(
        self,
        session: Session,
        where: Callable[[], str],
        take: Callable[[list[Any]], None],
        broken: Callable[[Exception], None],
        loop: asyncio.AbstractEventLoop,
        access: Access | None = None,
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        self.session = session
        self.loop = loop
        self._changed = changed
        self._take, self._broken = take, broken
        self._connection: SessionConnection = SessionConnection(
            session, where, self._opened, self._closing, access
        )
        self.planned = False
        self._working = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    @property
    def up(self) -> bool:
        """Whether there is a connection now."""
        return self._connection.up

    @property
    def failed(self) -> dict[str, str]:
        """How the last attempt at each URL has failed; see `SessionConnection.attempts`."""
        return self._connection.attempts

    def tried(self) -> dict[str, str]:
        """Return how the last attempt at each URL ended; see `SessionConnection.tried`."""
        return self._connection.tried()

    @property
    def refusal(self) -> Refusal | None:
        """Why the broker refused the last handshake; None if it did not."""
        return self._connection.refusal

    def open(self) -> None:
        """Begin to connect. Raises: ConfigurationError for a loop that cannot watch sockets."""
        system.check_loop(self.loop)
        self._connection.open(time.monotonic())
        self.touch()

    def touch(self) -> None:
        """Flush at the end of this turn of the loop. To be called after a change of the session."""
        if not self.planned:
            self.planned = True
            if not self._working:  # otherwise `_work` flushes at its end
                self.loop.call_soon(self._planned_flush)

    def send(self) -> None:
        """Flush at once, unless a flush is planned for this turn anyway."""
        if self.planned or self._working:
            self.touch()
        else:
            self._work()

    def send_now(self) -> None:
        """Flush at once, what is planned for the end of this turn included."""
        if self._working:
            self.touch()
        else:
            self._work()

    def flush(self) -> None:
        """Flush at once: what the session has to send is sent when this returns, if there is a
        connection."""
        self._work()

    def close(self) -> None:
        """Close the connection. The session is not informed. May be repeated."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._timer_at = inf
        self._closed = True
        self._connection.close()

    def _opened(self, link: Link) -> None:
        self._changed()
        if isinstance(link, MemoryLink):
            link.notify = lambda: self.loop.call_soon(self._socket_ready, link)
            return
        self.loop.add_reader(link.fds[0], self._socket_ready, link)
        if link.edge_triggered:
            self.loop.add_reader(link.fds[-1], self._monitor_ready, link)
            # An edge before the registration is not reported again.
            self.loop.call_soon(self._monitor_ready, link)

    def _closing(self, link: Link) -> None:
        self._changed()
        for fd in link.fds:
            self.loop.remove_reader(fd)

    def _socket_ready(self, link: Link) -> None:
        if self._connection.link is link:
            self._work(self._connection.receive)

    def _monitor_ready(self, link: Link) -> None:
        if self._connection.link is link:
            self._work(self._connection.read_monitor)

    def _planned_flush(self) -> None:
        if self.planned:  # otherwise another flush came first
            self._work()

    def _work(self, first: Callable[[float], object] | None = None) -> None:
        """Run `first`, flush, and flush again if the handling of events changed the session.

        Every exception is caught and reported to `broken`: the loop would only log it, and the
        waiting calls would never end.
        """
        if self._closed:
            return
        connection = self._connection
        self._working = True
        try:
            now = time.monotonic()
            if first is not None:
                first(now)
            self.planned = False
            self._take(connection.flush(now))
            if self.planned:
                self.planned = False
                self._take(connection.flush(now))
            link = connection.link
            if connection.stale and link is not None:
                connection.stale = link.readable()
                if connection.stale:
                    self.loop.call_soon(self._socket_ready, link)
            self._arm()
        except Exception as error:
            logger.exception("a connection has failed; please report this")
            self.close()
            self._broken(error)
        finally:
            self._working = False
            if self.planned and not self._closed:
                self.loop.call_soon(self._planned_flush)

    def _arm(self) -> None:
        """Set the timer. It may fire too early, never too late: it only moves to earlier times."""
        deadline = self._connection.next_deadline()
        if deadline >= self._timer_at or self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self.loop.call_later(max(0.0, deadline - time.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = inf
        self._work()
