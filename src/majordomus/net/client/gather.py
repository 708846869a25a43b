"""Gathering: one request to every worker of a service, replies as they come, with a total and a
stall limit.

The broker lists the workers (`mmi.workers`). Each worker is then called by its id. So a worker that
has left meanwhile fails with NotFound, and a worker that comes later is not asked. Calls whose
replies are no longer needed are cancelled.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from math import inf
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

import msgspec

from majordomus.errors import ConfigurationError, DeadlineExceeded, Unavailable, error_for
from majordomus.net.bodies import Reply
from majordomus.net.client.async_call_runner import AsyncCallRunner
from majordomus.net.client.call_runner import CallLauncher, CallRunner
from majordomus.net.client.calls import CallOptions, PendingCall, make_options, result
from majordomus.protocol import spec

Wait: TypeAlias = Literal["all", "first"] | int
WORKERS: Final = "mmi.workers"


class _Row(msgspec.Struct):
    """The fields of a row of `mmi.workers` that a gathering needs."""

    id: str
    state: str
    load: float | None


class GatherTally:
    """Counts replies and failures, and decides when they are enough. It does not wait.

    workers: the ids of the workers that were asked.
    failures: the workers that did not answer, and why. With ``wait="all"`` the caller handles
        them. Otherwise the gathering fails when the wanted number of replies cannot come any more.
    open: the calls that have not ended.
    """

    def __init__(self, wait: Wait, timeout: float, stall: float | None) -> None:
        if wait not in ("all", "first") and (not isinstance(wait, int) or wait < 1):
            raise ConfigurationError(f'wait is "all", "first" or a number from 1, not {wait!r}')
        if stall is not None and not stall > 0:
            raise ConfigurationError(f"stall must be more than 0 seconds, not {stall}")
        self.workers: list[bytes] = []
        self.failures: dict[bytes, Exception] = {}
        self.open: dict[bytes, PendingCall] = {}
        self._all = wait == "all"
        self._wanted = 0 if wait == "all" else 1 if wait == "first" else int(wait)
        self._replies = 0
        self._timeout = timeout
        self._stall = inf if stall is None else stall
        self._until = time.monotonic() + timeout
        self._last_change = inf

    def list_page(self, listed: Reply) -> bytes | None:
        """Add the workers of one reply to `mmi.workers`. Returns the frame that asks for the next
        page; None behind the last one.

        Raises: a StatusError when the broker refuses to list them.
        """
        if listed.frames[:1] != [b"200"]:
            raise error_for(int(listed.frames[0]), [b"the broker does not list its workers"])
        rows = msgspec.json.decode(listed.frames[1], type=list[_Row])
        fit = (row for row in rows if row.state == "serving" and row.load != spec.LOAD_UNREADABLE)
        known = set(self.workers)
        ids = (bytes.fromhex(row.id) for row in fit)
        self.workers += [id for id in ids if id not in known]
        return bytes(listed.frames[2]) if len(listed.frames) > 2 else None

    def options(self, options: CallOptions) -> list[tuple[bytes, CallOptions]]:
        """Return each worker with the options of its call.

        Raises: Unavailable when there are fewer workers than wanted.
        """
        count, name = len(self.workers), options.service.decode("utf-8", "backslashreplace")
        if count < max(1, self._wanted):
            raise Unavailable(
                f"{count} workers serve '{name}' now, {max(1, self._wanted)} are wanted"
            )
        now = time.monotonic()
        self._last_change = now
        left = max(0.001, self._until - now)
        return [(worker, options.replace(to=worker, timeout=left)) for worker in self.workers]

    @property
    def over(self) -> bool:
        """Whether nothing more is to be waited for."""
        return not self.open or (not self._all and self._replies >= self._wanted)

    @property
    def left(self) -> float:
        """Seconds until a limit is reached; 0 when one is."""
        return max(0.0, min(self._until, self._last_change + self._stall) - time.monotonic())

    def take(self, worker: bytes) -> Reply | None:
        """Return the reply of an ended call, or None if the call failed.

        Raises: its error, if the wanted number of replies cannot come any more.
        """
        call = self.open.pop(worker)
        self._last_change = time.monotonic()
        try:
            reply = result(call)
        except Exception as error:
            self.failures[worker] = error
            self._check_failure(error)
            return None
        self._replies += 1
        return reply

    def expire(self) -> list[PendingCall]:
        """End the wait at a limit: the open calls fail with DeadlineExceeded.

        Returns these calls, which must be cancelled. Raises nothing; see `check_limit`.
        """
        if time.monotonic() >= self._until:
            text = f"no answer within {self._timeout:g} s"
        else:
            text = f"no worker answered for {self._stall:g} s"
        calls = list(self.open.values())
        self.failures.update((worker, DeadlineExceeded(text)) for worker in self.open)
        self.open.clear()
        return calls

    def check_limit(self) -> None:
        """Check the replies after `expire`. Raises: DeadlineExceeded if they are not enough."""
        if not self._all and self._replies < self._wanted:
            raise next(e for e in self.failures.values() if isinstance(e, DeadlineExceeded))

    def _check_failure(self, error: Exception) -> None:
        if not self._all and self._replies + len(self.open) < self._wanted:
            raise error


def _report_end(put: Callable[[bytes], object], worker: bytes, call: PendingCall) -> None:
    """Put `worker` into the queue of ended calls. Not a method: an open call must not keep its
    gathering alive, because dropping the gathering cancels the call."""
    if call.ended():
        put(worker)


class BaseGathering:
    """What both gatherings share: everything but the waiting."""

    _launcher: CallLauncher
    _options: CallOptions
    _tally: GatherTally

    @property
    def workers(self) -> list[bytes]:
        """The ids of the workers that were asked."""
        return self._tally.workers

    @property
    def failures(self) -> dict[bytes, Exception]:
        """The workers that did not answer so far, and why."""
        return self._tally.failures

    def _list_workers(self, cursor: bytes | None) -> CallOptions:
        """Return the options of the call that lists the workers, or the next page of them."""
        name = self._options.service
        body = name if cursor is None else [name, cursor]
        return make_options(WORKERS, body, self._options.timeout)

    def _launch(self, put: Callable[[bytes], object]) -> None:
        """Call every listed worker. `put` gets the id of each worker whose call has ended."""
        tally = self._tally
        for worker, options in tally.options(self._options):
            call = tally.open[worker] = PendingCall(options)
            call.notify = partial(_report_end, put, worker, call)
        for call in list(tally.open.values()):
            self._launcher.launch(call)

    def _expire(self) -> None:
        """Cancel the open calls at a limit. Raises: as `GatherTally.check_limit`."""
        for call in self._tally.expire():
            self._launcher.cancel(call)
        self._tally.check_limit()

    def _cancel_open(self) -> None:
        calls = list(self._tally.open.values())
        self._tally.open.clear()
        for call in calls:
            self._launcher.cancel(call)


class Gathering(BaseGathering, Iterator[Reply]):
    """The replies of many workers, as they come; `worker` of each names its worker.

    `workers` are the ids that were asked, `failures` those that failed, and why. Closing it,
    leaving its `with` or dropping it cancels what has not come yet. For one thread at a time.
    """

    def __init__(
        self, runner: CallRunner, options: CallOptions, wait: Wait, stall: float | None
    ) -> None:
        self._launcher, self._options = runner, options
        self._tally = GatherTally(wait, options.timeout, stall)
        self._ended: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        cursor = self._tally.list_page(runner.call(self._list_workers(None)))
        while cursor is not None:
            cursor = self._tally.list_page(runner.call(self._list_workers(cursor)))
        self._launch(self._ended.put)

    def __next__(self) -> Reply:
        tally = self._tally
        try:
            while not tally.over:
                try:
                    worker = self._ended.get(timeout=tally.left)
                except queue.Empty:
                    self._expire()
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
        """Cancel what has not come yet. May be repeated."""
        self._cancel_open()

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


class AsyncGathering(BaseGathering, AsyncIterator[Reply]):
    """The same for `async for`. The workers are listed and asked at the first step."""

    def __init__(
        self, runner: AsyncCallRunner, options: CallOptions, wait: Wait, stall: float | None
    ) -> None:
        self._launcher = self._runner = runner
        self._options = options
        self._tally = GatherTally(wait, options.timeout, stall)
        self._ended: asyncio.Queue[bytes] = asyncio.Queue()
        self._begun = False

    async def __anext__(self) -> Reply:
        tally = self._tally
        try:
            if not self._begun:
                self._begun = True
                cursor = tally.list_page(await self._runner.call(self._list_workers(None)))
                while cursor is not None:
                    listed = await self._runner.call(self._list_workers(cursor))
                    cursor = tally.list_page(listed)
                self._launch(self._ended.put_nowait)
            while not tally.over:
                try:
                    async with asyncio.timeout(tally.left):
                        worker = await self._ended.get()
                except TimeoutError:
                    self._expire()
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
        """Cancel what has not come yet. May be repeated."""
        self._begun = True
        self._cancel_open()

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
            self._runner.cancel_unreferenced(call)
