"""The parts of one answer on their way from a handler to the session: as many at a time as the
client has given credit for and the socket takes.

A handler on the event loop waits here for room. One in a thread is ahead by a bounded number of
parts, which wait here; then its thread waits. Everything but `Ahead` is called in the loop's
thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from majordomus.core.worker.session import WorkerSession
    from majordomus.net.worker.handlers import Answer

CONGESTED: Final = 0.005
"""Seconds until a stream looks again whether the socket takes more."""


class Outflow:
    """The parts of one job. `sent` is called after each that has left, `finish` with the answer
    when all before it have."""

    __slots__ = ("_backlog", "_finish", "_job", "_loop", "_outcome", "_sent", "_session", "_waiter")

    def __init__(
        self,
        session: WorkerSession,
        job: int,
        loop: asyncio.AbstractEventLoop,
        sent: Callable[[], object],
        finish: Callable[[Answer], object],
    ) -> None:
        self._session, self._job, self._loop = session, job, loop
        self._sent, self._finish = sent, finish
        self._backlog: deque[list[bytes]] = deque()
        self._outcome: Answer | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def send(self, frames: list[bytes]) -> None:
        """One part, when there is room for it."""
        while not self._session.room(self._job):
            if self._session.congested:
                await asyncio.sleep(CONGESTED)
                continue
            self._waiter = self._loop.create_future()
            await self._waiter
        self._session.partial(self._job, frames, time.monotonic())
        self._sent()

    def put(self, frames: list[bytes]) -> None:
        """One part, now or as soon as there is room for it."""
        self._backlog.append(frames)
        if len(self._backlog) == 1:
            self.go_on()

    def end(self, outcome: Answer) -> None:
        """The answer, behind the parts."""
        self._outcome = outcome
        if not self._backlog:
            self.go_on()

    def go_on(self) -> None:
        """There may be room: CREDIT has come, the socket takes more, or nobody wants the parts."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        session, backlog = self._session, self._backlog
        while backlog and session.room(self._job):
            session.partial(self._job, backlog.popleft(), time.monotonic())
            self._sent()
        if backlog:
            if session.congested:
                self._loop.call_later(CONGESTED, self.go_on)
        elif self._outcome is not None:
            outcome, self._outcome = self._outcome, None
            self._finish(outcome)
