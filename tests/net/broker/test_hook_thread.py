"""Hooks that are cancelled, ignore it, are late, or stop their own broker."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import warnings
from typing import Any

import pytest

from majordomus import (
    Broker,
    BrokerSettings,
    Client,
    HandlerFailed,
    HookRequest,
    Middleware,
    SendTo,
    Unavailable,
    Worker,
)
from majordomus.errors import LocalProtocolError
from majordomus.net.broker import hook_thread
from majordomus.net.broker.hook_thread import HookThread
from tests.net.conftest import eventually

BIND = "tcp://127.0.0.1:0"


def test_hook_that_is_cancelled_before_its_first_step_leaves_no_coroutine_behind() -> None:
    thread = HookThread()
    begun, go_on = threading.Event(), threading.Event()
    told: list[object] = []

    async def hold_up() -> None:
        begun.set()
        assert go_on.wait(20)

    async def never_begun() -> None:
        told.append("begun")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread.run(1, hold_up(), lambda *_: None)
        assert begun.wait(20)
        thread.run(2, never_begun(), lambda *_: told.append("done"))
        thread.cancel(2)
        go_on.set()
        thread.close()
        gc.collect()
    assert (told, [str(one.message) for one in caught]) == ([], [])


async def blocking(begun: threading.Event, until: threading.Event) -> None:
    begun.set()
    until.wait(60)


def test_hook_that_does_not_end_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hook_thread, "GRACE", 0.05)
    begun, until = threading.Event(), threading.Event()
    thread = HookThread()
    thread.run(1, blocking(begun, until), lambda *_: None)
    assert begun.wait(20)
    began = time.monotonic()
    thread.close()
    assert time.monotonic() - began < 20
    assert [record.message for record in caplog.records] == [
        "a hook holds its thread, and is left behind"
    ]
    until.set()
    eventually(lambda: "majordomus-hooks" not in [one.name for one in threading.enumerate()], 20)


def test_hook_that_ignores_its_cancellation_does_not_delay_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hook_thread, "GRACE", 0.05)
    ears: list[bool] = []

    async def ignore_cancellation() -> None:
        for _ in range(2):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ears.append(True)

    thread = HookThread()
    begun = threading.Event()
    thread.run(1, ignore_cancellation(), lambda *_: None)
    thread.run(2, _set(begun), lambda *_: None)
    assert begun.wait(20)
    thread.close()
    assert (ears[:1], [record.message for record in caplog.records]) == (
        [True],
        ["1 hooks do not end when they are cancelled"],
    )
    del thread
    with caplog.at_level(logging.CRITICAL, "asyncio"):  # asyncio logs the task once more
        gc.collect()


async def _set(event: threading.Event) -> None:
    event.set()


class StopsLater(Broker):
    async def on_request(self, request: HookRequest) -> None:
        self.stop(drain=False)


class StopsAtOnce(Broker):
    def on_request(self, request: HookRequest) -> None:
        self.stop(drain=False)


@pytest.mark.parametrize("kind", [StopsLater, StopsAtOnce])
def test_hook_may_stop_its_own_broker(kind: type[Broker]) -> None:
    broker = kind(bind=BIND)
    broker.start()
    thread = broker._thread
    assert thread is not None
    with Client(broker.endpoints[0], timeout=20) as client:
        client.submit("echo")
        thread.join(20)
        assert not thread.is_alive()
        broker.stop()
    with pytest.raises(LocalProtocolError, match="not open"):
        broker.find_worker("echo")


def test_call_of_a_broker_that_ends_meanwhile_fails() -> None:
    broker = Broker(bind=BIND)
    broker.start()
    program = broker._program()

    async def call() -> None:
        answers = []
        stopping = threading.Thread(target=broker.stop, kwargs={"drain": False})
        stopping.start()
        while stopping.is_alive():
            answers.append(asyncio.create_task(program.call("nobody", b"", 60.0)))
            await asyncio.sleep(0)
        with pytest.raises(LocalProtocolError, match="not open"):
            await program.call("nobody", b"", 60.0)
        async with asyncio.timeout(20):
            ends = await asyncio.gather(*answers, return_exceptions=True)
        assert {type(end) for end in ends} <= {Unavailable, LocalProtocolError}

    asyncio.run(call())


def test_later_hooks_are_not_called_for_a_request_that_has_ended() -> None:
    asked: list[str] = []
    over = threading.Event()

    class First(Middleware):
        async def on_request(self, request: HookRequest) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                over.set()  # and continues

    class Second(Middleware):
        def on_request(self, request: Any) -> None:
            asked.append(request.text)

    settings = BrokerSettings(hook_timeout=0.1)
    with (
        Broker(settings, bind=BIND, middleware=[First(), Second()]) as broker,
        Client(broker.endpoints[0], timeout=20) as client,
    ):
        with pytest.raises(HandlerFailed, match="did not decide"):
            client.call("echo", "ended")
        assert over.wait(20)
        with pytest.raises(HandlerFailed, match="did not decide"):  # after earlier tasks
            client.call("echo", "ended too")
    assert asked == []


class Steering(Broker):
    async def on_request(self, request: HookRequest) -> SendTo | None:
        worker = self.find_worker("echo")
        return None if worker is None else SendTo(worker.id)


def test_async_hook_and_another_thread_find_the_worker_that_the_strategy_chooses() -> None:
    with Steering(bind=BIND) as broker:
        assert broker.find_worker("echo") is None
        worker = Worker(broker.endpoints[0])
        worker.add("echo", lambda request: request.body)
        with worker, Client(broker.endpoints[0], timeout=20) as client:
            reply = client.call("echo", b"x")
            found = broker.find_worker("echo", key="any")
        assert found is not None
        assert (reply.body, found.id) == (b"x", reply.worker)
