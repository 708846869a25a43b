"""Starts, stops and kills `majordomus broker` and `majordomus worker`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
END: Final = 30.0
"""Seconds that a program has to end after SIGTERM."""


class Program:
    """One program of `majordomus`, which starts the process that serves.

    restarts: how often this class has started it again.
    """

    def __init__(self, *arguments: str, log: Path) -> None:
        self.arguments = arguments
        self.restarts = 0
        self._log = log
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "LEDGER": str(self._log.parent)}
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "majordomus.cli", *self.arguments],
                stdout=subprocess.PIPE if self.arguments[0] == "broker" else log,
                stderr=log,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )

    def line(self) -> str:
        """Wait for the next line of a broker's output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode()

    def serving(self) -> int:
        """Return the id of the process that serves; 0 while there is none."""
        found = children(self.process.pid)
        return found[0] if found else 0

    def signal(self, number: signal.Signals) -> int:
        """Send a signal to the process that serves, and return its id; 0 if there is none."""
        pid = self.serving()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    def restart(self) -> None:
        """Start the program again if it has ended."""
        if self.process.poll() is not None:
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.restarts += 1
            self.process = self._start()

    def end(self) -> int:
        """End the program, and return its exit status; the signal's number, negative, if killed."""
        pids = [self.process.pid, *children(self.process.pid)]
        self.process.terminate()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        try:
            status = self.process.wait(END)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            status = self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status


def children(pid: int) -> list[int]:
    """Return the ids of the processes that a process has started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(path.parent.name))
    return sorted(found)


def held(pid: int) -> dict[str, int]:
    """Return how many threads and descriptors a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    threads = next(line.split()[1] for line in status.splitlines() if line.startswith("Threads"))
    return {"threads": int(threads), "files": len(list(Path(f"/proc/{pid}/fd").iterdir()))}
