"""Drives the connection of a sync client: one thread at a time owns the I/O.

The first thread that calls acquires the I/O for each of its calls and releases it afterwards. So a
program of one thread needs no other thread. When a second thread calls, or a call is to end later
(`submit`, events), the owner is asked to hand off, and a background thread takes the I/O for good.
Any thread may post commands to the session; the owner of the I/O runs them.

The owner of the I/O is the background thread once there is one (`_thread`), and before that the
thread in `with self._io`: whoever gets the lock must look at `_thread` before it drives. A signal
handler may raise between any two lines of the owner; the interpreter then releases the lock, so
nothing here depends on a line behind the `with`. A driver that was not used before a fork may be
used in the child.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from math import ceil, inf
from threading import get_ident
from time import monotonic
from typing import Any, Final, TypeAlias

from majordomus.core.session.machine import Session
from majordomus.errors import LocalProtocolError
from majordomus.net import endpoints, forks
from majordomus.net.connection.credentials import Access, Refusal
from majordomus.net.connection.home_probe import has_green_threads
from majordomus.net.connection.link import Link, SessionConnection
from majordomus.net.connection.memory_link import wait_without_link
from majordomus.net.readiness import Readiness
from majordomus.net.waker import Waker

LONGEST_WAIT: Final = 3600.0
"""Seconds of one wait for the connection in the background thread, at most."""
LONGEST_CALL_WAIT: Final = 0.25
"""The same in a calling thread. A signal that comes just before the wait begins does not end it, so
its Python handler runs this much later at most."""
LONGEST_WRITE: Final = 0.5
"""Seconds that a call waits for the kernel to take what is to be sent. After that the background
thread sends the rest."""
JUST_CHECKED: Final = 0.001
"""Seconds after a check of the connection in which the next send does without one.

The connection may end in this time, as it may between a check and a send. So the check is left out
only for what may be sent again."""
WAKER, SOCKET, MONITOR = 1, 2, 4
"""Bits of the result of `Readiness`."""

logger = logging.getLogger("majordomus.client")

Command: TypeAlias = Callable[[float], None]
"""Called with the time by the owner of the I/O."""


class Driver:
    """Drives one session. All methods may be called from any thread.

    `where` returns the URL to connect to. `take` gets the session's events, after every flush.
    `broken` gets the exception when the background thread fails. `finish` closes the session at the
    end. `announce` runs at the start of the background thread. `forked` is called before the first
    use, if that is in a child of the process that made the driver. `repair` makes the session
    consistent after an exception (KeyboardInterrupt) has broken one of its steps off.
    """

    def __init__(
        self,
        session: Session,
        where: Callable[[], str],
        take: Callable[[list[Any]], None],
        broken: Callable[[Exception], None],
        finish: Command,
        announce: Command,
        forked: Callable[[], None],
        repair: Command,
        access: Access | None = None,
    ) -> None:
        self._urls: Sequence[str] = () if access is None else access.urls
        self._take, self._broken, self._finish = take, broken, finish
        self._announce, self._forked, self._repair = announce, forked, repair
        self._connection: SessionConnection = SessionConnection(
            session, where, self._opened, self._closing, access
        )
        self._monitor_unread = False  # a new monitor may have become readable before the first wait
        self._checked_at = -inf  # when the current link was last found to have nothing to read
        self._commands: deque[Command] = deque()
        self._main = 0  # ident of the first thread that called
        self._owner = 0  # ident of the last thread in `with _io`; it counts while that is locked
        self._hand_off = False  # the owner must release the I/O
        self._interrupted = False  # the last drive did not end, and may have cut a message in two
        self._unsent = False  # the background thread must send the rest of a message
        self._asleep = False
        self._ended = False
        self._thread: threading.Thread | None = None
        self._prepare()

    def _prepare(self) -> None:
        """Make what a process cannot share with its parent."""
        self._waker = Waker()
        self._wait_for = self._wait_alone()
        self._io = threading.Lock()  # of the owner of the I/O
        self._lock = threading.RLock()  # to start the background thread, and to end
        self._generation = forks.generation

    @property
    def up(self) -> bool:
        """Whether there is a connection now."""
        return self._connection.up

    def tried(self) -> dict[str, str]:
        """Return how the last attempt at each URL ended; see `SessionConnection.tried`."""
        return self._connection.tried()

    @property
    def refusal(self) -> Refusal | None:
        """Why the broker refused the last handshake; None if it did not."""
        return self._connection.refusal

    @property
    def ended(self) -> bool:
        """Whether nothing can be posted any more."""
        return self._ended or (self.used and forks.generation != self._generation)

    @property
    def used(self) -> bool:
        """Whether a thread has driven the session."""
        return self._main != 0 or self._thread is not None

    # ── any thread ────────────────────────────────────────────────────────────────────────────────

    def post(self, command: Command) -> None:
        """Leave a command for the owner of the I/O.

        Raises: LocalProtocolError after the end, or in a forked process.
        """
        self._check()
        self._commands.append(command)
        if self._asleep:
            self._waker.wake()
        self._check()  # an end between the two lines above has not run the command

    def drive(
        self, done: Callable[[], bool], command: Command | None = None, check: bool = False
    ) -> bool:
        """Run the posted commands and `command`, and drive the session until `done`, if this thread
        is the only one that calls.

        Returns False where the background thread drives, which is started if it does not run; then
        `command` was not run. Returns True before `done` when the I/O was handed off: the
        background thread then makes `done` true. `check`: check for the end of the connection
        before the first send, however lately that was done; required for what is sent only once.

        Raises: as `post`; LocalProtocolError for a call out of a callback in the thread that
        drives, which would wait for itself.
        """
        me = get_ident()
        self._check()
        if self._thread is not None:
            return self._drive_beside(self._thread, me, done, command)
        if self._main != me and not self._is_first(me):
            self.start_background()
            return False
        self._check_nested(me)
        driven = False
        with self._io:
            if self._thread is None and not self._ended:  # the wait for the lock let others in
                self._owner = me
                self._drive(done, command, LONGEST_CALL_WAIT, check)
                driven = True
        if not driven:
            self._check()
        elif self._unsent and not self.ended:
            self._unsent = False
            self.start_background()
        return driven

    def try_drive(self) -> None:
        """Send what was posted, if no thread owns the I/O. For finalizers: it waits for nothing,
        and never runs in the middle of a step of the session, because a step owns the I/O."""
        me = get_ident()
        if self.ended or self._thread is not None or self._main not in (0, me):
            return
        if not self._io.acquire(blocking=False):
            return
        try:
            if self._thread is None and not self._ended:
                self._owner = me
                self._drive(lambda: True, None, LONGEST_CALL_WAIT, False)
        finally:
            self._io.release()

    def start_background(self) -> None:
        """Start the background thread if it does not run.

        The owner of the I/O is asked to hand off; this waits until it has.
        Raises: as `drive`; LocalProtocolError at the exit of the interpreter, and where gevent or
        eventlet has replaced threads.
        """
        if sys.is_finalizing():
            raise LocalProtocolError(
                "exiting", "no thread runs while the interpreter exits: `call` works, `submit` not"
            )
        with self._lock:
            self._check()
            if self._thread is not None:
                return
            _check_threads()
            if any(url.startswith(endpoints.MEMORY) for url in self._urls):
                raise LocalProtocolError(
                    "inline", "with a TestBroker, use AsyncClient for submit, hedges and events"
                )
            self._check_nested(get_ident())
            try:
                self._hand_off = True
                self._waker.wake()
                with self._io:
                    self._hand_off = False
                    self._owner = get_ident()
                    self._commands.append(self._announce)
                    self._start_thread()
            finally:
                self._hand_off = False

    def end(self) -> None:
        """Close session and socket; open calls are cancelled. May be repeated.

        After a fork it does nothing: the sockets belong to the parent.
        """
        if forks.generation != self._generation:
            return
        with self._lock:
            if self._ended:
                return
            me, thread = get_ident(), self._thread
            if thread is None and not self._is_owner(me):
                self._end_here(me)
                return
            if thread is not None and sys.is_finalizing():  # the thread is stopped for ever
                if self._asleep:
                    self._shut_down()
                return
            self._commands.append(lambda _now: self._shut_down())
            self._waker.wake()
        if thread is not None and thread.ident != me:
            thread.join()

    def abandon(self) -> None:
        """End, for a finalizer: without waiting, without a lock, and without running the machine,
        which another thread may do. No call may be in progress; the broker sees the connection end.
        """
        if self.ended or sys.is_finalizing():
            return
        if self._thread is not None:
            self._commands.append(lambda _now: self._shut_down())
            self._waker.wake()
        elif not self._io.locked():
            self._ended = True
            self._connection.close()
            self._waker.close()

    # ── inside ────────────────────────────────────────────────────────────────────────────────────

    def _check(self) -> None:
        """Raises: LocalProtocolError after the end, or in a forked process."""
        if self._ended:
            raise LocalProtocolError("closed", "this client is closed")
        if forks.generation != self._generation:
            if self.used:
                raise LocalProtocolError(
                    "forked",
                    "this client belongs to the parent process; make a new one after a fork",
                )
            self._waker.close()
            self._prepare()
            self._forked()

    def _is_owner(self, me: int) -> bool:
        return self._owner == me and self._io.locked()

    def _check_nested(self, me: int) -> None:
        if self._is_owner(me):
            raise LocalProtocolError(
                "nested", "a call was made from within a call of the same thread"
            )

    def _is_first(self, me: int) -> bool:
        """Return whether this thread is the first that calls."""
        with self._lock:
            if not self._main:
                self._main = me
            return self._main == me

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name="majordomus-client", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except BaseException:
            self._thread = None  # if it runs nevertheless, it ends at once
            raise

    def _end_here(self, me: int) -> None:
        """Shut down in this thread, after the owner of the I/O has released it."""
        try:
            self._hand_off = True
            self._waker.wake()
            with self._io:
                self._owner = me
                self._shut_down()
        finally:
            self._hand_off = False

    def _drive_beside(
        self, thread: threading.Thread, me: int, done: Callable[[], bool], command: Command | None
    ) -> bool:
        """As `drive`, where there is a background thread."""
        if thread.ident == me:
            raise LocalProtocolError(
                "nested", "a future's callback cannot wait for a call; use submit"
            )
        if not sys.is_finalizing():
            return False
        if not self._asleep:
            raise LocalProtocolError(
                "exiting", "the interpreter exits, and has stopped this client's thread at work"
            )
        try:
            self._connection.stale = True
            self._interrupted = False  # the thread was stopped in a wait
            self._drive(done, command, LONGEST_CALL_WAIT, True)
        finally:
            self._asleep = True  # so that the next call finds it as this one did
        return True

    def _run(self) -> None:
        """The background thread: drives until the end.

        Its start may have been broken off by a signal handler's exception: then it ends. It does
        not keep the lock: a thread that was about to drive waits for it, and must see that it may
        not drive any more.
        """
        with self._io:
            if self._thread is not threading.current_thread():
                return
        try:
            while not self._ended:
                self._drive(lambda: False, None, LONGEST_WAIT, False)
        except BaseException as error:
            logger.exception("the client's thread has failed")
            if not isinstance(error, Exception):
                error = LocalProtocolError("failed", f"the client's thread ended: {error!r}")
            self._broken(error)
            with contextlib.suppress(Exception):
                self._shut_down()

    def _drive(
        self, done: Callable[[], bool], command: Command | None, longest: float, check: bool
    ) -> None:
        """Do the work of `drive`, as the owner of the I/O, in waits of at most `longest` seconds.

        An exception (KeyboardInterrupt) that did not come in a wait may have cut a message in two:
        the connection is given up, at the latest by the next drive.
        """
        now = monotonic()
        connection = self._connection
        interrupted, self._interrupted = self._interrupted, True
        try:
            if interrupted:
                self._give_up(now)
            connection.open(now)
            if check or now >= self._checked_at + JUST_CHECKED or connection.stale:
                self._check_connection(now)
                now = monotonic()
            if connection.is_away():  # it may return before this call, which is not in flight yet
                self._work(now)
            self._work(now, command)
            while not (self._ended or self._hand_off or done()):
                self._work(self._wait(longest))
            link = connection.link
            if link is not None and link.unsent:
                self._send_rest()
            self._interrupted = False
        except BaseException:
            if self._asleep:  # nothing was under way
                self._asleep = False
                connection.stale = True
            else:
                self._give_up(monotonic())
            self._interrupted = False
            raise

    def _give_up(self, now: float) -> None:
        """Make the session consistent after a step that was broken off, and connect again."""
        self._repair(now)
        self._connection.give_up(now)

    def _work(self, now: float, command: Command | None = None) -> None:
        while self._commands:
            self._commands.popleft()(now)
        if command is not None:
            command(now)
        if not self._ended:
            self._take(self._connection.flush(now))

    def _check_connection(self, now: float) -> None:
        """Receive what came while no thread owned the I/O.

        The end of the connection must be known before anything is sent.
        """
        link = self._connection.link
        if link is None:
            return
        if link.edge_triggered:
            ready = self._wait_for(0)
            self._read_monitor(ready, now)
        else:  # to receive costs no more than to ask whether there is something to receive
            ready = SOCKET
        if ready & SOCKET or self._connection.stale:
            while self._connection.link is link and self._connection.receive(now):
                pass

    def _read_monitor(self, ready: int, now: float) -> None:
        if ready & MONITOR or self._monitor_unread:
            self._monitor_unread = False
            self._connection.read_monitor(now)

    def _send_rest(self) -> None:
        """Wait until the kernel has taken what is to be sent: no thread waits for the connection
        after the I/O is released."""
        until = monotonic() + LONGEST_WRITE
        while not (self._ended or self._hand_off):
            link, now = self._connection.link, monotonic()
            if link is None or not link.unsent:
                return
            if now >= until:
                self._unsent = True
                return
            self._work(self._wait(until - now))

    def _wait(self, most: float) -> float:
        """Wait for the next message, command or deadline, and receive one batch.

        Returns the time at which that was, in monotonic seconds.
        """
        connection, link = self._connection, self._connection.link
        self._asleep = True  # from here on `post` wakes
        wait = min(connection.next_deadline() - monotonic(), most)
        if connection.stale and link is not None:
            connection.stale = link.readable()
        if self._commands or self._hand_off or self._monitor_unread or connection.stale or wait < 0:
            wait = 0.0
        ready = self._wait_for(ceil(wait * 1000))
        self._asleep = False
        now = monotonic()
        if ready & WAKER:
            self._waker.clear()
        if link is None:
            return now
        if ready & MONITOR or self._monitor_unread:
            self._read_monitor(ready, now)
        if (ready & SOCKET or connection.stale) and connection.link is link:
            more = connection.receive(now)
            if not (more or link.edge_triggered) and connection.link is link:
                self._checked_at = now
        return now

    def _shut_down(self) -> None:
        """Close everything. By the owner of the I/O, or with the lock held and no owner."""
        if self._ended:
            return
        now = monotonic()
        self._ended = True
        while self._commands:
            self._commands.popleft()(now)
        self._finish(now)
        self._take(self._connection.flush(now))
        self._connection.close()
        self._waker.close()

    def _opened(self, link: Link) -> None:
        self._wait_for = link.wait_with(self._waker.fd)
        self._monitor_unread = link.edge_triggered
        self._checked_at = -inf

    def _closing(self, link: Link) -> None:
        self._wait_for = self._wait_alone()
        self._monitor_unread = False

    def _wait_alone(self) -> Callable[[int], int]:
        """Return the function that waits while there is no link."""
        memory = [url for url in self._urls if url.startswith(endpoints.MEMORY)]
        return wait_without_link(memory[0]) if memory else Readiness(self._waker.fd)

    def redirected(self) -> None:
        """The URLs have changed before the first use."""
        self._wait_for = self._wait_alone()


def _check_threads() -> None:
    """Raises: LocalProtocolError where threads are replaced by greenlets."""
    if has_green_threads():
        raise LocalProtocolError(
            "green-threads",
            "gevent or eventlet has replaced threads: here a Client serves one greenlet, and has "
            "no submit, hedge or events (docs/processes.md)",
        )
