"""Who drives a sync client's line: the one thread that calls, by itself; from the second thread on,
a background thread.

There is one driver's seat. The owner, the first thread that calls, sits down for each of its calls
and leaves it afterwards. When another thread comes, or somebody wants an answer later, the owner is
asked to give way, and a thread takes the seat for good. Commands to the session are posted from
anywhere and run by whoever drives.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from math import ceil, inf
from typing import Final, Generic, TypeVar

from majordomus.errors import LocalProtocolError
from majordomus.net import forks
from majordomus.net.connection.credentials import Access, Refusal
from majordomus.net.connection.link import Line, Link, Session
from majordomus.net.readiness import Readiness
from majordomus.net.waker import Waker

LONGEST_WAIT: Final = 3600.0
LONGEST_WRITE: Final = 0.5
"""Seconds that a call stays for what the kernel did not take at once; then the background thread
sees to it."""
JUST_SEEN: Final = 0.001
"""Seconds for which a connection that had nothing to say is not asked again before a send that may
be repeated. It may end in them, as it may between being asked and the send."""
WAKER, SOCKET, MONITOR = 1, 2, 4
"""What `Readiness` says is readable."""

logger = logging.getLogger("majordomus.client")

E = TypeVar("E")
Command = Callable[[float], None]
"""Called with the time, by the driver."""


class Driver(Generic[E]):
    """`take` gets the session's events, after every flush; `finish` closes the session at the end.

    `broken` gets the exception when the background thread fails.
    """

    def __init__(
        self,
        session: Session[E],
        where: Callable[[], str],
        take: Callable[[list[E]], None],
        broken: Callable[[Exception], None],
        finish: Command,
        access: Access | None = None,
    ) -> None:
        self._take, self._broken, self._finish = take, broken, finish
        self._line: Line[E] = Line(session, where, self._opened, self._closing, access)
        self._waker = Waker()
        self._wait_for: Callable[[int], int] = Readiness(self._waker.fd)
        self._unheard = False  # a new monitor may have spoken already
        self._todo: deque[Command] = deque()
        self._lock = threading.RLock()
        self._seat = threading.Condition(self._lock)  # to enter the lock itself costs less
        self._silent_at = -inf  # when the link of now was last found to have nothing to say
        self._owner = 0
        self._sitting = 0  # ident of the thread in the seat, 0 = it is free
        self._give_way = False
        self._on_background: Command = lambda _now: None
        self._to_background: Command | None = None
        """What is posted there, when what is still to be written calls for it."""
        self._asleep = False
        self._ended = False
        self._thread: threading.Thread | None = None
        self._generation = forks.generation

    @property
    def up(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._line.up

    @property
    def refusal(self) -> Refusal | None:
        """Why a broker did not let us in, the last time that it was tried."""
        return self._line.refusal

    @property
    def ended(self) -> bool:
        """Whether nothing can be posted any more."""
        return self._ended or forks.generation != self._generation

    # ── any thread ────────────────────────────────────────────────────────────────────────────────

    def post(self, command: Command) -> None:
        """Leaves a command for the driver.

        Raises: LocalProtocolError after the end, or in a forked process.
        """
        self._check()
        self._todo.append(command)
        if self._asleep:
            self._waker.wake()
        self._check()  # an end that came between has not run it

    def sit_down(self, on_background: Command) -> bool:
        """Takes the seat for this thread, if this is the only one that calls.

        Else the background thread drives.

        `on_background` is posted when that thread is started now. Raises: as `post`;
        LocalProtocolError for a call out of the background thread itself, which would wait for its
        own end.
        """
        me = threading.get_ident()
        self._on_background = on_background
        with self._lock:
            self._check()
            if self._thread is None and self._owner in (0, me):
                self._owner = me
                if self._sitting:
                    raise LocalProtocolError(
                        "nested", "a call was made from within a call of the same thread"
                    )
                self._sitting = me
                return True
            if self._thread is not None and self._thread.ident == me:
                raise LocalProtocolError(
                    "nested", "a future's callback cannot wait for a call; use submit"
                )
        self.go_to_background(on_background)
        return False

    def sit_down_at_once(self) -> bool:
        """Takes the seat if that changes nothing for anybody else and needs no waiting."""
        me = threading.get_ident()
        with self._lock:
            free = not self._sitting and self._thread is None and self._owner in (0, me)
            if free and not self.ended:
                self._sitting = me
                return True
            return False

    def go_to_background(self, on_background: Command) -> None:
        """Starts the background thread, if it does not run.

        A thread in the seat is asked to give way.
        """
        with self._lock:
            self._check()
            if self._thread is not None:
                return
            self._clear_seat()
            if self._thread is None and not self._ended:  # the wait let others in
                self._todo.append(on_background)
                self._thread = threading.Thread(
                    target=self._run, name="majordomus-client", daemon=True
                )
                self._thread.start()

    def end(self) -> None:
        """Closes session and socket; what is open is cancelled. From any thread; may be repeated.

        After a fork it does nothing: the sockets belong to the parent.
        """
        if forks.generation != self._generation:
            return
        with self._lock:
            if self._ended:
                return
            me, thread = threading.get_ident(), self._thread
            if thread is None and self._sitting != me:
                self._clear_seat()
                self._shut_down()
                return
            self._todo.append(lambda _now: self._shut_down())
            self._waker.wake()
        if thread is not None and thread.ident != me:
            thread.join()

    # ── the thread in the seat ────────────────────────────────────────────────────────────────────

    def drive(
        self, done: Callable[[], bool], command: Command | None = None, *, looks: bool = False
    ) -> None:
        """Runs `command` behind what was posted, and goes on until `done`, or until somebody wants
        the seat: then `done` will come true by another thread's work.

        `looks`: what it sends is sent once, so the connection is asked first whether it has ended,
        however lately that was done. Whatever interrupts it (KeyboardInterrupt) may have cut a
        message in two: the connection is given up.
        """
        now = time.monotonic()
        try:
            self._line.open(now)
            if looks or now >= self._silent_at + JUST_SEEN or self._line.stale:
                self._look(now)
                now = time.monotonic()
            self._work(now, command)
            while not (self._ended or self._give_way or done()):
                self._work(self._wait(LONGEST_WAIT))
            link = self._line.link
            if link is not None and link.unsent:
                self._write_out()
        except BaseException:
            self._line.give_up(time.monotonic())
            raise

    def stand_up(self) -> None:
        """Leaves the seat."""
        with self._lock:
            self._sitting = 0
            if self._give_way:
                self._seat.notify_all()
        if self._to_background is not None and not self.ended:
            self.go_to_background(self._to_background)
            self._to_background = None

    # ── inside ────────────────────────────────────────────────────────────────────────────────────

    def _check(self) -> None:
        if self._ended:
            raise LocalProtocolError("closed", "this client is closed")
        if forks.generation != self._generation:
            raise LocalProtocolError(
                "forked", "this client belongs to the parent process; make a new one after a fork"
            )

    def _clear_seat(self) -> None:
        """With the lock held: waits until nobody sits there."""
        while self._sitting:
            self._give_way = True
            self._waker.wake()
            self._seat.wait()
        self._give_way = False

    def _run(self) -> None:
        try:
            self.drive(lambda: False)
        except Exception as error:
            logger.exception("the client's thread has failed")
            self._broken(error)
            with contextlib.suppress(Exception):
                self._shut_down()

    def _work(self, now: float, command: Command | None = None) -> None:
        while self._todo:
            self._todo.popleft()(now)
        if command is not None:
            command(now)
        if not self._ended:
            self._take(self._line.flush(now))

    def _look(self, now: float) -> None:
        """What happened to the connection while nobody was in the seat must be known before
        anything is sent.
        """
        link = self._line.link
        if link is None:
            return
        if link.tells_once:
            ready = self._wait_for(0)
            self._hear(ready, now)
        else:  # to receive tells as well as to ask whether something can be received
            ready = SOCKET
        if ready & SOCKET or self._line.stale:
            while self._line.link is link and self._line.receive(now):
                pass

    def _hear(self, ready: int, now: float) -> None:
        if ready & MONITOR or self._unheard:
            self._unheard = False
            self._line.heard_of_connection(now)

    def _write_out(self) -> None:
        """Nobody waits for the connection once the seat is free."""
        until = time.monotonic() + LONGEST_WRITE
        while not (self._ended or self._give_way):
            link, now = self._line.link, time.monotonic()
            if link is None or not link.unsent:
                return
            if now >= until:
                self._to_background = self._on_background
                return
            self._work(self._wait(until - now))

    def _wait(self, most: float) -> float:
        """Hears what has come meanwhile. When that was, in monotonic seconds."""
        line, link = self._line, self._line.link
        self._asleep = True  # from here on, who posts wakes
        wait = min(line.next_deadline() - time.monotonic(), most)
        if line.stale and link is not None:
            line.stale = link.readable()
        if self._todo or self._give_way or self._unheard or line.stale or wait < 0:
            wait = 0.0
        ready = self._wait_for(ceil(wait * 1000))
        self._asleep = False
        now = time.monotonic()
        if ready & WAKER:
            self._waker.clear()
        if link is None:
            return now
        if ready & MONITOR or self._unheard:
            self._hear(ready, now)
        if (ready & SOCKET or line.stale) and line.link is link:
            more = line.receive(now)
            if not (more or link.tells_once) and line.link is link:
                self._silent_at = now
        return now

    def _shut_down(self) -> None:
        """In the seat, or with the lock held and the seat free."""
        if self._ended:
            return
        now = time.monotonic()
        self._ended = True
        while self._todo:
            self._todo.popleft()(now)
        self._finish(now)
        self._take(self._line.flush(now))
        self._line.close()
        self._waker.close()

    def _opened(self, link: Link) -> None:
        self._wait_for = link.wait_with(self._waker.fd)
        self._unheard = link.tells_once
        self._silent_at = -inf

    def _closing(self, link: Link) -> None:
        self._wait_for = Readiness(self._waker.fd)
        self._unheard = False
