"""Flow control of a reply's parts: the session gets as many at a time as the client has granted
credit for and the socket takes.

A handler on the event loop waits in `ReplyFlow.send` for room. A handler in a thread may be a
bounded number of parts ahead, which wait in `ReplyFlow`; then its thread waits (`parts_ahead` of
its `Invocation`). Everything here is called in the loop's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from majordomus.net.worker.outcomes import metadata_of

if TYPE_CHECKING:
    from majordomus.core.worker.session import WorkerSession
    from majordomus.net.worker.outcomes import Outcome

CONGESTION_RETRY: Final = 0.005
"""Seconds until a stream checks again whether the socket takes more."""


class ReplyFlow:
    """The parts and the outcome of one dispatch.

    `on_sent` is called after each part that has left, `finish` with the outcome when all parts
    before it have left.
    """

    __slots__ = (
        "_backlog",
        "_dispatch_id",
        "_finish",
        "_loop",
        "_on_sent",
        "_outcome",
        "_session",
        "_waiter",
    )

    def __init__(
        self,
        session: WorkerSession,
        dispatch_id: int,
        loop: asyncio.AbstractEventLoop,
        on_sent: Callable[[], object],
        finish: Callable[[Outcome], object],
    ) -> None:
        self._session, self._dispatch_id, self._loop = session, dispatch_id, loop
        self._on_sent, self._finish = on_sent, finish
        self._backlog: deque[list[bytes]] = deque()
        self._outcome: Outcome | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def send(self, frames: list[bytes]) -> None:
        """Send one part, as soon as there is room for it."""
        while not self._session.room(self._dispatch_id):
            if self._session.congested:
                await asyncio.sleep(CONGESTION_RETRY)
                continue
            self._waiter = self._loop.create_future()
            await self._waiter
        self._send_part(frames)

    def put(self, frames: list[bytes]) -> None:
        """Send one part now, or keep it until there is room for it."""
        self._backlog.append(frames)
        if len(self._backlog) == 1:
            self.resume()

    def _send_part(self, frames: list[bytes]) -> None:
        field = metadata_of(frames)
        self._session.partial(self._dispatch_id, frames, time.monotonic(), field)
        self._on_sent()

    def end(self, outcome: Outcome) -> None:
        """Finish with `outcome` when all parts have left."""
        self._outcome = outcome
        if not self._backlog:
            self.resume()

    def resume(self) -> None:
        """Send what there is room for.

        To be called when CREDIT has arrived, when the socket takes more, and when the request was
        cancelled: the session then takes parts without credit and drops them.
        """
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        session, backlog = self._session, self._backlog
        while backlog and session.room(self._dispatch_id):
            self._send_part(backlog.popleft())
        if backlog:
            if session.congested:
                self._loop.call_later(CONGESTION_RETRY, self.resume)
        elif self._outcome is not None:
            outcome, self._outcome = self._outcome, None
            self._finish(outcome)
