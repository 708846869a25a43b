"""The thread of a store for an event loop: an operation is awaited until it is stored."""

from __future__ import annotations

import asyncio
from collections import deque

from majordomus.core.broker.durable.records import Answer, Operation, StoreState
from majordomus.durable.runner import StoreThread
from majordomus.durable.store import Store, StoreError


class AsyncWrites:
    """The writes of one store. Everything but the thread belongs to the running event loop.

    state: what the store has reported last.
    failed: done when the store has failed; its exception says why.
    """

    def __init__(self, store: Store) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = StoreThread(store, self._wake)
        self._last = 0
        self._waiting: deque[tuple[int, asyncio.Future[Answer]]] = deque()
        self.state: StoreState = StoreState()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._thread.start()

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._take)

    def write(self, operation: Operation) -> asyncio.Future[Answer]:
        """Write `operation`; the future has its answer when it is stored.

        The future raises: StoreError when the store has failed; whether it is stored is unknown.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._last += 1
        if self.failed.done():
            future.set_exception(StoreError("the store has failed"))
            return future
        self._waiting.append((self._last, future))
        self._thread.submit([(self._last, operation)])
        return future

    def _take(self) -> None:
        """Resolve what has been stored."""
        while self._thread.done:
            number, answers, self.state = self._thread.done.popleft()
            found = dict(answers)
            while self._waiting and self._waiting[0][0] <= number:
                write, future = self._waiting.popleft()
                if not future.done():
                    future.set_result(found.get(write))
        if self._thread.failed is not None and not self.failed.done():
            error = StoreError(str(self._thread.failed))
            self.failed.set_exception(error)
            for _, future in self._waiting:
                if not future.done():
                    future.set_exception(error)
            self._waiting.clear()

    async def close(self) -> None:
        """Store what is on its way, and close the store."""
        await asyncio.to_thread(self._thread.close)
        self._take()
