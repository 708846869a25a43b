"""Filters of entries, by level, applications and a regular expression.

A viewer decides with `passes`. A collector uses `may_pass`, because a viewer's expression must not
block it: entries that it cannot decide cheaply pass, and the viewer filters them again.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from typing import Final, Protocol

from majordomus.contrib.cloudlog.record import python_level
from majordomus.errors import ConfigurationError

MOST_STEPS: Final = 1e6
"""Most steps, in the worst case, of a search in one text at a collector: some milliseconds."""
LONGEST: Final = 1000
"""Most characters of an expression that a collector uses."""


class Line(Protocol):
    """The fields of a LogEntry that a filter reads."""

    @property
    def text(self) -> str: ...
    @property
    def level(self) -> int: ...
    @property
    def application(self) -> str: ...


class Sieve:
    """A filter.

    level: the least level.
    applications: only entries of these; all when empty.
    grep: a regular expression that is searched in the text; empty for none.
    """

    def __init__(self, level: int = 0, applications: Iterable[str] = (), grep: str = "") -> None:
        """Raises: ConfigurationError when `grep` is not a regular expression."""
        self.level = level
        self.applications = frozenset(applications)
        self.grep = grep
        self.exponent = exponent(grep)
        try:
            with warnings.catch_warnings(
                action="ignore"
            ):  # about syntax that may change in later Python versions
                self.pattern = re.compile(grep) if grep else None
        except (re.error, OverflowError, RecursionError) as error:
            raise ConfigurationError(f"{grep!r} is not a regular expression: {error}") from error

    @property
    def open(self) -> bool:
        """Whether all entries pass."""
        return not (self.level or self.applications or self.pattern)

    def passes(self, line: Line) -> bool:
        """Whether the line passes. May take as long as the expression needs."""
        if not self._rough(line):
            return False
        return self.pattern is None or self.pattern.search(line.text) is not None

    def may_pass(self, line: Line) -> bool:
        """False only for a line that does not pass. Takes a bounded time."""
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
    """A filter from the query of an untrusted viewer.

    An expression of unknown cost is not compiled, and then not applied. Raises: ConfigurationError.
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
    """The power of n + 1 that bounds the steps of a search in n characters; None when unknown.

    Each quantifier multiplies the steps by at most n + 1, and each alternative within a group by 2,
    as long as no group is repeated. The search starts at n + 1 positions. The bound is coarse, but
    never too low.
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
