"""TestBroker: the same test runs on the virtual clock and with a real broker."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from majordomus import (
    AsyncClient,
    AsyncWorker,
    Broker,
    Client,
    ConfigurationError,
    DeadlineExceeded,
    LocalProtocolError,
    Middleware,
    Reply,
    Request,
    Unavailable,
    Worker,
)
from majordomus.testing import TestBroker, clock
from majordomus.testing.virtual_loop import StuckError, VirtualLoop


class Draft(msgspec.Struct):
    title: str
    size: int = 0


def make_worker() -> Worker:
    worker = Worker(threads=4)

    @worker.service("put")
    def put(draft: Draft) -> Draft:
        return Draft(draft.title, draft.size + 1)

    @worker.service("slow")
    async def slow(request: Request) -> bytes:
        await asyncio.sleep(float(request.text))
        return b"done"

    @worker.service("count")
    def count(request: Request) -> Iterator[bytes]:
        for number in range(int(request.text)):
            yield b"%d" % number

    @worker.service("acount")
    async def acount(request: Request) -> AsyncIterator[bytes]:
        for number in range(int(request.text)):
            yield b"%d" % number

    @worker.service("sum")
    def add_up(request: Request) -> str:
        return str(sum(int(part.text) for part in request.parts))

    return worker


def test_reply_of_a_typed_handler_is_returned(any_broker: TestBroker) -> None:
    any_broker.add(make_worker())
    client = any_broker.client()
    assert client.call("put", Draft("milk"), returns=Draft) == Draft("milk", 1)
    assert [(call.service, call.status) for call in any_broker.calls] == [("put", 200)]
    assert any_broker.calls[0].value(Draft) == Draft("milk")


@pytest.mark.parametrize("service", ["count", "acount"])
def test_stream_of_many_parts_arrives_in_order(any_broker: TestBroker, service: str) -> None:
    any_broker.add(make_worker())
    parts = [part.text for part in any_broker.client().stream(service, "100")]
    assert parts == [str(number) for number in range(100)]
    [call] = any_broker.calls_of(service)
    assert (call.parts, call.status) == (100, 200)


def test_handler_reads_the_stream_of_a_sync_client(any_broker: TestBroker) -> None:
    any_broker.add(make_worker())
    with any_broker.client().open("sum") as conversation:
        for number in range(50):
            conversation.send(str(number))
        assert conversation.result().text == "1225"


async def test_coroutine_calls_and_streams(any_broker: TestBroker) -> None:
    client = any_broker.async_client()
    with pytest.raises(Unavailable):
        await client.call("put", Draft("x"), fail_fast=True)
    assert any_broker.calls[0].status == 503


def test_asyncio_worker_is_served(any_broker: TestBroker) -> None:
    worker = AsyncWorker()

    @worker.service("echo")
    async def echo(request: Request) -> bytes:
        return request.body

    any_broker.add(worker)
    assert any_broker.client().call("echo", b"x").body == b"x"


def test_request_of_a_lost_worker_goes_to_another_one(any_broker: TestBroker) -> None:
    first, second = make_worker(), make_worker()
    any_broker.add(first, second)
    any_broker.lose(first)
    assert any_broker.client().call("put", Draft("x"), returns=Draft) == Draft("x", 1)


def test_refused_call_has_the_status(any_broker: TestBroker) -> None:
    any_broker.add(make_worker())
    any_broker.refuse("put", 503, "closed for today")
    client = any_broker.client()
    with pytest.raises(Unavailable, match="closed for today"):
        client.call("put", Draft("x"), fail_fast=True)
    assert client.call("put", Draft("x")).status == 200


def test_client_sends_a_call_again_after_a_full_queue(any_broker: TestBroker) -> None:
    any_broker.add(make_worker())
    any_broker.refuse("put", times=2)
    assert any_broker.client().call("put", Draft("x"), returns=Draft) == Draft("x", 1)


def test_broker_of_the_program_runs_its_hooks() -> None:
    class Stamp(Middleware):
        def on_request(self, request: object) -> Reply:
            return Reply(b"from the hook")

    for real in (False, True):
        program = Broker(bind="tcp://127.0.0.1:*", middleware=[Stamp()])
        with TestBroker(program, real=real) as broker:
            assert broker.client().call("any").body == b"from the hook"


def test_client_of_the_program_is_attached(any_broker: TestBroker) -> None:
    worker = make_worker()
    inner = Client("tcp://127.0.0.1:1")

    @worker.service("twice")
    def twice(request: Request) -> bytes:
        return inner.call("slow", b"0.001").body * 2

    any_broker.add(worker)
    any_broker.attach(inner)
    assert any_broker.client().call("twice").body == b"donedone"
    inner.close()


# -- what only the virtual clock has


def test_time_passes_while_a_call_waits_and_the_test_does_not(test_broker: TestBroker) -> None:
    test_broker.add(make_worker())
    began, virtual = time.monotonic(), test_broker.time.now
    assert test_broker.client().call("slow", "600", timeout=700).body == b"done"
    assert virtual + 600 <= test_broker.time.now < virtual + 601
    assert time.monotonic() - began < 60


def test_deadline_passes_on_the_virtual_clock(test_broker: TestBroker) -> None:
    test_broker.add(make_worker())
    virtual = test_broker.time.now
    with pytest.raises(DeadlineExceeded):
        test_broker.client().call("slow", "600", timeout=30)
    assert 30 <= test_broker.time.now - virtual < 31


def test_advance_runs_what_is_due_in_order(test_broker: TestBroker) -> None:
    seen: list[str] = []

    async def note(name: str, delay: float) -> None:
        await asyncio.sleep(delay)
        seen.append(name)

    async def begin() -> None:
        asyncio.get_running_loop().create_task(note("late", 20))
        asyncio.get_running_loop().create_task(note("early", 10))

    test_broker.run(begin())
    test_broker.time.advance(9)
    assert seen == []
    test_broker.time.advance(11)
    assert seen == ["early", "late"]


def test_worker_stays_registered_for_an_hour(test_broker: TestBroker) -> None:
    test_broker.add(make_worker())
    test_broker.time.advance(3600)
    assert test_broker.client().serves("put")


def test_dropped_connection_is_made_again(test_broker: TestBroker) -> None:
    worker, client = make_worker(), test_broker.client()
    test_broker.add(worker)
    assert client.call("put", Draft("x")).status == 200
    test_broker.drop(worker)
    test_broker.drop(client)
    assert client.call("put", Draft("x")).status == 200


def test_slow_reader_gets_its_parts_after_it_reads_again(test_broker: TestBroker) -> None:
    test_broker.add(make_worker())
    client = test_broker.async_client()

    async def read() -> list[str]:
        return [part.text async for part in client.stream("count", "40")]

    async def begin() -> asyncio.Task[list[str]]:
        await client.ping()
        test_broker.pause(client)
        return asyncio.create_task(read())

    task = test_broker.run(begin())
    test_broker.time.advance(5)
    assert not task.done()
    assert test_broker.calls_of("count")[0].parts == 16  # the first credit
    test_broker.resume(client)
    test_broker.time.advance(1)
    assert task.result() == [str(number) for number in range(40)]


def test_no_thread_and_no_socket_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the socket pair of a sync client, which nothing uses here."""
    threads = set(threading.enumerate())

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    with TestBroker() as broker:
        broker.add(make_worker())
        client = broker.async_client()

        async def call() -> bytes:
            return (await client.call("put", Draft("x"))).body

        assert broker.run(call())
        assert set(threading.enumerate()) == threads


def test_real_clock_is_back_after_the_test() -> None:
    with TestBroker() as broker:
        broker.time.advance(1000)
    from majordomus.net.client import calls, gather

    assert calls.monotonic is time.monotonic
    assert gather.time is time


def test_wait_for_what_cannot_happen_is_an_error() -> None:
    loop = VirtualLoop()
    with pytest.raises(StuckError):
        loop.run_until_complete(loop.create_future())
    loop.close()


def test_time_does_not_go_back(test_broker: TestBroker) -> None:
    with pytest.raises(ConfigurationError, match="0 seconds or more"):
        test_broker.time.advance(-1)


MODULE_CLIENT = Client()
"""A client as a module of handlers has it."""


@pytest.mark.parametrize("number", [1, 2])
def test_client_of_a_module_is_attached_in_each_test(any_broker: TestBroker, number: int) -> None:
    urls = list(MODULE_CLIENT.endpoints)
    any_broker.add(make_worker())
    using = MODULE_CLIENT.using()
    any_broker.attach(MODULE_CLIENT)
    assert using.call("put", Draft("tea"), returns=Draft).title == "tea"
    any_broker.close()
    assert MODULE_CLIENT.endpoints == urls


MODULE_ASYNC_CLIENT = AsyncClient()


@pytest.mark.parametrize("number", [1, 2])
def test_asyncio_client_of_a_handler_is_attached_in_each_test(
    any_broker: TestBroker, number: int
) -> None:
    outer = AsyncWorker()

    @outer.service("outer")
    async def pass_on(draft: Draft) -> Draft:
        return await MODULE_ASYNC_CLIENT.call("put", draft, returns=Draft)

    any_broker.attach(MODULE_ASYNC_CLIENT)
    any_broker.add(make_worker(), outer)
    reply = any_broker.client().call("outer", Draft("tea", number), returns=Draft)
    assert reply == Draft("tea", number + 1)


def test_client_that_was_used_cannot_be_attached(test_broker: TestBroker) -> None:
    client = AsyncClient("tcp://127.0.0.1:1")
    test_broker.attach(client)

    async def use() -> None:
        with pytest.raises(Unavailable):
            await client.call("put", fail_fast=True)
        with pytest.raises(LocalProtocolError, match="before its first use"):
            test_broker.attach(client)
        await client.close()

    test_broker.run(use())


def test_advance_skips_a_test_with_a_real_broker() -> None:
    with TestBroker(real=True) as broker, pytest.raises(pytest.skip.Exception, match="virtual"):
        broker.time.advance(1)


def test_broker_with_a_store_is_refused_on_the_virtual_clock_and_leaves_no_clock() -> None:
    with pytest.raises(ConfigurationError, match=r"no store: give it real=True"):
        TestBroker(settings={"store": "sqlite:never.db"}).open()
    assert not clock.in_use()
