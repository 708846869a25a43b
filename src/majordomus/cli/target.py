"""A module that a command line names is imported here, from the current folder first."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from majordomus.errors import ConfigurationError


def import_here(name: str) -> ModuleType:
    """Import and return the module `name`.

    Raises: ConfigurationError when there is no such module, or when it fails or ends the process,
    with the line.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(
            f"{name!r} is no module's name: write it as in import, without path and .py"
        )
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a script that ends with sys.exit is no module
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise ConfigurationError(f"no module {name!r} in {folder}") from error
        what = f"{type(error).__name__}: {error}{_place(error)}"
        raise ConfigurationError(f"{name} cannot be imported: {what}") from error


def _place(error: BaseException) -> str:
    """Return the file and line that failed."""
    if isinstance(error, SyntaxError):
        return ""  # its text has the line already
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace else ""
