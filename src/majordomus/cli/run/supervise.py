"""`majordomus broker --supervise`: a broker that dies is back within two seconds.

The broker is a process of its own, which ends with this one. SIGTERM and SIGINT are its to drain,
SIGHUP its to read settings anew; they are passed on. What never began to serve is a mistake, and
ends the command.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Final

from majordomus.cli import DONE, FAILED, processes
from majordomus.cli.output import complain
from majordomus.cli.run.supervisor import cause

FIRST_DELAY: Final = 0.1
MOST_DELAY: Final = 1.0
STEADY: Final = 10.0
"""Seconds after which a broker counts as healthy: its next death starts the delays anew."""
PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ENDS: Final = frozenset((signal.SIGTERM, signal.SIGINT))

Arguments = Callable[[int, int, str], list[str]]
"""The command line of a broker that writes its endpoints, a line, to a descriptor once it serves;
that tells how often it was started again; and that takes the endpoints it had before, "" at
first: a port that it chose itself it has to have again."""


def delay(deaths: int) -> float:
    """Seconds before a broker that died `deaths` times in a row is started again."""
    return float(min(MOST_DELAY, FIRST_DELAY * 2 ** min(deaths - 1, 30)))


class BrokerSupervisor:
    """Keeps one broker running until a signal. `restarts` counts how often it was started again."""

    def __init__(self, arguments: Arguments) -> None:
        self.restarts = 0
        self._arguments = arguments
        self._endpoints = ""
        self._ending = False

    def run(self) -> int:
        """The exit code. Installs signal handlers: to be called in the main thread."""
        deaths = 0
        with processes.told_of((*PASSED_ON, signal.SIGCHLD)) as wakeup:
            while True:
                began = time.monotonic()
                code = self._run_once(wakeup)
                if self._ending or code == DONE:
                    return DONE if code in (DONE, -signal.SIGTERM) else FAILED
                if not self._endpoints:
                    return code if code > 0 else FAILED
                deaths = 1 if time.monotonic() - began >= STEADY else deaths + 1
                self.restarts += 1
                pause = delay(deaths)
                complain(
                    f"majordomus broker: died ({cause(code)}), starts again in {pause:g} s; "
                    f"restart {self.restarts}"
                )
                if self._asked_to_end(wakeup, pause):
                    return DONE

    def _run_once(self, wakeup: int) -> int:
        """One life of the broker; how it ended, as subprocess tells it."""
        reader, writer = os.pipe()
        try:
            arguments = self._arguments(writer, self.restarts, self._endpoints)
            broker = processes.start(arguments, fds=(writer,))
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        try:
            return self._watch(broker, reader, wakeup)
        finally:
            os.close(reader)
            processes.end_all([broker])

    def _watch(self, broker: subprocess.Popen[bytes], reader: int, wakeup: int) -> int:
        waited_for = [wakeup, reader]
        while True:
            ready, _, _ = select.select(waited_for, [], [])
            if reader in ready:
                self._endpoints = os.read(reader, 65536).decode() or self._endpoints
                waited_for.remove(reader)
            for number in _told(wakeup) if wakeup in ready else ():
                if number in PASSED_ON:
                    self._ending = self._ending or number in ENDS
                    processes.send(broker, signal.Signals(number))
            code = broker.poll()
            if code is not None:
                return code

    def _asked_to_end(self, wakeup: int, pause: float) -> bool:
        """Waits; whether a signal has ended that."""
        until = time.monotonic() + pause
        while (left := until - time.monotonic()) > 0:
            select.select([wakeup], [], [], left)
            if any(number in ENDS for number in _told(wakeup)):
                return True
        return False


def _told(wakeup: int) -> bytes:
    """The numbers of the signals that have come."""
    with contextlib.suppress(BlockingIOError):
        return os.read(wakeup, 4096)
    return b""
