"""A `TestBroker` with a virtual clock: everything runs in one thread, without a socket."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from majordomus.net.broker.broker import Broker
from majordomus.net.connection import memory_link
from majordomus.testing import clock
from majordomus.testing.listener import MemoryListener, MemoryWaker
from majordomus.testing.recorder import RecordedCall, Recorder
from majordomus.testing.virtual_loop import VirtualLoop

if TYPE_CHECKING:
    from majordomus.net.worker.base import WorkerBase
    from majordomus.net.worker.run import WorkerRun

READY: Final = 5.0
"""Virtual seconds in which a worker has to be registered."""
_names: Final = itertools.count(1)

T = TypeVar("T")


class MemoryBroker:
    """See `broker.Backend`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._name = next(_names)
        self._peers = itertools.count(1)
        self._urls: list[str] = []
        self._recorder = Recorder()
        self.calls: list[RecordedCall] = self._recorder.calls
        self._loop = VirtualLoop()
        self._listener = MemoryListener(self._loop, self._recorder)
        self._running: dict[WorkerBase, tuple[WorkerRun, asyncio.Task[None]]] = {}

    def open(self) -> None:
        clock.use(self._loop.time)
        waker = MemoryWaker(self._listener.plan)
        try:
            turns = self._broker.embed(self._listener.begin, waker, self._loop.time)
        except BaseException:
            self.close()
            raise
        self._listener.drive(turns)

    def url(self) -> str:
        url = f"memory://test-{self._name}/{next(self._peers)}"
        memory_link.listen(url, self._listener)
        self._urls.append(url)
        return url

    def now(self) -> float:
        return self._loop.time()

    def advance(self, seconds: float) -> None:
        self._loop.step_until(lambda: False, self._loop.time() + seconds)
        self._loop.settle()

    def add(self, worker: WorkerBase, url: str) -> None:
        run = worker._new_run_at(url)
        task = self._loop.create_task(run.serve(signals=False))
        self._running[worker] = run, task

        def ready() -> bool:
            worker._check_refused()
            return worker.ready or task.done()

        try:
            registered = self._loop.step_until(ready, self._loop.time() + READY)
        except BaseException:
            self._end(worker, drain=False)
            raise
        if not registered:
            self._end(worker, drain=False)
            raise TimeoutError(f"the worker was not registered within {READY:g} s")
        if task.done():
            del self._running[worker]
            worker._active = None
            task.result()

    def lose(self, worker: WorkerBase) -> None:
        self._end(worker, drain=False)

    def _end(self, worker: WorkerBase, *, drain: bool) -> None:
        run, task = self._running.pop(worker)
        run.stop(drain=drain)
        try:
            self._loop.step_until(task.done)
        finally:
            worker._active = None
        if not task.cancelled():
            task.result()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_coroutine(coroutine)

    def drop(self, url: str) -> None:
        for link in [one for one in self._listener.links.values() if one.url == url]:
            self._listener.drop(link)
        self._loop.settle()

    def pause(self, url: str, paused: bool) -> None:
        for link in [one for one in self._listener.links.values() if one.url == url]:
            (self._listener.pause if paused else self._listener.resume)(link)
        self._loop.settle()

    def close(self) -> None:
        try:
            for worker in list(self._running):
                self._end(worker, drain=True)
        finally:
            self._broker.disembed()
            self._loop.close()
            for url in self._urls:
                memory_link.unlisten(url)
            clock.stop()
