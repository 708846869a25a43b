"""Every exception of the package can be pickled and copied, and keeps its text and attributes."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import majordomus
from majordomus import errors


def kinds() -> Iterator[type[BaseException]]:
    """All exception classes that the package defines."""
    for found in pkgutil.walk_packages(majordomus.__path__, "majordomus."):
        if found.name.endswith("__main__"):
            continue
        try:
            module = importlib.import_module(found.name)
        except ImportError:  # an optional dependency, or a module for another system
            continue
        for kind in vars(module).values():
            own = inspect.isclass(kind) and kind.__module__ == module.__name__
            if own and issubclass(kind, BaseException):
                yield kind


def samples() -> Iterator[BaseException]:
    """One exception of each class, with every argument of its constructor set."""
    for kind in dict.fromkeys(kinds()):
        try:
            parameters = inspect.signature(kind).parameters.values()
        except ValueError:  # the constructor of a builtin class
            yield kind("text")
            continue
        given: list[Any] = []
        named: dict[str, Any] = {}
        for number, one in enumerate(parameters):
            value: Any = {"status": 404, "frames": (b"a",), "position": 3, "size": 2}.get(
                one.name, f"text {number}"
            )
            if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD):
                given.append(value)
            elif one.kind is one.KEYWORD_ONLY:
                named[one.name] = value
            elif one.kind is one.VAR_POSITIONAL:
                given.append("text")
        yield kind(*given, **named)


class Refusal(errors.BadRequest):
    """An application's error, whose constructor takes what the text is made of."""

    def __init__(self, user: str, *, wanted: int) -> None:
        super().__init__(f"{user} wants {wanted}")
        self.user, self.wanted = user, wanted


def pickled(error: BaseException) -> Any:
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - made here


@pytest.mark.parametrize("again", [pickled, copy.copy, copy.deepcopy])
def test_exception_is_the_same_after_pickle_and_copy(again: Callable[[Any], Any]) -> None:
    errors_ = [*samples(), errors.error_for(418, [b"tea", b"x"]), Refusal("ada", wanted=3)]
    assert len(errors_) > 20
    for error in errors_:
        other = again(error)
        assert type(other) is type(error)
        assert (str(other), other.args, other.__dict__) == (str(error), error.args, error.__dict__)


def test_status_error_of_another_exception_has_its_text() -> None:
    error = errors.BadRequest(ValueError("no such user"))  # type: ignore[arg-type]
    assert (error.text, str(error)) == ("no such user", "400 no such user")


def test_detail_of_a_subclass_without_the_constructor_is_none() -> None:
    class Bare(errors.NotFound):
        def __init__(self) -> None:
            self.text = "bare"

    class Own(errors.NotFound):
        def __init__(self) -> None:
            super().__init__("own")
            self.detail = {"id": 1}

    assert Bare().detail is None
    assert Own().detail == {"id": 1}
