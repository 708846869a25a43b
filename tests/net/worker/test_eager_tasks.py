"""Tasks whose first step runs at once are ordinary tasks in every other respect."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from math import inf
from typing import Any

import pytest
import uvloop

from majordomus.net.deadline import HANDLING
from majordomus.net.worker import eager_tasks as eager

Runner = Callable[[Coroutine[Any, Any, None]], None]
NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="outside")


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    runner: Runner = request.param
    return runner


def spawner(
    loop: asyncio.AbstractEventLoop, ended: eager.Ended = lambda *_: None
) -> Callable[[eager.Work], asyncio.Task[None] | None]:
    made = eager.spawner(loop, ended)
    return lambda work: made.spawn(work, None, inf)


async def from_a_callback(work: Callable[[], Any]) -> Any:
    """Call `work` as the loop calls its readers, outside of any task. Return what it returns."""
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


def test_timeout_that_begins_in_the_first_step_cancels_the_body_of_its_block(run: Runner) -> None:
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
        await task
        assert seen == ["cancelled"]

    run(scene())


def test_variable_that_a_task_sets_stays_in_its_context(run: Runner) -> None:
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


def test_within_a_task_the_first_step_waits_for_its_turn_where_python_cannot_begin_it(
    run: Runner,
) -> None:
    async def scene() -> None:
        spawn, steps = spawner(asyncio.get_running_loop()), []

        async def work() -> None:
            steps.append("first")

        task = spawn(work())
        assert (task is None) is (sys.version_info >= (3, 12))
        if task is not None:
            assert steps == []
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


def test_variable_that_short_work_sets_ends_with_it(run: Runner) -> None:
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


def test_ended_is_called_once_with_result_or_error_whenever_the_work_ends(run: Runner) -> None:
    async def scene() -> None:
        ended_calls: list[tuple[Any, Any, str, str]] = []

        def ended(subject: Any, result: Any, error: BaseException | None) -> None:
            ended_calls.append((subject, result, repr(error), NAME.get()))

        made = eager.spawner(asyncio.get_running_loop(), ended)

        async def work(subject: str, steps: int, error: Exception | None) -> Any:
            NAME.set(subject)
            for _ in range(steps):
                await asyncio.sleep(0)
            assert HANDLING.get() == 7.0
            if error is not None:
                raise error
            return [subject]

        def begin() -> list[asyncio.Task[None] | None]:
            return [
                made.spawn(work(f"{steps} {error!r}", steps, error), f"{steps} {error!r}", 7.0)
                for steps in (0, 1, 2)
                for error in (None, ValueError("no"), asyncio.CancelledError())
            ]

        tasks = [task for task in await from_a_callback(begin) if task is not None]
        assert await asyncio.gather(*tasks) == [None] * len(tasks)
        assert sorted(ended_calls) == sorted(
            (subject, [subject] if error is None else None, repr(error), subject)
            for steps in (0, 1, 2)
            for error in (None, ValueError("no"), asyncio.CancelledError())
            for subject in [f"{steps} {error!r}"]
        )

    run(scene())


def test_ended_is_called_for_work_that_is_cancelled_while_it_waits(run: Runner) -> None:
    async def scene() -> None:
        ended_calls: list[str] = []
        made = eager.spawner(
            asyncio.get_running_loop(),
            lambda subject, _, error: ended_calls.append(f"{subject} {error!r}"),
        )
        task = await from_a_callback(lambda: made.spawn(asyncio.sleep(60), "work", inf))
        task.cancel()
        await task
        assert ended_calls == ["work CancelledError()"]

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


@pytest.mark.parametrize("kept", ["the task", "a method", "a weak reference"])
def test_task_that_short_work_has_kept_is_not_the_task_of_later_work(
    run: Runner, kept: str
) -> None:
    async def scene() -> None:
        spawn, seen = spawner(asyncio.get_running_loop()), []
        held: list[Callable[[], object]] = []

        async def short() -> None:
            task = asyncio.current_task()
            assert task is not None
            if kept == "the task":
                held.append(partial(asyncio.Task.cancel, task))
            elif kept == "a method":
                held.append(task.cancel)
            else:
                weak = weakref.ref(task)
                held.append(lambda: (found := weak()) is not None and found.cancel())

        async def long() -> None:
            await asyncio.sleep(0.01)
            seen.append("not cancelled")

        _, task = await from_a_callback(lambda: [spawn(short()), spawn(long())])
        held[0]()
        await task
        assert seen == ["not cancelled"]

    run(scene())


def test_short_work_that_keeps_nothing_shares_one_task(run: Runner) -> None:
    async def scene() -> None:
        spawn = spawner(asyncio.get_running_loop())
        seen: list[int] = []

        async def short() -> None:
            async with asyncio.timeout(10):
                seen.append(id(asyncio.current_task()))

        await from_a_callback(lambda: [spawn(short()) for _ in range(5)])
        shared = sys.version_info < (3, 12)
        assert (len(set(seen)) == 1) or not shared

    run(scene())


class FixedLoop(asyncio.SelectorEventLoop):
    """A loop whose methods cannot be replaced."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "call_soon":
            raise AttributeError(name)
        super().__setattr__(name, value)


def test_work_on_a_loop_whose_methods_cannot_be_replaced_is_an_ordinary_task() -> None:
    ended: list[tuple[object, ...]] = []

    async def work() -> int:
        await asyncio.sleep(0)
        return 1

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        task = eager.spawner(loop, lambda *end: ended.append(end)).spawn(work(), "subject", inf)
        assert task is not None
        await task

    with asyncio.Runner(loop_factory=FixedLoop) as runner:
        runner.run(scene())
    assert ended == [("subject", 1, None)]
