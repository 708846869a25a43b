"""Which entries somebody wants to see: a level, applications, a regular expression.

The viewer decides with `passes`. The collector, which must not stand still for anybody's
expression, uses `may_pass`: it lets through what it cannot decide cheaply, and the viewer decides
that too.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from typing import Final, Protocol

from majordomus.contrib.cloudlog.record import python_level
from majordomus.errors import ConfigurationError

MOST_STEPS: Final = 1e6
"""Steps of a search, at worst, that a collector may spend on one text: some milliseconds."""
LONGEST: Final = 1000
"""Characters of an expression that a collector looks at."""


class Line(Protocol):
    """The part of a LogEntry that is looked at."""

    @property
    def text(self) -> str: ...
    @property
    def level(self) -> int: ...
    @property
    def application(self) -> str: ...


class Sieve:
    """`level`: the least; `applications`: none is all; `grep`: searched for in the text."""

    def __init__(self, level: int = 0, applications: Iterable[str] = (), grep: str = "") -> None:
        """Raises: ConfigurationError for what is no regular expression."""
        self.level = level
        self.applications = frozenset(applications)
        self.grep = grep
        self.exponent = exponent(grep)
        try:
            with warnings.catch_warnings(action="ignore"):  # of what may change in later Pythons
                self.pattern = re.compile(grep) if grep else None
        except (re.error, OverflowError, RecursionError) as error:
            raise ConfigurationError(f"{grep!r} is no regular expression: {error}") from error

    @property
    def open(self) -> bool:
        """Whether everything passes."""
        return not (self.level or self.applications or self.pattern)

    def passes(self, line: Line) -> bool:
        """Whether the line is wanted. May take as long as the expression does."""
        if not self._rough(line):
            return False
        return self.pattern is None or self.pattern.search(line.text) is not None

    def may_pass(self, line: Line) -> bool:
        """False only for a line that is not wanted. Takes a bounded time."""
        if not self._rough(line):
            return False
        if self.pattern is None or self.exponent is None:
            return True
        text = line.text
        if float(max(2, len(text) + 1)) ** self.exponent > MOST_STEPS:
            return True
        return self.pattern.search(text) is not None

    def _rough(self, line: Line) -> bool:
        if self.level and python_level(line.level) < self.level:
            return False
        return not self.applications or line.application in self.applications


def for_collector(level: int, applications: Iterable[str], grep: str) -> Sieve:
    """A sieve that may be built from what a stranger sent: an expression whose cost is not known is
    not even compiled. Raises: ConfigurationError.
    """
    known = len(grep) <= LONGEST and exponent(grep) is not None
    return Sieve(level, applications, grep if known else "")


_ATOMS: Final = re.compile(
    r"""\\[1-9]            # a backreference
      | (?:\\. | \[\^?\]?(?:\\.|[^\]\\])*\])   # an escape, or a class
    """,
    re.VERBOSE | re.DOTALL,
)
_QUANTIFIER: Final = re.compile(r"(?:[*+?]|\{\d*,?\d*\})[?+]?")


def exponent(pattern: str) -> int | None:
    """The power of n + 1 that bounds the steps of a search in n characters; None: unknown.

    Every quantifier multiplies by at most n + 1, every choice within a group by 2, as long as no
    group is repeated itself; the search begins at n + 1 places. Coarse, but never too low.
    """
    if any(match[0][1:].isdigit() for match in _ATOMS.finditer(pattern) if match[0][0] == "\\"):
        return None
    bare = _ATOMS.sub("x", pattern).replace("(?:", "(")
    if "(?" in bare or re.search(r"\)[*+?{]", bare):
        return None  # lookaround, flags, conditions, a repeated group
    worst, depth, found = 0, 0, 0
    at = 0
    while at < len(bare):
        quantifier = _QUANTIFIER.match(bare, at)
        if quantifier:
            found += 1
            at = quantifier.end()
            continue
        char = bare[at]
        depth += (char == "(") - (char == ")")
        if char == "|" and depth > 0:
            found += 1
        elif char == "|":
            worst, found = max(worst, found), 0
        at += 1
    return 1 + max(worst, found)
