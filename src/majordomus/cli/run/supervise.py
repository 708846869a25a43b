"""`majordomus broker --supervise` restarts a broker that died, within two seconds.

The broker is a child process that ends with this one. SIGTERM, SIGINT and SIGHUP are passed on to
it. A broker that ends before it has served is not restarted: the command fails.
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

from majordomus import system
from majordomus.cli import DONE, FAILED, processes
from majordomus.cli.output import complain
from majordomus.cli.run.supervisor import cause

FIRST_DELAY: Final = 0.1
MOST_DELAY: Final = 1.0
STEADY: Final = 10.0
"""Seconds after which a broker counts as healthy, so that the next delay is the first again."""
PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, *system.HANGUP)
ENDS: Final = frozenset((signal.SIGTERM, signal.SIGINT))

Arguments = Callable[[int, int, str], list[str]]
"""(descriptor, restarts, endpoints) → the command line of the broker.

The broker writes its endpoints to the descriptor when it serves. `endpoints` are the last ones,
"" at first: clients must find a port that the system chose under the same number again.
"""


def delay(deaths: int) -> float:
    """Return the seconds before the restart of a broker that died `deaths` times in a row."""
    return float(min(MOST_DELAY, FIRST_DELAY * 2 ** min(deaths - 1, 30)))


class BrokerSupervisor:
    """Keeps one broker running until a signal. `restarts` is the number of restarts."""

    def __init__(self, arguments: Arguments) -> None:
        self.restarts = 0
        self._arguments = arguments
        self._endpoints = ""
        self._ending = False

    def run(self) -> int:
        """Run until a signal and return the exit code.

        Call it in the main thread: it installs signal handlers.
        """
        deaths = 0
        with processes.signal_descriptor((*PASSED_ON, *system.CHILD_ENDED)) as wakeup:
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
                    f"majordomus broker: died ({cause(code)}), restarting in {pause:g} s; "
                    f"restart {self.restarts}"
                )
                if self._asked_to_end(wakeup, pause):
                    return DONE

    def _run_once(self, wakeup: int) -> int:
        """Run the broker once. Returns its exit code as subprocess reports it."""
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
            for number in _signals(wakeup) if wakeup in ready else ():
                if number in PASSED_ON:
                    self._ending = self._ending or number in ENDS
                    processes.send(broker, signal.Signals(number))
            code = broker.poll()
            if code is not None:
                return code

    def _asked_to_end(self, wakeup: int, pause: float) -> bool:
        """Wait `pause` seconds. Returns True when a signal to end came meanwhile."""
        until = time.monotonic() + pause
        while (left := until - time.monotonic()) > 0:
            select.select([wakeup], [], [], left)
            if any(number in ENDS for number in _signals(wakeup)):
                return True
        return False


def _signals(wakeup: int) -> bytes:
    """Return the numbers of the signals that have arrived."""
    with contextlib.suppress(BlockingIOError):
        return os.read(wakeup, 4096)
    return b""
