"""A process that a command starts never outlives the command.

The parent keeps the write end of each child's stdin and never writes. When the parent ends, even by
SIGKILL, the child reads end-of-file and sends SIGTERM to itself. Each child has a process group of
its own, so a terminal's Ctrl-C reaches the parent alone, which then ends the children in order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from majordomus import system

TERM_GRACE = 5.0
"""Seconds between the SIGTERM and the SIGKILL of `end_all`."""


def start(
    arguments: Sequence[str],
    *,
    stdout: int | None = None,
    stderr: IO[bytes] | None = None,
    fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process that runs `majordomus` with `arguments` and ends with this process.

    Raises: ConfigurationError on a system where that cannot be.
    """
    system.check_children("a command that starts processes")
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "majordomus.cli.child", *arguments],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        pass_fds=tuple(fds),
        process_group=0,
    )


def watch_parent() -> None:
    """In the child: send SIGTERM to this process when stdin ends."""
    threading.Thread(target=_until_stdin_ends, name="parent-watch", daemon=True).start()


def _until_stdin_ends() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the process alone. Nothing happens when it has ended."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def end_all(processes: Iterable[subprocess.Popen[bytes]], grace: float = TERM_GRACE) -> None:
    """Send SIGTERM to all, SIGKILL after `grace` seconds; reap them and close their pipes."""
    mine = list(processes)
    deadline = time.monotonic() + grace
    for process in mine:
        send(process, signal.SIGTERM)
    for process in mine:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        process.kill()
        reap(process)


def reap(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process that is ending, close its pipes and return its exit code."""
    code = process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    return code


def exit_on_sigterm() -> None:
    """Make SIGTERM end this process at once, with exit code 0, until another handler is installed.

    A process that starts has accepted nothing, so nothing of it needs an orderly end. An exception
    out of the signal handler would be raised between any two bytecodes: in code that holds a lock,
    or in an import that catches it. Python runs signal handlers between bytecodes, and a signal
    that arrives just before a blocking system call waits as long as the call does; so a thread
    reads the signal as well.
    """

    def leave(_number: int, _frame: object) -> None:
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    if not system.HAS_CHILDREN:
        return
    reader, writer = os.pipe()
    system.unblock(writer)

    def read_signals() -> None:
        while number := os.read(reader, 1):
            if number[0] == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is leave:
                os._exit(0)

    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=read_signals, name="leave", daemon=True).start()


@contextlib.contextmanager
def signal_descriptor(numbers: Iterable[signal.Signals]) -> Iterator[int]:
    """Inside, these signals have one effect: their numbers can be read from the descriptor.

    Raises: ConfigurationError on a system where that cannot be.
    """
    system.check_children("a command that starts processes")
    reader, writer = os.pipe()
    system.unblock(reader)
    system.unblock(writer)
    handlers = {number: signal.signal(number, lambda *_: None) for number in numbers}
    before = signal.set_wakeup_fd(writer)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt inside, as SIGINT does, so `finally` runs."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, *system.HANGUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
