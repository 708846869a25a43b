"""Tasks whose first step runs at once are tasks in every other respect."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from majordomus.net.eager import spawner

Runner = Callable[[Coroutine[Any, Any, None]], None]
NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="outside")


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    runner: Runner = request.param
    return runner


async def from_a_callback(work: Callable[[], Any]) -> Any:
    """What `work` returns, called as the loop calls its readers: by no task."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_soon(lambda: done.set_result(work()))
    return await done


def test_first_step_is_taken_before_spawn_returns(run: Runner) -> None:
    async def scene() -> None:
        spawn, steps = spawner(asyncio.get_running_loop()), []

        async def work() -> None:
            steps.append("first")
            await asyncio.sleep(0)
            steps.append("second")

        def begin() -> tuple[asyncio.Task[None] | None, list[str]]:
            return spawn(work()), list(steps)

        task, seen = await from_a_callback(begin)
        assert seen == ["first"]
        assert task is not None
        await task
        assert steps == ["first", "second"]

    run(scene())


def test_work_that_never_waits_is_done_at_once(run: Runner) -> None:
    async def scene() -> None:
        spawn = spawner(asyncio.get_running_loop())

        async def work() -> None:
            pass

        assert await from_a_callback(lambda: spawn(work())) is None

    run(scene())


def test_work_is_the_current_task_before_and_after_it_waits(run: Runner) -> None:
    async def scene() -> None:
        spawn, seen = spawner(asyncio.get_running_loop()), []

        async def work() -> None:
            seen.append(asyncio.current_task())
            await asyncio.sleep(0)
            seen.append(asyncio.current_task())

        task = await from_a_callback(lambda: spawn(work()))
        await task
        assert seen == [task, task]

    run(scene())


def test_timeout_in_the_first_step_cancels_what_it_surrounds(run: Runner) -> None:
    async def scene() -> None:
        spawn, seen = spawner(asyncio.get_running_loop()), []

        async def work() -> None:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(60)
            except TimeoutError:
                seen.append("timeout")

        await (await from_a_callback(lambda: spawn(work())))
        assert seen == ["timeout"]

    run(scene())


def test_cancelled_task_sees_it_where_it_waits(run: Runner) -> None:
    async def scene() -> None:
        spawn, seen = spawner(asyncio.get_running_loop()), []

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        task = await from_a_callback(lambda: spawn(work()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == ["cancelled"]

    run(scene())


def test_what_a_task_sets_in_its_context_stays_there(run: Runner) -> None:
    async def scene() -> None:
        spawn, seen = spawner(asyncio.get_running_loop()), []

        async def work(name: str) -> None:
            seen.append(NAME.get())
            NAME.set(name)
            await asyncio.sleep(0)
            seen.append(NAME.get())

        def both() -> list[asyncio.Task[None] | None]:
            return [spawn(work("one")), spawn(work("two"))]

        await asyncio.gather(*await from_a_callback(both))
        assert seen == ["outside", "outside", "one", "two"]

    run(scene())


def test_within_a_task_the_first_step_waits_for_its_turn(run: Runner) -> None:
    async def scene() -> None:
        spawn, steps = spawner(asyncio.get_running_loop()), []

        async def work() -> None:
            steps.append("first")

        task = spawn(work())
        assert task is not None
        await task
        assert steps == ["first"]

    run(scene())


def test_loop_is_as_it_was_after_a_task_was_made(run: Runner) -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        before = dict(vars(loop)) if hasattr(loop, "__dict__") else {}

        async def work() -> None:
            pass

        await from_a_callback(lambda: spawner(loop)(work()))
        after = dict(vars(loop)) if hasattr(loop, "__dict__") else {}
        assert before.keys() == after.keys()

    run(scene())


def test_what_short_work_sets_in_its_context_ends_with_it(run: Runner) -> None:
    async def scene() -> None:
        spawn, seen = spawner(asyncio.get_running_loop()), []

        async def work(name: str) -> None:
            seen.append(NAME.get())
            NAME.set(name)

        await from_a_callback(lambda: [spawn(work("one")), spawn(work("two"))])
        assert seen == ["outside", "outside"]

    run(scene())


def test_work_after_short_work_is_a_task_of_its_own(run: Runner) -> None:
    async def scene() -> None:
        spawn, seen = spawner(asyncio.get_running_loop()), []

        async def short() -> None:
            pass

        go_on = asyncio.Event()

        async def long() -> None:
            seen.append(asyncio.current_task())
            await go_on.wait()

        tasks = await from_a_callback(
            lambda: [spawn(short()), spawn(long()), spawn(short()), spawn(long())]
        )
        assert tasks[0] is tasks[2] is None
        assert seen == [tasks[1], tasks[3]] and tasks[1] is not tasks[3]
        assert {tasks[1], tasks[3]} <= asyncio.all_tasks()
        assert "long" in repr(tasks[1])
        go_on.set()
        await asyncio.gather(tasks[1], tasks[3])

    run(scene())


def test_work_that_cancels_itself_is_cancelled_where_it_waits_next(run: Runner) -> None:
    async def scene() -> None:
        spawn, seen = spawner(asyncio.get_running_loop()), []
        never = asyncio.get_running_loop().create_future()

        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            try:
                await never
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        async def late() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

        async def other() -> None:
            await asyncio.sleep(0)
            seen.append("other")

        tasks = await from_a_callback(lambda: [spawn(work()), spawn(late()), spawn(other())])
        outcomes = await asyncio.gather(*filter(None, tasks), return_exceptions=True)
        assert seen == ["cancelled", "other"]
        assert never.cancelled()
        assert outcomes[-1] is None

    run(scene())


def test_what_work_raises_in_its_first_step_is_its_tasks_outcome(run: Runner) -> None:
    async def scene() -> None:
        spawn = spawner(asyncio.get_running_loop())

        async def work() -> None:
            raise ValueError("no")

        task = await from_a_callback(lambda: spawn(work()))
        with pytest.raises(ValueError, match="no"):
            await task

    run(scene())


def test_callback_that_work_asks_of_its_own_task_is_called(run: Runner) -> None:
    async def scene() -> None:
        spawn, ended = spawner(asyncio.get_running_loop()), asyncio.Event()

        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.add_done_callback(lambda _: ended.set())

        await from_a_callback(lambda: spawn(work()))
        await asyncio.wait_for(ended.wait(), 10)

    run(scene())
