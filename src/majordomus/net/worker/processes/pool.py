"""Processes for handlers that burn CPU: new interpreters, never forks, one request at a time each.

A process that dies is replaced. Its request gets a second attempt if no part has left and it is not
ONCE; else it fails with the cause of the death. A handler that has not ended `kill_after` seconds
after its request was cancelled, or has expired, is killed with its process.

Processes are started and reaped in the loop's thread. The pool's threads send them requests and
receive their messages, one thread for each process.
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

import msgspec

from majordomus import system
from majordomus.errors import (
    Cancelled,
    ConfigurationError,
    HandlerFailed,
    NotSupported,
    StatusError,
    Unavailable,
    error_for,
)
from majordomus.net.bodies import Reply, reply_with
from majordomus.net.deadline import TRACE
from majordomus.net.worker.outcomes import ids_of, shown_ids
from majordomus.net.worker.parts import RequestParts
from majordomus.net.worker.processes import pipe as messages
from majordomus.net.worker.processes.pipe import Target
from majordomus.net.worker.processes.target import load_message
from majordomus.net.worker.request import Request
from majordomus.net.worker.thread_pool import PoolUsage, ThreadPool
from majordomus.protocol import spec

ATTEMPTS: Final = 2
"""Processes that may die while they run one request."""
UNDELIVERED: Final = 5
"""Processes that may die before they have started one request."""
LONGEST_NUMBER: Final = (1 << 64) - 1
"""The number of a dispatch as the broker has it; the session counts on with each connection."""
CANCEL_CHECK: Final = 0.5
"""Seconds between two checks whether a request that waits for a process was cancelled."""
CLOSE_GRACE: Final = 0.5
"""Seconds that processes have to end by themselves when the pool is closed."""
REAP_TIMEOUT: Final = 5.0
"""Seconds until a process that has closed its end of `life` is killed."""
QUICK_DEATH: Final = 1.0
"""A process that dies in less than these seconds, before it was found to have loaded, is replaced
after a delay, which grows."""
FIRST_DELAY: Final = 0.1
LAST_DELAY: Final = 5.0

logger = logging.getLogger("majordomus.worker")

HandlerResult: TypeAlias = Reply | Iterator[Reply]
"""What a function of the pool returns: one reply, or parts."""


class ProcessDied(Exception):
    """The process has ended before its request had an outcome."""


class HandlerProcess:
    """One process, as the worker sees it.

    life: a socket whose other end only the process holds: readable when the process has ended
    created: when the process was started, in monotonic seconds
    loaded: whether the process has loaded its functions
    problem: why it could not load them; else empty
    retired: whether it ends as soon as it has nothing to do
    started: whether the handler of the present request was called
    current: number of the present request; 0 for none
    popen: the process, for the operating system
    """

    def __init__(self, load: messages.LoadMessage) -> None:
        our_end, its_end = socket.socketpair()
        self.life, its_life = socket.socketpair()
        self.created = time.monotonic()
        self.loaded = self.retired = self.started = False
        self.problem = ""
        self.current = 0
        self._sending = threading.Lock()
        self._cancel_requested = 0
        self._socket = our_end
        self._connection = Connection(os.dup(our_end.fileno()))
        fds = its_end.fileno(), its_life.fileno()
        try:
            self.popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "majordomus.net.worker.processes.child", *map(str, fds)],
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                process_group=0,  # a terminal's Ctrl-C is for the worker
                env={**os.environ, "PYTHONPATH": os.pathsep.join(load.path)},
            )
        except BaseException:
            our_end.close()
            self.life.close()
            raise
        finally:
            its_end.close()
            its_life.close()
        with contextlib.suppress(OSError):  # it is dead already: `life` becomes readable
            self._connection.send_bytes(messages.encode(load))

    @property
    def answered(self) -> bool:
        """Whether the process has loaded its functions, or cannot."""
        try:
            return self.loaded or self._connection.poll()
        except OSError:
            return False

    def receive(self) -> messages.FromProcess:
        """Wait for the next message. A process that sends anything else is killed.

        Raises: ProcessDied.
        """
        try:
            data = self._connection.recv_bytes()
            message: messages.FromProcess = messages.decode_from_process(data)
        except (EOFError, OSError):
            raise ProcessDied from None
        except msgspec.MsgspecError as error:  # a handler has written into the pipe
            logger.warning("handler process %d has sent no message: %s", self.popen.pid, error)
            self.kill()
            raise ProcessDied from None
        return message

    def send(self, request: messages.RequestMessage) -> None:
        """Send a request. Raises: ProcessDied."""
        try:
            with self._sending:
                self._connection.send_bytes(messages.encode(request))
        except OSError:
            raise ProcessDied from None
        if self._cancel_requested == request.number:
            self.cancel(request.number)

    def cancel(self, number: int) -> None:
        """Tell the process that its request is cancelled, without waiting.

        While the request itself is being sent, `send` does this afterwards.
        """
        self._cancel_requested = number
        if self._sending.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):
                    self._connection.send_bytes(messages.encode(messages.CancelMessage(number)))
            finally:
                self._sending.release()

    def retire(self) -> None:
        """Let the process end as soon as it has nothing to do."""
        self.retired = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """Kill the process, and what it has started."""
        if self.popen.returncode is None:
            with contextlib.suppress(OSError):
                system.kill_group(self.popen.pid)

    def cause(self) -> str:
        """Wait for the process to end, and describe how it has ended."""
        try:
            code = self.popen.wait(REAP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self.popen.wait()
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def close(self) -> None:
        """Reap the process, which has ended or ends now, and close its sockets."""
        self.kill()
        self.cause()
        self.life.close()
        self._socket.close()


class ProcessPool:
    """At most `size` processes.

    `on_failure` gets the ConfigurationError if the first process cannot load the targets.
    `submit` and `function` are for any thread, all other methods for the loop's.

    size: processes that there should be; `resize` changes it
    """

    def __init__(
        self,
        size: int,
        loop: asyncio.AbstractEventLoop,
        on_failure: Callable[[Exception], None],
        kill_after: float,
    ) -> None:
        self.size = size
        self._loop, self._on_failure, self._kill_after = loop, on_failure, kill_after
        self._targets: list[Target] = []
        self._threads = ThreadPool(size, "majordomus-process")
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._all: set[HandlerProcess] = set()
        self._idle: list[HandlerProcess] = []
        self._delayed_starts = 0
        self._quick_deaths = 0
        self._open = self._closed = False

    # ── any thread ────────────────────────────────────────────────────────────────────────────────

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work`, which calls one of the pool's functions, in a thread."""
        self._threads.submit(work)

    def function(
        self, target: Target, *, durable: bool = False
    ) -> Callable[[Request], HandlerResult]:
        """Return a function for the engine that runs the target in a process. Of a `durable`
        service the broker alone counts attempts and makes the next one."""
        self._targets.append(target)
        attempts = 1 if durable else ATTEMPTS
        return lambda request: self._call(target, request, attempts)

    @property
    def started(self) -> bool:
        """Whether there are as many processes as there should be, and each has tried to load its
        functions."""
        with self._changed:
            kept = [process for process in self._all if not process.retired]
        return len(kept) >= self.size and all(process.answered for process in kept)

    # ── the loop's thread ─────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Start the processes, and check that they can load the targets."""
        self._open = True
        self._start_missing()
        self.submit(self._check_targets)

    @property
    def usage(self) -> PoolUsage:
        """How much of it is in use now."""
        return self._threads.usage

    def resize(self, size: int) -> None:
        """Change the number of processes. Surplus ones end when they have nothing to do."""
        self.size = size
        self._threads.resize(size)
        with self._changed:
            while self._idle and self._kept() > self.size:
                self._idle.pop(0).retire()
        if self._open:
            self._start_missing()

    async def close(self) -> None:
        """End all processes. They are gone when this returns."""
        with self._changed:
            self._closed = True
            processes = list(self._all)
            self._changed.notify_all()
        for process in processes:
            process.retire()
        deadline = time.monotonic() + CLOSE_GRACE
        while self._all and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        for process in list(self._all):
            process.kill()
            self._process_ended(process)
        self._threads.close(CLOSE_GRACE)

    def _start_missing(self) -> None:
        while not self._closed and self._kept() + self._delayed_starts < self.size:
            try:
                process = HandlerProcess(load_message(self._targets))
            except OSError as error:
                logger.warning("no handler process can be started: %s", error)
                self._start_later(LAST_DELAY)
                return
            self._loop.add_reader(process.life.fileno(), self._process_ended, process)
            with self._changed:
                self._all.add(process)
                self._idle.append(process)
                self._changed.notify()

    def _start_later(self, delay: float) -> None:
        self._delayed_starts += 1
        self._loop.call_later(delay, self._start_delayed)

    def _start_delayed(self) -> None:
        self._delayed_starts -= 1
        self._start_missing()

    def _process_ended(self, process: HandlerProcess) -> None:
        """Its end of `life` is closed: it is dead, or dies now. Replace it."""
        with self._changed:
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
        # One that a handler has ended had loaded. It is replaced at once: other requests wait.
        quick = not process.loaded and time.monotonic() - process.created < QUICK_DEATH
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        if self._quick_deaths > 1:
            self._start_later(min(FIRST_DELAY * 2**self._quick_deaths, LAST_DELAY))
        else:
            self._start_missing()

    # ── the pool's threads ────────────────────────────────────────────────────────────────────────

    def _check_targets(self) -> None:
        """Report early, before any request, that the targets cannot be loaded."""
        try:
            process = self._acquire(Request("", []))
        except StatusError:
            return
        except ConfigurationError as error:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._on_failure, error)
            return
        self._release(process)

    def _acquire(self, request: Request) -> HandlerProcess:
        """Wait for an idle process that has loaded. Raises: Unavailable, ConfigurationError."""
        for _ in range(UNDELIVERED):
            process = self._next_idle(request)
            try:
                if not process.loaded:
                    first = process.receive()
                    process.problem = getattr(first, "problem", "")
                    process.loaded = not process.problem
            except ProcessDied:
                continue
            if process.problem:
                raise ConfigurationError(f"a process cannot load the handlers: {process.problem}")
            return process
        raise Unavailable("the handler processes of this worker die as soon as they are started")

    def _next_idle(self, request: Request) -> HandlerProcess:
        with self._changed:
            while not self._idle:
                if self._closed or request.cancelled:
                    raise Unavailable("this worker ends")
                self._changed.wait(CANCEL_CHECK)
            return self._idle.pop()

    def _release(self, process: HandlerProcess) -> None:
        """The process has nothing to do: keep it for the next request, or let it end."""
        process.current = 0
        with self._changed:
            if self._closed or process not in self._all:
                return
            if self._kept() > self.size:
                process.retire()
                return
            self._idle.append(process)
            self._changed.notify()

    def _kept(self) -> int:
        """The number of processes that are not retired."""
        return sum(not process.retired for process in self._all)

    def _call(self, target: Target, request: Request, attempts: int) -> HandlerResult:
        """Run a request in a process, and in a second one if the first dies and that is allowed."""
        if isinstance(request.parts, RequestParts):
            raise NotSupported("a handler that runs in a process takes no stream from its client")
        died = undelivered = 0
        while True:
            process = self._acquire(request)
            try:
                first = self._send_request(process, target, request)
            except ProcessDied:
                request._on_cancel(None)
                died += process.started
                undelivered += not process.started
                if request.cancelled:
                    raise Cancelled("cancelled; its process was ended") from None
                final = died == attempts or (died and request.once) or undelivered == UNDELIVERED
                if final or self._closed:
                    raise _error_of_death(process, died) from None
                continue
            except BaseException:  # what it does now is unknown: it is replaced
                process.kill()
                raise
            if isinstance(first, messages.PartMessage):
                return self._receive_parts(process, request, first)
            return self._finish(process, request, first)

    def _send_request(
        self, process: HandlerProcess, target: Target, request: Request
    ) -> messages.FromProcess:
        """Return the handler's first part, or its outcome. Raises: ProcessDied."""
        number = process.current = next(self._numbers)
        process.started = False
        remaining = request.remaining
        message = messages.RequestMessage(
            number,
            target,
            request.service,
            request.frames,
            request.client,
            remaining if isfinite(remaining) else None,
            request._packed,
            request._broker_packed,
            request.once,
            abs(request._number) & LONGEST_NUMBER,
            TRACE.get(),
        )
        request._on_cancel(lambda: self._cancel(process, number))
        process.send(message)
        while isinstance(answer := process.receive(), messages.StartedMessage):
            process.started = True
        return answer

    def _receive_parts(
        self, process: HandlerProcess, request: Request, first: messages.FromProcess
    ) -> Iterator[Reply]:
        message = first
        try:
            try:
                while isinstance(message, messages.PartMessage):
                    yield reply_with(message.frames, message.metadata)
                    message = process.receive()
            except GeneratorExit:  # the caller no longer waits: the process has to be idle again
                request._cancel()
                while isinstance(message, messages.PartMessage):
                    message = process.receive()
                self._finish(process, request, message)
                raise
            reply = self._finish(process, request, message)
        except ProcessDied:
            request._on_cancel(None)
            if request.cancelled:
                raise Cancelled("cancelled; its process was ended") from None
            raise _error_of_death(process, 1) from None
        if reply.status != spec.OK:
            raise error_for(reply.status, reply.frames)

    def _finish(
        self, process: HandlerProcess, request: Request, final: messages.FromProcess
    ) -> Reply:
        """Release the process, and return the handler's outcome as a reply."""
        request._on_cancel(None)
        self._release(process)
        if not isinstance(final, messages.FinalMessage):  # it runs another version of this package
            process.kill()
            raise HandlerFailed(f"its process sent an unexpected {type(final).__name__}")
        if final.traceback:
            text = final.traceback.rstrip()
            shown = shown_ids(ids_of(request))
            logger.error("the handler of %s failed%s\n%s", request.service, shown, text)
        return reply_with(final.frames, final.metadata, final.status)

    def _cancel(self, process: HandlerProcess, number: int) -> None:
        process.cancel(number)
        with contextlib.suppress(RuntimeError):  # the loop is closed: all processes are killed
            self._loop.call_soon_threadsafe(
                self._loop.call_later, self._kill_after, self._kill, process, number
            )

    def _kill(self, process: HandlerProcess, number: int) -> None:
        if process.current == number and process in self._all:
            logger.warning(
                "handler process %d is killed: it still runs a cancelled request",
                process.popen.pid,
            )
            process.kill()


def _error_of_death(process: HandlerProcess, died: int) -> StatusError:
    times = f", and so was the one before: {died} in all" if died > 1 else ""
    return HandlerFailed(f"the process that worked on it died: {process.cause()}{times}")
