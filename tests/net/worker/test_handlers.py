"""Four shapes of handlers, one convention; what they return and raise becomes status and frames."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator

import pytest

from majordomus.errors import ConfigurationError, NotFound, StatusError
from majordomus.messages import Message
from majordomus.net.bodies import Reply
from majordomus.net.worker.handlers import MAX_TEXT, Shape, answer, failure, make_handler
from majordomus.net.worker.request import Request


def plain(request: Request) -> bytes:
    return request.body


async def coroutine(request: Request) -> bytes:
    return request.body


def generator(request: Request) -> Iterator[bytes]:
    yield request.body


async def async_generator(request: Request) -> AsyncIterator[bytes]:
    yield request.body


class Methods:
    def plain(self, request: Request) -> bytes:
        return request.body

    async def coroutine(self, request: Request) -> bytes:
        return request.body


class Callable:
    async def __call__(self, request: Request) -> bytes:
        return request.body


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (plain, Shape.FUNCTION),
        (coroutine, Shape.COROUTINE),
        (generator, Shape.GENERATOR),
        (async_generator, Shape.ASYNC_GENERATOR),
        (functools.partial(coroutine), Shape.COROUTINE),
        (functools.partial(functools.partial(generator)), Shape.GENERATOR),
        (Methods().plain, Shape.FUNCTION),
        (Methods().coroutine, Shape.COROUTINE),
        (Callable(), Shape.COROUTINE),
        (lambda request: request.body, Shape.FUNCTION),
        (bytes, Shape.FUNCTION),
    ],
)
def test_shape_is_seen_through_partials_methods_and_callable_objects(function, shape) -> None:
    assert make_handler(function).shape is shape


def test_what_cannot_be_called_is_no_handler() -> None:
    with pytest.raises(ConfigurationError, match="not int"):
        make_handler(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "status", "frames"),
    [
        (None, 200, []),
        (b"x", 200, [b"x"]),
        (b"", 200, [b""]),
        ("é", 200, ["é".encode()]),
        (bytearray(b"x"), 200, [b"x"]),
        (memoryview(b"x"), 200, [b"x"]),
        ([], 200, []),
        ([b"a", "b", memoryview(b"c")], 200, [b"a", b"b", b"c"]),
        ((b"a",), 200, [b"a"]),
        (Message([b"a", b"b"]), 200, [b"a", b"b"]),
        (Reply([b"a"], status=404), 404, [b"a"]),
    ],
)
def test_what_a_handler_returns_becomes_frames(
    result: object, status: int, frames: list[bytes]
) -> None:
    assert answer(result) == (status, frames)


@pytest.mark.parametrize("result", [3, 1.5, object(), {"a": 1}, [b"a", 3]])
def test_result_that_is_no_body_is_the_handlers_failure(result: object) -> None:
    status, (text,) = answer(result)
    assert status == 500
    assert text.startswith(
        b"LocalProtocolError: bad-body: a body is bytes, text, a list of them, a Message or None"
    )


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ValueError("no good"), 500, b"ValueError: no good"),
        (KeyError("k"), 500, b"KeyError: 'k'"),
        (SystemExit(3), 500, b"SystemExit: 3"),
        (NotFound("no such user"), 404, b"no such user"),
        (StatusError("teapot", status=418), 418, b"teapot"),
        (asyncio.CancelledError(), 499, b"cancelled"),
        (ValueError("\udc80"), 500, b"ValueError: \\udc80"),
        (ValueError("x" * 10_000), 500, (b"ValueError: " + b"x" * 10_000)[:MAX_TEXT]),
    ],
)
def test_exception_becomes_status_and_text(error: BaseException, status: int, text: bytes) -> None:
    assert failure(error) == (status, [text])
