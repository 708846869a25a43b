"""Typed handlers: annotations decode, validate and encode; others are not wrapped."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from majordomus.errors import BadRequest, ConfigurationError
from majordomus.messages import Message, Record, record
from majordomus.net.bodies import Reply, to_frames
from majordomus.net.broker.broker import Broker
from majordomus.net.client.calls import make_options
from majordomus.net.client.client import Client
from majordomus.net.worker.handlers import Handler, Shape, make_handler
from majordomus.net.worker.outcomes import outcome_of_result
from majordomus.net.worker.request import Request
from majordomus.net.worker.worker import Worker
from majordomus.protocol import metadata

if TYPE_CHECKING:
    import elsewhere
    from elsewhere import Something


class User(Record):
    name: Annotated[str, 1]
    age: Annotated[int, 2] = 0


@record
class UserId:
    id: Annotated[int, 1]


class Sum(msgspec.Struct):
    total: int


def request(*frames: bytes, **values: Any) -> Request:
    return Request("test", list(frames), packed=metadata.pack(values) if values else b"")


def serve(handler: Handler, asked: Request) -> Any:
    """The frames of the handler's reply, or of each of its parts."""
    result = handler.function(asked)
    if handler.shape is Shape.FUNCTION:
        return to_frames(result)
    if handler.shape is Shape.GENERATOR:
        return [to_frames(part) for part in result]
    if handler.shape is Shape.COROUTINE:
        return to_frames(asyncio.run(result))

    async def collect() -> list[list[bytes]]:
        return [to_frames(part) async for part in result]

    return asyncio.run(collect())


def create(user: User) -> UserId:
    return UserId(len(user.name))


async def create_soon(user: User) -> UserId:
    return UserId(len(user.name))


def letters(user: User) -> Iterator[UserId]:
    for letter in user.name:
        yield UserId(ord(letter))


async def letters_soon(user: User) -> AsyncIterator[UserId]:
    for letter in user.name:
        yield UserId(ord(letter))


class Methods:
    def create(self, user: User) -> UserId:
        return create(user)

    async def __call__(self, user: User) -> UserId:
        return create(user)


def with_extra(extra: int, user: User) -> UserId:
    return UserId(extra + user.age)


ERIK = User("Erik", 3).to_bytes()
FOUR = [UserId(4).to_bytes()]


@pytest.mark.parametrize(
    ("function", "shape", "answered"),
    [
        (create, Shape.FUNCTION, FOUR),
        (create_soon, Shape.COROUTINE, FOUR),
        (letters, Shape.GENERATOR, [[UserId(ord(c)).to_bytes()] for c in "Erik"]),
        (letters_soon, Shape.ASYNC_GENERATOR, [[UserId(ord(c)).to_bytes()] for c in "Erik"]),
        (Methods().create, Shape.FUNCTION, FOUR),
        (Methods(), Shape.COROUTINE, FOUR),
        (functools.partial(with_extra, 1), Shape.FUNCTION, FOUR),
    ],
)
def test_body_is_decoded_and_result_encoded_in_every_shape(
    function: Any, shape: Shape, answered: Any
) -> None:
    handler = make_handler(function)
    assert handler.shape is shape
    assert serve(handler, request(ERIK)) == answered


def test_reply_is_json_when_the_request_was() -> None:
    handler = make_handler(create)
    for asked in (
        request(b'{"name": "Erik"}'),
        request(b'{"name": "Erik"}', type="application/json"),
    ):
        (frame,) = serve(handler, asked)
        assert json.loads(frame) == {"id": "4"}


def test_body_that_does_not_fit_is_400_and_names_the_field() -> None:
    for function in (create, create_soon, letters, letters_soon):
        with pytest.raises(BadRequest, match=r"User\.name: 5 bytes announced"):
            serve(make_handler(function), request(b"\x0a\x05ab"))
    with pytest.raises(BadRequest, match="this service accepts application/protobuf"):
        serve(make_handler(create), request(ERIK, type="text/csv"))


def test_structs_messages_and_plain_values_are_accepted_as_well() -> None:
    def add(numbers: list[int]) -> Sum:
        return Sum(sum(numbers))

    def next_one(value: Int64Value) -> Int64Value:
        return Int64Value(value=value.value + 1)

    def shout(text: str) -> str:
        return text.upper()

    def turn(message: Message) -> Message:
        return Message(reversed(message.frames))

    packed = msgspec.msgpack.encode
    assert serve(make_handler(add), request(packed([1, 2]))) == [packed(Sum(3))]
    assert serve(make_handler(next_one), request(b"\x08\x05")) == [b"\x08\x06"]
    assert serve(make_handler(shout), request(b"abc")) == [b"ABC"]
    assert serve(make_handler(turn), request(b"a", b"b")) == [b"b", b"a"]


def test_result_may_be_a_reply_or_untyped() -> None:
    def refuse(user: User) -> UserId:
        return Reply([b"no"], status=409)  # type: ignore[return-value]

    def untyped(user: User):  # type: ignore[no-untyped-def]
        return UserId(user.age)

    assert outcome_of_result(make_handler(refuse).function(request(ERIK))) == (409, [b"no"])
    assert serve(make_handler(untyped), request(ERIK)) == [UserId(3).to_bytes()]


def test_result_of_another_class_than_announced_is_the_handlers_failure() -> None:
    def wrong(user: User) -> UserId:
        return user  # type: ignore[return-value]

    with pytest.raises(TypeError, match="expected UserId, got User"):
        serve(make_handler(wrong), request(ERIK))


def test_handler_that_takes_a_request_is_not_wrapped() -> None:
    def plain(request: Request) -> bytes | None:
        return None

    def frames(request: Request) -> list[bytes]:
        return request.frames

    def parts(request: Request) -> Iterator[str]:
        yield "a"

    def unknown(request: elsewhere.Request) -> Something:
        return request.body

    def silent(request):  # type: ignore[no-untyped-def]
        return request.body

    def anything(request: Any) -> Any:
        return request.body

    for function in (plain, frames, parts, unknown, silent, anything, lambda request: 5, bytes):
        assert make_handler(function).function is function


def test_handler_of_requests_may_have_a_typed_result() -> None:
    def total(request: Request) -> Sum:
        return Sum(len(request.frames))

    handler = make_handler(total)
    assert serve(handler, request(b"a", b"b")) == [msgspec.msgpack.encode(Sum(2))]
    assert serve(handler, request(b"a", type="application/json")) == [b'{"total":1}']


def test_annotation_that_no_body_can_be_is_refused_when_it_is_registered() -> None:
    def wrong(value: Handlers) -> None: ...

    def missing(value: Something) -> None: ...

    with pytest.raises(ConfigurationError, match="Handlers cannot be a body"):
        make_handler(wrong)
    with pytest.raises(ConfigurationError, match="annotation 'Something' of 'value'"):
        make_handler(missing)


class Handlers:
    pass


# ── which argument gets what ──────────────────────────────────────────────────────────────────────


def injected(function: Any) -> Any:
    """A decorator that adds an argument of its own."""

    @functools.wraps(function)
    def handler(asked: Any) -> Any:
        return function(asked, "a database")

    return handler


def passed_on(function: Any) -> Any:
    @functools.wraps(function)
    def handler(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return handler


def both(asked: Request, user: User) -> str:
    return f"{asked.service} {user.name}"


def both_turned(user: User, asked: Request) -> str:
    return both(asked, user)


def both_named(*, user: User, asked: Request) -> str:
    return both(asked, user)


def both_untyped(asked, user: User) -> str:  # type: ignore[no-untyped-def]
    return both(asked, user)


def both_optional(user: User, asked: Request | None = None) -> str:
    assert asked is not None
    return both(asked, user)


def both_as_text(user: "User", asked: "elsewhere.Request") -> str:  # noqa: UP037
    return both(asked, user)


def both_behind(extra: int, user: User, asked: Request) -> str:
    return both(asked, user)


def default_between(asked: Request, greeting: str = "hi", *, user: User) -> str:
    assert greeting == "hi"
    return both(asked, user)


@injected
def with_database(user: User, database: str) -> str:
    return f"test {user.name}" if database == "a database" else database


@pytest.mark.parametrize(
    "function",
    [
        both,
        both_turned,
        both_named,
        both_untyped,
        both_optional,
        both_as_text,
        functools.partial(both_behind, 5),
        functools.partial(both_behind, extra=5),
        default_between,
        passed_on(both_turned),
        with_database,
    ],
)
def test_handler_gets_request_and_body_in_any_order(function: Any) -> None:
    assert serve(make_handler(function), request(ERIK)) == [b"test Erik"]


def test_every_shape_of_handler_gets_both() -> None:
    async def soon(user: User, asked: Request) -> UserId:
        return UserId(len(asked.frames) + len(user.name))

    def letters(asked: Request, user: User) -> Iterator[UserId]:
        yield UserId(len(asked.frames) + len(user.name))

    async def letters_soon(asked: Request, user: User) -> AsyncIterator[UserId]:
        yield UserId(len(asked.frames) + len(user.name))

    def names(asked: Request, users: Iterator[User]) -> str:
        return f"{asked.service}: {', '.join(user.name for user in users)}"

    five = [UserId(5).to_bytes()]
    assert serve(make_handler(soon), request(ERIK)) == five
    assert serve(make_handler(letters), request(ERIK)) == [five]
    assert serve(make_handler(letters_soon), request(ERIK)) == [five]
    assert serve(make_handler(names), request(ERIK)) == [b"test: Erik"]


def test_handler_that_takes_its_request_by_name_only_is_called_so() -> None:
    def named(*, asked: Request) -> bytes:
        return asked.body

    assert serve(make_handler(named), request(b"x")) == [b"x"]


def takes_none() -> None: ...
def takes_two_bodies(user: User, other: UserId) -> None: ...
def takes_two_unknown(asked: Any, user: Any) -> None: ...
def takes_three(asked: Request, user: User, other: int) -> None: ...
def takes_options(**options: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (takes_none, "a handler takes an argument: the request, or its decoded body"),
        (takes_options, "a handler takes an argument: the request, or its decoded body"),
        (
            takes_two_bodies,
            "a handler takes one body, and 'user' and 'other' are annotated as one",
        ),
        (
            takes_two_unknown,
            (
                "'asked' and 'user' would both be the request: annotate the body's argument with "
                "its type"
            ),
        ),
        (
            takes_three,
            (
                "a handler takes the request, its body or both, and not 3 arguments "
                "(asked, user, other): give the others default values"
            ),
        ),
    ],
)
def test_signature_that_a_request_cannot_fill_is_refused_when_it_is_added(
    function: Any, words: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Worker().add("wrong", function)
    assert str(refused.value) == words


# ── calls ─────────────────────────────────────────────────────────────────────────────────────────


def test_call_takes_typed_bodies_and_sends_their_content_type() -> None:
    ask = make_options("create", User("Erik", 3), 1.0)
    assert (ask.frames, ask.metadata) == ([ERIK], b"")
    assert metadata.unpack(ask.implied) == {"type": "application/protobuf"}
    ask = make_options("add", Sum(5), 1.0, metadata={"key": "k"})
    assert metadata.unpack(ask.metadata) == {"type": "application/msgpack", "key": "k"}
    assert make_options("x", b"raw", 1.0).implied == b""


def test_typed_call_goes_through_a_broker(url: str) -> None:
    worker = Worker(url)
    worker.service("create")(create)
    worker.service("seen")(lambda asked: str(asked.metadata))
    with worker, Client(url) as client:
        reply = client.call("create", User("Erik"), timeout=5)
        assert UserId.from_bytes(reply.body) == UserId(4)  # type: ignore[attr-defined]
        metadata_text = client.call("seen", User("x"), timeout=5).text
        assert metadata_text == "{'type': 'application/protobuf'}"
        with pytest.raises(BadRequest, match=r"User\.name"):
            client.call("create", b"\x0a\x05ab", timeout=5)


def test_iterator_of_values_is_the_clients_stream_and_a_plain_call_a_stream_of_one() -> None:
    def names(users: Iterator[User]) -> Iterator[UserId]:
        for user in users:
            yield UserId(len(user.name))

    async def longest(words: AsyncIterator[str]) -> str:
        return max([word async for word in words], key=len)

    with Broker(bind=["tcp://127.0.0.1:0"]) as broker:
        url = broker.endpoints[0]
        worker = Worker(url)
        worker.add("names", names)
        worker.add("longest", longest)
        with worker, Client(url, timeout=10.0) as client:
            worker.wait_ready()
            with client.open("names", User(name="a")) as talk:
                assert UserId.from_bytes(next(talk).body) == UserId(1)
                talk.send(User(name="abc"))
                assert UserId.from_bytes(next(talk).body) == UserId(3)
                talk.send(b"\xff\xff\xff")
                with pytest.raises(BadRequest):
                    next(talk)
            assert client.call("longest", "one").text == "one"
            with client.open("longest") as talk:
                for number in range(1, 21):
                    talk.send("x" * number)
                assert talk.result().text == "x" * 20


def test_list_of_lists_is_encoded_and_no_list_of_frames() -> None:
    def rows(request: Request) -> list[list[str]]:
        return [["a"], []]

    assert msgspec.msgpack.decode(to_frames(make_handler(rows).function(Request("s", [])))[0]) == [
        ["a"],
        [],
    ]


def test_type_that_contains_a_class_without_fields_is_refused() -> None:
    class Plain:
        pass

    def takes(values: Any) -> None:
        return None

    takes.__annotations__["values"] = list[Plain]
    with pytest.raises(ConfigurationError, match="Plain cannot be a body"):
        make_handler(takes)
