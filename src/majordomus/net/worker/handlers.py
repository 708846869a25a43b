"""Handlers: the shape of a function decides where it runs and how it replies.

There are four shapes: `def`, `async def`, and either of them with `yield`. A handler takes one
argument: the `Request`, or what its annotation makes of the body (typed.py). What it returns and
raises becomes an outcome in outcomes.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

from majordomus.errors import ConfigurationError
from majordomus.net.worker.processes.pipe import Target
from majordomus.net.worker.processes.target import target_of
from majordomus.net.worker.typed import contract_of, typed, unwrapped

Function: TypeAlias = Callable[..., Any]

RUNS: Final = ("thread", "process", "loop")


class Shape(Enum):
    """Where a handler runs and how it replies."""

    FUNCTION = "in a thread, with one reply"
    GENERATOR = "in a thread, with parts"
    COROUTINE = "on the event loop, with one reply"
    ASYNC_GENERATOR = "on the event loop, with parts"

    @property
    def threaded(self) -> bool:
        """Whether the handler would block the event loop."""
        return self in (Shape.FUNCTION, Shape.GENERATOR)


class Handler(NamedTuple):
    """A function that serves a service.

    function: called with a `Request`
    shape: where it runs and how it replies
    target: where a handler process finds the function; None if it runs in the worker's process
    """

    function: Function
    shape: Shape
    target: Target | None = None

    @property
    def in_process(self) -> bool:
        """Whether it runs in a handler process."""
        return self.target is not None

    @property
    def kind(self) -> str:
        """Where it runs, one of `RUNS`."""
        if self.in_process:
            return "process"
        return "thread" if self.shape.threaded else "loop"


def make_handler(function: Function, run: str | None = None) -> Handler:
    """Make a handler of a function, also behind partials, methods and objects with `__call__`.

    `run="process"` runs it in a handler process; "thread" and "loop" only confirm its shape.

    Raises: ConfigurationError for a value that is no function, for one that cannot run so, and for
    an annotation that cannot be decoded from a body.
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
    routine = unwrapped(function)
    if inspect.isasyncgenfunction(routine):
        return Shape.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(routine):
        return Shape.COROUTINE
    if inspect.isgeneratorfunction(routine):
        return Shape.GENERATOR
    return Shape.FUNCTION
