"""What a handler does outside of its reply: promises, tasks and callbacks that it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from majordomus.errors import Cancelled, ConfigurationError, HandlerFailed, LocalProtocolError
from majordomus.net.bodies import Reply
from majordomus.net.client.client import Client
from majordomus.net.worker.async_worker import AsyncWorker
from majordomus.net.worker.deferred_reply import Output, ReplyBox
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker

WITHIN = 20.0


def test_promise_dropped_by_a_finalizer_within_its_own_box_is_answered() -> None:
    box = ReplyBox()
    taken: list[Output] = []

    def drop() -> None:  # as a finalizer may, in the middle of `put` or `connect`
        if not box.answered:
            box.put((500, [b"dropped"]))

    def notify() -> None:
        drop()
        while (output := box.take()) is not None:
            taken.append(output)

    box.put([b"part"])
    box.connect(notify)
    assert taken == [[b"part"], (500, [b"dropped"])]
    assert not box.put((200, [b"late"]))


def test_promise_dropped_in_a_reference_cycle_is_answered_while_memory_is_allocated(
    url: str,
) -> None:
    """A low threshold of the garbage collector runs finalizers wherever an object is made."""
    worker = Worker(url)

    @worker.service("drop")
    async def drop(request: Request) -> None:
        cycle: list[Any] = [request.reply_later()]
        cycle.append(cycle)

    before = gc.get_threshold()
    with worker, Client(url, timeout=WITHIN) as client:
        worker.wait_ready(WITHIN)
        gc.set_threshold(1)
        try:
            for _ in range(200):
                with pytest.raises(HandlerFailed, match="dropped the reply"):
                    client.call("drop")
        finally:
            gc.set_threshold(*before)


@pytest.mark.parametrize("status", [200.0, 404.5, True, 0, 70_000, None, "404"])
def test_promise_refuses_a_status_that_cannot_be_sent_and_is_still_open(
    url: str, status: Any
) -> None:
    refused: list[str] = []
    worker = Worker(url)

    @worker.service("odd")
    def odd(request: Request) -> None:
        promise = request.reply_later()
        for answer in (
            lambda: promise.reply(Reply(b"", status)),
            lambda: promise.fail(status, "x"),
        ):
            with pytest.raises(LocalProtocolError) as caught:
                answer()
            refused.append(caught.value.reason)
        promise.reply(b"good")

    with worker, Client(url, timeout=WITHIN) as client:
        worker.wait_ready(WITHIN)
        assert client.call("odd").body == b"good"
    assert refused == ["bad-status", "bad-status"]


def _exit() -> None:
    raise SystemExit(2)


async def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("leaves", ["a callback that exits", "a task that interrupts"])
def test_what_a_handler_leaves_on_the_loop_does_not_end_its_worker(url: str, leaves: str) -> None:
    worker = Worker(url)
    left: list[object] = []

    @worker.service("leave")
    async def leave(request: Request) -> bytes:
        loop = asyncio.get_running_loop()
        if leaves == "a callback that exits":
            loop.call_soon(_exit)
        else:
            left.append(loop.create_task(_interrupt()))
        await asyncio.sleep(0.01)
        return b"served"

    with worker, Client(url, timeout=WITHIN) as client:
        worker.wait_ready(WITHIN)
        assert [client.call("leave").body for _ in range(3)] == [b"served"] * 3


def test_watchdog_of_a_handler_that_has_ended_cancels_no_other_request(url: str) -> None:
    worker = Worker(url)

    @worker.service("quick")
    async def quick(request: Request) -> bytes:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.05, task.cancel)
        return b"quick"

    @worker.service("slow")
    async def slow(request: Request) -> bytes:
        await asyncio.sleep(0.15)
        return b"slow"

    with worker, Client(url, timeout=WITHIN) as client:
        worker.wait_ready(WITHIN)
        assert client.call("quick").body == b"quick"
        assert client.call("slow").body == b"slow"


def test_worker_goes_on_whose_handler_cancels_all_tasks_of_its_loop(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(url)
    begun = threading.Event()

    @worker.service("cancels")
    async def cancels(request: Request) -> bytes:
        for task in asyncio.all_tasks():
            task.cancel()
        return b"done"

    @worker.service("waits")
    async def waits(request: Request) -> None:
        begun.set()
        await asyncio.sleep(WITHIN)

    with worker, Client(url, timeout=WITHIN) as client:
        worker.wait_ready(WITHIN)
        waiting = client.submit("waits")
        assert begun.wait(WITHIN)
        assert client.call("cancels").body == b"done"
        with pytest.raises(Cancelled):
            waiting.result(WITHIN)
        assert client.call("cancels").body == b"done"
    said = [one.getMessage() for one in caplog.records if one.name == "majordomus.worker"]
    assert said == ["the tasks of this worker's event loop were cancelled; it goes on"] * 2


def test_worker_on_the_loop_of_a_program_logs_that_its_task_was_cancelled(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        worker = AsyncWorker(url)
        worker.add("x", lambda request: None)
        await worker.start()
        await worker.wait_ready(WITHIN)
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await worker.stop()

    asyncio.run(scenario())
    said = [one.getMessage() for one in caplog.records if one.name == "majordomus.worker"]
    assert said == ["the worker ends without draining: its task was cancelled"]


def test_handler_whose_request_finds_no_thread_is_answered_with_503(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(url)

    @worker.service("needs")
    def needs(request: Request) -> bytes:
        return b"served"

    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("majordomus-handler"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with worker, Client(url, timeout=WITHIN) as client:
        worker.wait_ready(WITHIN)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(Exception, match="503 the worker cannot start a thread"):
                client.call("needs", timeout=1.0)
        assert client.call("needs").body == b"served"


# ── what `add` refuses ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["", "mmi.x", "$sys", "x" * 300, "\udc80", b"bytes", None])
def test_name_that_no_broker_accepts_is_refused_by_add(url: str, name: Any) -> None:
    with pytest.raises(ConfigurationError):
        Worker(url).add(name, lambda request: None)


def test_titanic_may_be_served() -> None:
    for dialect in ("mdp03", "mdp01"):
        Worker(dialect=dialect).add("titanic.request", lambda request: None)


def test_second_handler_of_a_name_is_refused(url: str) -> None:
    worker = Worker(url)
    worker.add("one", lambda request: None)
    with pytest.raises(ConfigurationError, match="has a handler already"):
        worker.add("one", lambda request: None)


# ── stop before the first step ────────────────────────────────────────────────────────────────────


def test_stop_right_after_the_task_of_a_run_was_made_ends_it(url: str) -> None:
    async def scene() -> None:
        worker = AsyncWorker(url)
        worker.add("one", _answer)
        task = asyncio.create_task(worker.run())
        await worker.stop()
        async with asyncio.timeout(WITHIN):
            await task
        task = asyncio.create_task(worker.run())  # it can run again
        await worker.wait_ready(WITHIN)
        await worker.stop()
        await task

    asyncio.run(scene())


def test_run_that_was_never_awaited_does_not_hold_its_worker(url: str) -> None:
    async def scene() -> None:
        worker = AsyncWorker(url)
        worker.add("one", _answer)
        task = asyncio.create_task(worker.run())
        task.cancel()  # before its first step
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        gc.collect()
        async with worker:
            await worker.wait_ready(WITHIN)

    asyncio.run(scene())


async def _answer(request: Request) -> None: ...
