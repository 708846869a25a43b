"""Worker processes are kept alive here: a dead one comes back after a growing delay.

The first process is started alone: what cannot even be loaded is a mistake and ends the command.
SIGTERM or SIGINT drains all processes; a second one kills them.
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

from majordomus.cli import DONE, FAILED, processes
from majordomus.cli.output import complain

FIRST_DELAY: Final = 0.2
MOST_DELAY: Final = 10.0
STEADY: Final = 10.0
"""Seconds after which a process counts as healthy: its next death starts the delays anew."""
POLL: Final = 0.5
"""Seconds between two looks at the files, with --reload."""
RELOAD_GRACE: Final = 5.0
"""Seconds that handlers get to finish before a reload kills them."""

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
UNWATCHED: Final = frozenset({"__pycache__", "node_modules", "site-packages"})

Arguments = Callable[[int], list[str]]
"""The command line of a process that writes what it serves to the given descriptor, once loaded."""


def restart_delay(deaths: int) -> float:
    """Seconds before a process that died `deaths` times in a row is started again."""
    return float(min(MOST_DELAY, FIRST_DELAY * 2 ** min(deaths - 1, 30)))


def cause(code: int) -> str:
    """What ended a process, by its exit code as subprocess gives it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # the real-time signals have no names
        return f"signal {-code}"


def python_files(root: Path) -> dict[str, int]:
    """Every ``.py`` file below `root` with its mtime in ns; what is hidden or installed apart."""
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


class Child(NamedTuple):
    """One running process, and the pipe on which it says that its worker is loaded."""

    process: subprocess.Popen[bytes]
    loaded: int
    since: float


class Slot:
    """A place for one process: running, waiting to be started again, or over."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.deaths = 0
        self.due: float | None = 0.0


class Supervisor:
    """Runs `count` processes made by `arguments` until a signal, or until all have ended."""

    def __init__(self, arguments: Arguments, count: int, reload: Path | None = None) -> None:
        self.arguments = arguments
        self.slots = [Slot() for _ in range(count)]
        self.reload = reload
        self.files = python_files(reload) if reload else {}
        self.ever_loaded = False
        self.signals: list[int] = []

    def run(self) -> int:
        """The exit code. Installs signal handlers: to be called in the main thread."""
        with processes.told_of(SIGNALS) as wakeup:
            try:
                return self._run(wakeup)
            finally:
                self._end_all(0.0)

    def _run(self, wakeup: int) -> int:
        while True:
            now = time.monotonic()
            for slot in self._startable():
                if slot.due is not None and slot.due <= now:
                    self._start(slot, now)
            self._wait(wakeup)
            if self._asked_to_stop():
                return self._drain(wakeup)
            code = self._collect()
            if code is not None:
                return code
            self._reload_when_changed()

    def _startable(self) -> list[Slot]:
        """All slots, or the first alone as long as nothing shows that the worker can be loaded."""
        return self.slots if self.ever_loaded else self.slots[:1]

    def _start(self, slot: Slot, now: float) -> None:
        reader, writer = os.pipe()
        try:
            process = processes.start(self.arguments(writer), fds=(writer,))
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        os.set_blocking(reader, False)
        slot.child, slot.due = Child(process, reader, now), None

    def _note_loaded(self, what: str) -> None:
        """The first process has loaded its worker: say so, and let the others start."""
        if what:
            self.ever_loaded = True
            count = len(self.slots)
            click.echo(what + (f" in {count} processes" if count > 1 else ""))

    def _collect(self) -> int | None:
        """Reap the dead and plan their return; the exit code when nothing is left to wait for."""
        now = time.monotonic()
        for slot in self.slots:
            if slot.child is None or slot.child.process.poll() is None:
                continue
            pid, since = slot.child.process.pid, slot.child.since
            code = self._forget(slot)
            if code == DONE:
                continue
            if not self.ever_loaded and not self.reload:
                return code if code > 0 else FAILED
            slot.deaths = 1 if now - since >= STEADY else slot.deaths + 1
            self._plan_restart(slot, pid, code, now)
        waiting = any(slot.child or slot.due is not None for slot in self._startable())
        return None if waiting or self.reload else DONE

    def _plan_restart(self, slot: Slot, pid: int, code: int, now: float) -> None:
        if not self.ever_loaded:
            complain("majordomus worker: waiting for a change before the next try")
            return
        delay = restart_delay(slot.deaths)
        slot.due = now + delay
        complain(
            f"majordomus worker: process {pid} died ({cause(code)}), another starts in {delay:g} s"
        )

    def _forget(self, slot: Slot) -> int:
        """Reap the ended process of `slot`; its exit code."""
        if slot.child is None:
            return DONE
        child, slot.child = slot.child, None
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
        complain(f"majordomus worker: {os.path.relpath(changed[0])} changed, starting again")
        self._end_all(RELOAD_GRACE)
        self.ever_loaded = False
        for slot in self.slots:
            slot.deaths, slot.due = 0, 0.0

    def _drain(self, wakeup: int) -> int:
        """Ask every process to finish, and wait for it; a second request kills."""
        for slot in self.slots:
            slot.due = None
            if slot.child:
                processes.send(slot.child.process, signal.SIGTERM)
        codes: list[int] = []
        while any(slot.child for slot in self.slots):
            self._wait(wakeup)
            for slot in self.slots:
                if slot.child and slot.child.process.poll() is not None:
                    codes.append(self._forget(slot))
            if self._asked_to_stop():
                complain("majordomus worker: killed before all work was done")
                return FAILED
        # Who is asked before it can listen ends by the signal itself, and had nothing to finish.
        return DONE if set(codes) <= {DONE, -signal.SIGTERM} else FAILED

    def _end_all(self, grace: float) -> None:
        processes.end_all([slot.child.process for slot in self.slots if slot.child], grace)
        for slot in self.slots:
            self._forget(slot)

    def _wait(self, wakeup: int) -> None:
        """Until a signal comes, a process has loaded, a restart is due, or files are to be seen."""
        now = time.monotonic()
        dues = [slot.due - now for slot in self._startable() if slot.due is not None]
        if self.reload:
            dues.append(POLL)
        pipes = [] if self.ever_loaded else [s.child.loaded for s in self.slots if s.child]
        select.select([wakeup, *pipes], [], [], max(0.0, min(dues)) if dues else None)
        with contextlib.suppress(BlockingIOError):
            self.signals += os.read(wakeup, 4096)
        for pipe in pipes:
            with contextlib.suppress(BlockingIOError):
                self._note_loaded(os.read(pipe, 65536).decode("utf-8", "replace"))

    def _asked_to_stop(self) -> bool:
        """Has one of the signals come, SIGCHLD apart? Clears what came."""
        asked = any(number != signal.SIGCHLD for number in self.signals)
        self.signals.clear()
        return asked
