"""What happens once in a run of a worker: functions at its start and its end, and the values of
dependencies that live as long as the run.

The start comes before the first connection, the end after the last handler. Functions and values
end in the reverse of the order in which they began. A function that fails at the start ends the run
with its exception; one that fails at the end is logged, and the others still run.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable
from typing import Any, TypeAlias

from majordomus.errors import ConfigurationError

Action: TypeAlias = Callable[[], Any]
"""A function or a coroutine function without arguments."""

logger = logging.getLogger("majordomus.worker")


class Lifespan:
    """The functions of one worker, and the values of its present run.

    starts, stops: the functions, in the order of their declaration.
    values: of each dependency with `scope="worker"` the value, by its function.
    overrides: the functions that replace dependencies, by the function that they replace.
    """

    def __init__(self) -> None:
        self.starts: list[Action] = []
        self.stops: list[Action] = []
        self.makers: dict[Callable[..., Any], Callable[[contextlib.AsyncExitStack], Any]] = {}
        self.values: dict[Callable[..., Any], Any] = {}
        self.overrides: dict[Callable[..., Any], Callable[..., Any]] = {}
        self._stack: contextlib.AsyncExitStack | None = None

    @property
    def running(self) -> bool:
        """Whether `start` was called, and `stop` was not."""
        return self._stack is not None

    async def start(self) -> None:
        """Make the values and run the functions of the start. Raises: what one of them raises; what
        had begun has ended by then."""
        if not (self.starts or self.stops or self.makers):
            return
        stack = contextlib.AsyncExitStack()
        try:
            for function, make in self.makers.items():
                self.values[function] = await make(stack)
            for stop in self.stops:
                stack.push_async_callback(_run, stop)
            for start in self.starts:
                await _run(start)
        except BaseException:
            self.values.clear()
            await stack.aclose()
            raise
        self._stack = stack

    async def stop(self) -> None:
        """Run the functions of the end, and end the values. May be repeated."""
        stack, self._stack = self._stack, None
        if stack is None:
            return
        try:
            await stack.aclose()
        except Exception:
            logger.exception("a function at the end of the worker has failed")
        finally:
            self.values.clear()


async def _run(action: Action) -> None:
    result = action()
    if inspect.isawaitable(result):
        await result


def checked(action: Action) -> Action:
    """Return a function of the start or the end. Raises: ConfigurationError unless it can be called
    without arguments."""
    if not callable(action):
        raise ConfigurationError(f"expected a function, not {type(action).__name__}")
    try:
        inspect.signature(action).bind()
    except TypeError:
        raise ConfigurationError(
            f"{getattr(action, '__name__', action)!r} takes arguments: "
            "a function at the start or the end takes none"
        ) from None
    return action
