"""A `TestBroker` over a real broker: a TCP port of this machine, threads and the real clock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeAlias, TypeVar

from majordomus import system
from majordomus.core.broker.hooks.views import HookReply, HookRequest, Outcome
from majordomus.net.broker.broker import Broker
from majordomus.net.broker.hooks import Middleware
from majordomus.net.worker.async_worker import AsyncWorker
from majordomus.net.worker.worker import Worker
from majordomus.testing.recorder import RecordedCall
from majordomus.testing.skipping import needs_virtual_clock

READY: Final = 10.0
"""Seconds in which a worker has to be registered."""

AnyWorker: TypeAlias = Worker | AsyncWorker

T = TypeVar("T")


class RealBroker:
    """See `broker.Backend`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._watch = _Watch()
        broker.hooks.insert(0, self._watch)
        self.calls: list[RecordedCall] = self._watch.calls
        self._workers: dict[AnyWorker, Worker | _Thread] = {}
        self._runner = asyncio.Runner(loop_factory=system.LOOP_FACTORY)

    def open(self) -> None:
        self._broker.start()

    def url(self) -> str:
        return self._broker.endpoints[0]

    def now(self) -> float:
        return self._runner.get_loop().time()

    def advance(self, seconds: float) -> None:
        raise needs_virtual_clock("time.advance")

    def add(self, worker: AnyWorker, url: str) -> None:
        if isinstance(worker, Worker):
            worker.redirect(url)
            worker.start()
            self._workers[worker] = worker
            worker.wait_ready(READY)
        else:
            self._workers[worker] = thread = _Thread(worker, url)
            thread.wait_ready()

    def lose(self, worker: AnyWorker) -> None:
        self._workers.pop(worker).stop(drain=False)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    def drop(self, url: str) -> None:
        """Do nothing: `lose` ends the worker. A connection alone cannot be ended here."""

    def pause(self, url: str, paused: bool) -> None:
        raise needs_virtual_clock("pause")

    def close(self) -> None:
        try:
            for running in self._workers.values():
                running.stop(drain=True)
        finally:
            self._runner.close()
            self._broker.stop()
            self._broker.hooks.remove(self._watch)


class _Thread:
    """An asyncio worker on an event loop in a thread of its own."""

    def __init__(self, worker: AsyncWorker, url: str) -> None:
        self._worker = worker
        worker.redirect(url)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._stop: asyncio.Event | None = None
        self._drain = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="majordomus-test", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=system.LOOP_FACTORY) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await self._worker.start()
        try:
            await self._worker.wait_ready(READY)
            self._ready.set()
            await self._stop.wait()
        finally:
            await self._worker.stop(drain=self._drain)

    def wait_ready(self) -> None:
        self._ready.wait(READY + 1)
        if self._failure is not None:
            raise self._failure

    def stop(self, *, drain: bool) -> None:
        self._drain = drain
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


class _Watch(Middleware):
    """Records the calls as hooks see them. Calls of one client and service end in their order."""

    def __init__(self) -> None:
        self.calls: list[RecordedCall] = []
        self._open: dict[tuple[bytes, str], list[RecordedCall]] = {}

    def on_request(self, request: HookRequest) -> None:
        if request.service.startswith("mmi."):
            return
        call = RecordedCall(request.service, list(request.frames), request.metadata, request.flags)
        self.calls.append(call)
        self._open.setdefault((request.client, request.service), []).append(call)

    def on_part(self, part: HookReply) -> None:
        for call in self._open.get((part.client, part.service), [])[:1]:
            call.parts += 1
            call.reply += list(part.frames)

    def on_reply(self, reply: HookReply) -> None:
        for call in self._open.get((reply.client, reply.service), [])[:1]:
            call.reply += list(reply.frames)

    def on_request_ended(self, outcome: Outcome) -> None:
        waiting = self._open.get((outcome.client, outcome.service))
        if waiting:
            waiting.pop(0).status = outcome.status
