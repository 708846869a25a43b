"""One handler process: `python -m majordomus.net.worker.processes.child PIPE LIFE`.

It ends with its worker, however that ends: the pipe's end is read by a thread, and the kernel sends
SIGIO for the end of `LIFE` even while a handler holds the interpreter's lock. Signals that a
terminal or a service manager sends to all are the worker's business; it ends us in order.
"""

from __future__ import annotations

import contextlib
import fcntl
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

from majordomus.errors import ConfigurationError, StatusError
from majordomus.net.bodies import to_frames
from majordomus.net.deadline import HANDLING
from majordomus.net.worker.handlers import answer, failure, make_handler
from majordomus.net.worker.processes import pipe as wire
from majordomus.net.worker.processes.pipe import Target
from majordomus.net.worker.request import Request
from majordomus.protocol import spec

MAIN: Final = "__mp_main__"
"""What the worker's `__main__` is called here, as multiprocessing calls it: its
`if __name__ == "__main__"` does not hold.
"""
LOST: Final = 1
"""Exit code when the worker is gone."""
PATIENCE: Final = 1.0
"""Seconds that a handler gets to end after that."""


class Child:
    """Runs one request at a time, in the main thread."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._work: queue.SimpleQueue[wire.Work | None] = queue.SimpleQueue()
        self._functions: dict[Target, Callable[[Request], Any]] = {}
        self._stopped = -1
        self._at = -1
        self._request: Request | None = None

    def run(self) -> None:
        """Until the worker closes the pipe; the process ends then."""
        load = cast(wire.Load, wire.decode_to_process(self._pipe.recv_bytes()))
        problem = self._load(load)
        self._say(wire.Loaded(problem))
        if problem:
            return
        threading.Thread(target=self._listen, name="majordomus-pipe", daemon=True).start()
        while (work := self._work.get()) is not None:
            self._serve(work)

    def _load(self, load: wire.Load) -> str:
        """What was wrong, in one line; empty when all is there."""
        sys.path[:] = load.path
        os.environ.pop("PYTHONPATH", None)
        if load.python_path is not None:
            os.environ["PYTHONPATH"] = load.python_path
        try:
            if load.main_module or load.main_file:
                with wire.loading():
                    _import_main(load.main_module, load.main_file)
            for target in load.targets:
                self._function(target)
        except BaseException as error:
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"
        return ""

    def _function(self, target: Target) -> Callable[[Request], Any]:
        found = self._functions.get(target)
        if found is None:
            with wire.loading():
                found = self._functions[target] = make_handler(find(target)).function
        return found

    # ── the thread that listens ───────────────────────────────────────────────────────────────────

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = wire.decode_to_process(self._pipe.recv_bytes())
                if isinstance(message, wire.Work):
                    self._work.put(message)
                elif isinstance(message, wire.Stop):
                    self._stop(message.number)
        self._work.put(None)
        time.sleep(PATIENCE)  # a handler that runs on has nobody to answer
        os._exit(LOST)

    def _stop(self, number: int) -> None:
        self._stopped = number
        if self._at == number and self._request is not None:
            self._request.withdraw()

    # ── the thread that works ─────────────────────────────────────────────────────────────────────

    def _serve(self, work: wire.Work) -> None:
        request = Request(
            work.service,
            work.frames,
            client=work.client,
            deadline=inf if work.remaining is None else time.monotonic() + work.remaining,
            packed=work.packed,
            broker_packed=work.broker_packed,
            once=work.once,
        )
        self._request, self._at = request, work.number
        if self._stopped == work.number:  # the word came first
            request.withdraw()
        HANDLING.set(request.deadline)
        story = ""
        try:
            status, frames = self._answer(work, request)
        except BaseException as error:
            status, frames = failure(error)
            if not isinstance(error, StatusError):
                story = "".join(traceback.format_exception(error))
        self._request = None
        self._say(wire.FinalMessage(status, frames, story))

    def _answer(self, work: wire.Work, request: Request) -> tuple[int, list[bytes]]:
        function = self._function(work.target)
        if request.cancelled:
            return spec.CANCELLED, [b"cancelled before it was begun"]
        self._say(wire.Begun())
        result = function(request)
        if not inspect.isgenerator(result):
            return answer(result)
        with contextlib.closing(result) as parts:
            for part in parts:
                if request.cancelled:
                    return spec.CANCELLED, [b"cancelled"]
                self._say(wire.PartMessage(to_frames(part)))
        return spec.OK, []

    def _say(self, message: wire.FromProcess) -> None:
        try:
            self._pipe.send_bytes(wire.encode(message))
        except OSError:
            os._exit(LOST)


def find(target: Target) -> Callable[..., Any]:
    """The function of that name. Raises: ConfigurationError, and whatever its module raises."""
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
    at = importlib.util.spec_from_file_location(name, target.file)
    if at is None or at.loader is None:
        raise ConfigurationError(f"{target.file} is no module")
    module = sys.modules[name] = importlib.util.module_from_spec(at)
    try:
        at.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_main(module: str, file: str) -> None:
    """The worker's main program, run under another name."""
    if module:
        made = runpy.run_module(module, run_name=MAIN, alter_sys=True)
    else:
        made = runpy.run_path(file, run_name=MAIN)
    main = types.ModuleType(MAIN)
    main.__dict__.update(made)
    sys.modules["__main__"] = sys.modules[MAIN] = main


def _die_with(life: int) -> None:
    """SIGIO, whose default is to end the process, when the other end of `life` is closed."""
    with contextlib.suppress(OSError):  # where the kernel cannot, the thread has to do
        fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())  # what a handler has started ends too
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
        with contextlib.suppress(BlockingIOError):
            os.set_blocking(life, False)
            if not os.read(life, 1):  # it had ended before
                os._exit(LOST)


def main() -> None:
    """The process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # not SIG_IGN: a handler's own children inherit that
    _die_with(int(sys.argv[2]))
    child = Child(Connection(int(sys.argv[1])))
    with contextlib.suppress(EOFError):
        child.run()


if __name__ == "__main__":
    main()
