"""Streams: the parts of one answer, read one by one, by a thread or by a task.

Read parts are reported to the session, which sends the worker credit for others. So a slow reader
slows down the worker, and what waits in between is bounded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self

from majordomus.net.bodies import Reply
from majordomus.net.client.async_call_runner import AsyncCallRunner
from majordomus.net.client.call_runner import CallRunner
from majordomus.net.client.calls import PendingCall, final
from majordomus.protocol import metadata as packing


class BaseStream:
    """What both streams share: everything but the waiting."""

    _runner: CallRunner | AsyncCallRunner
    _call: PendingCall
    _over = True  # so that a finalizer does nothing where the constructor failed

    def _read(self) -> Reply | None:
        """Take a part, or the FINAL where no part is left. None ends the stream.

        Raises: as `calls.final`.
        """
        call = self._call
        if call.parts:
            part, read = call.read_one()
            if read:
                self._runner.report_read(call, read)
            return part
        self._over = True
        last = final(call)
        return last if any(last.frames) or packing.packed_metadata(last) else None


class Stream(BaseStream, Iterator[Reply]):
    """The parts of one answer, in order. The FINAL is one more if it carries anything.

    For one thread at a time.
    """

    _runner: CallRunner

    def __init__(self, runner: CallRunner, call: PendingCall) -> None:
        self._runner = runner
        self._call = call
        self._over = False
        runner.begin_stream(call)

    def __next__(self) -> Reply:
        call = self._call
        if self._over:
            raise StopIteration
        if not (call.parts or call.outcome is not None):
            self._runner.wait(call, call.is_readable)
        reply = self._read()
        if reply is None:
            raise StopIteration
        return reply

    def close(self) -> None:
        """Cancel what has not come yet. May be repeated."""
        if not self._over:
            self._over = True
            self._runner.cancel_and_flush(self._call)

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
        if not self._over:
            self._over = True
            self._runner.cancel_unreferenced(self._call)


class AsyncStream(BaseStream, AsyncIterator[Reply]):
    """The parts of one answer, in order. The FINAL is one more if it carries anything.

    For one task at a time.
    """

    _runner: AsyncCallRunner

    def __init__(self, runner: AsyncCallRunner, call: PendingCall) -> None:
        self._runner = runner
        self._call = call
        runner.begin(call)
        self._over = False

    async def __anext__(self) -> Reply:
        call = self._call
        if self._over:
            raise StopAsyncIteration
        while not (call.parts or call.outcome is not None):
            await self._runner.wait(call)
        reply = self._read()
        if reply is None:
            raise StopAsyncIteration
        return reply

    async def aclose(self) -> None:
        """Cancel what has not come yet. May be repeated."""
        if not self._over:
            self._over = True
            self._runner.cancel(self._call)

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
        if not self._over and not self._call.ended():
            self._runner.cancel_unreferenced(self._call)
