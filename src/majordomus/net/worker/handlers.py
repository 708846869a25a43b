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

from majordomus.contracts import model
from majordomus.contracts.facts import ANY, NO_FACTS, BodyType, Facts
from majordomus.errors import ConfigurationError
from majordomus.net.worker.declare.dependencies import inject
from majordomus.net.worker.declare.lifespan import Lifespan
from majordomus.net.worker.declare.middleware import HandlerMiddleware
from majordomus.net.worker.processes.pipe import Target
from majordomus.net.worker.processes.target import target_of
from majordomus.net.worker.typed import Binding, binding_of, typed, unwrapped

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
    contract: the canonical bytes of the service's contract; empty for a handler that is not typed
    middleware: what a run puts around it, the outermost first
    """

    function: Function
    shape: Shape
    target: Target | None = None
    contract: bytes = b""
    middleware: tuple[HandlerMiddleware, ...] = ()

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


def make_handler(
    function: Function,
    run: str | None = None,
    facts: Facts = NO_FACTS,
    lifespan: Lifespan | None = None,
    *,
    described: bool = True,
) -> Handler:
    """Make a handler of a function, also behind partials, methods and objects with `__call__`.

    `run="process"` runs it in a handler process; "thread" and "loop" only confirm its shape.
    `facts` describe the service in its contract. `lifespan` has the values of dependencies that
    live as long as the worker. `described`: whether the handler has its contract.

    Raises: ConfigurationError for a value that is no function, for one that cannot run so, and for
    an annotation that cannot be decoded from a body.
    """
    if not callable(function):
        raise ConfigurationError(f"a handler is a function, not {type(function).__name__}")
    shape = _shape_of(function)
    lifespan = lifespan or Lifespan()
    given, function = function, inject(function, lifespan)
    if run == "process" and lifespan.makers and given is not function:
        raise ConfigurationError(
            "a handler in a process has no values that live as long as the worker: "
            'use run="process" without them'
        )
    parts = shape in (Shape.GENERATOR, Shape.ASYNC_GENERATOR)
    binding = binding_of(function, parts=parts)
    plain = binding is None or binding.plain
    served = function if binding is None or plain else typed(function, binding)
    contract = (
        b""
        if not described or (plain and facts == NO_FACTS)
        else _contract(function, binding, facts, parts)
    )
    if run is None:
        return Handler(served, shape, None, contract)
    if run not in RUNS:
        raise ConfigurationError(f"a handler runs in a {', a '.join(RUNS)}, not in {run!r}")
    if shape.threaded != (run != "loop"):
        wanted = "def" if run != "loop" else "async def"
        raise ConfigurationError(f"run={run!r} is for handlers that are made with {wanted}")
    target = target_of(given) if run == "process" else None
    return Handler(served, shape, target, contract)


def _contract(function: Function, binding: Binding | None, facts: Facts, parts: bool) -> bytes:
    """Return the canonical bytes of a handler's contract. Raises: as `derive`."""
    from majordomus.contracts import derive  # typed handlers alone need the protobuf library

    takes, returns = (BodyType(), BodyType(ANY, parts)) if binding is None else binding[-2:]
    doc = getattr(unwrapped(function), "__doc__", None)
    return model.to_bytes(derive.derive(takes, returns, doc, facts))


def _shape_of(function: Function) -> Shape:
    routine = unwrapped(function)
    if inspect.isasyncgenfunction(routine):
        return Shape.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(routine):
        return Shape.COROUTINE
    if inspect.isgeneratorfunction(routine):
        return Shape.GENERATOR
    return Shape.FUNCTION
