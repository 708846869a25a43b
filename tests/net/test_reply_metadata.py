"""Metadata of replies: a handler of any kind sends them beside the body, its caller reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from majordomus.errors import HandlerFailed, LocalProtocolError, NotFound
from majordomus.net.bodies import Reply
from majordomus.net.broker.broker import Broker
from majordomus.net.client.async_client import AsyncClient
from majordomus.net.client.client import Client
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from majordomus.protocol import spec
from majordomus.protocol.spec import Dialect

PAGE = {"type": "text/csv", "next": b"\x00\x01", "rows": 3, "nested": {"a": [1, None, True]}}


def in_process(request: Request) -> Reply:
    return Reply(request.body, metadata=PAGE)


def parts_in_process(request: Request) -> Iterator[Reply]:
    yield Reply(b"1", metadata={"part": 1})
    yield Reply(b"2")


@pytest.fixture
def worker(broker: Broker) -> Iterator[Worker]:
    serving = Worker(broker.endpoints[0])

    @serving.service("async")
    async def on_loop(request: Request) -> Reply:
        return Reply(request.body, metadata=PAGE)

    @serving.service("sync")
    def in_thread(request: Request) -> Reply:
        return Reply(request.body, metadata=PAGE)

    @serving.service("later")
    def later(request: Request) -> None:
        reply = request.reply_later()
        reply.part(Reply(b"1", metadata={"part": 1}))
        reply.reply(Reply(b"2", metadata=PAGE))

    @serving.service("parts")
    def parts(request: Request) -> Iterator[Reply]:
        yield Reply(b"1", metadata={"part": 1})
        yield Reply(b"2")
        yield Reply(b"3", metadata={"part": 3})

    @serving.service("async parts")
    async def async_parts(request: Request) -> AsyncIterator[Reply]:
        yield Reply(b"1", metadata={"part": 1})
        yield Reply(b"2")
        yield Reply(b"3", metadata={"part": 3})

    @serving.service("echo of parts")
    async def echo_parts(request: Request) -> AsyncIterator[Reply]:
        async for part in request.parts:
            yield Reply(part, metadata={"of": part.body})

    @serving.service("plain")
    async def plain(request: Request) -> bytes:
        return request.body

    @serving.service("failing")
    async def failing(request: Request) -> Reply:
        return Reply(b"no such note", status=404, metadata={"why": "gone"})

    @serving.service("too long")
    async def too_long(request: Request) -> Reply:
        return Reply(b"", metadata={"x": "y" * spec.MAX_METADATA})

    @serving.service("forwarding")
    def forwarding(request: Request) -> Reply:
        with Client(broker.endpoints[0], timeout=10) as client:
            return client.call("async", request.body)

    serving.service("process", run="process")(in_process)
    serving.service("process parts", run="process")(parts_in_process)
    with serving:
        yield serving


@pytest.fixture
def client(broker: Broker, worker: Worker) -> Iterator[Client]:
    with Client(broker.endpoints[0], timeout=20) as calling:
        yield calling


@pytest.mark.parametrize("service", ["async", "sync", "process", "forwarding"])
def test_caller_reads_the_metadata_of_a_reply(client: Client, service: str) -> None:
    reply = client.call(service, b"x")
    assert (reply.body, reply.status, reply.metadata) == (b"x", 200, PAGE)
    assert reply.worker


def test_reply_without_metadata_has_an_empty_map_of_its_own(client: Client) -> None:
    reply = client.call("plain", b"x")
    reply.metadata["mine"] = 1
    assert reply.metadata == {}
    assert reply == Reply(b"x", worker=reply.worker)
    assert reply != Reply(b"x", worker=reply.worker, metadata={"a": 1})


def test_reply_that_is_given_later_carries_metadata_and_so_do_its_parts(client: Client) -> None:
    with client.stream("later") as stream:
        assert [(part.body, part.metadata) for part in stream] == [
            (b"1", {"part": 1}),
            (b"2", PAGE),
        ]
    reply = client.call("later")
    assert (reply.body, reply.metadata) == (b"12", PAGE)


@pytest.mark.parametrize("service", ["parts", "async parts"])
def test_each_part_of_a_stream_carries_its_own_metadata(client: Client, service: str) -> None:
    with client.stream(service) as stream:
        assert [(part.body, part.metadata) for part in stream] == [
            (b"1", {"part": 1}),
            (b"2", {}),
            (b"3", {"part": 3}),
        ]
    assert client.call(service).metadata == {}


def test_parts_of_a_handler_process_carry_metadata(client: Client) -> None:
    with client.stream("process parts") as stream:
        assert [(part.body, part.metadata) for part in stream] == [
            (b"1", {"part": 1}),
            (b"2", {}),
        ]


def test_parts_of_a_conversation_carry_metadata(client: Client) -> None:
    with client.open("echo of parts") as conversation:
        conversation.send(b"a")
        assert next(conversation).metadata == {"of": b"a"}
        conversation.send(b"b")
        conversation.finish()
        assert [part.metadata for part in conversation] == [{"of": b"b"}]


async def read_all(broker: Broker) -> list[Any]:
    async with AsyncClient(broker.endpoints[0], timeout=20) as client:
        read: list[Any] = [(await client.call("sync", b"x")).metadata]
        read += [part.metadata async for part in client.stream("async parts")]
        read += [(await client.call("async", hedge_after=5.0)).metadata]
        read += [reply.metadata async for reply in client.gather("async")]
        return read


def test_asyncio_client_reads_metadata_of_calls_streams_hedges_and_gathers(
    broker: Broker, worker: Worker
) -> None:
    expected = [PAGE, {"part": 1}, {}, {"part": 3}, PAGE, PAGE]
    assert asyncio.run(read_all(broker)) == expected


def test_sync_client_reads_metadata_of_futures_hedges_and_gathers(client: Client) -> None:
    assert client.submit("sync", b"x").result(20).metadata == PAGE
    assert client.call("async", hedge_after=5.0).metadata == PAGE
    assert [reply.metadata for reply in client.gather("async")] == [PAGE]


def test_reply_with_another_status_and_metadata_raises_that_status(client: Client) -> None:
    with pytest.raises(NotFound, match="no such note"):
        client.call("failing")


def test_metadata_that_are_too_long_fail_the_handler_and_name_the_reason(client: Client) -> None:
    with pytest.raises(HandlerFailed, match=r"long-metadata: .* bytes"):
        client.call("too long")


@pytest.mark.parametrize("wrong", [{"x": object()}, {1: "x"}, {"x": {"y": {"z": {"a": {}}}}}])
def test_reply_with_metadata_that_cannot_be_sent_is_refused_where_it_is_made(
    wrong: dict[str, Any],
) -> None:
    with pytest.raises(LocalProtocolError, match="-metadata"):
        Reply(b"x", metadata=wrong)


def test_hook_of_the_broker_answers_with_metadata_and_sees_those_of_a_worker() -> None:
    seen: list[dict[str, Any]] = []

    class Answering(Broker):
        def on_request(self, request: Any) -> Reply | None:
            return Reply(b"x", metadata=PAGE) if request.service == "mine" else None

        def on_reply(self, reply: Any) -> None:
            seen.append(dict(reply.metadata))
            reply.metadata["hook"] = True

    with Answering(bind=["tcp://127.0.0.1:0"]) as broker:
        worker = Worker(broker.endpoints[0])

        @worker.service("paged")
        def paged(request: Request) -> Reply:
            return Reply(b"y", metadata={"next": 7})

        with worker, Client(broker.endpoints[0], timeout=10) as client:
            assert client.call("mine").metadata == PAGE
            assert client.call("paged").metadata == {"next": 7, "hook": True}
    assert seen == [{"next": 7}]


@pytest.mark.parametrize("dialect", [Dialect.MDP01, Dialect.MDP02])
def test_reply_to_an_older_dialect_is_its_body_alone(
    broker: Broker, worker: Worker, dialect: str
) -> None:
    with Client(broker.endpoints[0], dialect=dialect, timeout=10) as client:
        reply = client.call("sync", b"x")
    assert (reply.body, reply.metadata) == (b"x", {})


def test_worker_of_an_older_dialect_sends_the_body_without_the_metadata(broker: Broker) -> None:
    worker = Worker(broker.endpoints[0], dialect=Dialect.MDP02)

    @worker.service("old")
    def old(request: Request) -> Reply:
        return Reply(request.body, metadata=PAGE)

    with worker, Client(broker.endpoints[0], timeout=10) as client:
        reply = client.call("old", b"x")
    assert (reply.body, reply.metadata) == (b"x", {})
