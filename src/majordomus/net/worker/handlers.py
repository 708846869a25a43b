"""Handlers in their four shapes:

`def`, `async def`, and either with `yield`. What they return becomes frames here.

A handler takes one argument, the `Request`, or what its annotation makes of it (typed.py). What it
raises becomes a status and a sentence.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

from majordomus.errors import ConfigurationError, StatusError
from majordomus.net.bodies import Reply, to_frames
from majordomus.net.worker.processes.pipe import Target
from majordomus.net.worker.processes.target import target_of
from majordomus.net.worker.typed import contract_of, routine, typed
from majordomus.protocol import spec

Function: TypeAlias = Callable[[Any], Any]
Answer: TypeAlias = tuple[int, list[bytes]]
"""Status and frames of a FINAL."""

RUNS: Final = ("thread", "process", "loop")
MAX_TEXT: Final = 4096
"""Characters of an exception's text that leave the worker."""


class Shape(Enum):
    """Where a handler runs and how it answers."""

    FUNCTION = "in a thread, one answer"
    GENERATOR = "in a thread, parts and then the end"
    COROUTINE = "on the event loop, one answer"
    ASYNC_GENERATOR = "on the event loop, parts and then the end"

    @property
    def threaded(self) -> bool:
        """Whether it would block the event loop."""
        return self in (Shape.FUNCTION, Shape.GENERATOR)


class Handler(NamedTuple):
    """A function that serves, and how it has to be run: in a process if there is a `target`."""

    function: Function
    shape: Shape
    target: Target | None = None

    @property
    def in_process(self) -> bool:
        """Whether it runs in a process."""
        return self.target is not None


def make_handler(function: Function, run: str | None = None) -> Handler:
    """Looks through partials, methods and objects with `__call__`. `run`: "process" runs it in one;
    "thread" and "loop" say what its shape says already.

    Raises: ConfigurationError for what is no handler, cannot run so, or has an annotation that no
    body can be.
    """
    if not callable(function):
        raise ConfigurationError(f"a handler is a function, not {type(function).__name__}")
    shape = _shape_of(function)
    parts = shape in (Shape.GENERATOR, Shape.ASYNC_GENERATOR)
    contract = contract_of(function, parts=parts)
    served = function if contract is None else typed(function, contract)
    if run is None:
        return Handler(served, shape)
    if run not in RUNS:
        raise ConfigurationError(f"a handler runs in a {', a '.join(RUNS)}, not in {run!r}")
    if shape.threaded != (run != "loop"):
        wanted = "def" if run != "loop" else "async def"
        raise ConfigurationError(f"run={run!r} is for handlers that are made with {wanted}")
    return Handler(served, shape, target_of(function) if run == "process" else None)


def _shape_of(function: Function) -> Shape:
    target = routine(function)
    if inspect.isasyncgenfunction(target):
        return Shape.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(target):
        return Shape.COROUTINE
    if inspect.isgeneratorfunction(target):
        return Shape.GENERATOR
    return Shape.FUNCTION


def answer(result: object) -> Answer:
    """The FINAL for what a handler returned.

    Never raises: a result that is no body is the handler's failure.
    """
    try:
        frames = to_frames(result)
    except Exception as error:
        return failure(error)
    return (result.status if isinstance(result, Reply) else spec.OK), frames


def failure(error: BaseException) -> Answer:
    """The FINAL for what a handler raised: a StatusError's own status, else 500, type and text."""
    if isinstance(error, asyncio.CancelledError):
        return spec.CANCELLED, [b"cancelled"]
    if isinstance(error, StatusError):
        text = error.text
        status = error.status
    else:
        text = f"{type(error).__name__}: {error}"
        status = spec.HANDLER_FAILED
    return status, [text[:MAX_TEXT].encode("utf-8", "backslashreplace")]
