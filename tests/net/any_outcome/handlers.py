"""One handler of each shape, which does what the body of its request asks for."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from majordomus import Request
from tests.net.any_outcome.recipes import Recipe, made

WAIT = 0.05
"""Seconds that a handler waits that is to be cancelled."""


def asked(request: Request) -> dict[str, Any]:
    """Return the behaviour in the request; a body of the caller's own is answered with nothing."""
    if request.metadata.get("own"):
        return {"parts": [], "before": None, "later": None, "end": ("return", ("plain", None))}
    return pickle.loads(request.frames[0])  # type: ignore[no-any-return]  # noqa: S301 - ours


def end(recipe: Recipe) -> Any:
    """Return or raise what the recipe states."""
    name, value = recipe
    if name == "raise":
        raise made(value)
    return made(value)


def use_promise(request: Request, later: Recipe) -> None:
    name, *given = later
    promise = request.reply_later()
    with contextlib.suppress(Exception):
        if name == "reply":
            promise.reply(made(given[0]))
        elif name == "fail":
            promise.fail(made(given[0]), made(given[1]))
        elif name == "part":
            promise.part(made(given[0]))
        elif name == "drop-in-cycle":
            cycle: list[Any] = [promise]
            cycle.append(cycle)
            del cycle
            gc.collect()
        elif name == "in-thread":
            thread = threading.Thread(target=_reply_in_thread, args=(promise, given[0]))
            thread.start()
            thread.join()


def _reply_in_thread(promise: Any, value: Recipe) -> None:
    with contextlib.suppress(BaseException):
        promise.reply(made(value))


def begin(request: Request, do: dict[str, Any]) -> None:
    if do["before"] == "wait":
        request.wait_cancelled(WAIT)
    if do["later"] is not None:
        use_promise(request, do["later"])


async def begin_on_loop(request: Request, do: dict[str, Any]) -> None:
    loop, task, before = asyncio.get_running_loop(), asyncio.current_task(), do["before"]
    assert task is not None
    if before == "cancel-me":
        task.cancel()
        await asyncio.sleep(WAIT)
    elif before == "cancel-me-later":
        loop.call_later(WAIT / 5, task.cancel)
        await asyncio.sleep(WAIT)
    elif before == "cancel-me-after":  # a watchdog that outlives the handler
        loop.call_later(WAIT / 10, task.cancel)
    elif before == "exit-later":
        loop.call_soon(_exit)
        await asyncio.sleep(0)
    elif before == "exit-in-task":
        loop.create_task(_exit_in_task()).add_done_callback(lambda ended: ended.exception())
        await asyncio.sleep(0.001)
    elif before == "wait":
        await asyncio.sleep(WAIT)
    if do["later"] is not None:
        use_promise(request, do["later"])


def _exit() -> None:
    raise SystemExit(2)


async def _exit_in_task() -> None:
    raise KeyboardInterrupt


def function(request: Request) -> Any:
    do = asked(request)
    begin(request, do)
    return end(do["end"])


def generator(request: Request) -> Iterator[Any]:
    do = asked(request)
    begin(request, do)
    for part in do["parts"]:
        yield made(part)
    end(do["end"])


async def coroutine(request: Request) -> Any:
    do = asked(request)
    await begin_on_loop(request, do)
    return end(do["end"])


async def async_generator(request: Request) -> AsyncIterator[Any]:
    do = asked(request)
    await begin_on_loop(request, do)
    for part in do["parts"]:
        yield made(part)
    end(do["end"])


def fine(request: Request) -> bytes:
    return b"fine"


async def fine_on_loop(request: Request) -> bytes:
    await asyncio.sleep(0)
    return b"fine"
