"""Brokers, a worker and clients that all examples share, and what must be whole after each."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from majordomus import (
    AsyncClient,
    Broker,
    BrokerSettings,
    Client,
    Middleware,
    Reply,
    Strategy,
    Worker,
)
from tests.net.any_outcome import handlers
from tests.net.any_outcome.recipes import Recipe

THREADS: Final = 2
PROCESSES: Final = 1
CALL_TIMEOUT: Final = 1.0
"""Seconds of a call of an example; it ends earlier unless it is discarded."""
LATE: Final = 20.0
"""Seconds beyond its timeout in which a call on a busy machine must have ended."""
WHOLE_WITHIN: Final = 20.0

HOOK_MODES: Final = ("no hooks", "sync hooks", "async hooks")
PLACES: Final = {
    "function in a thread": ("function", "thread"),
    "generator in a thread": ("generator", "thread"),
    "function in a process": ("function", "process"),
    "generator in a process": ("generator", "process"),
    "coroutine on the loop": ("coroutine", "loop"),
    "async generator on the loop": ("async_generator", "loop"),
}

Outcome = tuple[str, Any]
"""("reply", Reply), ("parts", list of Reply), or ("raised", exception)."""

plan: dict[str, Recipe] = {}
"""What the hooks of the present example do; empty for the calls that check the worker."""
used: Counter[str] = Counter()
"""How often each hook has done what `plan` states."""


class PlannedHooks(Middleware):
    """Hooks that do what `plan` states."""

    def on_request(self, request: Any) -> Any:
        return _planned("on_request")

    def on_reply(self, reply: Any) -> Any:
        return _planned("on_reply")

    def on_part(self, part: Any) -> Any:
        return _planned("on_part")

    def on_request_ended(self, outcome: Any) -> Any:
        return _planned("on_request_ended")

    def on_client_seen(self, client: Any) -> Any:
        return _planned("on_client_seen")


class PlannedAsyncHooks(Middleware):
    """The same with `async def`, where a hook may be."""

    async def on_request(self, request: Any) -> Any:
        return _planned("on_request")

    async def on_reply(self, reply: Any) -> Any:
        await asyncio.sleep(0)
        return _planned("on_reply")

    async def on_request_ended(self, outcome: Any) -> Any:
        return _planned("on_request_ended")

    async def on_client_seen(self, client: Any) -> Any:
        await asyncio.sleep(0)
        return _planned("on_client_seen")


class PlannedStrategy(Strategy):
    """A strategy that chooses what `plan` states."""

    def choose(self, request: Any) -> Any:
        return _planned("strategy") if "strategy" in plan else next(self.willing(request), None)


def _planned(name: str) -> Any:
    if name not in plan:
        return None
    used[name] += 1
    return handlers.end(plan[name])


class World:
    """Three brokers, one worker at all of them, and two clients at each broker."""

    def __init__(self) -> None:
        self.brokers = {"no hooks": Broker(BrokerSettings(), bind="tcp://127.0.0.1:0")}
        for mode in HOOK_MODES[1:]:
            self.brokers[mode] = Broker(
                BrokerSettings(hook_timeout=5.0, balancing="planned"),
                bind="tcp://127.0.0.1:0",
                strategies={"planned": PlannedStrategy},
            )
        self.brokers["sync hooks"].hooks.append(PlannedHooks())
        self.brokers["async hooks"].hooks.append(PlannedAsyncHooks())
        for broker in self.brokers.values():
            broker.start()
        self.urls = {mode: broker.endpoints[0] for mode, broker in self.brokers.items()}
        self.worker = Worker(
            list(self.urls.values()), threads=THREADS, processes=PROCESSES, kill_after=0.5
        )
        for shape, place in PLACES.values():
            name = f"{shape}-{place}"
            self.worker.add(name, getattr(handlers, shape), run=place)
        self.worker.add("fine-thread", handlers.fine, run="thread")
        self.worker.add("fine-process", handlers.fine, run="process")
        self.worker.add("fine-loop", handlers.fine_on_loop, run="loop")
        self.worker.start()
        self.worker.wait_ready(30)
        self.loop = asyncio.new_event_loop()
        self._closed = False
        self._loop_thread = threading.Thread(target=self._run_loop, daemon=True)
        self._loop_thread.start()
        self.clients = {mode: Client(url) for mode, url in self.urls.items()}
        self.async_clients = {mode: self.wait(self._opened(url)) for mode, url in self.urls.items()}
        for mode in HOOK_MODES:
            self.check_serves(mode)
            self.future(mode, "fine-loop")
        self.files: int | None = None
        self.threads: int | None = None
        gc.collect()
        gc.freeze()  # each example collects garbage: it need not look at hypothesis and pytest

    def _run_loop(self) -> None:
        """Run the callers' loop. A body of theirs that raises SystemExit in a task of theirs ends
        `run_forever`; that is theirs, not the client's."""
        while not self._closed:
            with contextlib.suppress(BaseException):
                self.loop.run_forever()

    async def _opened(self, url: str) -> AsyncClient:
        client = AsyncClient(url)
        await client.__aenter__()
        return client

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop of the asyncio clients."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(CALL_TIMEOUT + LATE)

    def call(
        self, mode: str, kind: str, service: str, options: dict[str, Any], how: str
    ) -> Outcome:
        """Call with the client of this kind, or with a new one where a hook is to see it first."""
        url, new = self.urls[mode], "on_client_seen" in plan
        if kind == "sync client":
            if not new:
                return sync_call(self.clients[mode], service, options, how)
            with Client(url) as client:
                return sync_call(client, service, options, how)
        if not new:
            return self.wait(async_call(self.async_clients[mode], service, options, how))  # type: ignore[no-any-return]
        return self.wait(self._call_once(url, service, options, how))  # type: ignore[no-any-return]

    async def _call_once(
        self, url: str, service: str, options: dict[str, Any], how: str
    ) -> Outcome:
        async with AsyncClient(url) as client:
            return await async_call(client, service, options, how)

    def renew_strategy(self, mode: str, name: str) -> None:
        """Replace the strategy of a service, which is one of the broker's own after a failure."""
        done = threading.Event()

        def renew(machine: Any, _now: float) -> None:
            guarded = machine.registry.services[name.encode()].strategy
            strategy = PlannedStrategy(guarded.dice)
            for worker, weight in guarded._weights.items():
                strategy.enter(worker, weight)
            for worker in guarded.free:
                strategy.put(worker)
            guarded._inner = strategy
            done.set()

        loop = self.brokers[mode]._loop
        assert loop is not None
        loop.program.post(renew)
        assert done.wait(LATE)

    def future(self, mode: str, service: str) -> None:
        """Make the client start its background thread, so that later examples start none."""
        assert self.clients[mode].submit(service, timeout=20).result(40).body == b"fine"

    def close(self) -> None:
        gc.unfreeze()
        with contextlib.suppress(BaseException):
            self.worker.stop(drain=False)
        for client in self.clients.values():
            with contextlib.suppress(BaseException):
                client.close()
        for async_client in self.async_clients.values():
            with contextlib.suppress(BaseException):
                self.wait(async_client.aclose())
        self._closed = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._loop_thread.join(5)
        self.loop.close()
        for broker in self.brokers.values():
            with contextlib.suppress(BaseException):
                broker.stop(drain=False)

    # ── what must be whole ────────────────────────────────────────────────────────────────────────

    def check_serves(self, mode: str) -> None:
        """The worker serves each kind of handler, for both clients."""
        for place in ("thread", "process", "loop"):
            assert self.clients[mode].call(f"fine-{place}", timeout=20).body == b"fine"

    def check_whole(self) -> None:
        """No slot is held, no thread or process was lost, and nothing has leaked.

        A promise in a reference cycle, of an exception's traceback for instance, holds its slot
        until the garbage collector finds it.
        """
        if self.problems():
            gc.collect()
        eventually(lambda: not self.problems(), self.problems)

    def problems(self) -> list[str]:
        run = self.worker._active
        if run is None or run._engine is None:
            return ["the worker has ended"]
        engine, found = run._engine, []
        for one in list(engine._registrations):
            if not one.session.ready:
                found.append(f"{one.url} is not registered")
            if one.session.held or one.invocations:
                found.append(f"{one.session.held} slots are held, {one.invocations} run")
        pool = engine._pool
        if pool._available != len(pool._threads) or pool._work:
            found.append(f"{pool._available} of {len(pool._threads)} threads wait")
        if not all(thread.is_alive() for thread in list(pool._threads)):
            found.append("a thread of the pool has ended")
        processes = engine._processes
        assert processes is not None
        if len(processes._all) != PROCESSES or len(processes._idle) != PROCESSES:
            found.append(f"{len(processes._idle)} of {len(processes._all)} processes are idle")
        found += self._leaks(engine)
        return found

    def _leaks(self, engine: Any) -> list[str]:
        found = []
        tasks = [task for task in asyncio.all_tasks(engine._loop) if not task.done()]
        if len(tasks) > 2:  # `serve`, and its wait for the end
            found.append(f"{len(tasks)} tasks on the worker's loop: {tasks}")
        tasks = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        if tasks:
            found.append(f"tasks on the clients' loop: {tasks}")
        threads, files = threading.active_count(), sum(1 for _ in Path("/proc/self/fd").iterdir())
        if self.threads is not None and threads > self.threads:
            names = [thread.name for thread in threading.enumerate()]
            found.append(f"{threads} threads, not {self.threads}: {names}")
        if self.files is not None and files > self.files:
            found.append(f"{files} descriptors, not {self.files}")
        if not found and self.threads is None and len(engine._pool._threads) == THREADS:
            self.threads, self.files = threads, files
        return found


def eventually(condition: Callable[[], bool], story: Callable[[], object]) -> None:
    until, pause = time.monotonic() + WHOLE_WITHIN, 0.0005
    while not condition():
        assert time.monotonic() < until, story()
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


# ── calls ─────────────────────────────────────────────────────────────────────────────────────────


def sync_call(client: Client, service: str, options: dict[str, Any], how: str) -> Outcome:
    """Call in one of the ways of a sync client, and return the one outcome."""
    try:
        if how == "call":
            return "reply", client.call(service, **options)
        if how == "submit":
            return "reply", client.submit(service, **options).result(CALL_TIMEOUT + LATE)
        if how == "cancel":
            future = client.submit(service, **options)
            future.cancel()
            return "reply", future.result(CALL_TIMEOUT + LATE)
        parts: list[Reply] = []
        with client.stream(service, **options) as stream:
            for part in stream:
                parts.append(part)
                if how == "leave":
                    break
    except BaseException as error:
        return "raised", error
    return "parts", parts


async def async_call(
    client: AsyncClient, service: str, options: dict[str, Any], how: str
) -> Outcome:
    """The same with an asyncio client."""
    try:
        if how == "call":
            return "reply", await client.call(service, **options)
        if how in ("submit", "cancel"):
            task = asyncio.ensure_future(client.call(service, **options))
            await asyncio.sleep(0)
            if how == "cancel":
                task.cancel()
            return "reply", await task
        parts: list[Reply] = []
        async with client.stream(service, **options) as stream:
            async for part in stream:
                parts.append(part)
                if how == "leave":
                    break
    except BaseException as error:
        return "raised", error
    return "parts", parts


__all__ = ["World", "async_call", "plan", "sync_call", "used"]
