"""Files that are read again when they change. Whoever owns one says when to look.

What is not there any more, or is empty, counts only when it is so at two looks: editors and `>`
leave such a moment. What is broken changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Generic, TypeVar

from majordomus.errors import ConfigurationError
from majordomus.security.keys import Signature, signature

V = TypeVar("V")

NEVER: Final[Signature] = (("", -1, -1, -1),)


class Watched(Generic[V]):
    """What `load` makes of `path`: `value`. `problems` are those of the last look.

    Raises: ConfigurationError when it cannot be read at first.
    """

    def __init__(self, path: Path, load: Callable[[Path, list[str]], Mapping[str, V]]) -> None:
        self.path = path
        self._load = load
        self.problems: list[str] = []
        self.value: Mapping[str, V] = load(path, self.problems)
        self._seen = signature(path)
        self._doubtful = False

    def look(self) -> bool:
        """Whether something has changed: `value`, or `problems`."""
        try:
            found = signature(self.path)
        except ConfigurationError as error:
            return self._broken(NEVER, str(error))
        if found == self._seen:
            self._doubtful = False
            return False
        if not any(size for _, _, size, _ in found) and not self._doubtful:
            self._doubtful = True
            return False
        self._doubtful = False
        if not found:
            self._seen, self.value = found, {}
            self.problems = [f"{self.path} is empty, or not there: nobody is known by it"]
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
        told = self.problems == [problem]
        self.problems = [problem]
        return not told
