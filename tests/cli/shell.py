"""Running `majordomus` in real processes, for the tests of the commands."""

from __future__ import annotations

import contextlib
import os
import pty
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, NamedTuple

from majordomus.net.zmq.select import OWN_ZMTP, PYZMQ, VARIABLE

SOURCE = Path(__file__).parents[2] / "src"
LIMIT = 30.0
"""Seconds that anything here may take."""


def clean_environment() -> dict[str, str]:
    """The environment without MAJORDOMUS_* variables; libzmq is used in silence."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MAJORDOMUS_")}
    kept |= {"PYTHONPATH": str(SOURCE), "COLUMNS": "100"}
    return kept if OWN_ZMTP else kept | {VARIABLE: PYZMQ}


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: bytes
    err: str


class Lines:
    """The lines of a pipe, as they come."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._lines: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._read, args=(pipe,))
        self._thread.start()
        self.seen: list[str] = []

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._lines.put(line.decode().rstrip("\n"))

    def next(self) -> str:
        """The next line; an error when none comes in time."""
        line = self._lines.get(timeout=LIMIT)
        self.seen.append(line)
        return line

    def until(self, text: str) -> str:
        """The next line that contains `text`."""
        while text not in (line := self.next()):
            pass
        return line

    def rest(self) -> list[str]:
        """What is left after the process has ended."""
        self._thread.join(LIMIT)
        while not self._lines.empty():
            self.seen.append(self._lines.get())
        return self.seen


class Running:
    """A command that goes on; `out` and `err` are its lines."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.out, self.err = Lines(process.stdout), Lines(process.stderr)
        self.url = ""

    def send(self, number: int) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def type(self, line: str | None) -> None:
        """A line on its stdin; None ends it."""
        assert self.process.stdin is not None
        if line is None:
            self.process.stdin.close()
        else:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.send(number)
        return self.process.wait(LIMIT)

    def end(self) -> None:
        """Whatever it does, it does no more."""
        self.process.kill()
        self.process.wait(LIMIT)
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.out.rest()
        self.err.rest()


class Shell:
    """A folder, an environment, and the processes that were started in them."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self._running: list[Running] = []

    def write(self, name: str, text: str) -> Path:
        """A file in the folder. Who watches it never sees a part of the text."""
        path = self.folder / name
        part = path.with_name(f".{path.name}.part")
        part.write_text(text, "utf-8")
        part.replace(path)
        return path

    def run(self, *arguments: str | bytes, stdin: bytes = b"", **environment: str) -> Done:
        """`majordomus` with `arguments`, to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "majordomus.cli", *arguments],
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env=self.environment | environment,
            timeout=LIMIT,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def start(self, *arguments: str, **environment: str) -> Running:
        """`majordomus` with `arguments`, in the background until the test ends."""
        return self.adopt([sys.executable, "-m", "majordomus.cli", *arguments], **environment)

    def adopt(self, command: list[str], *, typing: bool = False, **environment: str) -> Running:
        """Any command line, in the background until the test ends. `typing`: it has a stdin."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if typing else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self.environment | environment,
        )
        running = Running(process)
        self._running.append(running)
        return running

    def broker(self, *arguments: str) -> Running:
        """A broker on a free port of the loopback interface, ready."""
        running = self.start("broker", "--bind", "tcp://127.0.0.1:0", *arguments)
        running.url = running.out.next().removeprefix("listening on ")
        return running

    def end(self) -> None:
        """All processes are gone afterwards; what they were parents of had to end with them."""
        for running in self._running:
            running.end()


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, shell: Shell, *arguments: str) -> None:
        self.screen, other = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "majordomus.cli", *arguments],
            stdin=other,
            stdout=other,
            stderr=other,
            cwd=shell.folder,
            env=shell.environment | {"TERM": "xterm-256color", "COLUMNS": "100"},
        )
        os.close(other)

    def until(self, wanted: str) -> None:
        """Reads until `wanted` is there."""
        until = time.monotonic() + LIMIT
        while wanted not in self.text:
            if time.monotonic() >= until:
                self.process.kill()  # a test that fails leaves no command running
                raise AssertionError(f"{wanted!r} did not come: {self.text[-4000:]!r}")
            self.text += os.read(self.screen, 65536).decode()

    def end(self) -> int:
        """Interrupt it; its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        """Its exit code."""
        try:
            return self.process.wait(LIMIT)
        finally:
            self.process.kill()
            self.process.wait(LIMIT)
            os.close(self.screen)


def alive(pid: int) -> bool:
    """Is there such a process, zombies apart?"""
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


def gone(pid: int) -> bool:
    """Wait for the end of a process that is not our child."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False
