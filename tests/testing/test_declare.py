"""Dependencies, routers, starts and stops, and middleware of workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import msgspec
import pytest

from majordomus import (
    BadRequest,
    ConfigurationError,
    DeadlineExceeded,
    Depends,
    HandlerMiddleware,
    Request,
    Router,
    Worker,
)
from majordomus.contracts import model
from majordomus.testing import TestBroker

LOG: list[str] = []


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


class Session:
    def __init__(self, user: str = "") -> None:
        self.user = user


def user_of(request: Request) -> str:
    LOG.append("user")
    return str(request.metadata.get("name", "nobody"))


User = Annotated[str, Depends(user_of)]


def get_session(user: User) -> Iterator[Session]:
    LOG.append("open")
    try:
        yield Session(user)
    finally:
        LOG.append("closed")


async def get_async_session(user: User) -> AsyncIterator[Session]:
    LOG.append("open")
    try:
        yield Session(user)
    finally:
        LOG.append("closed")


def get_pool() -> Iterator[list[int]]:
    LOG.append("pool")
    yield [1, 2, 3]
    LOG.append("pool closed")


OneSession = Annotated[Session, Depends(get_session)]
AsyncSession = Annotated[Session, Depends(get_async_session)]
Pool = Annotated[list[int], Depends(get_pool, scope="worker")]


class Draft(msgspec.Struct):
    title: str


def put(draft: Draft, session: OneSession, user: User) -> str:
    LOG.append("handler")
    return f"{draft.title} of {session.user} {user}"


async def put_async(draft: Draft, session: AsyncSession, user: User) -> str:
    LOG.append("handler")
    return f"{draft.title} of {session.user} {user}"


def rows(session: OneSession, request: Request) -> Iterator[str]:
    for _ in range(3):
        yield session.user


async def rows_async(session: AsyncSession) -> AsyncIterator[str]:
    for _ in range(3):
        yield session.user


def worker_of(function: Callable[..., Any]) -> Worker:
    worker = Worker()
    worker.add("s", function)
    return worker


@pytest.mark.parametrize("function", [put, put_async])
def test_dependencies_are_made_once_for_a_request(any_broker: TestBroker, function: Any) -> None:
    any_broker.add(worker_of(function))
    reply = any_broker.client().call("s", Draft("milk"), metadata={"name": "ann"})
    assert reply.text == "milk of ann ann"
    assert LOG == ["user", "open", "handler", "closed"]


@pytest.mark.parametrize("function", [rows, rows_async])
def test_dependency_lives_as_long_as_the_stream(any_broker: TestBroker, function: Any) -> None:
    any_broker.add(worker_of(function))
    stream = any_broker.client().stream("s", metadata={"name": "ann"})
    assert [part.text for part in stream] == ["ann"] * 3
    assert LOG == ["user", "open", "closed"]


def test_dependency_is_closed_after_a_cancel(test_broker: TestBroker) -> None:
    async def slow(session: AsyncSession) -> None:
        await asyncio.sleep(100)

    test_broker.add(worker_of(slow))
    with pytest.raises(DeadlineExceeded):
        test_broker.client().call("s", timeout=1)
    test_broker.time.advance(1)
    assert LOG == ["user", "open", "closed"]


def refuse() -> str:
    raise BadRequest("not today")


def test_failure_of_a_dependency_is_the_outcome(test_broker: TestBroker) -> None:
    def handler(request: Request, value: Annotated[str, Depends(refuse)]) -> str:
        return value

    test_broker.add(worker_of(handler))
    with pytest.raises(BadRequest, match="not today"):
        test_broker.client().call("s")


def test_dependency_is_not_part_of_the_contract() -> None:
    found = model.parse(worker_of(put).handlers["s"].contract)
    assert found.request is not None
    assert list(found.request.schema["properties"]) == ["title"]


def test_value_of_the_worker_is_made_before_it_connects(test_broker: TestBroker) -> None:
    worker = Worker()

    @worker.service("s")
    def first(pool: Pool, request: Request) -> str:
        pool.append(4)
        return str(len(pool))

    test_broker.add(worker)
    assert LOG == ["pool"]
    client = test_broker.client()
    assert [client.call("s").text for _ in range(2)] == ["4", "5"]
    test_broker.close()
    assert LOG == ["pool", "pool closed"]


def test_test_overrides_a_dependency(test_broker: TestBroker) -> None:
    worker = worker_of(put)
    with worker.override(get_session, lambda: Session("fake")):
        test_broker.add(worker)
        assert test_broker.client().call("s", Draft("x")).text == "x of fake nobody"
    assert test_broker.client().call("s", Draft("x")).text == "x of nobody nobody"


def test_test_overrides_a_value_of_the_worker_which_is_made_once(test_broker: TestBroker) -> None:
    worker, made = Worker(), []

    @worker.service("s")
    def first(pool: Pool) -> str:
        pool.append(4)
        return str(len(pool))

    def fake() -> list[int]:
        made.append("fake")
        return [1, 2, 3]

    with worker.override(get_pool, fake):
        test_broker.add(worker)
        client = test_broker.client()
        assert [client.call("s").text for _ in range(2)] == ["4", "5"]
    assert made == ["fake"]
    assert LOG == []


def circle_one(other: Annotated[int, Depends(lambda: 1)]) -> int:
    return other


def needs_more(value: int) -> int:
    return value


def lives_long(user: User) -> str:
    return user


@pytest.mark.parametrize(
    ("marker", "reason"),
    [
        (Depends(get_async_session), "make the handler with async def"),
        (Depends(needs_more), "'value' is neither the Request nor a dependency"),
        (Depends(lives_long, scope="worker"), "needs something of a request"),
    ],
)
def test_dependency_that_cannot_be_made_is_refused_at_add(marker: Depends, reason: str) -> None:
    def handler(request: Request, value: Any) -> None:
        return None

    handler.__annotations__["value"] = Annotated[Any, marker]
    handler.__annotations__["request"] = Request
    with pytest.raises(ConfigurationError, match=reason):
        Worker().add("s", handler)


def test_marker_with_another_scope_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a scope is request or worker"):
        Depends(get_pool, scope="day")
    with pytest.raises(ConfigurationError, match="expected a function"):
        Depends(5)  # type: ignore[arg-type]


# -- starts and stops, routers


def test_start_comes_before_the_first_request_and_stop_after_the_last(
    any_broker: TestBroker,
) -> None:
    worker = worker_of(put)

    @worker.on_start
    async def start() -> None:
        LOG.append("start")

    @worker.on_stop
    def stop() -> None:
        LOG.append("stop")

    @worker.on_stop
    def last() -> None:
        LOG.append("stop first")

    any_broker.add(worker)
    any_broker.client().call("s", Draft("x"))
    any_broker.close()
    assert LOG[0] == "start"
    assert LOG[-2:] == ["stop first", "stop"]


def test_failure_of_a_start_ends_the_run(test_broker: TestBroker) -> None:
    worker = worker_of(put)

    @worker.on_start
    def start() -> None:
        raise OSError("no disk")

    @worker.on_stop
    def stop() -> None:
        LOG.append("stop")

    with pytest.raises(OSError, match="no disk"):
        test_broker.add(worker)
    assert LOG == ["stop"]
    assert not worker.ready


def test_function_with_arguments_is_no_start() -> None:
    with pytest.raises(ConfigurationError, match="takes arguments"):
        Worker().on_start(lambda request: None)  # type: ignore[arg-type]


def test_router_puts_its_prefix_before_its_services(any_broker: TestBroker) -> None:
    notes, more = Router(prefix="notes."), Router(prefix="more.")

    @more.service("echo")
    def echo(request: Request) -> bytes:
        return request.body

    @notes.service("put", version="2")
    def put_one(draft: Draft) -> str:
        return draft.title

    @notes.on_start
    def start() -> None:
        LOG.append("start")

    notes.include(more)
    worker = Worker()
    worker.include(notes)
    any_broker.add(worker)
    client = any_broker.client()
    assert client.call("notes.put", Draft("x")).text == "x"
    assert client.call("notes.more.echo", b"y").body == b"y"
    assert LOG == ["start"]
    assert model.parse(worker.handlers["notes.put"].contract).version == "2"


# -- middleware


class Noted(HandlerMiddleware):
    def __init__(self, name: str) -> None:
        self.name = name

    def call(self, request: Request, handler: Callable[[Request], Any]) -> Any:
        LOG.append(f"{self.name} before")
        try:
            return handler(request)
        finally:
            LOG.append(f"{self.name} after")

    async def call_async(self, request: Request, handler: Callable[[Request], Any]) -> Any:
        LOG.append(f"{self.name} before")
        try:
            return await handler(request)
        finally:
            LOG.append(f"{self.name} after")

    def parts(self, request: Request, handler: Callable[[Request], Any]) -> Iterator[Any]:
        for part in handler(request):
            yield f"{self.name} {part}"


@pytest.mark.parametrize("function", [put, put_async])
def test_middleware_runs_in_the_order_of_its_use(any_broker: TestBroker, function: Any) -> None:
    worker = worker_of(function)
    worker.use(Noted("outer"), Noted("inner"))
    any_broker.add(worker)
    assert any_broker.client().call("s", Draft("x")).status == 200
    assert [line for line in LOG if " " in line] == [
        "outer before",
        "inner before",
        "inner after",
        "outer after",
    ]


def test_middleware_changes_parts_and_failures(any_broker: TestBroker) -> None:
    class Hide(HandlerMiddleware):
        def call(self, request: Request, handler: Callable[[Request], Any]) -> Any:
            try:
                return handler(request)
            except ValueError as error:
                raise BadRequest("hidden") from error

    worker = Worker()

    @worker.service("fails")
    def fails(request: Request) -> None:
        raise ValueError("secret")

    worker.add("rows", rows)
    worker.use(Hide(), Noted("m"))
    any_broker.add(worker)
    with pytest.raises(BadRequest, match="hidden"):
        any_broker.client().call("fails")
    assert [one.text for one in any_broker.client().stream("rows")] == ["m nobody"] * 3


def test_middleware_of_a_router_is_inside_that_of_the_worker(test_broker: TestBroker) -> None:
    router = Router()
    router.use(Noted("router"))
    router.add("s", put)
    worker = Worker()
    worker.include(router)
    worker.use(Noted("worker"))
    test_broker.add(worker)
    test_broker.client().call("s", Draft("x"))
    assert [line for line in LOG if line.endswith("before")] == ["worker before", "router before"]


def test_object_that_is_no_middleware_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is a HandlerMiddleware"):
        Worker().use(object())  # type: ignore[arg-type]
