"""Files that are read again when they change. The caller decides when to check.

A missing or empty file counts only when two consecutive checks find it: editors and `>` leave a
file empty for a moment. An invalid file changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Generic, TypeVar

from majordomus.errors import ConfigurationError
from majordomus.security.keys import Signature, signature

V = TypeVar("V")

NEVER: Final[Signature] = (("", (-1, -1, -1, -1)),)


class Watched(Generic[V]):
    """The content of a file or folder, read again when it changes.

    path: the file or folder.
    value: the result of `load` for the last valid version.
    problems: the errors of the last check.
    """

    def __init__(self, path: Path, load: Callable[[Path, list[str]], Mapping[str, V]]) -> None:
        """Read `path`. Raises: ConfigurationError when it cannot be read."""
        self.path = path
        self._load = load
        self.problems: list[str] = []
        self._seen = signature(path)
        self.value: Mapping[str, V] = load(path, self.problems)
        self._doubtful = False

    def look(self) -> bool:
        """Check the files once. True when `value` or `problems` have changed."""
        try:
            found = signature(self.path)
        except ConfigurationError as error:
            return self._broken(NEVER, str(error))
        if found == self._seen:
            self._doubtful = False
            return False
        if not any(size for _, (_, size, *_) in found) and not self._doubtful:
            self._doubtful = True
            return False
        self._doubtful = False
        if not found:
            self._seen, self.value = found, {}
            self.problems = [f"{self.path} is empty or missing: it admits no peer"]
            return True
        problems: list[str] = []
        try:
            value = self._load(self.path, problems)
        except ConfigurationError as error:
            return self._broken(found, str(error))
        self._seen, self.value, self.problems = found, value, problems
        return True

    def _broken(self, seen: Signature, problem: str) -> bool:
        self._seen = seen
        is_new = self.problems != [problem]
        self.problems = [problem]
        return is_new
