"""A router: the services, event handlers and hooks of one file, which a worker includes.

router = Router(prefix="notes.")

@router.service("put")               # served as notes.put
def put(draft: NoteDraft) -> Note: ...

worker.include(router)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from majordomus.errors import ConfigurationError
from majordomus.net.worker.declare.lifespan import Action, checked
from majordomus.net.worker.declare.middleware import HandlerMiddleware
from majordomus.net.worker.declare.services import NOTHING, ErrorClass, ServiceDecorators
from majordomus.net.worker.handlers import Function

H = TypeVar("H", bound=Callable[..., object])
A = TypeVar("A", bound=Action)


class Declared(NamedTuple):
    """One service of a router: the arguments of `Worker.add`."""

    name: str
    function: Function
    options: dict[str, Any]
    middleware: tuple[HandlerMiddleware, ...]


class Router(ServiceDecorators):
    """Services whose names begin with `prefix`. Nothing is checked before a worker includes it."""

    def __init__(self, *, prefix: str = "") -> None:
        if not isinstance(prefix, str):
            raise ConfigurationError(f"a prefix is text, not {type(prefix).__name__}")
        self.prefix = prefix
        self.services: list[Declared] = []
        self.events: list[tuple[str | bytes, Callable[..., object]]] = []
        self.starts: list[Action] = []
        self.stops: list[Action] = []
        self._middleware: list[HandlerMiddleware] = []

    def add(
        self,
        name: str,
        function: Function,
        *,
        run: str | None = None,
        durable: bool = False,
        max_attempts: int | None = None,
        version: str = "",
        examples: Sequence[Any] = (),
        errors: Sequence[ErrorClass] = (),
        publishes: Mapping[str, Any] = NOTHING,
        idempotent: bool = False,
        once: bool = False,
    ) -> None:
        """Declare a service; the arguments are those of `Worker.add`."""
        options = {
            "run": run,
            "durable": durable,
            "max_attempts": max_attempts,
            "version": version,
            "examples": examples,
            "errors": errors,
            "publishes": publishes,
            "idempotent": idempotent,
            "once": once,
        }
        declared = Declared(self.prefix + name, function, options, tuple(self._middleware))
        self.services.append(declared)

    def use(self, *middleware: HandlerMiddleware) -> None:
        """Put middleware around the services that are declared from now on; see `Worker.use`."""
        self._middleware += middleware

    def on_event(self, pattern: str | bytes) -> Callable[[H], H]:
        """Decorate a handler of events. The pattern gets no prefix."""

        def decorate(function: H) -> H:
            self.events.append((pattern, function))
            return function

        return decorate

    def on_start(self, action: A) -> A:
        """Decorate a function that runs before the worker connects. Raises: ConfigurationError."""
        checked(action)
        self.starts.append(action)
        return action

    def on_stop(self, action: A) -> A:
        """Decorate a function that runs when the worker has ended. Raises: ConfigurationError."""
        checked(action)
        self.stops.append(action)
        return action

    def include(self, router: Router) -> None:
        """Declare everything of another router, behind the prefix of this one."""
        for one in router.services:
            middleware = (*self._middleware, *one.middleware)
            self.services.append(one._replace(name=self.prefix + one.name, middleware=middleware))
        self.events += router.events
        self.starts += router.starts
        self.stops += router.stops
