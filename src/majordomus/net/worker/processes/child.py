"""One handler process: `python -m majordomus.net.worker.processes.child PIPE LIFE`.

PIPE and LIFE are inherited descriptors. The process ends with its worker, however the worker ends:
a thread reads the pipe's end, and the kernel sends SIGIO at the end of `LIFE` even while a handler
holds the interpreter's lock. Signals that a terminal or a service manager sends to all processes
are left to the worker, which then ends its handler processes in order.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import queue
import runpy
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from math import inf
from multiprocessing.connection import Connection
from typing import Any, Final, cast

from majordomus import system
from majordomus.errors import ConfigurationError
from majordomus.net.deadline import HANDLING, REQUEST, TRACE
from majordomus.net.log_lines import printable_lines
from majordomus.net.worker.handlers import make_handler
from majordomus.net.worker.outcomes import (
    Outcome,
    described,
    is_unintended,
    metadata_of,
    outcome_of_error,
    outcome_of_result,
    outcome_without_caller,
    part_of,
    to_text,
)
from majordomus.net.worker.processes import pipe as messages
from majordomus.net.worker.processes.pipe import Target
from majordomus.net.worker.request import Request
from majordomus.protocol import spec

MAIN: Final = "__mp_main__"
"""The name of the worker's `__main__` here, as multiprocessing names it: the test
`if __name__ == "__main__"` is false.
"""
WORKER_GONE: Final = 1
"""Exit code when the worker has ended."""
END_GRACE: Final = 1.0
"""Seconds that a handler has to end after the worker has."""


class RequestRunner:
    """Runs one request at a time, in the main thread. A second thread reads the pipe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._requests: queue.SimpleQueue[messages.RequestMessage | None] = queue.SimpleQueue()
        self._functions: dict[Target, Callable[[Request], Any]] = {}
        self._cancelled = -1  # number of the request that was cancelled last
        self._current = -1  # number of the request that runs
        self._request: Request | None = None

    def run(self) -> None:
        """Serve until the worker closes the pipe; the process ends then."""
        first = messages.decode_to_process(self._connection.recv_bytes())
        problem = self._load(cast(messages.LoadMessage, first))
        self._send(messages.LoadedMessage(problem))
        if problem:
            return
        threading.Thread(target=self._read_pipe, name="majordomus-pipe", daemon=True).start()
        while (message := self._requests.get()) is not None:
            self._serve(message)

    def _load(self, load: messages.LoadMessage) -> str:
        """Load the functions. Return why that failed, in one line, or an empty text."""
        sys.path[:] = load.path
        os.environ.pop("PYTHONPATH", None)
        if load.python_path is not None:
            os.environ["PYTHONPATH"] = load.python_path
        try:
            if load.main_module or load.main_file:
                with messages.loading():
                    _import_main(load.main_module, load.main_file)
            for target in load.targets:
                self._function(target)
        except BaseException as error:
            with contextlib.suppress(BaseException):
                sys.stderr.write(printable_lines(traceback.format_exc()))
            return to_text(described(error)).decode()
        return ""

    def _function(self, target: Target) -> Callable[[Request], Any]:
        found = self._functions.get(target)
        if found is None:
            with messages.loading():
                found = self._functions[target] = make_handler(
                    find(target), described=False
                ).function
        return found

    # ── the thread that reads the pipe ────────────────────────────────────────────────────────────

    def _read_pipe(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = messages.decode_to_process(self._connection.recv_bytes())
                if isinstance(message, messages.RequestMessage):
                    self._requests.put(message)
                elif isinstance(message, messages.CancelMessage):
                    self._cancel(message.number)
        self._requests.put(None)
        time.sleep(END_GRACE)
        os._exit(WORKER_GONE)

    def _cancel(self, number: int) -> None:
        self._cancelled = number
        if self._current == number and self._request is not None:
            self._request._cancel()

    # ── the main thread ───────────────────────────────────────────────────────────────────────────

    def _serve(self, message: messages.RequestMessage) -> None:
        remaining = message.remaining
        request = Request(
            message.service,
            message.frames,
            client=message.client,
            deadline=inf if remaining is None else time.monotonic() + remaining,
            packed=message.packed,
            broker_packed=message.broker_packed,
            once=message.once,
            number=-message.dispatch,
        )
        self._request, self._current = request, message.number
        if self._cancelled == message.number:  # the CancelMessage was read before this line
            request._cancel()
        HANDLING.set(request.deadline)
        TRACE.set(message.trace)
        REQUEST.set(request.id)
        story = ""
        try:
            outcome = self._call(message, request)
        except BaseException as error:
            outcome = outcome_of_error(error)
            if is_unintended(error):
                story = _traceback_of(error)
        self._request = None
        status, frames = outcome
        self._send(messages.FinalMessage(status, frames, story, metadata_of(outcome)))

    def _call(self, message: messages.RequestMessage, request: Request) -> Outcome:
        function = self._function(message.target)
        if request.cancelled:
            return outcome_without_caller(request, begun=False)
        self._send(messages.StartedMessage())
        result = function(request)
        if not inspect.isgenerator(result):
            return outcome_of_result(result)
        with contextlib.closing(result) as parts:
            for part in parts:
                if request.cancelled:
                    return outcome_without_caller(request, begun=True)
                frames = part_of(part)
                self._send(messages.PartMessage([*frames], metadata_of(frames)))
        return spec.OK, []

    def _send(self, message: messages.FromProcess) -> None:
        try:
            self._connection.send_bytes(messages.encode(message))
        except OSError:
            os._exit(WORKER_GONE)


def _traceback_of(error: BaseException) -> str:
    """Return a traceback as text that can be sent; empty if formatting it fails, which runs methods
    of the exception."""
    with contextlib.suppress(BaseException):
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        return text.encode("utf-8", "backslashreplace").decode()
    return ""


def find(target: Target) -> Callable[..., Any]:
    """Return the function of a target. Raises: ConfigurationError, and what its module raises."""
    found: Any = _module(target)
    for part in target.name.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(
                f"there is no {target.name} in {target.module}: {target.file or 'no file'}"
            )
        found = getattr(found, part)
    return cast(Callable[..., Any], found)


def _module(target: Target) -> types.ModuleType:
    name = target.module
    if name in sys.modules:
        return sys.modules[name]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not target.file or not f"{name}.".startswith(f"{error.name}."):
            raise
    return _module_of_file(name, target.file)


def _module_of_file(name: str, file: str) -> types.ModuleType:
    found = importlib.util.spec_from_file_location(name, file)
    if found is None or found.loader is None:
        raise ConfigurationError(f"{file} is no module")
    module = sys.modules[name] = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_main(module: str, file: str) -> None:
    """Run the worker's main program under another name, and make it the `__main__` of this one."""
    if module:
        names = runpy.run_module(module, run_name=MAIN, alter_sys=True)
    else:
        names = runpy.run_path(file, run_name=MAIN)
    main = types.ModuleType(MAIN)
    main.__dict__.update(names)
    sys.modules["__main__"] = sys.modules[MAIN] = main


def _end_with(life: int) -> None:
    """Have the kernel send SIGIO when the other end of `life` is closed; its default action ends
    the process."""
    with contextlib.suppress(OSError):  # where the kernel cannot, the thread that reads the pipe
        # To the process group: what a handler has started ends too.
        if not system.end_with(life):  # it was closed before: no signal comes
            os._exit(WORKER_GONE)


def main() -> None:
    """Run the process."""
    for number in (signal.SIGINT, signal.SIGTERM, *system.HANGUP):
        # Not SIG_IGN: processes that a handler starts would inherit it.
        signal.signal(number, lambda *_: None)
    _end_with(int(sys.argv[2]))
    runner = RequestRunner(Connection(int(sys.argv[1])))
    with contextlib.suppress(EOFError):
        runner.run()


if __name__ == "__main__":
    main()
