"""Conversations between real clients and workers: parts both ways, back-pressure, cancelling,
answers given later, deadlines that are passed on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from majordomus import AsyncClient, AsyncWorker, Client, Reply, Request, Worker
from majordomus.errors import (
    Cancelled,
    DeadlineExceeded,
    HandlerFailed,
    LocalProtocolError,
    NotSupported,
    TooManyRequests,
)
from majordomus.net.worker.base import WorkerBase
from majordomus.net.worker.deferred_reply import DeferredReply
from majordomus.protocol import spec
from tests.docs_runner import run_page
from tests.net.conftest import RawPeer, eventually

LONG = 5000
AHEAD = 2 * spec.FIRST_CREDIT + 2
"""Parts that a sender may be ahead of a reader that does not read: its credit, the parts that a
thread is ahead of its loop, and one in each of both."""
SOON = 0.1
"""Seconds within which a handler must notice that it is cancelled."""


class Observed:
    """What the handlers have observed."""

    def __init__(self) -> None:
        self.sent = 0
        self.got: list[bytes] = []
        self.began = threading.Event()
        self.cancelled_at = 0.0
        self.later: list[DeferredReply] = []
        self.errors: list[BaseException] = []

    def cancelled(self) -> None:
        self.cancelled_at = time.monotonic()


def serve(worker: WorkerBase, observed: Observed) -> None:
    @worker.service("chat")
    async def chat(request: Request) -> AsyncIterator[bytes]:
        yield b"hello " + request.body
        async for part in request.parts:
            yield part.body.upper()
        yield b"bye"

    @worker.service("chat-in-thread")
    def chat_in_thread(request: Request) -> Iterator[bytes]:
        yield b"hello " + request.body
        for part in request.parts:
            yield part.body.upper()
        yield b"bye"

    @worker.service("sum")
    async def total(request: Request) -> bytes:
        return b"%d" % sum([int(part.body) async for part in request.parts])

    @worker.service("sum-in-thread")
    def total_in_thread(request: Request) -> bytes:
        return b"%d" % sum(int(part.body) for part in request.parts)

    @worker.service("count")
    async def count(request: Request) -> AsyncIterator[bytes]:
        for number in range(int(request.body)):
            observed.sent = number + 1
            yield b"%d" % number

    @worker.service("count-in-thread")
    def count_in_thread(request: Request) -> Iterator[bytes]:
        for number in range(int(request.body)):
            observed.sent = number + 1
            yield b"%d" % number

    @worker.service("deaf")
    async def deaf(request: Request) -> None:
        observed.began.set()
        await asyncio.sleep(60)

    @worker.service("slow-reader")
    def slow_reader(request: Request) -> bytes:
        observed.began.set()
        for part in request.parts:
            observed.got.append(part.body)
            time.sleep(0.001)
        return b"%d" % len(observed.got)

    @worker.service("wait")
    async def wait(request: Request) -> None:
        observed.began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            observed.cancelled()
            raise

    @worker.service("wait-for-parts")
    async def wait_for_parts(request: Request) -> None:
        observed.began.set()
        try:
            async for _ in request.parts:
                pass
        except asyncio.CancelledError:
            observed.cancelled()
            raise

    @worker.service("wait-in-thread")
    def wait_in_thread(request: Request) -> None:
        observed.began.set()
        if request.wait_cancelled(60):
            observed.cancelled()

    @worker.service("wait-for-parts-in-thread")
    def wait_for_parts_in_thread(request: Request) -> None:
        observed.began.set()
        try:
            for _ in request.parts:
                pass
        except Cancelled:
            observed.cancelled()

    @worker.service("endless")
    async def endless(request: Request) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"again"
                observed.began.set()
        finally:
            observed.cancelled()

    @worker.service("endless-in-thread")
    def endless_in_thread(request: Request) -> Iterator[bytes]:
        try:
            while True:
                yield b"again"
                observed.began.set()
        finally:
            observed.cancelled()

    @worker.service("later")
    async def later(request: Request) -> None:
        observed.later.append(request.reply_later())

    @worker.service("later-in-thread")
    def later_in_thread(request: Request) -> None:
        observed.later.append(request.reply_later())

    @worker.service("dropped")
    async def dropped(request: Request) -> None:
        request.reply_later()

    @worker.service("at-once")
    def at_once(request: Request) -> bytes:
        request.reply_later().reply([b"early", b"word"])
        return b"this is ignored"

    @worker.service("promise")
    async def promise(request: Request) -> None:
        observed.later.append(request.reply_later())

    @worker.service("promise-and-fail")
    async def promise_and_fail(request: Request) -> None:
        observed.later.append(request.reply_later())
        raise ValueError("after all")


@pytest.fixture
def observed() -> Observed:
    return Observed()


@pytest.fixture
def worker(url: str, observed: Observed) -> Iterator[Worker]:
    made = Worker(url, capacity=100, threads=8, drain_timeout=2.0)
    serve(made, observed)
    with made:
        made.wait_ready()
        yield made
        made.stop(drain=False)


@pytest.fixture
def client(url: str, worker: Worker) -> Iterator[Client]:
    with Client(url, timeout=20.0) as made:
        yield made


BOTH = pytest.mark.parametrize("where", ["", "-in-thread"], ids=["loop", "thread"])


class TestSync:
    @BOTH
    def test_parts_go_both_ways_in_turn(self, client: Client, where: str) -> None:
        with client.open("chat" + where, b"ann") as conv:
            assert next(conv).body == b"hello ann"
            for word in (b"a", b"b", b"c"):
                conv.send(word)
                assert next(conv).body == word.upper()
            conv.finish()
            assert [part.body for part in conv] == [b"bye"]

    @BOTH
    def test_last_body_is_a_part_and_the_result_is_the_answer(
        self, client: Client, where: str
    ) -> None:
        with client.open("sum" + where) as conv:
            for number in range(100):
                conv.send(b"%d" % number)
            assert conv.result(b"1000").body == b"5950"
        assert client.open("sum" + where).result().body == b"0"

    def test_parts_may_be_sent_before_there_is_a_worker(self, url: str, observed: Observed) -> None:
        with Client(url, timeout=20.0) as client, client.open("sum") as conv:
            for number in range(spec.FIRST_CREDIT):
                conv.send(b"%d" % number)
            late = Worker(url)
            serve(late, observed)
            with late:
                assert conv.result(b"0").body == b"120"

    def test_one_thread_may_read_while_another_sends(self, client: Client) -> None:
        with client.open("chat") as conv:
            assert next(conv).body == b"hello "
            parts: list[bytes] = []
            reader = threading.Thread(target=lambda: parts.extend(part.body for part in conv))
            reader.start()
            for number in range(1000):
                conv.send(b"x%d" % number)
            conv.finish()
            reader.join(20.0)
            assert parts == [b"X%d" % number for number in range(1000)] + [b"bye"]

    def test_nothing_can_be_sent_after_the_end(self, client: Client) -> None:
        with client.open("sum") as conv:
            conv.finish()
            with pytest.raises(LocalProtocolError, match="finished"):
                conv.send(b"1")
            conv.finish()
            assert next(conv).body == b"0"
            with pytest.raises(LocalProtocolError, match="ended"):
                conv.send(b"1")

    def test_sender_of_a_part_that_was_not_taken_before_the_end_gets_an_error(
        self, client: Client, observed: Observed
    ) -> None:
        conv = client.open("promise")
        sent = 0
        with pytest.raises(LocalProtocolError, match="ended"):
            for _ in range(10_000):
                if sent == spec.FIRST_CREDIT:  # the next one waits for credit, which never comes
                    eventually(lambda: bool(observed.later), 20)
                    threading.Timer(0.1, observed.later[0].reply).start()
                conv.send(b"x")
                sent += 1
        assert sent == spec.FIRST_CREDIT

    def test_failure_of_the_handler_is_raised_in_the_sender(
        self, client: Client, observed: Observed
    ) -> None:
        conv = client.open("promise-and-fail")
        with pytest.raises(HandlerFailed, match="after all"):
            for _ in range(10_000):
                conv.send(b"x")
        assert observed.later[0].cancelled is False
        with pytest.raises(LocalProtocolError, match="answered"):
            observed.later[0].reply()

    def test_conversation_in_a_legacy_dialect_is_refused(self, url: str) -> None:
        client = Client(url, dialect="mdp02")
        with client, pytest.raises(LocalProtocolError, match="a stream from the client"):
            client.open("sum").result()


class TestAsync:
    def test_parts_go_both_ways_at_once(self, url: str, worker: Worker) -> None:
        async def program() -> None:
            async with AsyncClient(url, timeout=20.0) as client, client.open("chat", b"") as conv:

                async def send() -> None:
                    for number in range(1000):
                        await conv.send(b"x%d" % number)
                    await conv.finish()

                sending = asyncio.create_task(send())
                parts = [part.body async for part in conv]
                await sending
                words = [b"X%d" % number for number in range(1000)]
                assert parts == [b"hello ", *words, b"bye"]

        asyncio.run(program())

    def test_result_finishes_the_conversation(self, url: str, worker: Worker) -> None:
        async def program() -> None:
            client = AsyncClient(url, timeout=20.0)
            async with client, client.open("sum-in-thread") as conv:
                for number in range(100):
                    await conv.send(str(number))
                assert (await conv.result()).body == b"4950"
                with pytest.raises(LocalProtocolError, match="ended"):
                    await conv.send(b"1")

        asyncio.run(program())

    def test_worker_in_the_same_loop(self, url: str, observed: Observed) -> None:
        async def program() -> None:
            made = AsyncWorker(url)
            serve(made, observed)
            async with made, AsyncClient(url, timeout=20.0) as client:
                await made.wait_ready()
                async with client.open("chat") as conv:
                    await conv.send(b"a")
                    await conv.finish(b"b")
                    assert [part.body async for part in conv] == [b"hello ", b"A", b"B", b"bye"]

        asyncio.run(program())


class TestBackPressure:
    @BOTH
    def test_slow_reader_slows_down_the_handler_and_gets_everything(
        self, client: Client, observed: Observed, where: str
    ) -> None:
        with client.stream("count" + where, b"%d" % LONG) as stream:
            assert next(stream).body == b"0"
            before = -1
            while observed.sent != before:  # until the handler waits
                before = observed.sent
                time.sleep(0.2)
            assert observed.sent <= AHEAD
            for number in range(1, 100):
                assert int(next(stream).body) == number
                time.sleep(0.002)
                assert observed.sent <= number + AHEAD + spec.FIRST_CREDIT
            assert [int(part.body) for part in stream] == list(range(100, LONG))

    def test_slow_handler_slows_down_the_sender(self, client: Client, observed: Observed) -> None:
        with client.open("slow-reader") as conv:
            for number in range(300):
                conv.send(b"%d" % number)
                assert number - len(observed.got) <= AHEAD
            assert conv.result().body == b"300"
        assert observed.got == [b"%d" % number for number in range(300)]

    def test_handler_that_reads_nothing_stops_the_sender(self, url: str, worker: Worker) -> None:
        with Client(url, timeout=1.0) as client, client.open("deaf") as conv:
            sent = 0
            with pytest.raises(DeadlineExceeded):
                while True:
                    conv.send(b"x" * 1000)
                    sent += 1
            assert sent == spec.FIRST_CREDIT

    def test_call_that_joins_a_stream_gets_all_of_it(self, client: Client) -> None:
        assert len(client.call("count", b"%d" % LONG).frames) == LONG

    @BOTH
    def test_slow_stream_stalls_no_other_on_its_connection(
        self, client: Client, observed: Observed, where: str
    ) -> None:
        slow = client.stream("count" + where, b"%d" % LONG)
        assert next(slow).body == b"0"
        began = time.monotonic()
        assert sum(1 for _ in client.stream("count" + where, b"1000")) == 1000
        assert time.monotonic() - began < 10.0
        assert sum(1 for _ in slow) == LONG - 1

    def test_legacy_client_gets_a_long_stream(self, url: str, worker: Worker) -> None:
        with Client(url, dialect="mdp02", timeout=20.0) as client:
            assert sum(1 for _ in client.stream("count", b"500")) == 500

    def test_legacy_worker_gets_a_clients_stream_as_one_request(self, url: str) -> None:
        old = Worker(url, dialect="mdp02")
        old.add("join", lambda request: [b"%d" % len(request.frames), *request.frames])
        with old, Client(url, timeout=20.0) as client:
            old.wait_ready()
            with client.open("join", b"head") as conv:
                for number in range(100):
                    conv.send(b"%d" % number)
                frames = conv.result(b"end").frames
        assert frames == [b"102", b"head", *(b"%d" % n for n in range(100)), b"end"]


def check_cancelled_soon(observed: Observed, attempt: Callable[[], float]) -> None:
    """Check that the handler is cancelled within 100 ms of the time that `attempt` returns.

    One of a few attempts must succeed, because other processes may delay this one for longer.
    """
    took = []
    for _ in range(5):
        observed.cancelled_at = 0.0
        observed.began.clear()
        left_at = attempt()
        eventually(lambda: observed.cancelled_at, within=10.0)
        took.append(observed.cancelled_at - left_at)
        if took[-1] < SOON:
            return
    raise AssertionError(f"seen after {took} s")


class TestCancelling:
    """The handler is cancelled within 100 ms."""

    @pytest.mark.parametrize(
        "service",
        [
            "wait",
            "wait-for-parts",
            "endless",
            "wait-in-thread",
            "wait-for-parts-in-thread",
            "endless-in-thread",
        ],
    )
    @pytest.mark.parametrize("how", ["leave the context", "close", "drop"])
    def test_leaving_a_conversation_cancels_the_handler(
        self, client: Client, observed: Observed, service: str, how: str
    ) -> None:
        def attempt() -> float:
            conv = client.open(service)
            conv.send(b"x")
            assert observed.began.wait(5.0)
            left_at = time.monotonic()
            if how == "leave the context":
                with conv:
                    left_at = time.monotonic()
            elif how == "close":
                conv.close()
            else:
                del conv
            return left_at

        check_cancelled_soon(observed, attempt)

    def test_leaving_a_loop_over_parts_cancels_the_handler(
        self, client: Client, observed: Observed
    ) -> None:
        def attempt() -> float:
            for part in client.stream("endless"):
                assert part.body == b"again"
                break
            return time.monotonic()

        check_cancelled_soon(observed, attempt)

    @pytest.mark.parametrize("service", ["wait", "endless", "wait-for-parts-in-thread"])
    @pytest.mark.parametrize("how", ["leave the context", "cancel the task"])
    def test_leaving_an_async_conversation_cancels_the_handler(
        self, url: str, worker: Worker, observed: Observed, service: str, how: str
    ) -> None:
        async def talk(client: AsyncClient) -> float:
            async with client.open(service) as conv:
                await conv.send(b"x")
                assert await asyncio.to_thread(observed.began.wait, 5.0)
                if how == "cancel the task":
                    await asyncio.sleep(60)
                return time.monotonic()

        async def program() -> float:
            async with AsyncClient(url, timeout=20.0) as client:
                task = asyncio.create_task(talk(client))
                if how == "leave the context":
                    left_at = await task
                else:
                    assert await asyncio.to_thread(observed.began.wait, 5.0)
                    left_at = time.monotonic()
                    task.cancel()
                await asyncio.to_thread(eventually, lambda: observed.cancelled_at, 10.0)
                return left_at

        check_cancelled_soon(observed, lambda: asyncio.run(program()))


class TestLater:
    @BOTH
    def test_answer_is_given_from_another_thread_after_the_handler_has_returned(
        self, client: Client, observed: Observed, where: str
    ) -> None:
        futures = [client.submit("later" + where, b"%d" % n) for n in range(3)]
        eventually(lambda: len(observed.later) == 3)
        assert not any(future.done() for future in futures)

        def answer() -> None:
            observed.later[0].reply(Reply([b"zero"], 200))
            observed.later[1].fail(404, "no such thing")
            observed.later[2].part(b"a")
            observed.later[2].reply(b"b")

        thread = threading.Thread(target=answer)
        thread.start()
        assert futures[0].result(5.0).body == b"zero"
        with pytest.raises(Exception, match="no such thing"):
            futures[1].result(5.0)
        assert futures[2].result(5.0).frames == [b"a", b"b"]
        thread.join()
        with pytest.raises(LocalProtocolError, match="answered"):
            observed.later[0].reply(b"again")

    def test_slot_is_held_until_the_answer(self, url: str, observed: Observed) -> None:
        one = Worker(url, capacity=1)
        serve(one, observed)
        with one, Client(url, timeout=20.0) as client:
            one.wait_ready()
            first, second = client.submit("later"), client.submit("later")
            eventually(lambda: observed.later)
            time.sleep(0.1)
            assert len(observed.later) == 1
            observed.later[0].reply(b"1")
            eventually(lambda: len(observed.later) == 2)
            observed.later[1].reply(b"2")
            assert (first.result(5.0).body, second.result(5.0).body) == (b"1", b"2")

    def test_answer_that_is_dropped_is_a_failure(self, client: Client) -> None:
        with pytest.raises(HandlerFailed, match="dropped the reply unanswered"):
            client.call("dropped")

    def test_answer_given_before_the_handler_has_returned_counts(self, client: Client) -> None:
        assert client.call("at-once").frames == [b"early", b"word"]

    def test_deferred_reply_reports_that_the_call_was_cancelled(
        self, client: Client, observed: Observed
    ) -> None:
        future = client.submit("later")
        eventually(lambda: observed.later)
        assert not observed.later[0].cancelled
        future.cancel()
        eventually(lambda: observed.later[0].cancelled)
        with pytest.raises(Cancelled):
            observed.later[0].part(b"x")
        observed.later[0].reply(b"for the slot")

    def test_parts_wait_for_a_slow_client_in_a_thread(
        self, client: Client, observed: Observed
    ) -> None:
        stream = client.stream("later")
        eventually(lambda: observed.later)
        sent: list[int] = []

        def talk() -> None:
            for number in range(200):
                observed.later[0].part(b"%d" % number)
                sent.append(number)
            observed.later[0].reply()

        thread = threading.Thread(target=talk)
        thread.start()
        eventually(lambda: len(sent) >= spec.FIRST_CREDIT)
        time.sleep(0.2)
        assert len(sent) <= AHEAD
        assert [int(part.body) for part in stream] == list(range(200))
        thread.join()

    def test_parts_on_the_loop_never_wait(self, url: str, observed: Observed) -> None:
        refused: list[TooManyRequests] = []

        async def program() -> None:
            made = AsyncWorker(url)

            @made.service("burst")
            async def burst(request: Request) -> None:
                later = request.reply_later()
                try:
                    for _ in range(100):
                        later.part(b"x")
                except TooManyRequests as error:
                    refused.append(error)
                later.reply()

            async with made, AsyncClient(url, timeout=20.0) as client:
                await made.wait_ready()
                assert len((await client.call("burst")).frames) == 16

        asyncio.run(program())
        assert len(refused) == 1


class TestDeadlines:
    """A call of a handler has no more time than the handler has itself."""

    @pytest.fixture
    def relay(self, url: str, worker: Worker) -> Iterator[Callable[[str], float]]:
        """Return a function that calls a relay with 0.5 s, which calls `wait` with 30 s. It returns
        the seconds until the call of the relay ended."""
        took: dict[str, float] = {}
        with Client(url) as inner:
            middle = Worker(url)

            @middle.service("relay-in-thread")
            def in_thread(request: Request) -> None:
                began = time.monotonic()
                try:
                    inner.call("wait", timeout=30.0)
                finally:
                    took[request.service] = time.monotonic() - began

            @middle.service("relay")
            async def on_loop(request: Request) -> None:
                began = time.monotonic()
                async with AsyncClient(url) as own:
                    try:
                        await own.call("wait", timeout=30.0)
                    finally:
                        took[request.service] = time.monotonic() - began

            def run(service: str) -> float:
                with Client(url) as client, pytest.raises(DeadlineExceeded):
                    client.call(service, timeout=0.5)
                eventually(lambda: service in took)
                return took[service]

            with middle:
                middle.wait_ready()
                yield run
                middle.stop(drain=False)

    @BOTH
    def test_call_of_a_handler_ends_with_the_handlers_own_deadline(
        self, relay: Callable[[str], float], where: str
    ) -> None:
        assert relay("relay" + where) < 2.0

    def test_call_outside_a_handler_keeps_its_own_deadline(self, client: Client) -> None:
        assert client.call("at-once", timeout=5.0).frames


def test_handler_in_a_process_takes_no_stream(url: str) -> None:
    made = Worker(url, processes=1)
    made.add("length", len_of_body, run="process")
    with made, Client(url, timeout=20.0) as client:
        made.wait_ready()
        with pytest.raises(NotSupported, match="takes no stream"):
            client.open("length").result()


def len_of_body(request: Request) -> bytes:
    return b"%d" % len(request.body)


def test_stream_that_is_never_read_holds_no_more_than_its_credit(
    url: str, peers: Callable[[str], RawPeer], observed: Observed, worker: Worker
) -> None:
    """By hand: 16 parts come, and no other before CREDIT is sent."""
    peer = peers(url)
    peer.request(b"count", b"100")
    for number in range(16):
        header, body = peer.receive()
        assert (header[0], body) == (spec.PARTIAL, [b"%d" % number])
    assert not peer.socket.poll(200)


def test_program_of_the_page_runs_and_shows_what_the_page_shows(tmp_path: Path) -> None:
    run_page(Path(__file__).parents[3] / "docs" / "conversations.md", tmp_path)
