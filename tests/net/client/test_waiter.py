"""What a task waits for while a call is open (net/client/waiter.py)."""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from majordomus.net.client.waiter import Waiter, Wakeups

Run = Callable[[Coroutine[Any, Any, None]], object]

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Return a function that runs a coroutine on a loop of each kind."""
    if request.param == "asyncio":
        return asyncio.run
    if importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    import uvloop

    return uvloop.run


async def _wait(waiter: Waiter, done: Callable[[], object]) -> None:
    await waiter
    done()


def test_tasks_wake_in_the_order_of_their_answers_in_one_callback(run: Run) -> None:
    async def scene() -> None:
        wakeups, order = Wakeups(asyncio.get_running_loop()), list[int]()
        waiters = [wakeups.waiter() for _ in range(3)]
        tasks = [
            asyncio.create_task(_wait(waiter, lambda n=n: order.append(n)))  # type: ignore[misc]
            for n, waiter in enumerate(waiters)
        ]
        await asyncio.sleep(0)
        for n in (2, 0, 1):
            waiters[n].complete()
        assert order == []
        await asyncio.sleep(0)
        assert order == [2, 0, 1]
        await asyncio.gather(*tasks)

    run(scene())


def test_each_task_wakes_in_its_own_context(run: Run) -> None:
    async def scene() -> None:
        wakeups, seen = Wakeups(asyncio.get_running_loop()), list[str]()

        async def named(name: str, waiter: Waiter) -> None:
            NAME.set(name)
            await waiter
            seen.append(NAME.get())

        waiters = {name: wakeups.waiter() for name in "abc"}
        tasks = [asyncio.create_task(named(*one)) for one in waiters.items()]
        await asyncio.sleep(0)
        for waiter in waiters.values():
            waiter.complete()
        await asyncio.gather(*tasks)
        assert seen == ["a", "b", "c"]
        assert NAME.get() == ""

    run(scene())


def test_wait_that_is_over_suspends_nothing(run: Run) -> None:
    async def scene() -> None:
        waiter = Wakeups(asyncio.get_running_loop()).waiter()
        waiter.complete()
        turns = 0

        def count() -> None:
            nonlocal turns
            turns += 1

        asyncio.get_running_loop().call_soon(count)
        await waiter
        assert turns == 0

    run(scene())


def test_cancelled_task_raises_with_the_message_and_ends_its_wait_once(run: Run) -> None:
    async def scene() -> None:
        waiter = Wakeups(asyncio.get_running_loop()).waiter()
        task = asyncio.create_task(_wait(waiter, lambda: None))
        await asyncio.sleep(0)
        task.cancel("enough")
        waiter.complete()
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        assert waiter.cancelled() and waiter.done()
        assert waiter.cancel() is False

    run(scene())


def test_task_that_is_cancelled_after_its_answer_came_is_cancelled(run: Run) -> None:
    async def scene() -> None:
        waiter = Wakeups(asyncio.get_running_loop()).waiter()
        task = asyncio.create_task(_wait(waiter, lambda: None))
        await asyncio.sleep(0)
        waiter.complete()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scene())


def test_tasks_behind_one_that_ends_the_program_are_woken_later() -> None:
    seen = list[str]()

    async def ends(waiter: Waiter) -> None:
        await waiter
        raise SystemExit(3)

    loop = asyncio.new_event_loop()
    try:
        wakeups = Wakeups(loop)
        first, second = wakeups.waiter(), wakeups.waiter()
        ending = loop.create_task(ends(first))
        waiting = loop.create_task(_wait(second, lambda: seen.append("woken")))
        loop.call_soon(first.complete)
        loop.call_soon(second.complete)
        with pytest.raises(SystemExit):
            loop.run_forever()
        loop.run_until_complete(waiting)
        assert seen == ["woken"]
        assert isinstance(ending.exception(), SystemExit)
    finally:
        loop.close()


def test_result_of_a_wait_that_is_not_over_is_an_error(run: Run) -> None:
    async def scene() -> None:
        waiter = Wakeups(asyncio.get_running_loop()).waiter()
        with pytest.raises(asyncio.InvalidStateError):
            waiter.result()
        assert not waiter.done() and not waiter.cancelled()

    run(scene())


def test_removed_callback_is_not_called(run: Run) -> None:
    async def scene() -> None:
        waiter, seen = Wakeups(asyncio.get_running_loop()).waiter(), list[Waiter]()
        waiter.add_done_callback(seen.append)
        assert waiter.remove_done_callback(print) == 0
        assert waiter.remove_done_callback(seen.append) == 1
        waiter.complete()
        await asyncio.sleep(0)
        assert seen == []

    run(scene())
