"""The asyncio client, on asyncio's own loop and on uvloop where that is installed."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import itertools
import os
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from majordomus.core.client.session import ClientSession, ClientSettings, Final
from majordomus.errors import (
    Cancelled,
    DeadlineExceeded,
    HandlerFailed,
    LocalProtocolError,
    Unavailable,
)
from majordomus.net.bodies import Reply
from majordomus.net.broker.broker import Broker
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.calls import PendingCall, PendingCalls, make_call, make_options
from majordomus.net.client.waiter import Wakeups
from majordomus.net.deadline import HANDLING
from majordomus.net.worker.async_worker import AsyncWorker
from majordomus.net.worker.worker import Worker
from tests.net.conftest import QUICK, Seen, eventually, serve_all

Run = Callable[[Awaitable[Any]], Any]

HAS_UVLOOP = importlib.util.find_spec("uvloop") is not None


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Return a function that runs a coroutine on a loop of each kind."""
    if request.param == "asyncio":
        return asyncio.run
    if not HAS_UVLOOP:
        pytest.skip("uvloop is not installed")
    import uvloop

    def on_uvloop(work: Awaitable[Any]) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)  # type: ignore[arg-type]

    return on_uvloop


async def until(condition: Callable[[], object], within: float = 3.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


def test_calls_streams_and_one_way_messages(run: Run, url: str, worker: Worker, seen: Seen) -> None:
    async def program() -> None:
        async with AsyncClient(url) as client:
            assert (await client.call("echo", [b"a", b"b"])).frames == [b"a", b"b"]
            parts = [part.body async for part in client.stream("count", b"20")]
            assert parts == [b"%d" % number for number in range(20)]
            assert [part.frames async for part in client.stream("echo", b"x")] == [[b"x"]]
            await client.send("log", b"noted")
            await until(lambda: seen.bodies == [b"noted"])
            assert await client.serves("echo")
            assert 0.0 < await client.ping() < 1.0
            with pytest.raises(HandlerFailed, match="ValueError: no"):
                await client.call("boom", "no")

    run(program())


def test_stream_asks_for_one_execution_when_the_caller_does(
    run: Run, url: str, worker: Worker, seen: Seen
) -> None:
    async def program() -> None:
        async with AsyncClient(url) as client:
            for once in (True, False):
                assert [part async for part in client.stream("who", once=once)]
            assert [request.once for request in seen.requests] == [True, False]

    run(program())


def test_stream_that_was_closed_has_no_further_parts(run: Run, url: str, worker: Worker) -> None:
    async def program() -> None:
        async with AsyncClient(url) as client:
            stream = client.stream("count", b"3")
            assert (await anext(stream)).body == b"0"
            await stream.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    run(program())


def test_call_in_a_handler_ends_with_the_deadline_of_its_request(
    run: Run, url: str, worker: Worker
) -> None:
    async def program() -> None:
        async with AsyncClient(url) as client:
            HANDLING.set(time.monotonic() + 0.2)
            with pytest.raises(DeadlineExceeded):
                await client.call("sleep", b"30", timeout=30.0)

    run(program())


def test_two_thousand_calls_at_once_are_all_answered(run: Run, url: str, worker: Worker) -> None:
    async def program() -> None:
        async with AsyncClient(url, timeout=20.0) as client:
            replies = await asyncio.gather(
                *(client.call("echo", b"%d" % number) for number in range(2000))
            )
            assert [int(reply.body) for reply in replies] == list(range(2000))

    run(program())


def test_big_bodies_both_ways_lose_no_readable_edge(run: Run, url: str, worker: Worker) -> None:
    async def program() -> None:
        async with AsyncClient(url, timeout=20.0) as client:
            for size in (1, 100_000, 3_000_000):
                replies = await asyncio.gather(
                    *(client.call("echo", b"x" * size) for _ in range(5))
                )
                assert {len(reply.body) for reply in replies} == {size}

    run(program())


def test_cancelled_task_cancels_the_handler(run: Run, url: str, worker: Worker, seen: Seen) -> None:
    async def program() -> None:
        async with AsyncClient(url) as client:
            task = asyncio.create_task(client.call("sleep", b"30"))
            await until(lambda: seen.running.acquire(blocking=False))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: seen.cancelled == ["sleep"])
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.call("sleep", b"30")
            await until(lambda: seen.cancelled == ["sleep"] * 2)
            assert client._session.open_calls == 0

    run(program())


def test_leaving_a_loop_over_a_stream_early_cancels_the_stream(
    run: Run, url: str, worker: Worker, seen: Seen
) -> None:
    async def program() -> None:
        async with AsyncClient(url) as client:
            async for part in client.stream("trickle"):
                if part.body == b"3":
                    break
            await until(lambda: seen.cancelled == ["trickle"])
            async with client.stream("trickle") as parts:
                assert (await anext(parts)).body == b"0"
            await until(lambda: seen.cancelled == ["trickle"] * 2)
            gc.collect()
            assert client._session.open_calls == 0

    run(program())


def test_cancelling_a_task_that_reads_a_stream_cancels_the_stream(
    run: Run, url: str, worker: Worker, seen: Seen
) -> None:
    async def consume(client: AsyncClient) -> None:
        async for _ in client.stream("sleep", b"30"):
            pass

    async def program() -> None:
        async with AsyncClient(url) as client:
            task = asyncio.create_task(consume(client))
            await until(lambda: seen.running.acquire(blocking=False))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: seen.cancelled == ["sleep"])

    run(program())


def test_deadline_that_passes_without_a_broker_names_the_endpoints(run: Run) -> None:
    async def program() -> None:
        async with AsyncClient("tcp://127.0.0.1:1") as client:
            with pytest.raises(DeadlineExceeded, match=r"no broker was reachable .* at tcp://127"):
                await client.call("echo", timeout=0.2)
            with pytest.raises(DeadlineExceeded):
                await client.send("log", timeout=0.2)

    run(program())


def test_closing_the_client_ends_its_open_calls(
    run: Run, url: str, worker: Worker, seen: Seen
) -> None:
    async def program() -> None:
        client = AsyncClient(url)
        task = asyncio.create_task(client.call("sleep", b"30"))
        await until(lambda: seen.running.acquire(blocking=False))
        await client.close()
        with pytest.raises(Cancelled):
            await task
        await client.close()
        with pytest.raises(LocalProtocolError, match="this client is closed"):
            await client.call("echo")

    run(program())
    eventually(lambda: seen.cancelled == ["sleep"])


def test_task_cancelled_in_the_turn_in_which_its_client_closes_gets_cancelled_error(
    run: Run, url: str, worker: Worker, seen: Seen
) -> None:
    async def read(client: AsyncClient) -> None:
        async for _ in client.stream("trickle"):
            pass

    async def program() -> None:
        for use in (
            lambda client: client.call("sleep", b"30"),
            lambda client: client.call("sleep", b"30", hedge_after=20.0),
            read,
        ):
            client = AsyncClient(url)
            task = asyncio.create_task(use(client))
            await until(lambda client=client: client._session.open_calls == 1)
            await client.close()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(program())


def replied(frames: object) -> Reply:
    made = Reply()
    made.frames = frames  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    "body",
    [replied([1]), replied([b"x", None]), replied(["\ud800"]), [2], "\ud800"],
    ids=["number", "none", "surrogate", "list", "text"],
)
def test_body_of_a_wrong_kind_fails_its_own_call_and_no_other(
    run: Run, url: str, worker: Worker, body: object
) -> None:
    async def program() -> None:
        async with AsyncClient(url) as client:
            other = asyncio.create_task(client.call("sleep", b"0.1"))
            await asyncio.sleep(0)
            for use in (client.call, client.send, client.publish):
                with pytest.raises(LocalProtocolError, match="bad-body"):
                    await use("echo", body)  # type: ignore[operator]
            async with client.open("echo") as conversation:
                with pytest.raises(LocalProtocolError, match="bad-body"):
                    await conversation.send(body)  # type: ignore[arg-type]
            await other
            assert (await client.call("echo", replied(["text"]))).text == "text"

    run(program())


def test_client_used_in_another_loop_raises_other_loop(url: str, worker: Worker) -> None:
    client = AsyncClient(url)

    async def use() -> bytes:
        return (await client.call("echo", b"x")).body

    async def close() -> None:
        await client.close()

    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert first.run(use()) == b"x"
        with pytest.raises(LocalProtocolError, match="another event loop"):
            second.run(use())
        first.run(close())


def test_client_announces_presence_when_it_connects(run: Run, url: str) -> None:
    async def program() -> None:
        async with AsyncClient(url) as client:
            await until(lambda: client._session.welcome)
            assert client._session.welcome["max_message"] == QUICK.max_message

    run(program())


def test_client_without_calls_notices_a_lost_broker_and_connects_to_the_next_one(
    run: Run, seen: Seen
) -> None:
    async def program() -> None:
        first, second = (Broker(QUICK, bind="tcp://127.0.0.1:0") for _ in range(2))
        first.start()
        second.start()
        worker = AsyncWorker(second.endpoints)
        serve_all(worker, seen)
        async with worker, AsyncClient(first.endpoints + second.endpoints) as client:
            await until(lambda: client._session.welcome)
            await asyncio.to_thread(first.stop)
            await until(lambda: client._session.endpoint == 1)
            assert (await client.call("echo", b"x")).body == b"x"
        await asyncio.to_thread(second.stop)

    run(program())


def test_broker_worker_and_client_in_one_loop_over_inproc(run: Run, seen: Seen) -> None:
    async def program() -> None:
        async with Broker(QUICK, bind="inproc://one-loop") as broker:
            worker = AsyncWorker(broker.endpoints)
            serve_all(worker, seen)
            async with worker, AsyncClient(broker.endpoints) as client:
                for number in range(200):
                    assert (await client.call("echo", b"%d" % number)).body == b"%d" % number

    run(program())


def test_call_in_a_quiet_loop_costs_no_wait_for_a_timer(run: Run, url: str, worker: Worker) -> None:
    """A lost edge shows as a call that waits for the next heartbeat or deadline."""

    async def program() -> None:
        async with AsyncClient(url) as client:
            await client.call("echo")
            for _ in range(300):
                began = time.monotonic()
                await client.call("echo", b"x")
                assert time.monotonic() - began < 0.15

    run(program())


def test_deadline_of_a_service_without_workers(run: Run, url: str) -> None:
    async def program() -> None:
        async with AsyncClient(url) as client:
            with pytest.raises(Unavailable):
                await client.call("nothing", timeout=0.3)

    run(program())


def test_forked_process_is_told_to_make_its_own(url: str, worker: Worker) -> None:
    async def program() -> None:
        async with AsyncClient(url) as client:
            await client.call("echo")
            reader, writer = os.pipe()
            child = os.fork()
            if not child:
                try:
                    await client.call("echo")
                except LocalProtocolError as error:
                    os.write(writer, error.reason.encode())
                finally:
                    os._exit(0)
            os.close(writer)
            with os.fdopen(reader, "rb") as pipe:
                assert pipe.read() == b"forked"
            os.waitpid(child, 0)
            assert (await client.call("echo", b"x")).body == b"x"

    asyncio.run(program())


class Turn:
    """Records what a call does to its connection."""

    planned = False

    def __init__(self, loop: asyncio.AbstractEventLoop, calls: PendingCalls) -> None:
        self.wakeups, self.calls = Wakeups(loop), calls
        self.done: list[str] = []

    def send(self) -> None:
        self.done.append("send")

    def send_now(self) -> None:
        self.done.append("send now")

    def touch(self) -> None:
        self.done.append("touch")

    def launch(self) -> PendingCall:
        call = make_call("echo", b"", 1.0, False, False, b"", None)
        self.calls.launch(call, self, self.wakeups)  # type: ignore[arg-type]
        return call


def test_lone_call_is_sent_at_once_and_others_at_the_end_of_their_turn(run: Run) -> None:
    async def scene() -> None:
        session = ClientSession(ClientSettings(), os.urandom, random.random)
        turn = Turn(asyncio.get_running_loop(), PendingCalls(session, [], lambda: True))
        session.connected(0.0)
        first, second = turn.launch(), turn.launch()
        turn.calls.take([Final(call.id, 200, [], b"") for call in (first, second)])
        assert first.awaited is second.awaited is None
        third = turn.launch()  # the last batch had two answers: the other caller may call again
        turn.calls.take([])
        turn.calls.take([Final(third.id, 200, [], b"")])
        turn.launch()
        assert turn.done == ["send", "touch", "touch", "send"]

    run(scene())


def test_many_calls_of_one_turn_are_sent_in_parts(run: Run) -> None:
    async def scene() -> None:
        session = ClientSession(ClientSettings(), os.urandom, random.random)
        turn = Turn(asyncio.get_running_loop(), PendingCalls(session, [], lambda: True))
        session.connected(0.0)
        for _ in range(700):
            turn.launch()
        sent = [number for number, what in enumerate(turn.done, 1) if what == "send now"]
        sizes = [later - earlier for earlier, later in itertools.pairwise([0, *sent])]
        assert sent[-1] <= 512  # with more open calls the broker is busy anyway
        assert sizes[:8] == [16] * 8
        assert all(sent[n] / 8 <= size <= sent[n] / 8 + 1 for n, size in enumerate(sizes) if n >= 8)

    run(scene())


def test_answer_may_come_in_the_turn_in_which_its_caller_is_cancelled(run: Run) -> None:
    async def scene() -> None:
        call = PendingCall(make_options("echo", b"", 1.0))
        waiter = asyncio.get_running_loop().create_future()
        call.wait_on(waiter)
        waiter.cancel()
        answer = Final(1, 200, [b"here"], b"")
        call.end(answer)
        assert call.outcome is answer

    run(scene())
