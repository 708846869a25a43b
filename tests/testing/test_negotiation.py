"""Encodings by the live contract, and client streams and conversations by a typed proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Annotated, Any, Protocol

import msgspec
import pytest

from majordomus import (
    AsyncClient,
    AsyncServiceConversation,
    AsyncWorker,
    BadRequest,
    Client,
    ConfigurationError,
    DeadlineExceeded,
    HandlerFailed,
    Request,
    ServiceConversation,
    Unavailable,
    Worker,
)
from majordomus.contracts import model
from majordomus.contracts.model import BodyContract, Contract
from majordomus.messages import Record
from majordomus.messages.bodies import JSON, MSGPACK, PROTOBUF, TEXT, plain_json
from majordomus.net.client.negotiation import CallPlan, ServiceTypes, plan_of, read_types
from majordomus.testing import TestBroker


class Size(msgspec.Struct):
    x: int
    names: list[str] = []
    deep: dict[str, int] = {}


class SizeRecord(Record):
    x: Annotated[int, 1]
    names: Annotated[list[str], 2] = ()  # type: ignore[assignment]
    deep: Annotated[dict[str, int], 3] = ()  # type: ignore[assignment]


STRUCT, RECORD, JUST_JSON = (MSGPACK, JSON), (PROTOBUF, JSON), (JSON,)


@pytest.mark.parametrize(
    ("known", "sent", "wanted", "plan"),
    [
        (ServiceTypes(STRUCT, STRUCT), STRUCT, STRUCT, CallPlan()),
        (ServiceTypes(RECORD, RECORD), STRUCT, STRUCT, CallPlan(JSON, False, JSON, True)),
        (ServiceTypes(STRUCT, STRUCT), RECORD, RECORD, CallPlan(JSON, True, JSON)),
        (ServiceTypes(JUST_JSON, JUST_JSON), STRUCT, STRUCT, CallPlan(JSON, False, JSON)),
        (ServiceTypes(JUST_JSON, JUST_JSON), RECORD, RECORD, CallPlan(JSON, False, JSON)),
        (ServiceTypes(JUST_JSON, JUST_JSON), (), STRUCT, CallPlan(reply=JSON)),
        (ServiceTypes(STRUCT, RECORD), STRUCT, STRUCT, CallPlan(JSON, False, JSON, True)),
        (ServiceTypes((TEXT,), STRUCT), (TEXT,), STRUCT, CallPlan()),
        (ServiceTypes((), RECORD), None, STRUCT, CallPlan(JSON, False, JSON, True)),
        (ServiceTypes((), STRUCT), None, STRUCT, CallPlan()),
        (ServiceTypes(), STRUCT, STRUCT, CallPlan()),
        (ServiceTypes(STRUCT, ()), RECORD, (), CallPlan(JSON, True)),
    ],
)
def test_encodings_are_those_that_both_sides_have(
    known: ServiceTypes, sent: tuple[str, ...] | None, wanted: tuple[str, ...], plan: CallPlan
) -> None:
    assert plan_of("s", known, sent, wanted) == plan


@pytest.mark.parametrize(
    ("known", "sent", "wanted", "reason"),
    [
        (ServiceTypes((TEXT,), ()), STRUCT, (), "s takes text/plain; this body can be"),
        (ServiceTypes(STRUCT, (TEXT,)), STRUCT, STRUCT, "s returns text/plain; the caller reads"),
        (ServiceTypes((), (TEXT,)), None, STRUCT, "s returns text/plain"),
    ],
)
def test_call_without_a_common_encoding_is_a_bad_request(
    known: ServiceTypes, sent: tuple[str, ...] | None, wanted: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(BadRequest, match=reason):
        plan_of("s", known, sent, wanted)


def answer(*rows: tuple[int, tuple[str, ...] | None]) -> list[bytes]:
    """An answer of mmi.contract: for each contract its workers, and what it takes."""
    contracts = [
        {
            "hash": "h",
            "workers": workers,
            "contract": None if types is None else {"request": {"types": types}, "doc": "x"},
        }
        for workers, types in rows
    ]
    return [b"200", msgspec.json.encode({"contracts": contracts})]


@pytest.mark.parametrize(
    ("frames", "known"),
    [
        (answer(), ServiceTypes()),
        (answer((1, STRUCT), (2, JUST_JSON)), ServiceTypes(JUST_JSON)),
        (answer((1, RECORD), (2, (MSGPACK,))), ServiceTypes((MSGPACK,))),
        (answer((1, RECORD), (2, None)), None),
        ([b"404"], None),
        ([b"200", b"{"], None),
        ([b"200", b"[" * 100_000], None),
        ([], None),
    ],
)
def test_answer_of_the_broker_is_read(frames: list[bytes], known: ServiceTypes | None) -> None:
    assert read_types(frames) == known


def test_plain_json_of_a_record_is_that_of_a_struct() -> None:
    made = plain_json(SizeRecord(2**60, ["a"], {"b": -(2**60)}))
    assert msgspec.json.decode(made, type=Size) == Size(2**60, ["a"], {"b": -(2**60)})


def size_worker(annotation: Any) -> Worker:
    """A worker whose service returns its argument, with one more."""
    worker = Worker()

    def grow(size):  # type: ignore[no-untyped-def]
        return annotation(size.x + 1, size.names, size.deep)

    def rows(size):  # type: ignore[no-untyped-def]
        yield size
        yield size

    def first(request: Request) -> Any:
        return annotation(2**60, ["first"], {})

    grow.__annotations__ = {"size": annotation, "return": annotation}
    rows.__annotations__ = {"size": annotation, "return": Iterator[annotation]}
    first.__annotations__["return"] = annotation
    worker.add("sizes.grow", grow)
    worker.add("sizes.rows", rows)
    worker.add("sizes.first", first)
    return worker


class Sizes(Protocol):
    def grow(self, size: Size) -> Size: ...
    def rows(self, size: Size) -> Iterator[Size]: ...
    def first(self) -> Size: ...


class RecordSizes(Protocol):
    def grow(self, size: SizeRecord) -> SizeRecord: ...
    def rows(self, size: SizeRecord) -> Iterator[SizeRecord]: ...
    def first(self) -> SizeRecord: ...


@pytest.mark.parametrize("served", [Size, SizeRecord])
@pytest.mark.parametrize(("own", "protocol"), [(Size, Sizes), (SizeRecord, RecordSizes)])
def test_types_of_the_client_and_of_the_worker_may_differ(
    any_broker: TestBroker, served: Any, own: Any, protocol: Any
) -> None:
    any_broker.add(size_worker(served))
    client = any_broker.client()
    big = own(2**60, ["a", "b"], {"c": 2**50})
    grown = own(2**60 + 1, ["a", "b"], {"c": 2**50})
    assert client.call("sizes.grow", big, returns=own) == grown
    sizes: Any = client.service(protocol, prefix="sizes.")
    assert sizes.grow(big) == grown
    assert list(sizes.rows(big)) == [big, big]
    assert sizes.first() == own(2**60, ["first"], {})


class JsonOnly(Worker):
    """Stands for a worker of another language: its service has JSON alone, and says so."""

    def __init__(self) -> None:
        super().__init__()

        def five(request: Request) -> Any:
            if request.frames and request.metadata.get("type") != JSON:
                raise BadRequest("JSON alone")
            return b"5"

        self.add("five", five, version="1")
        body = BodyContract({"type": "integer"}, (JSON,))
        self.handlers["five"] = self.handlers["five"]._replace(
            contract=model.to_bytes(Contract(request=body, reply=body))
        )


class Five(Protocol):
    def five(self, number: int) -> int: ...


def test_reply_in_json_is_read_as_json(test_broker: TestBroker) -> None:
    test_broker.add(JsonOnly())
    client = test_broker.client()
    assert client.call("five", returns=int) == 5  # b"5" is 53 in MessagePack
    assert client.service(Five, prefix="").five(5) == 5
    with pytest.raises(BadRequest, match="five takes application/json; this body can be text"):
        client.service(FiveText, prefix="").five("5")


class FiveText(Protocol):
    def five(self, number: str) -> int: ...


def test_contract_is_asked_for_once(test_broker: TestBroker, monkeypatch: Any) -> None:
    test_broker.add(size_worker(Size))
    client = test_broker.client()
    asked: list[str] = []
    ask = client._ask_contract
    monkeypatch.setattr(
        client, "_ask_contract", lambda name, seconds: asked.append(name) or ask(name, seconds)
    )
    for _ in range(3):
        assert client.call("sizes.grow", Size(1), returns=Size) == Size(2)
        assert client.call("sizes.first", returns=Size).names == ["first"]
    assert client.call("sizes.grow", Size(1)).frames
    assert asked == ["sizes.grow", "sizes.first"]


def test_contract_is_asked_for_again_after_a_bad_request(test_broker: TestBroker) -> None:
    first, second = size_worker(Size), size_worker(SizeRecord)
    test_broker.add(first)
    client = test_broker.client()
    assert client.call("sizes.grow", Size(1), returns=Size) == Size(2)
    test_broker.lose(first)
    test_broker.add(second)
    with pytest.raises(BadRequest, match="accepts application/protobuf"):
        client.call("sizes.grow", Size(1), returns=Size)
    assert client.call("sizes.grow", Size(1), returns=Size) == Size(2)


async def test_calls_of_an_asyncio_client_ask_once(test_broker: TestBroker) -> None:
    worker = AsyncWorker()

    @worker.service("grow")
    async def grow(size: SizeRecord) -> SizeRecord:
        return SizeRecord(size.x + 1)

    serving = worker._new_run_at(test_broker._new_url(worker))
    task = asyncio.create_task(serving.serve(signals=False))
    client = test_broker.async_client()
    asked = 0
    ask = client._ask_contract

    async def counted(name: str, seconds: float) -> Any:
        nonlocal asked
        asked += 1
        return await ask(name, seconds)

    client._ask_contract = counted  # type: ignore[method-assign]
    while not await client.serves("grow"):
        await asyncio.sleep(0.01)
    calls = [client.call("grow", Size(n), returns=Size) for n in range(10)]
    assert await asyncio.gather(*calls) == [Size(n + 1) for n in range(10)]
    assert asked == 1
    serving.stop(drain=True)
    await task


def test_timeout_is_for_the_question_and_the_call(test_broker: TestBroker) -> None:
    client = test_broker.client()
    before = test_broker.time.now
    with pytest.raises(Unavailable):
        client.call("nobody", Size(1), returns=Size, timeout=3)
    assert test_broker.time.now - before == pytest.approx(3, abs=0.1)


def test_each_call_without_a_broker_ends_at_its_own_deadline() -> None:
    async def ends() -> list[Any]:
        async with AsyncClient("tcp://127.0.0.1:1") as client:
            calls = [
                client.call("s", Size(1), returns=Size, timeout=timeout)
                for timeout in (0.05, 0.1, 0.2)
            ]
            return await asyncio.gather(*calls, return_exceptions=True)

    first, *others = asyncio.run(ends())
    assert [type(one) for one in (first, *others)] == [DeadlineExceeded] * 3
    assert "no broker was reachable within 0.05 s" in str(first)


def test_call_without_a_broker_states_its_timeout() -> None:
    with Client("tcp://127.0.0.1:1") as client, pytest.raises(DeadlineExceeded) as caught:
        client.call("s", Size(1), returns=Size, timeout=0.1)
    assert "no broker was reachable within 0.1 s" in str(caught.value)


@pytest.mark.parametrize("served", [Size, SizeRecord])
def test_number_or_dict_is_the_body_of_a_typed_call(test_broker: TestBroker, served: Any) -> None:
    worker = size_worker(served)

    @worker.service("double")
    def double(number: float) -> float:
        return 2 * number

    test_broker.add(worker)
    client = test_broker.client()
    assert client.call("double", 4, returns=float) == 8
    assert client.call("sizes.grow", {"x": 1, "names": []}, returns=Size) == Size(2)
    with pytest.raises(BadRequest):
        client.call("sizes.grow", {"x": []}, returns=Size)


# -- client streams and conversations


def stream_worker() -> Worker:
    worker = Worker()

    @worker.service("sizes.total")
    def total(sizes: Iterator[Size]) -> int:
        return sum(size.x for size in sizes)

    @worker.service("sizes.first")
    def first(sizes: Iterator[Size]) -> Size:
        return next(sizes)

    @worker.service("sizes.each")
    async def each(numbers: AsyncIterator[int]) -> AsyncIterator[Size]:
        async for number in numbers:
            yield Size(number)

    @worker.service("sizes.records")
    async def records(sizes: AsyncIterator[SizeRecord]) -> AsyncIterator[SizeRecord]:
        async for size in sizes:
            yield SizeRecord(size.x + 1)

    @worker.service("sizes.fails")
    async def fails(numbers: AsyncIterator[int]) -> int:
        raise RuntimeError("no")

    return worker


class Streams(Protocol):
    def total(self, sizes: Iterable[Size], *, timeout: float | None = None) -> int: ...
    def first(self, sizes: Iterable[Size]) -> Size: ...
    def each(self) -> ServiceConversation[int, Size]: ...
    def records(self) -> ServiceConversation[Size, Size]: ...
    def fails(self, numbers: Iterable[int]) -> int: ...


class AsyncStreams(Protocol):
    async def total(self, sizes: AsyncIterable[Size]) -> int: ...
    async def first(self, sizes: Iterable[Size]) -> Size: ...
    def each(self) -> AsyncServiceConversation[int, Size]: ...
    def records(self) -> AsyncServiceConversation[Size, Size]: ...


def test_methods_of_a_proxy_send_streams(any_broker: TestBroker) -> None:
    any_broker.add(stream_worker())
    sizes = any_broker.client().service(Streams, prefix="sizes.")
    assert sizes.total((Size(n) for n in range(300)), timeout=20) == 44850
    assert sizes.total([]) == 0
    assert sizes.first(Size(n) for n in range(300)) == Size(0)
    for conversation, sent in ((sizes.each(), 4), (sizes.records(), Size(4))):
        with conversation as talk:
            talk.send(sent)
            assert next(talk) == Size(4 if sent == 4 else 5)
            talk.finish()
            talk.finish()
            assert list(talk) == []
    with pytest.raises(HandlerFailed, match="RuntimeError"):
        sizes.fails(range(10_000))


async def test_methods_of_an_asyncio_proxy_send_streams(any_broker: TestBroker) -> None:
    worker = stream_worker()
    await asyncio.to_thread(any_broker.add, worker) if any_broker.real else None
    if not any_broker.real:
        pytest.skip("a sync worker in a coroutine needs a real broker")
    sizes = any_broker.async_client().service(AsyncStreams, prefix="sizes.")

    async def some() -> AsyncIterator[Size]:
        for number in range(300):
            yield Size(number)

    assert await sizes.total(some()) == 44850
    assert await sizes.first([Size(1), Size(2)]) == Size(1)
    async with sizes.each() as talk:
        await talk.send(4)
        assert await anext(talk) == Size(4)
        await talk.finish()
        assert [size async for size in talk] == []
    async with sizes.records() as records:
        await records.send(Size(2**60))
        await records.finish()
        assert [size.x async for size in records] == [2**60 + 1]
    unused = sizes.each()
    await unused.aclose()
    assert [size async for size in unused] == []


def test_value_of_a_stream_that_does_not_fit_is_not_sent(test_broker: TestBroker) -> None:
    test_broker.add(stream_worker())
    sizes = test_broker.client().service(Streams, prefix="sizes.")
    with sizes.each() as talk, pytest.raises(TypeError, match="expected int, got str"):
        talk.send("4")  # type: ignore[arg-type]
    with sizes.records() as records, pytest.raises(BadRequest, match=r"got `str` - at `\$.x`"):
        records.send(Size("4"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected Size"):
        sizes.total([4])  # type: ignore[list-item]


class BothWays(Protocol):
    def each(self, numbers: Iterable[int]) -> Iterator[Size]: ...


class WithBody(Protocol):
    def each(self, number: int) -> ServiceConversation[int, Size]: ...


class AsyncTalk(Protocol):
    def each(self) -> AsyncServiceConversation[int, Size]: ...


class AwaitedRows(Protocol):
    async def rows(self) -> AsyncIterator[Size]: ...


class AsyncRows(Protocol):
    def rows(self) -> AsyncIterator[Size]: ...


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        (BothWays, "ServiceConversation"),
        (WithBody, "without a body"),
        (AsyncTalk, "with Client it is def … -> ServiceConversation"),
        (AwaitedRows, "by def, not by async def"),
        (AsyncRows, "with Client it is def … -> Iterator"),
    ],
)
def test_shape_that_cannot_be_a_conversation_is_refused(
    test_broker: TestBroker, protocol: type, reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        test_broker.client().service(protocol)
