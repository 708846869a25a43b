"""Worker processes that die are restarted here, after a growing delay.

The first process is started alone: if its worker cannot be loaded, the command fails. SIGTERM or
SIGINT drains all processes; a second signal kills them.

SIGHUP and a changed file with --reload replace the processes one at a time: a new process has to be
registered before the old one drains, so that the service has no gap. If the new one cannot be
loaded, the old ones go on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Final

import click

from majordomus import system
from majordomus.cli import DONE, FAILED, processes
from majordomus.cli.output import complain
from majordomus.security.files import Stamp, stamp

FIRST_DELAY: Final = 0.2
MOST_DELAY: Final = 10.0
STEADY: Final = 10.0
"""Seconds after which a process counts as healthy, so that the next delay is the first again."""
POLL: Final = 0.5
"""Seconds between two checks of the files, with --reload."""
RELOAD_GRACE: Final = 5.0
"""Seconds between SIGTERM and SIGKILL of a process whose file has changed."""
REGISTER_GRACE: Final = 10.0
"""Seconds that a new process has to be registered before the old one is ended nevertheless: the
broker may be away."""

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, *system.HANGUP, *system.CHILD_ENDED)
UNWATCHED: Final = frozenset({"__pycache__", "node_modules", "site-packages"})

Arguments = Callable[[int], list[str]]
"""Descriptor → command line of a process that writes LOADED to it, and what it serves in a second
line when it is registered."""
LOADED: Final = "loaded"


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


def python_files(root: Path) -> dict[str, Stamp]:
    """Return the stamp of each ``.py`` file below `root`, unless hidden or installed."""
    found: dict[str, Stamp] = {}
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
                    found[str(path)] = stamp(path)
    return found


class WorkerProcess:
    """One running process.

    ``since``: its start, in monotonic seconds. ``loaded``: its worker was imported. ``serving``:
    the line that it wrote when it was registered; empty before. ``kill_at``: when it is killed,
    after it was asked to end.
    """

    def __init__(self, process: subprocess.Popen[bytes], pipe: int, since: float) -> None:
        self.process = process
        self.since = since
        self.loaded = False
        self.serving = ""
        self.kill_at = inf
        self._pipe = pipe
        self._text = ""

    @property
    def pipe(self) -> int | None:
        """The descriptor on which more lines may come; None when none will."""
        return self._pipe if self._pipe >= 0 else None

    def read(self) -> None:
        """Read what the process has written."""
        try:
            data = os.read(self._pipe, 65536)
        except BlockingIOError:
            return
        if not data:
            self.close()
        self._text += data.decode("utf-8", "replace")
        lines = self._text.split("\n")[:-1]
        self.loaded = LOADED in lines
        self.serving = next((line for line in lines if line != LOADED), "")

    def close(self) -> None:
        """Close the pipe. May be repeated."""
        if self._pipe >= 0:
            os.close(self._pipe)
        self._pipe = -1

    def reap(self) -> int:
        """Wait for the end of the process and return its exit code."""
        self.close()
        return processes.reap(self.process)


class Replica:
    """One of the processes that are to run.

    ``child``: the running process, if any. ``successor``: the process that is to replace it.
    ``deaths``: how often it died in a row. ``due``: when it is started, in monotonic seconds; None
    while it runs or when it has ended with exit code 0.
    """

    def __init__(self) -> None:
        self.child: WorkerProcess | None = None
        self.successor: WorkerProcess | None = None
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
        self.outdated: list[Replica] = []  # whose processes are still to be replaced
        self.leaving: list[WorkerProcess] = []  # that were replaced and drain
        self.grace = inf  # seconds that these have
        self.announced = False  # what is served was printed, since the start or the last reload
        self.reloading = False

    def run(self) -> int:
        """Run until a signal or until all have ended; return the exit code.

        Call it in the main thread: it installs signal handlers.
        """
        with processes.signal_descriptor(SIGNALS) as wakeup:
            try:
                return self._run(wakeup)
            finally:
                processes.end_all([one.process for one in self._all()], 0.0)

    def _run(self, wakeup: int) -> int:
        while True:
            now = time.monotonic()
            for replica in self._startable():
                if replica.due is not None and replica.due <= now:
                    replica.child, replica.due = self._start(now), None
            self._wait(wakeup)
            if self._asked_to_stop():
                return self._drain(wakeup)
            if self._asked_to_reload():
                self._begin_reload("SIGHUP", inf)
            code = self._collect()
            if code is not None:
                return code
            self._reload_when_changed()
            self._replace(time.monotonic())
            self._announce()

    def _startable(self) -> list[Replica]:
        """Return all replicas, or the first alone until it has loaded the worker."""
        return self.replicas if self.ever_loaded else self.replicas[:1]

    def _all(self) -> list[WorkerProcess]:
        """Return all processes that were not reaped."""
        mine = [(replica.child, replica.successor) for replica in self.replicas]
        return [one for pair in mine for one in pair if one is not None] + self.leaving

    def _start(self, now: float) -> WorkerProcess:
        reader, writer = os.pipe()
        try:
            process = processes.start(self.arguments(writer), fds=(writer,))
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        system.unblock(reader)
        return WorkerProcess(process, reader, now)

    def _announce(self) -> None:
        """Print what is served, as soon as all processes are registered."""
        served = [replica.child.serving for replica in self.replicas if replica.child is not None]
        waits = self.announced or self.outdated or self.leaving
        if waits or len(served) < len(self.replicas) or not all(served):
            return
        self.announced = True
        count = len(served)
        if self.reloading:
            self.reloading = False
            complain("majordomus worker: reloaded")
        click.echo(served[0] + (f" in {count} processes" if count > 1 else ""))

    def _collect(self) -> int | None:
        """Reap ended processes and plan their restart. Returns the exit code when none is left."""
        now = time.monotonic()
        for one in self.leaving[:]:
            if one.process.poll() is None and now >= one.kill_at:
                one.process.kill()
            if one.process.poll() is not None:
                one.reap()
                self.leaving.remove(one)
        for replica in self.replicas:
            self._collect_successor(replica)
            child = replica.child
            if child is None or child.process.poll() is None:
                continue
            replica.child = None
            code = child.reap()
            if code == DONE:
                continue
            if not self.ever_loaded and not self.reload:
                return code if code > 0 else FAILED
            replica.deaths = 1 if now - child.since >= STEADY else replica.deaths + 1
            self._plan_restart(replica, child.process.pid, code, now)
        waiting = any(
            replica.child or replica.successor or replica.due is not None
            for replica in self._startable()
        )
        return None if waiting or self.reload or self.leaving else DONE

    def _collect_successor(self, replica: Replica) -> None:
        """Give up a reload whose new process has ended: the old ones go on."""
        successor = replica.successor
        if successor is None or successor.process.poll() is None:
            return
        replica.successor = None
        code = successor.reap()
        self.outdated.clear()
        self.announced, self.reloading = True, False
        if self.reload:
            complain("majordomus worker: waiting for a changed file before the next start")
        else:
            complain(
                f"majordomus worker: the new process ended ({cause(code)}), the old ones go on"
            )

    def _plan_restart(self, replica: Replica, pid: int, code: int, now: float) -> None:
        if not self.ever_loaded:
            complain("majordomus worker: waiting for a changed file before the next start")
            return
        delay = restart_delay(replica.deaths)
        replica.due = now + delay
        complain(
            f"majordomus worker: process {pid} died ({cause(code)}), restarting in {delay:g} s"
        )

    # ── reload ────────────────────────────────────────────────────────────────────────────────────

    def _reload_when_changed(self) -> None:
        if self.reload is None:
            return
        files = python_files(self.reload)
        if files == self.files:
            return
        changed = sorted(name for name, _ in files.items() ^ self.files.items())
        self.files = files
        self._begin_reload(f"{os.path.relpath(changed[0])} changed", RELOAD_GRACE)

    def _begin_reload(self, why: str, grace: float) -> None:
        """Replace all processes, one at a time. A reload that is under way begins anew."""
        complain(f"majordomus worker: {why}, restarting")
        self.grace, self.announced, self.reloading = grace, False, True
        self.outdated = []
        for replica in self.replicas:
            if replica.successor is not None:
                processes.send(replica.successor.process, signal.SIGTERM)
                self.leaving.append(replica.successor)
                replica.successor = None
            if replica.child is not None:
                self.outdated.append(replica)
            else:
                replica.deaths, replica.due = 0, 0.0

    def _replace(self, now: float) -> None:
        """Start the successor of one process, or end the process whose successor is ready."""
        if not self.outdated:
            return
        replica = self.outdated[0]
        if replica.child is None:  # it died: its successor, or its restart, is a new process
            if replica.successor is not None:
                replica.child, replica.successor, replica.due = replica.successor, None, None
            self.outdated.pop(0)
        elif replica.successor is None:
            if not self.leaving:
                replica.successor = self._start(now)
        elif replica.successor.serving or self._is_overdue(replica.successor, now):
            old, replica.child, replica.successor = replica.child, replica.successor, None
            replica.deaths = 0
            processes.send(old.process, signal.SIGTERM)
            old.kill_at = now + self.grace
            self.leaving.append(old)
            self.outdated.pop(0)

    def _is_overdue(self, successor: WorkerProcess, now: float) -> bool:
        return successor.loaded and now >= successor.since + REGISTER_GRACE

    # ── the end ───────────────────────────────────────────────────────────────────────────────────

    def _drain(self, wakeup: int) -> int:
        """Send SIGTERM to every process and wait; a second signal kills them."""
        for replica in self.replicas:
            replica.due = None
        left = self._all()
        for one in left:
            processes.send(one.process, signal.SIGTERM)
        codes: list[int] = []
        while left:
            self._wait(wakeup)
            for one in left[:]:
                if one.process.poll() is not None:
                    codes.append(one.reap())
                    left.remove(one)
            if self._asked_to_stop():
                complain("majordomus worker: killed before all requests were answered")
                return FAILED
        # A process that has not installed its handler yet is ended by SIGTERM, and had no request.
        return DONE if set(codes) <= {DONE, -signal.SIGTERM} else FAILED

    def _wait(self, wakeup: int) -> None:
        """Wait for a signal, a line of a process, something that is due or the next check of
        files."""
        now = time.monotonic()
        dues = [replica.due for replica in self._startable() if replica.due is not None]
        dues += [one.kill_at for one in self.leaving]
        dues += [one.successor.since + REGISTER_GRACE for one in self.replicas if one.successor]
        if self.reload:
            dues.append(now + POLL)
        if self.outdated and not self.leaving and self.outdated[0].successor is None:
            dues.append(now)
        reading = {one.pipe: one for one in self._all() if one.pipe is not None}
        wait = max(0.0, min(dues, default=inf) - now)
        select.select([wakeup, *reading], [], [], None if wait == inf else wait)
        with contextlib.suppress(BlockingIOError):
            self.signals += os.read(wakeup, 4096)
        for one in reading.values():
            one.read()
        if any(one.loaded for one in self._all()):
            self.ever_loaded = True

    def _asked_to_stop(self) -> bool:
        """Return whether SIGTERM or SIGINT has arrived, and forget them."""
        ends = (signal.SIGTERM, signal.SIGINT)
        asked = any(number in ends for number in self.signals)
        self.signals = [number for number in self.signals if number not in ends]
        return asked

    def _asked_to_reload(self) -> bool:
        """Return whether SIGHUP has arrived, and forget all signals."""
        asked = any(number in system.HANGUP for number in self.signals)
        self.signals.clear()
        return asked
