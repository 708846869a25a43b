"""Drives the connection of a sync client: one thread at a time owns the I/O.

The first thread that calls acquires the I/O for each of its calls and releases it afterwards. So a
program of one thread needs no other thread. When a second thread calls, or a call is to end later
(`submit`, events), the owner is asked to hand off, and a background thread takes the I/O for good.
Any thread may post commands to the session; the owner of the I/O runs them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from math import ceil, inf
from typing import Final, Generic, TypeAlias, TypeVar

from majordomus.errors import LocalProtocolError
from majordomus.net import forks
from majordomus.net.connection.credentials import Access, Refusal
from majordomus.net.connection.link import Link, Session, SessionConnection
from majordomus.net.readiness import Readiness
from majordomus.net.waker import Waker

LONGEST_WAIT: Final = 3600.0
"""Seconds of one wait for the connection, at most."""
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

E = TypeVar("E")
Command: TypeAlias = Callable[[float], None]
"""Called with the time by the owner of the I/O."""


class Driver(Generic[E]):
    """Drives one session. All methods but `drive` may be called from any thread.

    `where` returns the URL to connect to. `take` gets the session's events, after every flush.
    `broken` gets the exception when the background thread fails. `finish` closes the session at the
    end.
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
        self._connection: SessionConnection[E] = SessionConnection(
            session, where, self._opened, self._closing, access
        )
        self._waker = Waker()
        self._wait_for: Callable[[int], int] = Readiness(self._waker.fd)
        self._monitor_unread = False  # a new monitor may have become readable before the first wait
        self._checked_at = -inf  # when the current link was last found to have nothing to read
        self._commands: deque[Command] = deque()
        self._lock = threading.RLock()
        # Both share one lock: to enter the lock itself costs less than to enter the condition.
        self._released = threading.Condition(self._lock)
        self._main = 0  # ident of the first thread that called
        self._owner = 0  # ident of the thread that owns the I/O, 0 = no thread does
        self._hand_off = False  # the owner must release the I/O
        self._on_background: Command = lambda _now: None
        self._start_with: Command | None = None
        """Posted at the start of the background thread, which must send the rest of a message."""
        self._asleep = False
        self._ended = False
        self._thread: threading.Thread | None = None
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
        return self._ended or forks.generation != self._generation

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

    def acquire(self, on_background: Command) -> bool:
        """Acquire the I/O for this thread, if it is the only one that calls.

        Returns False where the background thread drives; it is started if it does not run, and
        `on_background` is posted to it then.

        Raises: as `post`; LocalProtocolError for a call out of a callback in the background thread,
        which would wait for itself.
        """
        me = threading.get_ident()
        self._on_background = on_background
        with self._lock:
            self._check()
            if self._thread is None and self._main in (0, me):
                self._main = me
                if self._owner:
                    raise LocalProtocolError(
                        "nested", "a call was made from within a call of the same thread"
                    )
                self._owner = me
                return True
            if self._thread is not None and self._thread.ident == me:
                raise LocalProtocolError(
                    "nested", "a future's callback cannot wait for a call; use submit"
                )
        self.start_background(on_background)
        return False

    def try_acquire(self) -> bool:
        """Acquire the I/O if that needs no waiting and starts no thread. Raises nothing."""
        me = threading.get_ident()
        with self._lock:
            free = not self._owner and self._thread is None and self._main in (0, me)
            if free and not self.ended:
                self._owner = me
                return True
            return False

    def release(self) -> None:
        """Release the I/O. The owner must call it, after `acquire` or `try_acquire`."""
        with self._lock:
            self._owner = 0
            if self._hand_off:
                self._released.notify_all()
        if self._start_with is not None and not self.ended:
            self.start_background(self._start_with)
            self._start_with = None

    def start_background(self, on_background: Command) -> None:
        """Start the background thread if it does not run, and post `on_background` to it.

        The owner of the I/O is asked to hand off; this waits until it has.
        """
        with self._lock:
            self._check()
            if self._thread is not None:
                return
            self._wait_for_release()
            if self._thread is None and not self._ended:  # the wait let other threads in
                self._commands.append(on_background)
                self._thread = threading.Thread(
                    target=self._run, name="majordomus-client", daemon=True
                )
                self._thread.start()

    def end(self) -> None:
        """Close session and socket; open calls are cancelled. May be repeated.

        After a fork it does nothing: the sockets belong to the parent.
        """
        if forks.generation != self._generation:
            return
        with self._lock:
            if self._ended:
                return
            me, thread = threading.get_ident(), self._thread
            if thread is None and self._owner != me:
                self._wait_for_release()
                self._shut_down()
                return
            self._commands.append(lambda _now: self._shut_down())
            self._waker.wake()
        if thread is not None and thread.ident != me:
            thread.join()

    # ── the owner of the I/O ──────────────────────────────────────────────────────────────────────

    def drive(
        self, done: Callable[[], bool], command: Command | None = None, *, check: bool = False
    ) -> None:
        """Run the posted commands and `command`, and drive the session until `done`.

        Returns earlier when the I/O must be handed off: the background thread then makes `done`
        true. `check`: check for the end of the connection before the first send, however lately
        that was done; required for what is sent only once.

        An exception (KeyboardInterrupt) may have cut a message in two: the connection is given up.
        """
        now = time.monotonic()
        try:
            self._connection.open(now)
            if check or now >= self._checked_at + JUST_CHECKED or self._connection.stale:
                self._check_connection(now)
                now = time.monotonic()
            self._work(now, command)
            while not (self._ended or self._hand_off or done()):
                self._work(self._wait(LONGEST_WAIT))
            link = self._connection.link
            if link is not None and link.unsent:
                self._send_rest()
        except BaseException:
            self._connection.give_up(time.monotonic())
            raise

    # ── inside ────────────────────────────────────────────────────────────────────────────────────

    def _check(self) -> None:
        """Raises: LocalProtocolError after the end, or in a forked process."""
        if self._ended:
            raise LocalProtocolError("closed", "this client is closed")
        if forks.generation != self._generation:
            raise LocalProtocolError(
                "forked", "this client belongs to the parent process; make a new one after a fork"
            )

    def _wait_for_release(self) -> None:
        """Wait until no thread owns the I/O. The lock must be held."""
        while self._owner:
            self._hand_off = True
            self._waker.wake()
            self._released.wait()
        self._hand_off = False

    def _run(self) -> None:
        """The background thread: drives until the end."""
        try:
            self.drive(lambda: False)
        except Exception as error:
            logger.exception("the client's thread has failed")
            self._broken(error)
            with contextlib.suppress(Exception):
                self._shut_down()

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
        until = time.monotonic() + LONGEST_WRITE
        while not (self._ended or self._hand_off):
            link, now = self._connection.link, time.monotonic()
            if link is None or not link.unsent:
                return
            if now >= until:
                self._start_with = self._on_background
                return
            self._work(self._wait(until - now))

    def _wait(self, most: float) -> float:
        """Wait for the next message, command or deadline, and receive one batch.

        Returns the time at which that was, in monotonic seconds.
        """
        connection, link = self._connection, self._connection.link
        self._asleep = True  # from here on `post` wakes
        wait = min(connection.next_deadline() - time.monotonic(), most)
        if connection.stale and link is not None:
            connection.stale = link.readable()
        if self._commands or self._hand_off or self._monitor_unread or connection.stale or wait < 0:
            wait = 0.0
        ready = self._wait_for(ceil(wait * 1000))
        self._asleep = False
        now = time.monotonic()
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
        now = time.monotonic()
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
        self._wait_for = Readiness(self._waker.fd)
        self._monitor_unread = False
