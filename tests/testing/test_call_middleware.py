"""Middleware of clients, and the ready-made Retry, Timeout, Log and Cache."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from majordomus import (
    BadRequest,
    ConfigurationError,
    DeadlineExceeded,
    NotFound,
    Reply,
    Request,
    Worker,
    WorkerLost,
)
from majordomus.middleware.calls import Cache, Log, Retry, Timeout
from majordomus.net.client.middleware import (
    ClientMiddleware,
    Open,
    OpenAsync,
    OutgoingCall,
    Send,
)
from majordomus.testing import TestBroker


def make_worker() -> Worker:
    worker = Worker()

    @worker.service("echo")
    def echo(request: Request) -> bytes:
        return request.body

    @worker.service("fail")
    async def fail(request: Request) -> bytes:
        raise NotFound("gone")

    @worker.service("never")
    async def never(request: Request) -> bytes:
        import asyncio

        await asyncio.sleep(1000)
        return b""

    return worker


class Stamp(ClientMiddleware):
    def __init__(self, name: str) -> None:
        self.name = name

    def send(self, call: OutgoingCall, send: Send) -> Reply:
        call.metadata["way"] = f"{call.metadata.get('way', '')}{self.name}"
        try:
            return send(call)
        except NotFound as error:
            raise BadRequest(f"{self.name}: {error.text}") from error


def test_middleware_runs_in_its_order_and_changes_failures(any_broker: TestBroker) -> None:
    any_broker.add(make_worker())
    client = any_broker.client().using(Stamp("a"), Stamp("b"))
    assert client.call("echo", b"x", returns=bytes) == b"x"
    assert any_broker.calls[0].metadata["way"] == "ab"
    with pytest.raises(BadRequest, match="b: gone"):
        client.call("fail")


def test_retry_sends_again_after_a_loss_and_not_after_other_failures(
    any_broker: TestBroker,
) -> None:
    any_broker.add(make_worker())
    any_broker.refuse("echo", 502, "lost", times=2)
    client = any_broker.client().using(Retry(3, delay=0.001))
    assert client.call("echo", b"x").body == b"x"
    assert len(any_broker.calls_of("echo")) in (1, 3)  # a real broker's hook refuses before
    any_broker.refuse("echo", 502, "lost", times=3)
    with pytest.raises(WorkerLost):
        client.call("echo", b"x")
    any_broker.refuse("echo", 502, "lost")
    with pytest.raises(WorkerLost):
        client.call("echo", b"x", once=True)
    with pytest.raises(NotFound):
        client.call("fail")
    assert len(any_broker.calls_of("fail")) == 1


async def test_retry_of_an_asyncio_client_sleeps_on_the_clock(test_broker: TestBroker) -> None:
    client = test_broker.async_client().using(Retry(3, delay=10, errors=(WorkerLost,)))
    test_broker.refuse("echo", 502, "lost", times=3)
    began = test_broker.time.now
    with pytest.raises(WorkerLost):
        await client.call("echo")
    assert 30 <= test_broker.time.now - began < 31


def test_timeout_is_the_longest_that_a_call_gets(test_broker: TestBroker) -> None:
    test_broker.add(make_worker())
    client = test_broker.client().using(Timeout(2))
    for given, expected in ((None, 2), (100, 2), (1, 1)):
        began = test_broker.time.now
        with pytest.raises(DeadlineExceeded):
            client.call("never", timeout=given)
        assert expected <= test_broker.time.now - began < expected + 0.5


def test_log_has_a_line_for_each_call(
    test_broker: TestBroker, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make_worker()
    worker.use(Log(logging.DEBUG))
    test_broker.add(worker)
    client = test_broker.client().using(Log())
    with caplog.at_level(logging.DEBUG, "majordomus.calls"):
        client.call("echo")
        with pytest.raises(NotFound):
            client.call("fail")
    lines = [(one.levelname, *one.getMessage().split()[:2]) for one in caplog.records]
    assert lines == [
        ("DEBUG", "echo", "200"),
        ("INFO", "echo", "200"),
        ("INFO", "fail", "404"),
        ("WARNING", "fail", "404"),
    ]


def test_cache_keeps_replies_by_body_for_a_time(test_broker: TestBroker) -> None:
    test_broker.add(make_worker())
    client = test_broker.client().using(Cache(10, services=["echo", "fail"], most=2))
    for body in (b"a", b"a", b"b", b"a"):
        assert client.call("echo", body).body == body
    assert [call.body for call in test_broker.calls] == [b"a", b"b"]
    test_broker.time.advance(11)
    client.call("echo", b"a")
    assert len(test_broker.calls) == 3
    for _ in range(2):
        with pytest.raises(NotFound):
            client.call("fail")
    assert len(test_broker.calls) == 5


async def test_cache_of_an_asyncio_client_keeps_replies(test_broker: TestBroker) -> None:
    test_broker.add(make_worker())
    client = test_broker.async_client().using(Cache(10))
    for body in (b"a", b"a", b"b"):
        assert (await client.call("echo", body)).body == body
    assert [call.body for call in test_broker.calls] == [b"a", b"b"]


def test_cache_of_a_worker_calls_its_handler_once(test_broker: TestBroker) -> None:
    worker, calls = Worker(), []

    @worker.service("price")
    def price(request: Request) -> str:
        calls.append(request.text)
        return request.text.upper()

    worker.use(Cache(10, key=lambda service, frames: frames[0] if frames[0] != b"no" else None))
    test_broker.add(worker)
    client = test_broker.client()
    assert [client.call("price", name).text for name in ("tea", "tea", "no", "no")] == [
        "TEA",
        "TEA",
        "NO",
        "NO",
    ]
    assert calls == ["tea", "no", "no"]


def test_object_that_is_no_middleware_is_refused(test_broker: TestBroker) -> None:
    with pytest.raises(ConfigurationError, match="is a ClientMiddleware"):
        test_broker.client().using(object())  # type: ignore[arg-type]
    for wrong in (lambda: Retry(0), lambda: Timeout(0), lambda: Cache(0)):
        with pytest.raises(ConfigurationError):
            wrong()  # type: ignore[no-untyped-call]


class Marks(ClientMiddleware):
    """Adds its name to every part of a stream, and one part of its own at the end."""

    def __init__(self, name: str) -> None:
        self.name = name

    def stream(self, call: OutgoingCall, open: Open) -> Iterator[Reply]:
        call.metadata["way"] = f"{call.metadata.get('way', '')}{self.name}"
        for part in open(call):
            yield Reply(part.body + self.name.encode())
        yield Reply(f"end of {self.name}")

    async def stream_async(self, call: OutgoingCall, open: OpenAsync) -> AsyncIterator[Reply]:
        async for part in open(call):
            yield Reply(part.body + self.name.encode())


def stream_worker() -> Worker:
    worker = Worker()

    @worker.service("rows")
    def rows(request: Request) -> Iterator[bytes]:
        for number in range(int(request.body)):
            yield b"%d" % number

    @worker.service("breaks")
    async def breaks(request: Request) -> AsyncIterator[bytes]:
        yield b"first"
        raise NotFound("gone")

    return worker


def test_middleware_changes_the_parts_of_a_stream(any_broker: TestBroker) -> None:
    any_broker.add(stream_worker())
    client = any_broker.client().using(Marks("a"), Marks("b"))
    bodies = [part.body for part in client.stream("rows", b"2")]
    assert bodies == [b"0ba", b"1ba", b"end of ba", b"end of a"]
    assert any_broker.calls[0].metadata["way"] == "ab"
    with client.stream("rows", b"1000", of=str) as values:
        assert next(values) == "0ba"
    with pytest.raises(NotFound, match="gone"):
        list(client.stream("breaks"))


async def test_middleware_of_an_asyncio_client_changes_the_parts(any_broker: TestBroker) -> None:
    if not any_broker.real:
        pytest.skip("a sync worker in a coroutine needs a real broker")
    await asyncio.to_thread(any_broker.add, stream_worker())
    client = any_broker.async_client().using(Marks("a"), Log())
    assert [part.body async for part in client.stream("rows", b"2")] == [b"0a", b"1a"]
    async with client.stream("rows", b"1000", of=str) as values:
        assert await anext(values) == "0a"


def test_log_has_one_line_for_each_stream(
    any_broker: TestBroker, caplog: pytest.LogCaptureFixture
) -> None:
    worker = stream_worker()
    worker.use(Log())
    any_broker.add(worker)
    client = any_broker.client().using(Log(), Timeout(5))
    with caplog.at_level(logging.INFO, "majordomus.calls"):
        assert len(list(client.stream("rows", b"3"))) == 3
        with pytest.raises(NotFound):
            list(client.stream("breaks"))
    lines = sorted(line.rpartition(" ms")[0].rpartition(" ")[0] for line in caplog.messages)
    assert lines == ["breaks 404", "breaks 404", "rows 200", "rows 200"]


def test_cache_keeps_a_reply_for_each_encoding(test_broker: TestBroker) -> None:
    worker = Worker()

    @worker.service("five")
    def five(request: Request) -> int:
        return 50

    worker.use(Cache(100))
    test_broker.add(worker)
    client = test_broker.client()
    assert client.call("five").body == b"2"  # 50 in MessagePack
    assert client.call("five", metadata={"type": "application/json"}).body == b"50"
