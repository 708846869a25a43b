"""The queue of log entries of one process, and the thread that sends them.

`put` never blocks: it appends to a deque that drops its oldest entry when it is full. Every entry
has a number, so that dropped entries are an exact gap in the numbers. The thread sleeps while the
queue is empty, collects entries for `linger` seconds, and sends batches one-way. While no broker is
connected, it keeps the batch and waits.

A forked process has none of its parent's threads, so it needs a Sender of its own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from majordomus.contrib.cloudlog.encode import encode
from majordomus.contrib.cloudlog.record import BATCH, WRITE, Align, Watch, watches_entry
from majordomus.errors import ConfigurationError, DeadlineExceeded

MOST_RECORDS: Final = 1000
"""Records of one batch."""
MOST_CHARACTERS: Final = 256 * 1024
"""Characters and bytes of data in one batch, up to one record more."""
MOST_WATCHES: Final = 256
WATCH_NAME: Final = 128
WATCH_VALUE: Final = 256
"""Most characters of a watch's value; WATCH_NAME is the same for its name."""
WATCH_REFRESH: Final = 5.0
"""Seconds after which watches are sent again: collectors forget those of silent processes."""
WATCH_INTERVAL: Final = 0.1
"""Least seconds between two updates of watches."""
RETRY: Final = 0.5
"""Seconds until a broken client is replaced."""

logger = logging.getLogger("majordomus.cloudlog")


class OneWay(Protocol):
    """The methods of `Client` that a sender uses."""

    def send(self, service: str, body: bytes, /, *, timeout: float | None = None) -> None: ...
    def close(self) -> None: ...


class Options(NamedTuple):
    """The options of a sender. Durations are in seconds.

    connect: makes a client.
    application: the name of the program.
    capacity: most entries in the queue.
    linger: how long entries are collected before a batch is sent.
    ttl: how long a batch waits at the broker for a collector.
    """

    connect: Callable[[], OneWay]
    application: str
    capacity: int
    linger: float
    ttl: float


class Sender:
    """The queue and the thread. Only one thread at a time may call `put`; any may call the rest."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._id = os.urandom(8)
        self._pid = os.getpid()
        self._queue: deque[tuple[Any, ...]] = deque(maxlen=options.capacity)
        self._next = 0  # number of the next entry that is put
        self._held: tuple[Any, ...] | None = None  # taken from the queue, not yet part of a batch
        self._expected = 0  # number of the next entry that is taken, if none is dropped
        self._in_hand = 0
        self._taking = False  # the thread is changing the numbers above
        self._dropped = 0  # in gaps that the thread has seen
        self._sent = 0
        self._settled = 0  # all entries below this number are handed over, or dropped
        self._watches: dict[str, Watch] = {}
        self._watches_dirty = False
        self._watches_at = 0.0
        self._asleep = True
        self._closing = False
        self._cut_short = False
        self._lock = threading.Lock()  # guards the watches and the start of the thread
        self._bell = threading.Event()
        self._hurry = threading.Event()
        self._progress = threading.Condition()
        self._thread: threading.Thread | None = None
        self._client: OneWay | None = None
        self.ident = 0
        """The identity of the thread. The handler ignores what this thread logs."""
        self.away = False
        """Whether the last attempt to send found no broker."""

    # ── the program's threads ─────────────────────────────────────────────────────────────────────

    def put(
        self,
        text: str,
        level: int,
        process_id: int,
        thread_id: int,
        seconds: float,
        data_format: int = 0,
        data: bytes = b"",
    ) -> None:
        """Queue one entry. When the queue is full, its oldest entry is dropped."""
        number = self._next
        self._queue.append((number, text, level, process_id, thread_id, seconds, data_format, data))
        self._next = number + 1
        if self._asleep:
            self._wake()

    def watch(self, name: str, value: object) -> None:
        """Show `value` under `name` from now on; None removes it.

        Raises: ConfigurationError for more than MOST_WATCHES names.
        """
        name = name[:WATCH_NAME]
        with self._lock:
            watches = dict(self._watches)
            if value is None:
                watches.pop(name, None)
            else:
                if name not in watches and len(watches) >= MOST_WATCHES:
                    raise ConfigurationError(f"a process has at most {MOST_WATCHES} watches")
                watches[name] = _watch(name, value)
            self._watches = watches
        self._watches_dirty = True
        if self._asleep:
            self._wake()

    @property
    def pending(self) -> int:
        """Entries that wait to be sent."""
        return len(self._queue) + self._in_hand

    @property
    def sent(self) -> int:
        """Entries that were handed to a broker's connection."""
        return self._sent

    @property
    def dropped(self) -> int:
        """Entries that were dropped so far."""
        held, expected, dropped = self._held, self._expected, self._dropped
        if self._taking or not self._queue:
            return dropped
        with contextlib.suppress(IndexError):  # the thread has taken it meanwhile
            gap = int(self._queue[0][0]) - expected - (held is not None)
            return dropped + max(0, gap)
        return dropped

    def flush(self, timeout: float) -> bool:
        """Wait until all entries so far are sent or dropped. False when `timeout` passes first."""
        wanted = self._next
        if self._settled >= wanted and not self._watches_dirty:
            return True
        if not self._alive():
            return False
        self._hurry.set()
        self._bell.set()

        def done() -> bool:
            return self._settled >= wanted and not self._watches_dirty

        with self._progress:
            return self._progress.wait_for(lambda: done() or not self._alive(), timeout) and done()

    def close(self, timeout: float) -> int:
        """Send the remaining entries, for at most `timeout` seconds, and end the thread.

        May be repeated. Returns the number of entries that were not sent.
        """
        with self._lock:
            self._closing = True
        self._hurry.set()
        self._bell.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
            self._cut_short = True
            client = self._client
            if thread.is_alive() and client is not None:
                client.close()  # interrupts its wait for a broker
            thread.join(1.0)
        return self._next - self._sent

    def _wake(self) -> None:
        self._asleep = False
        if self._thread is None:
            with self._lock, contextlib.suppress(RuntimeError):  # the interpreter is shutting down
                if self._thread is None and not self._closing:
                    thread = threading.Thread(
                        target=self._run, name="majordomus-cloudlog", daemon=True
                    )
                    thread.start()
                    self._thread = thread
        self._bell.set()

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    # ── the thread ────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        self.ident = threading.get_ident()
        try:
            while not self._cut_short:
                self._sleep()
                hurried = self._closing or self._hurry.wait(self._options.linger)
                self._hurry.clear()  # first: a later flush is for the next turn
                self._send_all()
                if not self._cut_short:
                    self._send_watches(hurried)
                self._notify_progress()
                if self._closing and not self._left():
                    return
        except Exception:
            logger.exception("the cloud logger's thread has failed; nothing more is sent")
        finally:
            if self._client is not None:
                self._client.close()
            self._notify_progress()

    def _sleep(self) -> None:
        self._asleep = True  # from here on, `put` wakes the thread
        if not (self._left() or self._closing):
            self._bell.wait(self._until_watches())
        self._asleep = False
        self._bell.clear()

    def _until_watches(self) -> float | None:
        """Seconds until watches are due to be sent; None for never."""
        if not (self._watches_dirty or self._watches):
            return None
        interval = WATCH_INTERVAL if self._watches_dirty else WATCH_REFRESH
        return max(0.0, self._watches_at + interval - time.monotonic())

    def _left(self) -> bool:
        return bool(self._queue) or self._held is not None

    def _send_all(self) -> None:
        while not self._cut_short and (entries := self._take()):
            dropped = entries[0][0] - self._expected
            self._in_hand = len(entries) + (self._held is not None)
            self._dropped += dropped
            self._expected = entries[-1][0] + 1
            self._taking = False
            body = encode(self._id, dropped, entries, self._options.application)
            if self._deliver(BATCH, body):
                self._sent += len(entries)
                self._settled = self._expected
                self._in_hand -= len(entries)
                self._notify_progress()
        self._taking = False

    def _notify_progress(self) -> None:
        """Wake the threads that wait in `flush`."""
        with self._progress:
            self._progress.notify_all()

    def _take(self) -> list[tuple[Any, ...]]:
        """Take the entries of one batch: as many as allowed, up to the next gap."""
        self._taking = True
        entries: list[tuple[Any, ...]] = []
        size = 0
        take = self._queue.popleft
        entry = self._held
        self._held = None
        try:
            if entry is None:
                entry = take()
            number = entry[0]
            while entry[0] == number:
                entries.append(entry)
                size += len(entry[1]) + len(entry[7])
                if len(entries) >= MOST_RECORDS or size >= MOST_CHARACTERS:
                    return entries
                number += 1
                entry = take()
            self._held = entry
        except IndexError:  # the queue is empty
            pass
        return entries

    def _deliver(self, service: str, body: bytes) -> bool:
        """Send one message as soon as a broker is connected. False when closed before."""
        while not self._cut_short:
            try:
                self._send(service, body)
            except DeadlineExceeded:
                self.away = True
                self._cut_short |= self._closing
            except Exception as error:
                self._failed(error)
            else:
                self.away = False
                return True
        return False

    def _send(self, service: str, body: bytes) -> None:
        if self._client is None:
            self._client = self._options.connect()
        if self._cut_short:  # `close` may have run before there was a client to interrupt
            raise DeadlineExceeded
        self._client.send(service, body, timeout=self._options.ttl)

    def _failed(self, error: Exception) -> None:
        """Log an unexpected error once, and retry with a new client."""
        if self._cut_short:  # `close` has closed the client
            return
        if not self.away:
            logger.error("log entries cannot be sent for the moment: %r", error)
        self.away = True
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.close()
        time.sleep(RETRY)
        self._cut_short |= self._closing

    def _send_watches(self, hurried: bool) -> None:
        wait = self._until_watches()
        ending = self._closing and self._watches_at > 0.0
        if not ending and (wait is None or (wait > 0.0 and not hurried)):
            return
        self._watches_dirty = False
        self._watches_at = time.monotonic()
        watches = () if self._closing else self._watches.values()
        entry = watches_entry(
            watches, self._options.application, self._pid & 0xFFFFFFFF, time.time()
        )
        self._deliver(WRITE, entry.to_bytes())


def _watch(name: str, value: object) -> Watch:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    shown = str(value)[:WATCH_VALUE]
    return Watch(
        name=name.encode("utf-8", "backslashreplace").decode(),
        value=shown.encode("utf-8", "backslashreplace").decode(),
        align=Align.RIGHT if is_number else Align.LEFT,
    )
