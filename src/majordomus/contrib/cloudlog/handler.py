"""The logging.Handler of the cloud logger.

`emit` formats at once and queues: arguments may be mutable, and may change before the sender's
thread gets to them. Nothing here waits for a broker but `flush` and `close`, and these not longer
than `flush_timeout`.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from majordomus.contrib.cloudlog.record import pack_data
from majordomus.contrib.cloudlog.sender import OneWay, Options, Sender
from majordomus.errors import ConfigurationError
from majordomus.net import endpoints
from majordomus.net.connection.credentials import Access
from majordomus.net.zmq import sockets
from majordomus.security.certificates import Certificate

CAPACITY: Final = 20_000
LINGER: Final = 0.05
TTL: Final = 30.0
FLUSH_TIMEOUT: Final = 1.0
MOST_TEXT: Final = 16 * 1024
"""Characters of one record's text; the rest is left out, and the text says so."""
MOST_DATA: Final = 64 * 1024
"""Bytes of one record's data."""

_DEFAULT: Final = logging.Formatter("%(name)s: %(message)s")
_get_ident = threading.get_ident


class CloudLogHandler(logging.Handler):
    """Sends records to the collectors at `broker`, in batches, one-way.

    `application`: what the program is called, by default its file's name. `capacity`: records that
    wait at most; beyond it the oldest are dropped, and the viewers are told how many. `linger`:
    seconds for which records are gathered. `ttl`: seconds that a batch waits at the broker for a
    collector. Without a formatter the text is the logger's name and the message. With
    ``extra={"data": …}`` a record carries data: bytes, or whatever JSON can say. `server_key` and
    `certificate` are those of `Client`, for an encrypted broker.
    """

    def __init__(
        self,
        broker: str | Sequence[str] = endpoints.DEFAULT,
        *,
        application: str | None = None,
        level: int | str = logging.NOTSET,
        capacity: int = CAPACITY,
        linger: float = LINGER,
        ttl: float = TTL,
        flush_timeout: float = FLUSH_TIMEOUT,
        server_key: str = "",
        certificate: Certificate | str | Path | None = None,
    ) -> None:
        """Raises: ConfigurationError. Nothing is connected before the first record."""
        Access(broker, server_key, certificate)  # judged now, not with the first record
        if capacity < 1 or linger < 0 or ttl <= 0 or flush_timeout < 0:
            raise ConfigurationError(
                "capacity is at least 1, ttl more than 0, linger and flush_timeout at least 0"
            )
        super().__init__(level)
        self.setFormatter(_DEFAULT)  # else logging.basicConfig sets one of its own
        self.flush_timeout = flush_timeout
        name = program() if application is None else application
        self._options = Options(
            lambda: _connect(broker, server_key, certificate), name, capacity, linger, ttl
        )
        self._thread_ids = threading.local()
        self._pid = os.getpid()
        self._sender = Sender(self._options)
        self._closed = False
        _handlers.add(self)

    # ── logging's own interface ───────────────────────────────────────────────────────────────────

    def handle(self, record: logging.LogRecord) -> bool:
        """What the sender's own thread logs (a lost broker, perhaps) is not for this handler: each
        attempt to send it would be the cause of more.
        """
        if _get_ident() == self._sender.ident:
            return False
        return super().handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Formats and queues. Never waits, and never raises but for recursion without end."""
        try:
            if (
                self.formatter is _DEFAULT
                and record.exc_info is None
                and record.exc_text is None
                and record.stack_info is None
            ):
                text = f"{record.name}: {record.getMessage()}"
            else:
                text = self.format(record)
            if len(text) > MOST_TEXT:
                text = f"{text[:MOST_TEXT]}… ({len(text) - MOST_TEXT} more characters)"
            data: Any = record.__dict__.get("data")
            if data is None:
                packed = 0, b""
            else:
                packed = pack_data(data, MOST_DATA)
            self._sender.put(
                text,
                record.levelno,
                record.process or self._pid,
                self._thread_id(record),
                record.created,
                *packed,
            )
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        """By the formatter, or the logger's name, the message, and an exception's traceback."""
        return (self.formatter or _DEFAULT).format(record)

    def flush(self) -> None:
        """Waits until everything logged so far is handed to a broker, `flush_timeout` at most."""
        if not self._closed:
            self._sender.flush(self.flush_timeout)

    def close(self) -> None:
        """Sends what is left, `flush_timeout` at most, and ends. Says on stderr what was lost.

        May be repeated. Logging does it itself when the program ends.
        """
        if not self._closed:
            self._closed = True
            _handlers.discard(self)
            lost = self._sender.close(self.flush_timeout)
            if lost and logging.raiseExceptions and sys.stderr:
                sys.stderr.write(f"cloudlog: {lost} log records were lost: no broker took them\n")
            if _exiting:
                sockets.flush_at_exit(os.getpid())
        super().close()

    # ── ours ──────────────────────────────────────────────────────────────────────────────────────

    def watch(self, name: str, value: object) -> None:
        """Shows `value` at the viewers under `name`, in place of what was there; None ends it.

        Raises: ConfigurationError for more than 256 names.
        """
        self._sender.watch(name, value)

    @property
    def pending(self) -> int:
        """Records that wait."""
        return self._sender.pending

    @property
    def sent(self) -> int:
        """Records that were handed to a broker."""
        return self._sender.sent

    @property
    def dropped(self) -> int:
        """Records that were thrown away, because more than `capacity` had to wait."""
        return self._sender.dropped

    def _thread_id(self, record: logging.LogRecord) -> int:
        """The system's number of the thread, which fits 32 bits; Python's own identity does not."""
        if record.thread != _get_ident():  # from another process or thread, by way of a queue
            return (record.thread or 0) & 0xFFFFFFFF
        try:
            known: int = self._thread_ids.native
        except AttributeError:
            known = self._thread_ids.native = threading.get_native_id() & 0xFFFFFFFF
        return known

    def _after_fork(self) -> None:
        """In the child: what is queued is the parent's, and so are thread and connection."""
        _of_parents.append(self._sender)  # its sockets must not be closed by this process
        self._pid = os.getpid()
        self._thread_ids = threading.local()
        self._sender = Sender(self._options)


def watch(name: str, value: object) -> None:
    """`CloudLogHandler.watch` of every handler that there is in this process."""
    for handler in list(_handlers):
        handler.watch(name, value)


def program() -> str:
    """The name of the program that runs."""
    path = Path(sys.argv[0]) if sys.argv and sys.argv[0] not in ("", "-c") else None
    if path is None:
        return "python"
    return path.parent.name if path.stem == "__main__" else path.stem


def _connect(
    broker: str | Sequence[str], server_key: str, certificate: Certificate | str | Path | None
) -> OneWay:
    from majordomus.net.client.client import Client

    return Client(broker, server_key=server_key, certificate=certificate)


# ── the ends of processes, and their beginnings ───────────────────────────────────────────────────

_handlers: weakref.WeakSet[CloudLogHandler] = weakref.WeakSet()
_of_parents: list[Sender] = []
_exiting = False


def _note_exit() -> None:
    """Runs before logging closes its handlers: functions are called in reverse order at exit, and
    logging was imported first.
    """
    global _exiting  # noqa: PLW0603
    _exiting = True


def _in_child() -> None:
    for handler in list(_handlers):
        handler._after_fork()
    if "multiprocessing.util" in sys.modules:  # whose children forget what was registered before
        from multiprocessing.util import register_after_fork

        register_after_fork(_note_exit, _in_multiprocessing_child)


def _close_all() -> None:
    """The end of a process that multiprocessing forked: it leaves without asking logging."""
    _note_exit()
    for handler in list(_handlers):
        with contextlib.suppress(Exception):
            handler.close()


def _in_multiprocessing_child(_: object) -> None:
    from multiprocessing.util import Finalize

    Finalize(None, _close_all, exitpriority=100)


atexit.register(_note_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
