"""The decorators with which a program declares services, events and hooks.

`Worker`, `AsyncWorker` and `Router` have them. What they declare goes to `add`, `subscribe`,
`on_start` and `on_stop` of the subclass.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar, overload

from majordomus.errors import StatusError
from majordomus.net.worker.handlers import Function

F = TypeVar("F", bound=Function)
ErrorClass: TypeAlias = type[StatusError] | tuple[type[StatusError], Any]
"""A failure that a service states, with the type of its detail or without."""


NOTHING: Mapping[str, Any] = MappingProxyType({})


class ServiceDecorators:
    """The decorator `service`."""

    @overload
    def service(self, name: F) -> F: ...
    @overload
    def service(
        self,
        name: str | None = None,
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
    ) -> Callable[[F], F]: ...
    def service(
        self,
        name: str | F | None = None,
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
    ) -> F | Callable[[F], F]:
        """Decorate a function that serves `name`, by default its own name. The other arguments are
        as in `add`.

        Raises: ConfigurationError.
        """
        if callable(name):
            self.add(name.__name__, name)
            return name

        def decorate(function: F) -> F:
            self.add(
                name or function.__name__,
                function,
                run=run,
                durable=durable,
                max_attempts=max_attempts,
                version=version,
                examples=examples,
                errors=errors,
                publishes=publishes,
                idempotent=idempotent,
                once=once,
            )
            return function

        return decorate

    @abstractmethod
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
        """Serve `name` with `function`."""
