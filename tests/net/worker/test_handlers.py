"""The shape of a function decides where a handler runs and how it replies."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator

import pytest

from majordomus.errors import ConfigurationError
from majordomus.net.worker.handlers import Shape, make_handler
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
def test_shape_is_that_of_the_function_behind_partials_methods_and_callable_objects(
    function, shape
) -> None:
    assert make_handler(function).shape is shape


def test_object_that_cannot_be_called_is_refused_as_a_handler() -> None:
    with pytest.raises(ConfigurationError, match="not int"):
        make_handler(3)  # type: ignore[arg-type]
