"""The logging.Handler of the cloud logger.

`emit` formats at once and queues the text: arguments may be mutable, and change before the sender's
thread runs. Only `flush` and `close` wait for a broker, at most `flush_timeout` seconds.
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
from majordomus.net.connection.credentials import Access
from majordomus.net.zmq import sockets
from majordomus.security.certificates import Certificate

CAPACITY: Final = 20_000
LINGER: Final = 0.05
TTL: Final = 30.0
FLUSH_TIMEOUT: Final = 1.0
MOST_TEXT: Final = 16 * 1024
"""Most characters of a record's text. The rest is cut off, with a note."""
MOST_DATA: Final = 64 * 1024
"""Most bytes of a record's data."""

_DEFAULT: Final = logging.Formatter("%(name)s: %(message)s")
_get_ident = threading.get_ident


class CloudLogHandler(logging.Handler):
    """Sends records to the collectors at `broker`, in batches, one-way.

    application: the name of the program; by default that of its file.
    capacity: most records in the queue. When it is full, the oldest are dropped; viewers see how
        many.
    linger: seconds for which records are collected before a batch is sent.
    ttl: seconds that a batch waits at the broker for a collector.
    server_key, certificate, require_encryption: as in `Client`, for an encrypted broker.

    Without a formatter the text is the logger's name and the message. A record that is logged with
    ``extra={"data": …}`` carries data: bytes, or any value that JSON can represent.
    """

    def __init__(
        self,
        broker: str | Sequence[str] | None = None,
        *,
        application: str | None = None,
        level: int | str = logging.NOTSET,
        capacity: int = CAPACITY,
        linger: float = LINGER,
        ttl: float = TTL,
        flush_timeout: float = FLUSH_TIMEOUT,
        server_key: str = "",
        certificate: Certificate | str | Path | None = None,
        require_encryption: bool = False,
    ) -> None:
        """Raises: ConfigurationError. Nothing is connected before the first record."""
        # Check the arguments now, not with the first record.
        Access(broker, server_key, certificate, None, require_encryption)
        if capacity < 1 or linger < 0 or ttl <= 0 or flush_timeout < 0:
            raise ConfigurationError(
                "capacity must be 1 or more, ttl above 0, linger and flush_timeout 0 or more"
            )
        super().__init__(level)
        self.setFormatter(_DEFAULT)  # otherwise logging.basicConfig sets its own
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
        """Ignore records of the sender's own thread, such as a lost broker: each attempt to send
        one would log more.
        """
        if _get_ident() == self._sender.ident:
            return False
        return super().handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Format and queue a record. Never blocks. Raises: RecursionError only."""
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
        """Format with the formatter, or as logger's name, message and traceback."""
        return (self.formatter or _DEFAULT).format(record)

    def flush(self) -> None:
        """Wait until all records so far are handed to a broker, at most `flush_timeout` seconds."""
        if not self._closed:
            self._sender.flush(self.flush_timeout)

    def close(self) -> None:
        """Send the remaining records, for at most `flush_timeout` seconds, and end the thread.

        Writes the number of lost records to stderr. May be repeated. `logging` calls it when the
        program ends.
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

    # ── additions ─────────────────────────────────────────────────────────────────────────────────

    def watch(self, name: str, value: object) -> None:
        """Show `value` under `name` to viewers, instead of the last value; None removes it.

        Raises: ConfigurationError for more than 256 names.
        """
        self._sender.watch(name, value)

    @property
    def pending(self) -> int:
        """Records in the queue."""
        return self._sender.pending

    @property
    def sent(self) -> int:
        """Records that were handed to a broker."""
        return self._sender.sent

    @property
    def dropped(self) -> int:
        """Records that were dropped because the queue was full."""
        return self._sender.dropped

    def _thread_id(self, record: logging.LogRecord) -> int:
        """The system's id of the thread. It fits 32 bits; Python's identity does not."""
        if record.thread != _get_ident():  # logged by another process or thread, and queued since
            return (record.thread or 0) & 0xFFFFFFFF
        try:
            known: int = self._thread_ids.native
        except AttributeError:
            known = self._thread_ids.native = threading.get_native_id() & 0xFFFFFFFF
        return known

    def _after_fork(self) -> None:
        """Replace the sender in a forked child. Queue, thread and connection are the parent's."""
        _of_parents.append(self._sender)  # its sockets must not be closed by this process
        self._pid = os.getpid()
        self._thread_ids = threading.local()
        self._sender = Sender(self._options)


def watch(name: str, value: object) -> None:
    """Call `CloudLogHandler.watch` of every handler in this process."""
    for handler in list(_handlers):
        handler.watch(name, value)


def program() -> str:
    """The name of the running program."""
    path = Path(sys.argv[0]) if sys.argv and sys.argv[0] not in ("", "-c") else None
    if path is None:
        return "python"
    return path.parent.name if path.stem == "__main__" else path.stem


def _connect(
    broker: str | Sequence[str] | None,
    server_key: str,
    certificate: Certificate | str | Path | None,
) -> OneWay:
    from majordomus.net.client.client import Client

    return Client(broker, server_key=server_key, certificate=certificate)


# ── exit and fork of the process ──────────────────────────────────────────────────────────────────

_handlers: weakref.WeakSet[CloudLogHandler] = weakref.WeakSet()
_of_parents: list[Sender] = []
_exiting = False


def _note_exit() -> None:
    """Runs before `logging` closes its handlers: atexit calls functions in reverse order, and
    `logging` was imported first.
    """
    global _exiting  # noqa: PLW0603
    _exiting = True


def _in_child() -> None:
    for handler in list(_handlers):
        handler._after_fork()
    if "multiprocessing.util" in sys.modules:  # its children clear what was registered before
        from multiprocessing.util import register_after_fork

        register_after_fork(_note_exit, _in_multiprocessing_child)


def _close_all() -> None:
    """Close the handlers of a process that multiprocessing forked: it does not run atexit."""
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
