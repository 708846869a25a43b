"""Processes for handlers that burn CPU: new interpreters, never forks, one request at a time each.

A process that dies is replaced. What it worked on is tried once more, as long as no part has left
and it is not ONCE; else it fails with the cause of the death. A handler that has not ended
`kill_after` seconds after its request was cancelled, or has expired, is killed with its process.

Processes are started and reaped in the loop's thread, talked to in the pool's threads, one each.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from math import isfinite
from multiprocessing.connection import Connection
from typing import Final, TypeAlias

from majordomus.errors import (
    Cancelled,
    ConfigurationError,
    HandlerFailed,
    NotSupported,
    StatusError,
    Unavailable,
    error_for,
)
from majordomus.net.bodies import Reply
from majordomus.net.worker.parts import Parts
from majordomus.net.worker.processes import pipe as wire
from majordomus.net.worker.processes.pipe import Target
from majordomus.net.worker.processes.target import load_for
from majordomus.net.worker.request import Request
from majordomus.net.worker.thread_pool import ThreadPool
from majordomus.protocol import spec

ATTEMPTS: Final = 2
"""Processes that one request may cost."""
UNDELIVERED: Final = 5
"""Processes that may end before they have begun with it."""
LOOK: Final = 0.5
"""Seconds between two looks whether anybody still waits, while there is no process yet."""
GRACE: Final = 0.5
"""Seconds that processes get to end by themselves."""
REAP: Final = 5.0
QUICK: Final = 1.0
"""Who lives no longer than this, in seconds, gets a successor only after a delay that grows."""
FIRST_DELAY: Final = 0.1
LAST_DELAY: Final = 5.0

logger = logging.getLogger("majordomus.worker")

Outcome: TypeAlias = Reply | Iterator[list[bytes]]


class Gone(Exception):
    """The process has ended before its answer was complete."""


class Process:
    """One process, seen from the worker. `at`: the number of what it works on, 0 for nothing."""

    def __init__(self, load: wire.Load) -> None:
        mine, its = socket.socketpair()
        self.life, its_life = socket.socketpair()
        self.since = time.monotonic()
        self.loaded = self.retired = self.begun = False
        self.problem = ""
        self.at = 0
        self._sending = threading.Lock()
        self._stop_wanted = 0
        self._socket = mine
        self._pipe = Connection(os.dup(mine.fileno()))
        fds = its.fileno(), its_life.fileno()
        try:
            self.popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "majordomus.net.worker.processes.child", *map(str, fds)],
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                process_group=0,  # a terminal's Ctrl-C is for the worker
                env={**os.environ, "PYTHONPATH": os.pathsep.join(load.path)},
            )
        except BaseException:
            mine.close()
            self.life.close()
            raise
        finally:
            its.close()
            its_life.close()
        with contextlib.suppress(OSError):  # dead already: that is seen elsewhere
            self._pipe.send_bytes(wire.encode(load))

    def receive(self) -> wire.FromProcess:
        """Waits for the next message. Raises: Gone."""
        try:
            message: wire.FromProcess = wire.decode_from_process(self._pipe.recv_bytes())
        except (EOFError, OSError):
            raise Gone from None
        return message

    def send(self, work: wire.Work) -> None:
        """Raises: Gone."""
        try:
            with self._sending:
                self._pipe.send_bytes(wire.encode(work))
        except OSError:
            raise Gone from None
        if self._stop_wanted == work.number:
            self.stop(work.number)

    def stop(self, number: int) -> None:
        """The word that nobody waits any more. It never waits for a body that is being sent."""
        self._stop_wanted = number
        if self._sending.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):
                    self._pipe.send_bytes(wire.encode(wire.Stop(number)))
            finally:
                self._sending.release()

    def retire(self) -> None:
        """It ends when it has nothing to do."""
        self.retired = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """It and what it has started end at once."""
        if self.popen.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self.popen.pid, signal.SIGKILL)

    def cause(self) -> str:
        """How it has ended; waits for that."""
        try:
            code = self.popen.wait(REAP)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self.popen.wait()
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def close(self) -> None:
        """After its end."""
        self.kill()
        self.cause()
        self.life.close()
        self._socket.close()


class ProcessPool:
    """`size` processes. `broken` gets the ConfigurationError when they cannot load the targets that
    there are at the beginning.

    `submit` and `function` are for any thread, everything else is for the loop's.
    """

    def __init__(
        self,
        size: int,
        loop: asyncio.AbstractEventLoop,
        broken: Callable[[Exception], None],
        kill_after: float,
    ) -> None:
        self.size = size
        self._loop, self._broken, self._kill_after = loop, broken, kill_after
        self._targets: list[Target] = []
        self._threads = ThreadPool(size, "majordomus-process")
        self._numbers = itertools.count(1)
        self._change = threading.Condition()
        self._all: set[Process] = set()
        self._idle: list[Process] = []
        self._planned = 0
        self._quick_deaths = 0
        self._open = self._closed = False

    # ── any thread ────────────────────────────────────────────────────────────────────────────────

    def submit(self, work: Callable[[], None]) -> None:
        """Runs `work`, which calls one of the functions, in a thread."""
        self._threads.submit(work)

    def function(self, target: Target) -> Callable[[Request], Outcome]:
        """What a handler looks like to the engine: the same function, in a process."""
        self._targets.append(target)
        return lambda request: self._call(target, request)

    # ── the loop's thread ─────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Starts the processes."""
        self._open = True
        self._fill()
        self.submit(self._try_out)

    def resize(self, size: int) -> None:
        """More at once; fewer as they get done."""
        self.size = size
        self._threads.resize(size)
        with self._change:
            while self._idle and self._staff() > self.size:
                self._idle.pop(0).retire()
        if self._open:
            self._fill()

    async def close(self) -> None:
        """Ends all processes; they are gone when this returns."""
        with self._change:
            self._closed = True
            everybody = list(self._all)
            self._change.notify_all()
        for process in everybody:
            process.retire()
        until = time.monotonic() + GRACE
        while self._all and time.monotonic() < until:
            await asyncio.sleep(0.005)
        for process in list(self._all):
            process.kill()
            self._ended(process)
        self._threads.close(GRACE)

    def _fill(self) -> None:
        while not self._closed and self._staff() + self._planned < self.size:
            try:
                process = Process(load_for(self._targets))
            except OSError as error:
                logger.warning("no handler process can be started: %s", error)
                self._plan(LAST_DELAY)
                return
            self._loop.add_reader(process.life.fileno(), self._ended, process)
            with self._change:
                self._all.add(process)
                self._idle.append(process)
                self._change.notify()

    def _plan(self, delay: float) -> None:
        self._planned += 1
        self._loop.call_later(delay, self._planned_fill)

    def _planned_fill(self) -> None:
        self._planned -= 1
        self._fill()

    def _ended(self, process: Process) -> None:
        """Its end of `life` is closed: it is dead, or dies now."""
        with self._change:
            if process not in self._all:
                return
            self._all.discard(process)
            if process in self._idle:
                self._idle.remove(process)
        self._loop.remove_reader(process.life.fileno())
        process.close()
        if process.retired or self._closed:
            return
        if not process.problem:
            logger.warning(
                "handler process %d has died (%s), it is replaced",
                process.popen.pid,
                process.cause(),
            )
        quick = time.monotonic() - process.since < QUICK
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        if self._quick_deaths > 1:
            self._plan(min(FIRST_DELAY * 2**self._quick_deaths, LAST_DELAY))
        else:
            self._fill()

    # ── the pool's threads ────────────────────────────────────────────────────────────────────────

    def _try_out(self) -> None:
        """Says early what is wrong with the targets."""
        try:
            process = self._take(Request("", []))
        except StatusError:
            return
        except ConfigurationError as error:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._broken, error)
            return
        self._give_back(process)

    def _take(self, request: Request) -> Process:
        """A process that has loaded. Raises: Unavailable, ConfigurationError."""
        for _ in range(UNDELIVERED):
            process = self._next_idle(request)
            try:
                if not process.loaded:
                    hello = process.receive()
                    process.problem = getattr(hello, "problem", "")
                    process.loaded = not process.problem
            except Gone:
                continue
            if process.problem:
                raise ConfigurationError(f"a process cannot load the handlers: {process.problem}")
            return process
        raise Unavailable("the processes of this worker die as soon as they are started")

    def _next_idle(self, request: Request) -> Process:
        with self._change:
            while not self._idle:
                if self._closed or request.cancelled:
                    raise Unavailable("this worker ends")
                self._change.wait(LOOK)
            return self._idle.pop()

    def _give_back(self, process: Process) -> None:
        process.at = 0
        with self._change:
            if self._closed or process not in self._all:
                return
            if self._staff() > self.size:
                process.retire()
                return
            self._idle.append(process)
            self._change.notify()

    def _staff(self) -> int:
        """Processes that are to stay."""
        return sum(not process.retired for process in self._all)

    def _call(self, target: Target, request: Request) -> Outcome:
        if isinstance(request.parts, Parts):
            raise NotSupported("a handler that runs in a process takes no stream from its client")
        died = undelivered = 0
        while True:
            process = self._take(request)
            try:
                first = self._begin(process, target, request)
            except Gone:
                request.tell_withdrawn(None)
                died += process.begun
                undelivered += not process.begun
                if request.cancelled:
                    raise Cancelled("cancelled; its process was ended") from None
                final = died == ATTEMPTS or (died and request.once) or undelivered == UNDELIVERED
                if final or self._closed:
                    raise _death(process, died) from None
                continue
            if isinstance(first, wire.PartMessage):
                return self._parts(process, request, first)
            return self._end(process, request, first)

    def _begin(self, process: Process, target: Target, request: Request) -> wire.FromProcess:
        """The first part, or the end. Raises: Gone."""
        number = process.at = next(self._numbers)
        process.begun = False
        remaining = request.remaining
        work = wire.Work(
            number,
            target,
            request.service,
            request.frames,
            request.client,
            remaining if isfinite(remaining) else None,
            *request.packed_metadata,
            request.once,
        )
        request.tell_withdrawn(lambda: self._withdraw(process, number))
        process.send(work)
        while isinstance(message := process.receive(), wire.Begun):
            process.begun = True
        return message

    def _parts(
        self, process: Process, request: Request, first: wire.FromProcess
    ) -> Iterator[list[bytes]]:
        message = first
        try:
            try:
                while isinstance(message, wire.PartMessage):
                    yield message.frames
                    message = process.receive()
            except GeneratorExit:  # nobody takes the parts any more
                request.withdraw()
                while isinstance(message, wire.PartMessage):
                    message = process.receive()
                self._end(process, request, message)
                raise
            reply = self._end(process, request, message)
        except Gone:
            request.tell_withdrawn(None)
            if request.cancelled:
                raise Cancelled("cancelled; its process was ended") from None
            raise _death(process, 1) from None
        if reply.status != spec.OK:
            raise error_for(reply.status, reply.frames)

    def _end(self, process: Process, request: Request, final: wire.FromProcess) -> Reply:
        """Raises: the StatusError of a handler that has raised."""
        request.tell_withdrawn(None)
        self._give_back(process)
        if not isinstance(final, wire.FinalMessage):  # it speaks another language than this module
            process.kill()
            raise HandlerFailed(f"its process said {type(final).__name__}")
        if final.story:
            logger.error("the handler of %s failed\n%s", request.service, final.story.rstrip())
        return Reply(final.frames, final.status)

    def _withdraw(self, process: Process, number: int) -> None:
        process.stop(number)
        with contextlib.suppress(RuntimeError):  # the loop is closed: everything is being killed
            self._loop.call_soon_threadsafe(
                self._loop.call_later, self._kill_after, self._kill, process, number
            )

    def _kill(self, process: Process, number: int) -> None:
        if process.at == number and process in self._all:
            logger.warning(
                "handler process %d goes on with what was cancelled, it is killed",
                process.popen.pid,
            )
            process.kill()


def _death(process: Process, died: int) -> StatusError:
    times = f", and so was the one before: {died} in all" if died > 1 else ""
    return HandlerFailed(f"the process that worked on it died: {process.cause()}{times}")
