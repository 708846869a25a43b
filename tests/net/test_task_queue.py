"""Handlers of events on an event loop: whatever one raises, the next event is handled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from majordomus.net.events import Event, TaskQueue


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


async def cancel_me() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


RAISED: list[Callable[[], BaseException]] = [
    ValueError,
    lambda: SystemExit(2),
    KeyboardInterrupt,
    GeneratorExit,
    StopIteration,
    asyncio.CancelledError,
    MuteError,
]


@pytest.mark.parametrize("in_threads", [False, True])
@pytest.mark.parametrize("shape", ["def", "async def", "cancels itself"])
@pytest.mark.parametrize("error", RAISED)
def test_handler_that_raises_anything_is_called_with_the_next_event(
    error: Callable[[], BaseException], shape: str, in_threads: bool
) -> None:
    seen: list[str] = []

    def plain(event: Event) -> None:
        seen.append(event.text)
        raise error()

    async def awaited(event: Event) -> None:
        seen.append(event.text)
        if shape == "cancels itself":
            await cancel_me()
        await asyncio.sleep(0)
        raise error()

    handler: Callable[[Event], Any] = plain if shape == "def" else awaited

    async def scene() -> None:
        queue = TaskQueue(in_threads=in_threads)
        for text in (b"1", b"2"):
            queue.put(handler, Event("", [text]))
        async with asyncio.timeout(20):
            while len(seen) < 2:
                await asyncio.sleep(0.001)
        queue.close()

    asyncio.run(scene())
    assert seen == ["1", "2"]
