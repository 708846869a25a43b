"""One request to every worker of a service: replies as they come, with a total and a stall limit.

Who the workers are is asked of the broker (`mmi.workers`); each is then called by its id, so one
that has left meanwhile fails with NotFound, and one that comes later is not asked. What is not
awaited any more is cancelled.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

import msgspec

from majordomus.errors import ConfigurationError, DeadlineExceeded, Unavailable, error_for
from majordomus.net.bodies import Reply
from majordomus.net.client.calls import CallOptions, PendingCall, result
from majordomus.protocol import spec

if TYPE_CHECKING:
    from majordomus.net.client.async_client import AsyncClient
    from majordomus.net.client.client import Client

Wait: TypeAlias = Literal["all", "first"] | int
WORKERS: Final = "mmi.workers"


class _Row(msgspec.Struct):
    """What matters here of a row of `mmi.workers`."""

    id: str
    state: str
    load: float | None


class Tally:
    """What has come, what is open, and whether it is enough.

    `failures` are the workers that did not answer, and why. With ``wait="all"`` they are the
    caller's matter; otherwise the gathering fails when the answers that are wanted cannot come any
    more.
    """

    def __init__(self, wait: Wait, timeout: float, stall: float | None) -> None:
        if wait not in ("all", "first") and (not isinstance(wait, int) or wait < 1):
            raise ConfigurationError(f'wait is "all", "first" or a number from 1, not {wait!r}')
        if stall is not None and not stall > 0:
            raise ConfigurationError(f"stall is more than 0 seconds, not {stall}")
        self.workers: list[bytes] = []
        self.failures: dict[bytes, Exception] = {}
        self.open: dict[bytes, PendingCall] = {}
        self._all = wait == "all"
        self._wanted = 0 if wait == "all" else 1 if wait == "first" else int(wait)
        self._got = 0
        self._timeout = timeout
        self._stall = inf if stall is None else stall
        self._until = time.monotonic() + timeout
        self._news = inf

    def ask(self, ask: CallOptions, listed: Reply) -> list[tuple[bytes, CallOptions]]:
        """What every worker is asked; `listed` is the broker's answer to `mmi.workers`.

        Raises: Unavailable when there are not so many, a StatusError when the broker did not say.
        """
        if listed.frames[:1] != [b"200"]:
            raise error_for(int(listed.frames[0]), [b"the broker does not tell its workers"])
        rows = msgspec.json.decode(listed.frames[1], type=list[_Row])
        fit = (row for row in rows if row.state == "serving" and row.load != spec.LOAD_UNREADABLE)
        self.workers = [bytes.fromhex(row.id) for row in fit]
        count, name = len(self.workers), ask.service.decode("utf-8", "backslashreplace")
        if count < max(1, self._wanted):
            raise Unavailable(
                f"{count} workers serve '{name}' now, {max(1, self._wanted)} are wanted"
            )
        now = time.monotonic()
        self._news = now
        left = max(0.001, self._until - now)
        return [(worker, ask.but(to=worker, timeout=left)) for worker in self.workers]

    @property
    def over(self) -> bool:
        """Whether nothing more is to be waited for."""
        return not self.open or (not self._all and self._got >= self._wanted)

    @property
    def left(self) -> float:
        """Seconds until a limit is reached; 0 when one is."""
        return max(0.0, min(self._until, self._news + self._stall) - time.monotonic())

    def take(self, worker: bytes) -> Reply | None:
        """The reply of a call that has ended; None when it failed. Raises: see the class."""
        call = self.open.pop(worker)
        self._news = time.monotonic()
        try:
            reply = result(call)
        except Exception as error:
            self.failures[worker] = error
            self._check(error)
            return None
        self._got += 1
        return reply

    def run_out(self) -> list[PendingCall]:
        """A limit is reached: the open calls fail with DeadlineExceeded; they are to be cancelled.

        Raises nothing: see `check_limit`.
        """
        if time.monotonic() >= self._until:
            text = f"no answer within {self._timeout:g} s"
        else:
            text = f"nobody answered for {self._stall:g} s"
        calls = list(self.open.values())
        self.failures.update((worker, DeadlineExceeded(text)) for worker in self.open)
        self.open.clear()
        return calls

    def check_limit(self) -> None:
        """After `run_out`. Raises: DeadlineExceeded where that was not enough."""
        if not self._all and self._got < self._wanted:
            raise next(e for e in self.failures.values() if isinstance(e, DeadlineExceeded))

    def _check(self, error: Exception) -> None:
        if not self._all and self._got + len(self.open) < self._wanted:
            raise error


class Gathering(Iterator[Reply]):
    """The replies of many workers, as they come; `worker` of each says whose it is.

    `workers` are the ids that were asked, `failures` those that failed, and why. Closing it,
    leaving its `with` or dropping it cancels what has not come yet. For one thread at a time.
    """

    def __init__(self, client: Client, ask: CallOptions, wait: Wait, stall: float | None) -> None:
        self._client = client
        self._tally = tally = Tally(wait, ask.timeout, stall)
        self._arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        listed = client.call(WORKERS, ask.service, timeout=ask.timeout)
        for worker, one in tally.ask(ask, listed):
            call = tally.open[worker] = PendingCall(one)
            call.notify = self._teller(worker, call)
        for call in list(tally.open.values()):
            client._launch(call)

    @property
    def workers(self) -> list[bytes]:
        """The ids of the workers that were asked."""
        return self._tally.workers

    @property
    def failures(self) -> dict[bytes, Exception]:
        """The workers that did not answer so far, and why."""
        return self._tally.failures

    def __next__(self) -> Reply:
        tally = self._tally
        try:
            while not tally.over:
                try:
                    worker = self._arrived.get(timeout=tally.left)
                except queue.Empty:
                    for call in tally.run_out():
                        self._client._cancel(call)
                    tally.check_limit()
                    break
                reply = tally.take(worker)
                if reply is not None:
                    return reply
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopIteration

    def close(self) -> None:
        """Cancels what has not come yet. May be repeated."""
        calls = list(self._tally.open.values())
        self._tally.open.clear()
        for call in calls:
            self._client._cancel(call)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_tally"):
            self.close()

    def _teller(self, worker: bytes, call: PendingCall) -> Callable[[], None]:
        arrived = self._arrived  # not self: a call that is open must not keep this alive
        return lambda: arrived.put(worker) if call.ended() else None


class AsyncGathering(AsyncIterator[Reply]):
    """The same for `async for`; the workers are asked at the first step."""

    def __init__(
        self, client: AsyncClient, ask: CallOptions, wait: Wait, stall: float | None
    ) -> None:
        self._client, self._ask = client, ask
        self._tally = Tally(wait, ask.timeout, stall)
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self._begun = False

    @property
    def workers(self) -> list[bytes]:
        """The ids of the workers that were asked."""
        return self._tally.workers

    @property
    def failures(self) -> dict[bytes, Exception]:
        """The workers that did not answer so far, and why."""
        return self._tally.failures

    async def __anext__(self) -> Reply:
        tally = self._tally
        try:
            if not self._begun:
                self._begun = True
                await self._begin()
            while not tally.over:
                try:
                    async with asyncio.timeout(tally.left):
                        worker = await self._arrived.get()
                except TimeoutError:
                    for call in tally.run_out():
                        self._client._cancel(call)
                    tally.check_limit()
                    break
                reply = tally.take(worker)
                if reply is not None:
                    return reply
        except BaseException:
            await self.aclose()
            raise
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancels what has not come yet. May be repeated."""
        self._begun = True
        calls = list(self._tally.open.values())
        self._tally.open.clear()
        for call in calls:
            self._client._cancel(call)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        for call in self._tally.open.values() if hasattr(self, "_tally") else ():
            self._client._cancel_from_anywhere(call)

    async def _begin(self) -> None:
        client, tally, ask = self._client, self._tally, self._ask
        listed = await client.call(WORKERS, ask.service, timeout=ask.timeout)
        for worker, one in tally.ask(ask, listed):
            call = tally.open[worker] = PendingCall(one)
            call.notify = self._teller(worker, call)
        for call in list(tally.open.values()):
            client._launch(call)

    def _teller(self, worker: bytes, call: PendingCall) -> Callable[[], None]:
        arrived = self._arrived
        return lambda: arrived.put_nowait(worker) if call.ended() else None
