"""Modules that a command line names are imported here, the current folder first."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from majordomus.errors import ConfigurationError


def import_here(name: str) -> ModuleType:
    """The module `name`.

    Raises: ConfigurationError when there is none, or when it fails, with the line where it did.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise ConfigurationError(f"there is no module {name!r} in {folder}") from error
        what = f"{type(error).__name__}: {error}{_place(error)}"
        raise ConfigurationError(f"{name} cannot be imported: {what}") from error


def _place(error: BaseException) -> str:
    """File and line of the module's own code that failed."""
    if isinstance(error, SyntaxError):
        return ""  # its text says so itself
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace else ""
