"""Workers: their services and handlers, how they stop, and that handlers never delay heartbeats."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from majordomus.core.broker.settings import BrokerSettings
from majordomus.errors import (
    ConfigurationError,
    DeadlineExceeded,
    HandlerFailed,
    LocalProtocolError,
)
from majordomus.net.bodies import Reply
from majordomus.net.broker.broker import Broker
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from majordomus.net.worker.async_worker import AsyncWorker
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from majordomus.protocol import spec
from tests import headers
from tests.net.conftest import QUICK, RawPeer, Seen, complaints, eventually, serve_all

Peers = Callable[[str], RawPeer]
FLOOD = 5000


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=5.0) as made:
        yield made


class TestServices:
    def test_service_without_a_name_gets_the_name_of_its_function(self, url: str) -> None:
        worker = Worker(url)

        @worker.service
        def one(request: Request) -> None: ...

        @worker.service()
        def two(request: Request) -> None: ...

        assert list(worker.handlers) == ["one", "two"]
        assert one.__name__ == "one"

    @pytest.mark.parametrize("name", ["mmi.service", "x" * 256, "ü" * 128])
    def test_name_that_no_service_may_have_is_refused(self, url: str, name: str) -> None:
        with pytest.raises(ConfigurationError):
            Worker(url).add(name, print)

    def test_worker_without_a_service_cannot_start(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="no service"):
            Worker(url).start()
        with pytest.raises(ConfigurationError, match="no service"):
            Worker(url).run()
        with pytest.raises(ConfigurationError, match="no service"):
            asyncio.run(AsyncWorker(url).run())

    @pytest.mark.parametrize(
        "arguments", [{"capacity": 0}, {"capacity": 65536}, {"threads": 0}, {"dialect": "x"}]
    )
    def test_impossible_arguments_are_refused(self, url: str, arguments: dict[str, object]) -> None:
        with pytest.raises(ConfigurationError):
            Worker(url, **arguments)  # type: ignore[arg-type]

    def test_service_added_while_it_runs_is_served(
        self, url: str, worker: Worker, client: Client
    ) -> None:
        assert not client.serves("late")
        worker.add("late", lambda request: b"better")
        assert client.call("late").body == b"better"

    def test_reply_object_of_a_handler_keeps_its_status(
        self, url: str, worker: Worker, client: Client
    ) -> None:
        worker.add("teapot", lambda request: Reply([b"short and stout"], status=418))
        with pytest.raises(Exception, match="418 short and stout"):
            client.call("teapot")

    def test_result_that_cannot_be_sent_is_answered_with_a_failure(
        self, url: str, worker: Worker, client: Client
    ) -> None:
        worker.add("wrong", lambda request: 3)
        worker.add("status", lambda request: Reply([], status=100_000))
        for service in ("wrong", "status"):
            with pytest.raises(HandlerFailed, match="LocalProtocolError"):
                client.call(service)

    def test_part_that_cannot_be_sent_ends_the_stream_with_a_failure(
        self, url: str, worker: Worker, client: Client
    ) -> None:
        async def parts(request: Request):
            yield b"1"
            yield 2

        def more(request: Request):
            yield b"1"
            yield 2

        worker.add("parts", parts)
        worker.add("more", more)
        for service in ("parts", "more"):
            stream = client.stream(service)
            assert next(stream).body == b"1"
            with pytest.raises(HandlerFailed, match="bad-body"):
                next(stream)


class TestHandlers:
    def test_failure_is_logged_with_its_traceback(
        self, worker: Worker, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(HandlerFailed):
            client.call("boom", "no")
        (record,) = [one for one in caplog.records if one.name == "majordomus.worker"]
        assert re.fullmatch(r"the handler of boom failed \(request d\d+\)", record.getMessage())
        assert record.exc_info

    def test_handler_that_raises_system_exit_only_fails(
        self, worker: Worker, client: Client
    ) -> None:
        def leave(request: Request) -> None:
            sys.exit(3)

        async def leave_async(request: Request) -> None:
            sys.exit(3)

        worker.add("leave", leave)
        worker.add("aleave", leave_async)
        for service in ("leave", "aleave"):
            with pytest.raises(HandlerFailed, match="SystemExit: 3"):
                client.call(service)
        assert client.call("echo", b"x").body == b"x"

    def test_function_in_a_thread_sees_that_its_request_was_cancelled(
        self, worker: Worker, client: Client, seen: Seen
    ) -> None:
        future = client.submit("block")
        assert seen.running.acquire(timeout=2)
        future.cancel()
        eventually(lambda: seen.cancelled == ["block"])

    def test_generator_in_a_thread_is_closed_when_its_request_is_cancelled(
        self, worker: Worker, client: Client
    ) -> None:
        closed = threading.Event()

        def endless(request: Request) -> Iterator[bytes]:
            try:
                while True:
                    yield b"x"
                    time.sleep(0.001)
            finally:
                closed.set()

        worker.add("endless", endless)
        stream = client.stream("endless")
        next(stream)
        stream.close()
        assert closed.wait(2)

    def test_number_of_threads_bounds_the_handlers_that_run_at_a_time(
        self, url: str, seen: Seen
    ) -> None:
        worker = Worker(url, threads=2, capacity=10)
        serve_all(worker, seen)
        with worker, Client(url) as client:
            futures = [client.submit("block") for _ in range(5)]
            assert seen.running.acquire(timeout=2)
            assert seen.running.acquire(timeout=2)
            assert not seen.running.acquire(timeout=0.1)
            assert client.call("echo", b"not delayed").body == b"not delayed"
            seen.release.set()
            assert {future.result(5).body for future in futures} == {b"released"}

    def test_async_handler_does_not_wait_for_handlers_that_block_their_threads(
        self, url: str, seen: Seen
    ) -> None:
        worker = Worker(url, threads=2)
        serve_all(worker, seen)

        @worker.service
        async def fast(request: Request) -> bytes:
            return b"fast"

        with worker, Client(url) as client:
            worker.wait_ready()
            futures = [client.submit("block") for _ in range(5)]
            assert seen.running.acquire(timeout=2)
            assert seen.running.acquire(timeout=2)
            assert client.call("fast", timeout=2.0).body == b"fast"
            seen.release.set()
            assert {future.result(5).body for future in futures} == {b"released"}

    @pytest.mark.parametrize("kind", ["loop", "thread"])
    def test_capacity_holds_for_all_brokers_of_a_worker_together(self, kind: str) -> None:
        running, most = [0], [0]

        async def in_loop(request: Request) -> None:
            running[0] += 1
            most[0] = max(most[0], running[0])
            await asyncio.sleep(0.02)
            running[0] -= 1

        lock = threading.Lock()

        def in_thread(request: Request) -> None:
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.02)
            with lock:
                running[0] -= 1

        with ExitStack() as stack:
            brokers = [stack.enter_context(Broker(QUICK, bind="tcp://127.0.0.1:0")) for _ in "123"]
            urls = [broker.endpoints[0] for broker in brokers]
            worker = Worker(urls, capacity=2, threads=8)
            worker.add("work", in_loop if kind == "loop" else in_thread)
            clients = [stack.enter_context(Client(url, timeout=20.0)) for url in urls]
            stack.enter_context(worker)
            for client in clients:
                client.call("work")
            most[0] = 0
            calls = [client.submit("work") for _ in range(8) for client in clients]
            for call in calls:
                call.result(20)
            assert most == [2]
            worker.set_capacity(5)
            calls = [client.submit("work") for _ in range(20) for client in clients]
            for call in calls:
                call.result(20)
            assert most == [5]

    def test_cancelled_request_that_waits_in_the_worker_never_runs(self, seen: Seen) -> None:
        ran: list[bytes] = []
        gate = asyncio.Event()

        async def work(request: Request) -> None:
            ran.append(request.body)
            if request.body == b"first":
                await gate.wait()

        with ExitStack() as stack:
            brokers = [stack.enter_context(Broker(QUICK, bind="tcp://127.0.0.1:0")) for _ in "12"]
            urls = [broker.endpoints[0] for broker in brokers]
            worker = Worker(urls, capacity=1)
            worker.add("work", work)
            one, other = (stack.enter_context(Client(url, timeout=20.0)) for url in urls)
            stack.enter_context(worker)
            for client in (one, other):
                client.call("work", b"warm")
            first = one.submit("work", b"first")
            eventually(lambda: b"first" in ran)
            with pytest.raises(DeadlineExceeded):
                other.call("work", b"second", timeout=0.2)
            one.submit("work", b"third")
            assert worker._active is not None and worker._active._loop is not None
            worker._active._loop.call_soon_threadsafe(gate.set)
            first.result(5)
            eventually(lambda: b"third" in ran)
            assert ran == [b"warm", b"warm", b"first", b"third"]

    def test_capacity_is_the_number_of_threads_or_a_thousand(self, url: str, peers: Peers) -> None:
        threaded, free = Worker(url, threads=3), Worker(url)
        threaded.add("a", lambda request: None)

        async def handler(request: Request) -> None: ...

        free.add("b", handler)
        with threaded, free, Client(url) as client:
            threaded.wait_ready()
            free.wait_ready()
            text = client.call("mmi.workers").frames[1].decode()
        assert '"capacity":3' in text.replace(" ", "")
        assert '"capacity":1000' in text.replace(" ", "")


class TestHeartbeats:
    def test_worker_whose_every_thread_is_busy_is_not_expired(
        self, url: str, client: Client, seen: Seen
    ) -> None:
        worker = Worker(url, threads=2)
        serve_all(worker, seen)
        with worker:
            futures = [client.submit("block") for _ in range(2)]
            for _ in futures:
                assert seen.running.acquire(timeout=2)
            id = worker_ids(client)
            time.sleep(QUICK.worker_interval * QUICK.liveness * 3)
            assert worker_ids(client) == id
            seen.release.set()
            assert {future.result(2).body for future in futures} == {b"released"}
        assert len(seen.requests) == 2

    def test_interval_is_the_one_that_the_broker_announces(self, seen: Seen) -> None:
        settings = BrokerSettings(worker_interval=0.1, liveness=2)
        with Broker(settings, bind="tcp://127.0.0.1:0") as broker:
            worker = Worker(broker.endpoints)
            serve_all(worker, seen)
            with worker, Client(broker.endpoints) as client:
                worker.wait_ready()
                id = worker_ids(client)
                time.sleep(1.0)
                assert worker_ids(client) == id

    def test_worker_reconnects_to_a_broker_that_was_silent(self, peers: Peers, seen: Seen) -> None:
        import zmq

        from majordomus.net.zmq import sockets
        from majordomus.protocol import mdp03

        with sockets.router(1 << 20, 1000) as router:
            url = sockets.bind(router, "tcp://127.0.0.1:*")
            worker = Worker(url)
            serve_all(worker, seen)
            with worker:
                ids = set()
                while len(ids) < 2:
                    assert router.poll(5000)
                    id, header, *_ = router.recv_multipart()
                    if headers.parse(header)[0] == spec.READY and id not in ids:
                        ids.add(id)
                        welcome = mdp03.pack(spec.WELCOME, ttl=100, address=id)
                        router.send_multipart([id, welcome], zmq.NOBLOCK)
                worker.stop(drain=False)


def worker_ids(client: Client) -> list[str]:
    import json

    return sorted(one["id"] for one in json.loads(client.call("mmi.workers").frames[1]))


class TestEnd:
    def test_stop_waits_for_the_replies_of_running_handlers(
        self, url: str, client: Client, seen: Seen
    ) -> None:
        worker = Worker(url)
        serve_all(worker, seen)
        worker.start()
        futures = [client.submit("sleep", b"0.4"), client.submit("block")]
        for _ in futures:
            assert seen.running.acquire(timeout=2)
        threading.Timer(0.3, seen.release.set).start()
        worker.stop()
        assert [future.result(1).body for future in futures] == [b"slept", b"released"]
        assert not client.serves("echo")

    def test_stopped_worker_gets_nothing_new(self, url: str, client: Client, seen: Seen) -> None:
        first, second = Worker(url), Worker(url)
        serve_all(first, seen)
        first.start()
        slow = client.submit("sleep", b"0.5")
        assert seen.running.acquire(timeout=2)
        stopping = threading.Thread(target=first.stop)
        stopping.start()
        time.sleep(0.1)
        serve_all(second, seen)
        with second:
            second.wait_ready()
            for _ in range(20):
                assert client.call("who").body == b"%d" % id(second)
            assert slow.result().body == b"slept"
            stopping.join()

    def test_stop_without_drain_leaves_the_request_to_another_worker(
        self, url: str, client: Client, seen: Seen
    ) -> None:
        first, second = Worker(url), Worker(url)
        serve_all(first, seen)
        serve_all(second, seen)
        with first:
            future = client.submit("block")
            assert seen.running.acquire(timeout=2)
            second.start()
            second.wait_ready()
            began = time.monotonic()
            first.stop(drain=False)
            assert time.monotonic() - began < 2.0
        seen.release.set()
        assert future.result(3).body == b"released"
        second.stop()

    def test_stop_without_drain_sends_no_reply_and_another_worker_answers(
        self, url: str, client: Client, seen: Seen
    ) -> None:
        first, second = Worker(url, capacity=10), Worker(url)
        serve_all(first, seen)
        second.add("sleep", lambda request: b"from another")
        second.add("block", lambda request: b"from another")
        with first:
            futures = [client.submit("sleep", b"30"), client.submit("block")]
            for _ in futures:
                assert seen.running.acquire(timeout=2)
            with second:
                second.wait_ready()
                first.stop(drain=False)
                assert [future.result(3).body for future in futures] == [b"from another"] * 2
        eventually(lambda: sorted(seen.cancelled) == ["block", "sleep"])

    def test_handler_that_never_ends_holds_the_stop_no_longer_than_the_drain_timeout(
        self, url: str, client: Client, seen: Seen
    ) -> None:
        worker = Worker(url, drain_timeout=0.3)
        serve_all(worker, seen)
        with worker:
            client.submit("block", once=True)
            assert seen.running.acquire(timeout=2)
            began = time.monotonic()
            worker.stop()
            assert 0.3 <= time.monotonic() - began < 2.0

    def test_worker_can_be_started_again(self, url: str, client: Client, seen: Seen) -> None:
        worker = Worker(url)
        serve_all(worker, seen)
        for _ in range(3):
            worker.start()
            worker.start()
            assert client.call("echo", b"x").body == b"x"
            with pytest.raises(LocalProtocolError, match="already running"):
                worker.run()
            worker.stop()
            worker.stop()

    def test_stop_of_a_worker_whose_broker_is_not_there_is_quick(self, seen: Seen) -> None:
        worker = Worker("tcp://127.0.0.1:1")
        serve_all(worker, seen)
        worker.start()
        with pytest.raises(TimeoutError):
            worker.wait_ready(0.1)
        began = time.monotonic()
        worker.stop()
        assert time.monotonic() - began < 1.0


class TestAsync:
    def test_everything_works_in_one_loop(self, url: str, seen: Seen) -> None:
        async def program() -> None:
            worker = AsyncWorker(url)
            serve_all(worker, seen)
            async with worker, AsyncClient(url) as client:
                await worker.wait_ready()
                assert worker.ready
                assert (await client.call("echo", b"x")).body == b"x"
                parts = [part.body async for part in client.stream("count", b"3")]
                assert parts == [b"0", b"1", b"2"]
                worker.add("late", lambda request: b"better")
                assert (await client.call("late")).body == b"better"
            assert not worker.ready

        asyncio.run(program())

    def test_cancelled_run_ends_at_once(self, url: str, seen: Seen) -> None:
        async def program() -> None:
            worker = AsyncWorker(url)
            serve_all(worker, seen)
            async with AsyncClient(url) as client:
                running = asyncio.create_task(worker.run(signals=False))
                call = asyncio.create_task(client.call("sleep", b"30", once=True))
                await asyncio.to_thread(seen.running.acquire, timeout=2)
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running
                assert seen.cancelled == ["sleep"]
                call.cancel()

        asyncio.run(program())

    def test_loop_is_not_starved_by_a_generator_that_never_waits(self, url: str) -> None:
        async def program() -> None:
            worker = AsyncWorker(url)

            async def flood(request: Request):
                for number in range(FLOOD):
                    yield b"%d" % number

            async def quick(request: Request) -> None: ...

            worker.add("flood", flood)
            worker.add("quick", quick)
            async with worker, AsyncClient(url, timeout=10.0) as client:
                await worker.wait_ready()
                stream = client.stream("flood")
                assert (await anext(stream)).body == b"0"
                await client.call("quick")
                count = 1
                async for part in stream:
                    assert int(part.body) == count
                    count += 1
                assert count == FLOOD

        asyncio.run(program())


PROGRAM = """
import sys, time
from majordomus import Worker
worker = Worker(sys.argv[1], drain_timeout=60.0)

@worker.service("slow")
def slow(request):
    print("working", flush=True)
    time.sleep(float(request.body))
    return b"done"

worker.run()
print("left", flush=True)
"""


class TestSignals:
    """A worker in the main thread of a process."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signal_drains_and_a_second_one_ends(
        self, url: str, client: Client, number: signal.Signals
    ) -> None:
        for seconds, signals, reply in ((b"0.5", 1, True), (b"60", 2, False)):
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", PROGRAM, url],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stdout
            future = client.submit("slow", seconds, timeout=10.0, once=True)
            assert process.stdout.readline() == "working\n"
            for _ in range(signals):
                process.send_signal(number)
                time.sleep(0.15)
            out, err = process.communicate(timeout=5)
            assert (process.returncode, out, complaints(err)) == (0, "left\n", [])
            if reply:
                assert future.result(1).body == b"done"
            else:
                future.cancel()
