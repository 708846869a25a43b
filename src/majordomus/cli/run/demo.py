"""`majordomus demo` runs a broker, three workers and a client as processes, and kills one worker.

Each step checks its result. All processes end with this one (processes.py).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import click

from majordomus.cli import processes
from majordomus.cli.options import json_option
from majordomus.cli.output import emit_json, emit_table
from majordomus.errors import HandlerFailed, MajordomusError

if TYPE_CHECKING:
    from majordomus.net.client.client import Client

WORKERS: Final = 3
STEP_TIMEOUT: Final = 5.0
"""Seconds that one step may take."""
CALLS: Final = 300
PARTS: Final = 5
WORK: Final = 1.0
"""Duration in seconds of the request whose worker is killed."""


class DemoStepError(MajordomusError):
    """A step of the demo had another result than expected; the text has the result."""


class DemoStep(NamedTuple):
    """One row of the table."""

    step: str
    happened: str
    ms: int
    state: str


class DemoProcess:
    """One process of the demo and the lines that it prints."""

    def __init__(self, log: IO[bytes], *arguments: str) -> None:
        self.child = processes.start(arguments, stdout=subprocess.PIPE, stderr=log)
        self._read = b""

    def line(self) -> str:
        """Read its next line. Raises: DemoStepError when it ends or the step times out."""
        if self.child.stdout is None:
            raise ValueError("the process has no stdout pipe")
        descriptor = self.child.stdout.fileno()
        until = time.monotonic() + STEP_TIMEOUT
        while b"\n" not in self._read:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
            more = os.read(descriptor, 4096) if ready else b""
            if not more:
                raise DemoStepError("a process ended" if ready else "a process printed nothing")
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()


class Stage:
    """The running processes and the steps. Each step returns the text of its row."""

    def __init__(self) -> None:
        self.broker: DemoProcess | None = None
        self.workers: list[DemoProcess] = []
        self.client: Client | None = None
        self.url = ""
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it

    def start_broker(self) -> str:
        """Start a broker on a free port."""
        self.broker = DemoProcess(self.log, "broker", "--bind", "tcp://127.0.0.1:0")
        self.url = self.broker.line().removeprefix("listening on ")
        return f"it listens on {self.url}"

    def start_workers(self) -> str:
        """Start three worker processes and wait until they are registered."""
        from majordomus.net.client.client import Client

        self.client = Client(self.url, timeout=STEP_TIMEOUT)
        target = f"{__package__}.demo_worker:worker"
        for _ in range(WORKERS):
            self.workers.append(
                DemoProcess(self.log, "worker", target, "--broker", self.url, "--child", "-1")
            )
        self._wait_for_workers(WORKERS)
        pids = ", ".join(str(worker.child.pid) for worker in self.workers)
        return f"processes {pids} serve who, count, divide and work"

    def call(self) -> str:
        """Make many calls at once."""
        futures = [self._client.submit("who") for _ in range(CALLS)]
        answers = Counter(future.result(STEP_TIMEOUT).text for future in futures)
        expect(sum(answers.values()) == CALLS, "some calls were not answered")
        expect(len(answers) == WORKERS, f"only {len(answers)} of {WORKERS} workers answered")
        shares = ", ".join(str(number) for _, number in answers.most_common())
        return f"{CALLS} calls at once, distributed {shares}"

    def stream(self) -> str:
        """Make one call with a stream of parts as reply."""
        parts = [part.text for part in self._client.stream("count", str(PARTS))]
        expect(parts == [str(n) for n in range(1, PARTS + 1)], f"the parts were {parts}")
        return f"the parts {' '.join(parts)} arrived one by one"

    def fail(self) -> str:
        """Call a handler that raises."""
        try:
            reply = self._client.call("divide", "1/0")
        except HandlerFailed as error:
            expect("ZeroDivisionError" in error.text, f"the error was {error}")
            return f"the client gets {error}"
        raise DemoStepError(f"the call succeeded: {reply.text}")

    def kill(self) -> str:
        """Kill the worker that has begun a request; another worker replies."""
        future = self._client.submit("work", str(WORK))
        victim = self._begun()
        victim.child.kill()
        killed = time.monotonic()
        answered = future.result(STEP_TIMEOUT + WORK).text
        seconds = time.monotonic() - killed
        processes.reap(victim.child)
        self.workers.remove(victim)
        others = [str(worker.child.pid) for worker in self.workers]
        expect(answered in others, f"process {answered} answered")
        expect(seconds < WORK + 1.0, f"it took {seconds:.1f} s")
        return (
            f"kill -9 of process {victim.child.pid} during its work; "
            f"process {answered} repeated the work and replied"
        )

    def go_on(self) -> str:
        """Check that two workers are registered and reply."""
        self._wait_for_workers(WORKERS - 1)
        answers = {self._client.call("who").text for _ in range(20)}
        expect(answers <= {str(w.child.pid) for w in self.workers}, f"processes {answers} answered")
        return f"{WORKERS - 1} workers are left and reply"

    def leave(self) -> str:
        """Send SIGTERM to all processes; each drains and exits with 0."""
        self._client.close()
        codes = [self._terminate(worker) for worker in self.workers]
        if self.broker is not None:
            codes.append(self._terminate(self.broker))
        expect(not any(codes), f"exit codes {codes}")
        return "the workers and the broker drain on SIGTERM and exit with 0"

    def close(self) -> None:
        """End all processes that are left."""
        if self.client is not None:
            self.client.close()
        running = [*self.workers, *([self.broker] if self.broker else [])]
        processes.end_all([process.child for process in running], grace=1.0)
        self.log.close()

    def last_line(self) -> str:
        """Return the last line that a process printed to stderr."""
        self.log.seek(0)
        lines = self.log.read().decode("utf-8", "replace").splitlines()
        return f" (last line: {lines[-1]})" if lines else ""

    @property
    def _client(self) -> Client:
        if self.client is None:
            raise DemoStepError("there is no client")
        return self.client

    def _wait_for_workers(self, wanted: int) -> None:
        from majordomus.cli.remote import ask

        until = time.monotonic() + STEP_TIMEOUT
        while (found := len(ask((self.url,), STEP_TIMEOUT, "mmi.workers"))) != wanted:
            expect(time.monotonic() < until, f"{found} workers are registered, not {wanted}")
            time.sleep(0.02)

    def _begun(self) -> DemoProcess:
        """Return the worker that has begun a request."""
        pipes = {w.child.stdout: w for w in self.workers if w.child.stdout is not None}
        ready, _, _ = select.select(list(pipes), [], [], STEP_TIMEOUT)
        expect(len(ready) == 1, f"{len(ready)} workers have begun")
        worker = pipes[ready[0]]
        expect(worker.line() == f"begun {worker.child.pid}", "it printed another line")
        return worker

    def _terminate(self, process: DemoProcess) -> int:
        processes.send(process.child, signal.SIGTERM)
        try:
            return process.child.wait(STEP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise DemoStepError(f"process {process.child.pid} does not end") from None


SCRIPT: Final[tuple[tuple[str, Callable[[Stage], str]], ...]] = (
    ("a broker starts", Stage.start_broker),
    (f"{WORKERS} workers start", Stage.start_workers),
    ("calls", Stage.call),
    ("a stream", Stage.stream),
    ("a handler raises", Stage.fail),
    ("a worker is killed", Stage.kill),
    ("the others continue", Stage.go_on),
    ("all processes end", Stage.leave),
)


def expect(condition: bool, otherwise: str) -> None:
    """Raise DemoStepError with the text `otherwise` unless `condition` is true."""
    if not condition:
        raise DemoStepError(otherwise)


def perform(script: tuple[tuple[str, Callable[[Stage], str]], ...] = SCRIPT) -> Generator[DemoStep]:
    """Run the steps until one fails, and yield their results. Closing it ends all processes."""
    stage = Stage()
    with contextlib.closing(stage):
        for name, act in script:
            began = time.monotonic()
            try:
                happened, state = act(stage), "ok"
            except (MajordomusError, TimeoutError, OSError) as error:
                happened, state = str(error) or type(error).__name__, "failed"
                happened += stage.last_line()
            yield DemoStep(name, happened, round((time.monotonic() - began) * 1000), state)
            if state != "ok":
                return


@click.command(short_help="Show a broker and its workers, and kill one worker.")
@json_option
def command(as_json: bool) -> None:
    """Start a broker, three worker processes and a client, and kill one worker during a call.

    Shows calls, a stream, an error and the call that another worker repeats. The demo takes a few
    seconds and ends all its processes. The exit code is 1 when a step failed.
    """
    with processes.terminate_as_interrupt(), contextlib.closing(perform()) as performance:
        steps = list(performance) if as_json else list(_watched(performance))
    good = all(step.state == "ok" for step in steps)
    if as_json:
        emit_json({"ok": good, "steps": [step._asdict() for step in steps]})
    else:
        emit_table(DemoStep._fields, steps)
    if not good:
        raise click.ClickException(f"{steps[-1].step}: {steps[-1].happened}")


def _watched(performance: Iterator[DemoStep]) -> Iterator[Any]:
    """Yield the same steps, and show on the terminal which one is running."""
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        for name, _ in SCRIPT:
            status.update(f"{name} …")
            step = next(performance, None)
            if step is None:
                return
            yield step
