"""The parts of a client's stream, as a handler reads them.

The event loop adds parts and the handler takes them; they may run in two threads. Parts that were
read are reported to the session in batches, which grants the client as much new credit. Parts that
were not read are bounded by the credit that the client had.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Self

from majordomus.core.session.settings import CREDIT_STEP
from majordomus.errors import Cancelled, LocalProtocolError
from majordomus.net.bodies import Reply
from majordomus.net.connection.inline import step_until


class RequestParts:
    """An iterator for one reader at a time: `for` in a thread, `async for` on the event loop.

    It ends when the client has finished its stream. It raises Cancelled when the caller no longer
    waits for the reply. `on_read` is called on the loop with the number of parts that were read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_read: Callable[[int], object]) -> None:
        self._loop, self._on_read = loop, on_read
        self._loop_thread = threading.get_ident()
        self._parts: deque[list[bytes]] = deque()
        self._changed = threading.Condition()
        self._waiter: asyncio.Future[None] | None = None
        self._read = 0
        self._finished = False
        self._cancelled = False

    # ── the engine, on the loop ───────────────────────────────────────────────────────────────────

    def put(self, frames: list[bytes], last: bool) -> None:
        """Add a part, or the end of the stream, which is a part as well if it has a body."""
        if not last or any(frames):
            self._parts.append(frames)
        self._finished = self._finished or last
        self._wake()

    def cancel(self) -> None:
        """End the iteration with Cancelled: the caller no longer waits for the reply."""
        self._cancelled = True
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # ── the handler ───────────────────────────────────────────────────────────────────────────────

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Reply:
        if (
            not self._ready()
            and not step_until(self._ready)
            and threading.get_ident() == self._loop_thread
        ):
            raise LocalProtocolError("blocking", "on an event loop, read with `async for`")
        with self._changed:
            while not self._ready():
                self._changed.wait()
        part = self._take()
        if part is None:
            raise StopIteration
        return part

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Reply:
        while not self._ready():
            self._waiter = self._loop.create_future()
            await self._waiter
        part = self._take()
        if part is None:
            raise StopAsyncIteration
        return part

    def _ready(self) -> bool:
        return bool(self._parts) or self._finished or self._cancelled

    def _take(self) -> Reply | None:
        if self._cancelled:
            raise Cancelled("the caller no longer waits for the reply")
        if not self._parts:
            return None
        frames = self._parts.popleft()
        self._read += 1
        if self._read >= CREDIT_STEP and not self._finished:
            read, self._read = self._read, 0
            if threading.get_ident() == self._loop_thread:
                self._on_read(read)
            else:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._on_read, read)
        return Reply(frames)


class NoParts:
    """The parts of a request without a stream: none."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Reply:
        raise StopIteration

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Reply:
        raise StopAsyncIteration


NO_PARTS: Final = NoParts()
