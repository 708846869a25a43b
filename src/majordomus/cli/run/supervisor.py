"""Worker processes that die are restarted here, after a growing delay.

The first process is started alone: if its worker cannot be loaded, the command fails. SIGTERM or
SIGINT drains all processes; a second signal kills them.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import click

from majordomus import system
from majordomus.cli import DONE, FAILED, processes
from majordomus.cli.output import complain

FIRST_DELAY: Final = 0.2
MOST_DELAY: Final = 10.0
STEADY: Final = 10.0
"""Seconds after which a process counts as healthy, so that the next delay is the first again."""
POLL: Final = 0.5
"""Seconds between two checks of the files, with --reload."""
RELOAD_GRACE: Final = 5.0
"""Seconds between SIGTERM and SIGKILL at a reload."""

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, *system.HANGUP, *system.CHILD_ENDED)
UNWATCHED: Final = frozenset({"__pycache__", "node_modules", "site-packages"})

Arguments = Callable[[int], list[str]]
"""Descriptor → command line of a process that writes its services to it when it is loaded."""


def restart_delay(deaths: int) -> float:
    """Return the seconds before the restart of a process that died `deaths` times in a row."""
    return float(min(MOST_DELAY, FIRST_DELAY * 2 ** min(deaths - 1, 30)))


def cause(code: int) -> str:
    """Describe the end of a process from the exit code that subprocess reports."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # real-time signals have no names
        return f"signal {-code}"


def python_files(root: Path) -> dict[str, int]:
    """Return the mtime in ns of each ``.py`` file below `root`, unless hidden or installed."""
    found: dict[str, int] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in UNWATCHED
            and not Path(folder, name, "pyvenv.cfg").exists()
        ]
        for name in files:
            if name.endswith(".py"):
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    found[str(path)] = path.stat().st_mtime_ns
    return found


class WorkerProcess(NamedTuple):
    """One running process.

    ``loaded``: the pipe to which it writes when its worker is loaded. ``since``: its start, in
    monotonic seconds.
    """

    process: subprocess.Popen[bytes]
    loaded: int
    since: float


class Replica:
    """One of the processes that are to run.

    ``child``: the running process, if any. ``deaths``: how often it died in a row. ``due``: when it
    is started, in monotonic seconds; None while it runs or when it has ended with exit code 0.
    """

    def __init__(self) -> None:
        self.child: WorkerProcess | None = None
        self.deaths = 0
        self.due: float | None = 0.0


class Supervisor:
    """Runs `count` processes made by `arguments` until a signal, or until all have ended."""

    def __init__(self, arguments: Arguments, count: int, reload: Path | None = None) -> None:
        self.arguments = arguments
        self.replicas = [Replica() for _ in range(count)]
        self.reload = reload
        self.files = python_files(reload) if reload else {}
        self.ever_loaded = False
        self.signals: list[int] = []

    def run(self) -> int:
        """Run until a signal or until all have ended; return the exit code.

        Call it in the main thread: it installs signal handlers.
        """
        with processes.signal_descriptor(SIGNALS) as wakeup:
            try:
                return self._run(wakeup)
            finally:
                self._end_all(0.0)

    def _run(self, wakeup: int) -> int:
        while True:
            now = time.monotonic()
            for replica in self._startable():
                if replica.due is not None and replica.due <= now:
                    self._start(replica, now)
            self._wait(wakeup)
            if self._asked_to_stop():
                return self._drain(wakeup)
            code = self._collect()
            if code is not None:
                return code
            self._reload_when_changed()

    def _startable(self) -> list[Replica]:
        """Return all replicas, or the first alone until it has loaded the worker."""
        return self.replicas if self.ever_loaded else self.replicas[:1]

    def _start(self, replica: Replica, now: float) -> None:
        reader, writer = os.pipe()
        try:
            process = processes.start(self.arguments(writer), fds=(writer,))
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        system.unblock(reader)
        replica.child, replica.due = WorkerProcess(process, reader, now), None

    def _note_loaded(self, what: str) -> None:
        """Print what the first process serves, and permit the others to start."""
        if what:
            self.ever_loaded = True
            count = len(self.replicas)
            click.echo(what + (f" in {count} processes" if count > 1 else ""))

    def _collect(self) -> int | None:
        """Reap ended processes and plan their restart. Returns the exit code when none is left."""
        now = time.monotonic()
        for replica in self.replicas:
            if replica.child is None or replica.child.process.poll() is None:
                continue
            pid, since = replica.child.process.pid, replica.child.since
            code = self._forget(replica)
            if code == DONE:
                continue
            if not self.ever_loaded and not self.reload:
                return code if code > 0 else FAILED
            replica.deaths = 1 if now - since >= STEADY else replica.deaths + 1
            self._plan_restart(replica, pid, code, now)
        waiting = any(replica.child or replica.due is not None for replica in self._startable())
        return None if waiting or self.reload else DONE

    def _plan_restart(self, replica: Replica, pid: int, code: int, now: float) -> None:
        if not self.ever_loaded:
            complain("majordomus worker: waiting for a changed file before the next start")
            return
        delay = restart_delay(replica.deaths)
        replica.due = now + delay
        complain(
            f"majordomus worker: process {pid} died ({cause(code)}), restarting in {delay:g} s"
        )

    def _forget(self, replica: Replica) -> int:
        """Reap the ended process of `replica` and return its exit code."""
        if replica.child is None:
            return DONE
        child, replica.child = replica.child, None
        os.close(child.loaded)
        return processes.reap(child.process)

    def _reload_when_changed(self) -> None:
        if self.reload is None:
            return
        files = python_files(self.reload)
        if files == self.files:
            return
        changed = sorted(name for name, _ in files.items() ^ self.files.items())
        self.files = files
        complain(f"majordomus worker: {os.path.relpath(changed[0])} changed, restarting")
        self._end_all(RELOAD_GRACE)
        self.ever_loaded = False
        for replica in self.replicas:
            replica.deaths, replica.due = 0, 0.0

    def _drain(self, wakeup: int) -> int:
        """Send SIGTERM to every process and wait; a second signal kills them."""
        for replica in self.replicas:
            replica.due = None
            if replica.child:
                processes.send(replica.child.process, signal.SIGTERM)
        codes: list[int] = []
        while any(replica.child for replica in self.replicas):
            self._wait(wakeup)
            for replica in self.replicas:
                if replica.child and replica.child.process.poll() is not None:
                    codes.append(self._forget(replica))
            if self._asked_to_stop():
                complain("majordomus worker: killed before all requests were answered")
                return FAILED
        # A process that has not installed its handler yet is ended by SIGTERM, and had no request.
        return DONE if set(codes) <= {DONE, -signal.SIGTERM} else FAILED

    def _end_all(self, grace: float) -> None:
        processes.end_all(
            [replica.child.process for replica in self.replicas if replica.child], grace
        )
        for replica in self.replicas:
            self._forget(replica)

    def _wait(self, wakeup: int) -> None:
        """Wait for a signal, a loaded process, a restart that is due or the next check of files."""
        now = time.monotonic()
        dues = [replica.due - now for replica in self._startable() if replica.due is not None]
        if self.reload:
            dues.append(POLL)
        pipes = [] if self.ever_loaded else [s.child.loaded for s in self.replicas if s.child]
        select.select([wakeup, *pipes], [], [], max(0.0, min(dues)) if dues else None)
        with contextlib.suppress(BlockingIOError):
            self.signals += os.read(wakeup, 4096)
        for pipe in pipes:
            with contextlib.suppress(BlockingIOError):
                self._note_loaded(os.read(pipe, 65536).decode("utf-8", "replace"))

    def _asked_to_stop(self) -> bool:
        """Return whether a signal other than SIGCHLD has arrived, and clear the list."""
        asked = any(number not in system.CHILD_ENDED for number in self.signals)
        self.signals.clear()
        return asked
