"""Dependencies: arguments of a handler that other functions make.

    def get_session() -> Iterator[Session]:
        with Session(engine) as session:
            yield session

    @worker.service("notes.put")
    def put(draft: NoteDraft, session: Annotated[Session, Depends(get_session)]) -> Note: ...

A dependency is a function or a generator, `def` or `async def`. It is made for each request, once
for all that need it, and a generator goes on when the handler has ended, also after a failure or a
cancel. With `scope="worker"` it is made once, before the worker connects, and ends with the run. It
may have dependencies of its own, and an argument that is annotated with `Request`.

A handler without dependencies is not wrapped.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import typing
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Final, get_args, get_origin

from majordomus.errors import ConfigurationError
from majordomus.net.worker.declare.lifespan import Lifespan
from majordomus.net.worker.request import Request

REQUEST: Final = "majordomus_request"
"""The argument of a wrapped handler that has no argument for the request."""
SCOPES: Final = ("request", "worker")


class Depends:
    """The marker in `Annotated[Session, Depends(get_session)]`.

    function: makes the value.
    scope: "request" or "worker".
    """

    def __init__(self, function: Callable[..., Any], *, scope: str = "request") -> None:
        if not callable(function):
            raise ConfigurationError(f"Depends: expected a function, not {function!r:.40}")
        if scope not in SCOPES:
            raise ConfigurationError(f"Depends: a scope is request or worker, not {scope!r}")
        self.function = function
        self.scope = scope


class Need:
    """A dependency, and what it needs itself.

    function: makes the value.
    scope: "request" or "worker".
    arguments: for each argument another dependency; None for the request.
    kind: whether it is a function or a generator, and whether it waits.
    """

    def __init__(self, marker: Depends, above: tuple[Callable[..., Any], ...] = ()) -> None:
        function = self.function = marker.function
        self.scope = marker.scope
        if function in above:
            names = " → ".join(_name(one) for one in (*above, function))
            raise ConfigurationError(f"these dependencies need each other: {names}")
        self.arguments: dict[str, Need | None] = {}
        hints = hints_of(function)
        for one in inspect.signature(function).parameters.values():
            inner = marker_of(hints.get(one.name))
            if inner is not None:
                self.arguments[one.name] = Need(inner, (*above, function))
            elif hints.get(one.name) is Request:
                self.arguments[one.name] = None
            elif one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
                raise ConfigurationError(
                    f"{_name(function)}: its argument {one.name!r} is neither the Request "
                    "nor a dependency"
                )
        if self.scope == "worker" and self.per_request:
            raise ConfigurationError(
                f"{_name(function)} lives as long as the worker, and needs something of a request"
            )

    @property
    def per_request(self) -> bool:
        """Whether it, or something that it needs, is made for each request."""
        return any(
            one is None or one.scope == "request" or one.per_request
            for one in self.arguments.values()
        )

    @property
    def waits(self) -> bool:
        """Whether it, or something that it needs for a request, is `async def`."""
        return self.scope == "request" and (
            _is_async(self.function) or any(one and one.waits for one in self.arguments.values())
        )

    def all(self) -> Iterator[Need]:
        """It and everything that it needs, the inner ones first."""
        for one in self.arguments.values():
            if one is not None:
                yield from one.all()
        yield self


def marker_of(annotation: Any) -> Depends | None:
    """Return the marker of an annotation; None without one."""
    if get_origin(annotation) is not Annotated:
        return None
    return next((one for one in get_args(annotation)[1:] if isinstance(one, Depends)), None)


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function, of a class its constructor's; {} for none."""
    target = function.__init__ if inspect.isclass(function) else function
    try:
        return typing.get_type_hints(target, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def inject(function: Callable[..., Any], lifespan: Lifespan) -> Callable[..., Any]:
    """Return a function without those arguments of `function` that are dependencies; `function`
    itself, if it has none.

    Raises: ConfigurationError for dependencies that cannot be made for this function.
    """
    hints = hints_of(inspect.unwrap(function))
    needs = {name: Need(marker) for name, hint in hints.items() if (marker := marker_of(hint))}
    if not needs:
        return function
    signature = inspect.signature(function)
    waits = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    for need in needs.values():
        if need.waits and not waits:
            raise ConfigurationError(
                f"{_name(need.function)} is async def, or needs something that is: "
                "make the handler with async def"
            )
        for one in need.all():
            if one.scope == "worker":
                _add_worker_value(one, lifespan)
    wrapped = _wrapped(function, needs, signature, hints, lifespan)
    rest = [one for name, one in signature.parameters.items() if name not in needs]
    if not any(hints.get(one.name) is Request for one in rest):
        keyword = inspect.Parameter.KEYWORD_ONLY
        rest.append(inspect.Parameter(REQUEST, keyword, annotation=Request))
    wrapped.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]
    return wrapped


def _wrapped(
    function: Callable[..., Any],
    needs: dict[str, Need],
    signature: inspect.Signature,
    hints: dict[str, Any],
    lifespan: Lifespan,
) -> Callable[..., Any]:
    """Wrap a handler of one of the four shapes."""
    own = next((name for name in signature.parameters if hints.get(name) is Request), "")
    rest = [one for name, one in signature.parameters.items() if name not in needs]
    inner = signature.replace(parameters=rest)

    def given(arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the request, and the arguments that are no dependencies, by name."""
        request = named.pop(REQUEST, None)
        bound = dict(inner.bind(*arguments, **named).arguments)
        return bound.get(own) if own else request, bound

    def placed(values: dict[str, Any]) -> inspect.BoundArguments:
        """Return all arguments in the order of the handler's signature."""
        ordered = {name: values[name] for name in signature.parameters if name in values}
        return inspect.BoundArguments(signature, OrderedDict(ordered))

    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def parts(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
            request, values = given(arguments, named)
            async with contextlib.AsyncExitStack() as stack:
                made = await _make_all(needs, request, stack, lifespan)
                call = placed({**values, **made})
                found = function(*call.args, **call.kwargs)
                async with contextlib.aclosing(found):
                    async for part in found:
                        yield part

        return parts
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def waits(*arguments: Any, **named: Any) -> Any:
            request, values = given(arguments, named)
            async with contextlib.AsyncExitStack() as stack:
                made = await _make_all(needs, request, stack, lifespan)
                call = placed({**values, **made})
                return await function(*call.args, **call.kwargs)

        return waits
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generates(*arguments: Any, **named: Any) -> Iterator[Any]:
            request, values = given(arguments, named)
            with contextlib.ExitStack() as stack:
                made = _make_all_now(needs, request, stack, lifespan)
                call = placed({**values, **made})
                yield from function(*call.args, **call.kwargs)

        return generates

    @functools.wraps(function)
    def runs(*arguments: Any, **named: Any) -> Any:
        request, values = given(arguments, named)
        with contextlib.ExitStack() as stack:
            made = _make_all_now(needs, request, stack, lifespan)
            call = placed({**values, **made})
            return function(*call.args, **call.kwargs)

    return runs


# -- making values


def _make_all_now(
    needs: dict[str, Need], request: Any, stack: contextlib.ExitStack, lifespan: Lifespan
) -> dict[str, Any]:
    made: dict[Any, Any] = {}
    return {name: _make_now(need, request, stack, made, lifespan) for name, need in needs.items()}


def _make_now(
    need: Need, request: Any, stack: contextlib.ExitStack, made: dict[Any, Any], lifespan: Lifespan
) -> Any:
    if need.function in made:
        return made[need.function]
    actual = _replaced(need, lifespan)
    if actual.scope == "worker":
        return lifespan.values[need.function]
    arguments = {
        name: request if inner is None else _make_now(inner, request, stack, made, lifespan)
        for name, inner in actual.arguments.items()
    }
    if _is_async(actual.function):
        raise ConfigurationError(f"{_name(actual.function)} is async def, and the handler is def")
    if inspect.isgeneratorfunction(actual.function):
        value = stack.enter_context(contextlib.contextmanager(actual.function)(**arguments))
    else:
        value = actual.function(**arguments)
    made[need.function] = value
    return value


async def _make_all(
    needs: dict[str, Need], request: Any, stack: contextlib.AsyncExitStack, lifespan: Lifespan
) -> dict[str, Any]:
    made: dict[Any, Any] = {}
    return {name: await _make(need, request, stack, made, lifespan) for name, need in needs.items()}


async def _make(
    need: Need,
    request: Any,
    stack: contextlib.AsyncExitStack,
    made: dict[Any, Any],
    lifespan: Lifespan,
) -> Any:
    if need.function in made:
        return made[need.function]
    actual = _replaced(need, lifespan)
    if actual.scope == "worker" and need.function in lifespan.values:
        return lifespan.values[need.function]
    arguments = {
        name: request if inner is None else await _make(inner, request, stack, made, lifespan)
        for name, inner in actual.arguments.items()
    }
    function = actual.function
    value: Any
    if inspect.isasyncgenfunction(function):
        manager = contextlib.asynccontextmanager(function)(**arguments)
        value = await stack.enter_async_context(manager)
    elif inspect.isgeneratorfunction(function):
        value = stack.enter_context(contextlib.contextmanager(function)(**arguments))
    else:
        value = function(**arguments)
        if inspect.isawaitable(value):
            value = await value
    made[need.function] = value
    return value


def _add_worker_value(need: Need, lifespan: Lifespan) -> None:
    """Have a value made at the start of each run."""
    if need.function in lifespan.makers:
        return
    if lifespan.running:
        raise ConfigurationError(
            f"{_name(need.function)} lives as long as the worker, which already runs: "
            "add its services before"
        )

    async def make(stack: contextlib.AsyncExitStack) -> Any:
        return await _make(need, None, stack, {}, lifespan)

    lifespan.makers[need.function] = make


def _replaced(need: Need, lifespan: Lifespan) -> Need:
    """Return the dependency that replaces `need` in a test, or `need` itself."""
    replacement = lifespan.overrides.get(need.function)
    return need if replacement is None else Need(Depends(replacement, scope=need.scope))


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))
