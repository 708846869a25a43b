"""How a handler process finds the function of its worker: by the name of its module, and its own
name in it. A function that cannot be found so is refused when it is registered."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from majordomus.errors import ConfigurationError
from majordomus.net.worker.processes.pipe import LoadMessage, Target

MAIN = "__main__"


def target_of(function: Callable[..., Any]) -> Target:
    """Return the target of a function.

    Raises: ConfigurationError for one that another process cannot import.
    """
    if not inspect.isfunction(function):
        raise _not_importable(repr(function), f"it is a {type(function).__name__}")
    name = function.__qualname__
    if "<" in name:
        raise _not_importable(name, "it is made inside of another function or expression")
    file = function.__globals__.get("__file__") or ""
    return Target(function.__module__, name, str(Path(file).absolute()) if file else "")


def check(target: Target, function: Callable[..., Any]) -> None:
    """Check that the target leads to the function. Raises: ConfigurationError.

    To be called when the worker starts: a decorator may rebind the name after the registration.
    """
    found: Any = sys.modules.get(target.module)
    for part in target.name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise _not_importable(target.name, f"{target.module} has no such name")
    if inspect.unwrap(found) is not inspect.unwrap(function):
        raise _not_importable(
            target.name,
            "the name refers to something else; put @worker.service above other decorators",
        )
    if target.module == MAIN and not any(_main_program()):
        raise _not_importable(target.name, "the main program has no file")


def load_message(targets: Iterable[Target]) -> LoadMessage:
    """Return the first message to a new process."""
    wanted = list(targets)
    main = _main_program() if any(target.module == MAIN for target in wanted) else ("", "")
    path = [entry or str(Path.cwd()) for entry in sys.path]
    return LoadMessage(path, os.environ.get("PYTHONPATH"), *main, wanted)


def _main_program() -> tuple[str, str]:
    """Return the module's name if the main program was started with -m, else its file."""
    main = sys.modules[MAIN]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name), ""
    file = getattr(main, "__file__", None)
    return "", str(Path(file).absolute()) if file else ""


def _not_importable(name: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"run='process' needs a function at the top level of a module, {name} is not one: {why}"
    )
