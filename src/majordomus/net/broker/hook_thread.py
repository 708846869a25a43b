"""The thread in which `async def` hooks run. The broker's thread waits for it only at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

from majordomus import system
from majordomus.errors import LocalProtocolError

GRACE: Final = 2.0
"""Seconds that cancelled hooks have to end when the broker ends."""

logger = logging.getLogger("majordomus.broker")

Done = Callable[[object, BaseException | None], object]


class HookThread:
    """A thread with an event loop, started for the first coroutine.

    `run`, `cancel` and `close` belong to the broker's thread.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        """Of the present thread: one that was left behind keeps its own, and ends by it."""
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[None]] = set()

    def run(self, number: int, coroutine: Coroutine[Any, Any, Any], done: Done) -> None:
        """Run `coroutine`; `done(result, error)` is called in its thread, unless it is cancelled.

        `number` identifies it for `cancel`; 0 if it is never cancelled.
        """
        self._begin().call_soon_threadsafe(self._start, number, coroutine, done)

    def cancel(self, number: int) -> None:
        """Cancel the coroutine `number`. May be repeated."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel, number)

    def close(self) -> None:
        """Cancel all coroutines and end the thread. May be repeated.

        A hook that blocks the thread is left behind in it, with a warning.
        """
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._closing.set()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(2 * GRACE)
        if thread.is_alive():
            logger.warning("a hook holds its thread, and is left behind")
        self._loop = self._thread = None

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in this thread."""
        return self._thread is threading.current_thread()

    def _begin(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = system.new_event_loop()
            self._closing = threading.Event()
            self._thread = threading.Thread(
                target=self._serve,
                args=(self._loop, self._closing),
                name="majordomus-hooks",
                daemon=True,
            )
            self._thread.start()
        return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop, closing: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        try:
            self._run_until_stopped(loop, closing)
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                _, still_running = loop.run_until_complete(asyncio.wait(tasks, timeout=GRACE))
                if still_running:
                    logger.warning(
                        "%d hooks do not end when they are cancelled", len(still_running)
                    )
            with contextlib.suppress(BaseException):  # code of a generator that a hook has begun
                loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def _run_until_stopped(self, loop: asyncio.AbstractEventLoop, closing: threading.Event) -> None:
        """Run the loop until `close`. SystemExit and KeyboardInterrupt of a task or callback that a
        hook has begun end `run_forever`, but must not end the other hooks."""
        while not closing.is_set():
            try:
                loop.run_forever()
            except BaseException:
                logger.exception("a task or callback of a hook failed")

    def _start(self, number: int, coroutine: Coroutine[Any, Any, Any], done: Done) -> None:
        task = asyncio.get_running_loop().create_task(self._watch(coroutine, done))
        task.add_done_callback(lambda _: coroutine.close())  # cancelled before its first step
        if number:
            self._tasks[number] = task
            task.add_done_callback(lambda ended: self._forget(number, ended))
        else:
            self._others.add(task)
            task.add_done_callback(self._others.discard)

    def _forget(self, number: int, ended: asyncio.Task[None]) -> None:
        if self._tasks.get(number) is ended:
            del self._tasks[number]

    def _cancel(self, number: int) -> None:
        task = self._tasks.get(number)
        if task is not None:
            task.cancel()

    async def _watch(self, coroutine: Coroutine[Any, Any, Any], done: Done) -> None:
        result: object = None
        fault: BaseException | None = None
        try:
            result = await coroutine
        except BaseException as error:
            try:
                task = asyncio.current_task()
            except RuntimeError:  # its loop has ended, and it is finalized
                raise error from None
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                return  # cancelled by `cancel` or `close`, not by what the hook waited for
            fault = error
        with contextlib.suppress(LocalProtocolError):  # the broker has ended
            done(result, fault)
