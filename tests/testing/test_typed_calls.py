"""Typed calls: replies, streams, proxies and failures with details."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Protocol

import msgspec
import pytest

from majordomus import (
    AsyncWorker,
    BadRequest,
    ConfigurationError,
    Conflict,
    Event,
    HandlerFailed,
    NotFound,
    Request,
    Worker,
)
from majordomus.messages import Record
from majordomus.testing import TestBroker


class Draft(msgspec.Struct):
    title: str
    size: int = 0


class Missing(msgspec.Struct):
    number: int


@dataclasses.dataclass
class Note:
    number: int
    draft: Draft


class Point(Record):
    x: Annotated[int, 1]


def make_worker() -> Worker:
    worker = Worker()

    @worker.service("notes.put")
    def put(draft: Draft) -> Note:
        return Note(1, draft)

    @worker.service("notes.titles")
    def titles(notes: list[Note]) -> list[str]:
        return [note.draft.title for note in notes]

    @worker.service("notes.rows")
    def rows(count: int) -> Iterator[Draft]:
        for number in range(count):
            yield Draft("row", number)

    @worker.service("notes.gone")
    def gone(number: int) -> Note:
        raise NotFound("no such note", detail=Missing(number))

    @worker.service("notes.move")
    async def move(point: Point) -> Point:
        return Point(point.x + 1)

    @worker.service("notes.clear")
    def clear(request: Request) -> None:
        return None

    @worker.service("notes.each")
    async def each(drafts: AsyncIterator[Draft]) -> AsyncIterator[Draft]:
        async for draft in drafts:
            yield Draft(draft.title.upper())

    return worker


class Notes(Protocol):
    def put(self, draft: Draft, *, timeout: float | None = None) -> Note: ...
    def titles(self, notes: list[Note]) -> list[str]: ...
    def rows(self, count: int) -> Iterator[Draft]: ...
    def gone(self, number: int) -> Note: ...
    def move(self, point: Point) -> Point: ...
    def clear(self) -> None: ...


class AsyncNotes(Protocol):
    async def put(self, draft: Draft) -> Note: ...
    def rows(self, count: int) -> AsyncIterator[Draft]: ...


def test_reply_is_returned_as_a_value(any_broker: TestBroker) -> None:
    any_broker.add(make_worker())
    client = any_broker.client()
    assert client.call("notes.put", Draft("milk"), returns=Note) == Note(1, Draft("milk"))
    assert client.call("notes.move", Point(1), returns=Point) == Point(2)
    with client.stream("notes.rows", msgspec.msgpack.encode(2), of=Draft) as found:
        assert list(found) == [Draft("row", 0), Draft("row", 1)]
    with client.open("notes.each", of=Draft) as talk:
        talk.send(Draft("a"))
        talk.finish(Draft("b"))
        assert list(talk) == [Draft("A"), Draft("B")]


def test_reply_of_another_type_is_a_bad_request_with_the_field(test_broker: TestBroker) -> None:
    test_broker.add(make_worker())
    with pytest.raises(BadRequest, match="title"):
        test_broker.client().call("notes.put", Draft("milk"), returns=Draft)


def test_each_method_of_a_proxy_calls_its_service(any_broker: TestBroker) -> None:
    any_broker.add(make_worker())
    notes = any_broker.client().service(Notes)
    assert notes.put(Draft("milk"), timeout=5) == Note(1, Draft("milk"))
    assert notes.titles([Note(1, Draft("a")), Note(2, Draft("b"))]) == ["a", "b"]
    assert [row.size for row in notes.rows(3)] == [0, 1, 2]
    assert notes.move(Point(4)) == Point(5)
    assert notes.clear() is None
    assert [call.service for call in any_broker.calls][:2] == ["notes.put", "notes.titles"]


async def test_proxy_of_an_asyncio_client_awaits(test_broker: TestBroker) -> None:
    worker = AsyncWorker()

    @worker.service("put")
    async def put(draft: Draft) -> Note:
        return Note(2, draft)

    serving = worker._new_run_at(test_broker._new_url(worker))
    import asyncio

    task = asyncio.create_task(serving.serve(signals=False))
    notes = test_broker.async_client().service(AsyncNotes, prefix="")
    assert await notes.put(Draft("x")) == Note(2, Draft("x"))
    serving.stop(drain=True)
    await task


def test_body_that_does_not_fit_is_refused_before_it_is_sent(test_broker: TestBroker) -> None:
    test_broker.add(make_worker())
    notes = test_broker.client().service(Notes)
    with pytest.raises(BadRequest, match=r"Expected `str`, got `int` - at `\$.title`"):
        notes.put(Draft(5))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected Draft"):
        notes.put("milk")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        notes.put()  # type: ignore[call-arg]
    assert test_broker.calls == []


def test_failure_carries_its_detail(any_broker: TestBroker) -> None:
    any_broker.add(make_worker())
    with pytest.raises(NotFound, match="no such note") as caught:
        any_broker.client().service(Notes).gone(7)
    assert caught.value.detail == {"number": 7}


def test_detail_that_cannot_be_encoded_is_a_failure_of_the_handler(test_broker: TestBroker) -> None:
    worker = Worker()

    @worker.service("bad")
    def bad(request: Request) -> None:
        raise Conflict("x", detail=object())

    test_broker.add(worker)
    with pytest.raises(HandlerFailed, match="Conflict"):
        test_broker.client().call("bad")


def test_error_without_a_detail_has_none() -> None:
    assert NotFound("x").detail is None
    assert NotFound("x", frames=(b"x", b"{")).detail is None
    assert NotFound("x", detail={"a": 1}).detail == {"a": 1}


class Empty(Protocol):
    pass


class TwoBodies(Protocol):
    def put(self, a: Draft, b: Draft) -> Note: ...


class NoResult(Protocol):
    def put(self, a: Draft): ...  # type: ignore[no-untyped-def]


class Waits(Protocol):
    async def put(self, a: Draft) -> Note: ...


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        (Empty, "has no methods"),
        (TwoBodies, "one body"),
        (NoResult, "result has no annotation"),
        (Waits, "it is def"),
        (5, "expected a Protocol"),
    ],
)
def test_class_whose_methods_cannot_be_calls_is_refused(
    test_broker: TestBroker, protocol: type, reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        test_broker.client().service(protocol)


async def test_events_are_values(test_broker: TestBroker) -> None:
    client = test_broker.async_client()
    orders = await client.subscribe("orders.*", of=Draft)
    await client.publish("orders.new", b"\xc1")  # no MessagePack: it is left out
    await client.publish("orders.new", Draft("tea"))
    assert await anext(orders) == Draft("tea")


def test_worker_handles_typed_events(test_broker: TestBroker) -> None:
    worker = make_worker()
    seen: list[tuple[str, Draft]] = []

    @worker.on_event("orders.*")
    async def ordered(order: Draft, event: Event) -> None:
        seen.append((event.topic, order))

    test_broker.add(worker)
    client = test_broker.async_client()
    test_broker.run(client.publish("orders.new", Draft("tea")))
    test_broker.time.advance(1)
    assert seen == [("orders.new", Draft("tea"))]
