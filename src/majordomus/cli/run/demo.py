"""`majordomus demo`: a broker, three workers and a client in real processes, and a kill -9.

Each step checks what it shows. Nothing is left running, whatever happens: processes.py sees to it.
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
from majordomus.cli.output import emit_json, emit_table
from majordomus.errors import HandlerFailed, MajordomusError

if TYPE_CHECKING:
    from majordomus.net.client.client import Client

WORKERS: Final = 3
PATIENCE: Final = 5.0
"""Seconds that any one thing may take."""
CALLS: Final = 300
PARTS: Final = 5
WORK: Final = 1.0
"""Seconds that the request takes whose worker is killed."""


class NotAsItShouldBeError(MajordomusError):
    """A step of the demo did not happen as it should; the text says how it was."""


class Step(NamedTuple):
    """One row of the table."""

    step: str
    happened: str
    ms: int
    state: str


class Process:
    """One process of the demo and the lines that it writes."""

    def __init__(self, log: IO[bytes], *arguments: str) -> None:
        self.child = processes.start(arguments, stdout=subprocess.PIPE, stderr=log)
        self._read = b""

    def line(self) -> str:
        """Its next line. Raises: NotAsItShouldBeError when it ends or takes too long."""
        if self.child.stdout is None:
            raise ValueError("its output is not read")
        descriptor = self.child.stdout.fileno()
        until = time.monotonic() + PATIENCE
        while b"\n" not in self._read:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
            more = os.read(descriptor, 4096) if ready else b""
            if not more:
                raise NotAsItShouldBeError("a process ended" if ready else "a process says nothing")
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()


class Stage:
    """All that is running, and the steps that bring it about. Each returns its row's sentence."""

    def __init__(self) -> None:
        self.broker: Process | None = None
        self.workers: list[Process] = []
        self.client: Client | None = None
        self.url = ""
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it

    def start_broker(self) -> str:
        """A broker on a free port."""
        self.broker = Process(self.log, "broker", "--bind", "tcp://127.0.0.1:0")
        self.url = self.broker.line().removeprefix("listening on ")
        return f"it listens on {self.url}"

    def start_workers(self) -> str:
        """Three worker processes, registered."""
        from majordomus.net.client.client import Client

        self.client = Client(self.url, timeout=PATIENCE)
        target = f"{__package__}.demo_worker:worker"
        for _ in range(WORKERS):
            self.workers.append(
                Process(self.log, "worker", target, "--broker", self.url, "--child", "-1")
            )
        self._wait_for_workers(WORKERS)
        pids = ", ".join(str(worker.child.pid) for worker in self.workers)
        return f"processes {pids} serve who, count, divide and work"

    def call(self) -> str:
        """Many calls at once, shared out among the workers."""
        futures = [self._client.submit("who") for _ in range(CALLS)]
        answers = Counter(future.result(PATIENCE).text for future in futures)
        expect(sum(answers.values()) == CALLS, "some calls were not answered")
        expect(len(answers) == WORKERS, f"only {len(answers)} of {WORKERS} workers answered")
        shares = ", ".join(str(number) for _, number in answers.most_common())
        return f"{CALLS} calls at once, shared out {shares}"

    def stream(self) -> str:
        """One call, several parts."""
        parts = [part.text for part in self._client.stream("count", str(PARTS))]
        expect(parts == [str(n) for n in range(1, PARTS + 1)], f"the parts were {parts}")
        return f"the parts {' '.join(parts)} came one by one"

    def fail(self) -> str:
        """A handler that raises."""
        try:
            reply = self._client.call("divide", "1/0")
        except HandlerFailed as error:
            expect("ZeroDivisionError" in error.text, f"the error was {error}")
            return f"the client gets {error}"
        raise NotAsItShouldBeError(f"there was an answer: {reply.text}")

    def kill(self) -> str:
        """kill -9 of the worker that has just begun; the call survives it."""
        future = self._client.submit("work", str(WORK))
        victim = self._begun()
        victim.child.kill()
        killed = time.monotonic()
        answered = future.result(PATIENCE + WORK).text
        seconds = time.monotonic() - killed
        processes.reap(victim.child)
        self.workers.remove(victim)
        others = [str(worker.child.pid) for worker in self.workers]
        expect(answered in others, f"process {answered} answered")
        expect(seconds < WORK + 1.0, f"it took {seconds:.1f} s")
        return (
            f"kill -9 of process {victim.child.pid} in the middle of its work; "
            f"process {answered} did it again and answered"
        )

    def go_on(self) -> str:
        """The broker knows of two workers, and they serve."""
        self._wait_for_workers(WORKERS - 1)
        answers = {self._client.call("who").text for _ in range(20)}
        expect(answers <= {str(w.child.pid) for w in self.workers}, f"processes {answers} answered")
        return f"{WORKERS - 1} workers are left, and they serve"

    def leave(self) -> str:
        """SIGTERM: everybody finishes, says goodbye and exits with 0."""
        self._client.close()
        codes = [self._terminate(worker) for worker in self.workers]
        if self.broker is not None:
            codes.append(self._terminate(self.broker))
        expect(not any(codes), f"exit codes {codes}")
        return "the workers and the broker finish on SIGTERM and exit with 0"

    def close(self) -> None:
        """Ends whatever is left."""
        if self.client is not None:
            self.client.close()
        everyone = [*self.workers, *([self.broker] if self.broker else [])]
        processes.end_all([process.child for process in everyone], grace=1.0)
        self.log.close()

    def last_word(self) -> str:
        """The last line that any process wrote to stderr."""
        self.log.seek(0)
        lines = self.log.read().decode("utf-8", "replace").splitlines()
        return f" (last word: {lines[-1]})" if lines else ""

    @property
    def _client(self) -> Client:
        if self.client is None:
            raise NotAsItShouldBeError("there is no client")
        return self.client

    def _wait_for_workers(self, wanted: int) -> None:
        from majordomus.cli.remote import ask

        until = time.monotonic() + PATIENCE
        while (found := len(ask((self.url,), PATIENCE, "mmi.workers"))) != wanted:
            expect(time.monotonic() < until, f"{found} workers are registered, not {wanted}")
            time.sleep(0.02)

    def _begun(self) -> Process:
        """The worker that has told that it has begun to work."""
        pipes = {w.child.stdout: w for w in self.workers if w.child.stdout is not None}
        ready, _, _ = select.select(list(pipes), [], [], PATIENCE)
        expect(len(ready) == 1, f"{len(ready)} workers have begun")
        worker = pipes[ready[0]]
        expect(worker.line() == f"begun {worker.child.pid}", "it said something else")
        return worker

    def _terminate(self, process: Process) -> int:
        processes.send(process.child, signal.SIGTERM)
        try:
            return process.child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise NotAsItShouldBeError(f"process {process.child.pid} does not end") from None


SCRIPT: Final[tuple[tuple[str, Callable[[Stage], str]], ...]] = (
    ("a broker starts", Stage.start_broker),
    (f"{WORKERS} workers start", Stage.start_workers),
    ("calls", Stage.call),
    ("a stream", Stage.stream),
    ("a handler raises", Stage.fail),
    ("a worker is killed", Stage.kill),
    ("life goes on", Stage.go_on),
    ("everybody leaves", Stage.leave),
)


def expect(condition: bool, otherwise: str) -> None:
    """Raises: NotAsItShouldBeError with `otherwise`."""
    if not condition:
        raise NotAsItShouldBeError(otherwise)


def perform(script: tuple[tuple[str, Callable[[Stage], str]], ...] = SCRIPT) -> Generator[Step]:
    """The steps as they happen; the first that fails is the last. Closing it ends everything."""
    stage = Stage()
    with contextlib.closing(stage):
        for name, act in script:
            began = time.monotonic()
            try:
                happened, state = act(stage), "ok"
            except (MajordomusError, TimeoutError, OSError) as error:
                happened, state = str(error) or type(error).__name__, "failed"
                happened += stage.last_word()
            yield Step(name, happened, round((time.monotonic() - began) * 1000), state)
            if state != "ok":
                return


@click.command(short_help="Show a broker, its workers and a kill -9 in a few seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Start a broker, three worker processes and a client; call, stream, kill a worker with -9
    in the middle of its work, and show the call that survives it.

    Takes a few seconds and leaves nothing running. Exit code 1 if anything did not happen as it
    should.
    """
    with processes.terminate_as_interrupt(), contextlib.closing(perform()) as performance:
        steps = list(performance) if as_json else list(_watched(performance))
    good = all(step.state == "ok" for step in steps)
    if as_json:
        emit_json({"ok": good, "steps": [step._asdict() for step in steps]})
    else:
        emit_table(Step._fields, steps)
    if not good:
        raise click.ClickException(f"{steps[-1].step}: {steps[-1].happened}")


def _watched(performance: Iterator[Step]) -> Iterator[Any]:
    """The same steps, with a word on the terminal while each one is under way."""
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        for name, _ in SCRIPT:
            status.update(f"{name} …")
            step = next(performance, None)
            if step is None:
                return
            yield step
