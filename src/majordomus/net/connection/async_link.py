"""A line on an asyncio loop: descriptors registered with the loop itself, batches drained, sends of
one turn together.

The descriptor of a ZeroMQ socket is edge-triggered: it tells of a change once, and a send may take
that news away. So after every flush libzmq is asked whether there is something to read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from math import inf
from typing import Generic, TypeVar

from majordomus.net.connection.credentials import Access, Refusal
from majordomus.net.connection.link import Line, Link, Session

logger = logging.getLogger("majordomus.net")

E = TypeVar("E")


class AsyncLine(Generic[E]):
    """Drives one session on `loop`; everything is called in the loop's thread.

    `take` gets the session's events, after every flush; `broken` gets the exception that has ended
    the line, closed by then.
    """

    def __init__(
        self,
        session: Session[E],
        where: Callable[[], str],
        take: Callable[[list[E]], None],
        broken: Callable[[Exception], None],
        loop: asyncio.AbstractEventLoop,
        access: Access | None = None,
    ) -> None:
        self.session = session
        self.loop = loop
        self._take, self._broken = take, broken
        self._line: Line[E] = Line(session, where, self._opened, self._closing, access)
        self._planned = False
        self._at_work = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    @property
    def up(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._line.up

    @property
    def refusal(self) -> Refusal | None:
        """Why a broker did not let us in, the last time that it was tried."""
        return self._line.refusal

    def open(self) -> None:
        """Starts to connect."""
        self._line.open(time.monotonic())
        self.touch()

    def touch(self) -> None:
        """Something was asked of the session: it is flushed when this turn of the loop is over."""
        if not self._planned:
            self._planned = True
            if not self._at_work:  # else it is flushed at the end of this work
                self.loop.call_soon(self._planned_flush)

    def send(self) -> None:
        """The same, and flushed at once, unless more is to be flushed in this turn anyway."""
        if self._planned or self._at_work:
            self.touch()
        else:
            self._work()

    def flush(self) -> None:
        """The same at once: what was asked of the session is sent when this returns, if there is a
        connection.
        """
        self._flush()

    def close(self) -> None:
        """Closes the socket, without a word to the session. May be repeated."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, inf
        self._closed = True
        self._line.close()

    def _opened(self, link: Link) -> None:
        self.loop.add_reader(link.fds[0], self._socket_ready, link)
        if link.tells_once:
            self.loop.add_reader(link.fds[-1], self._monitor_ready, link)
            # An edge that was there before the registration is not told again.
            self.loop.call_soon(self._monitor_ready, link)

    def _closing(self, link: Link) -> None:
        for fd in link.fds:
            self.loop.remove_reader(fd)

    def _socket_ready(self, link: Link) -> None:
        if self._line.link is link:
            self._work(self._line.receive)

    def _monitor_ready(self, link: Link) -> None:
        if self._line.link is link:
            self._work(self._line.heard_of_connection)

    def _planned_flush(self) -> None:
        if self._planned:  # else it was done meanwhile
            self._work()

    def _flush(self) -> None:
        self._work()

    def _work(self, first: Callable[[float], object] | None = None) -> None:
        """`first`, and a flush; and another one, for what the events of that have asked for.

        A failure here would leave everybody waiting for ever: the loop only logs it.
        """
        if self._closed:
            return
        line = self._line
        self._at_work = True
        try:
            now = time.monotonic()
            if first is not None:
                first(now)
            self._planned = False
            self._take(line.flush(now))
            if self._planned:
                self._planned = False
                self._take(line.flush(now))
            link = line.link
            if line.stale and link is not None:
                line.stale = link.readable()
                if line.stale:
                    self.loop.call_soon(self._socket_ready, link)
            self._arm()
        except Exception as error:
            logger.exception("a connection has failed; please report this")
            self.close()
            self._broken(error)
        finally:
            self._at_work = False
            if self._planned and not self._closed:
                self.loop.call_soon(self._planned_flush)

    def _arm(self) -> None:
        """The timer may ring too early, never too late: it is moved only to an earlier time."""
        deadline = self._line.next_deadline()
        if deadline >= self._timer_at or self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self.loop.call_later(max(0.0, deadline - time.monotonic()), self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, inf
        self._flush()
