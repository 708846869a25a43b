"""Who may do what: rules over users, groups, actions and names, and the names of tenants.

Once any rule exists, what no rule allows is denied, and a rule that denies wins over every one that
allows. A question is asked once: the verdict is then found in a dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, Protocol, TypeAlias

from majordomus.errors import ConfigurationError
from majordomus.protocol import spec

CALL: Final = "call"
SERVE: Final = "serve"
PUBLISH: Final = "publish"
SUBSCRIBE: Final = "subscribe"
MANAGE: Final = "manage"
ACTIONS: Final = (CALL, SERVE, PUBLISH, SUBSCRIBE, MANAGE)

RESERVED: Final = (spec.MMI_PREFIX, b"titanic.", b"$")
"""How the names begin that no peer can serve or publish, whatever the rules say."""
UNPREFIXED: Final = RESERVED
"""Names that mean the same to every tenant."""

NOT_FOR_PEERS: Final = (SERVE, PUBLISH)
"""What no peer may do with such a name. An event of that name would pass from one tenant to
another."""

MOST_VERDICTS: Final = 65_536
"""Verdicts that are remembered. Who asks for ever new names makes the cache begin again."""


class Rule(NamedTuple):
    """One rule. It speaks of whoever one of `users` or `groups` matches, and of everybody, known or
    not, when it names neither. ``source`` tells people where it stands."""

    allow: bool
    actions: frozenset[str]
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    names: tuple[str, ...] = ("*",)
    source: str = "a rule"


class Verdict(NamedTuple):
    """Whether, and because of which rule. ``why`` is for operators: it is never told to peers."""

    allowed: bool
    why: str


class HasAccessRules(Protocol):
    """A caller or a peer."""

    @property
    def user(self) -> str: ...
    @property
    def groups(self) -> tuple[str, ...]: ...
    @property
    def prefix(self) -> bytes: ...


Matcher: TypeAlias = Callable[[str], object]
NO_RULES: Final = Verdict(True, "there are no rules")
NO_RULE_ALLOWS: Final = Verdict(False, "no rule allows it")
NO_ONE: Final = Verdict(
    False, "no one can serve or publish a name that begins with mmi., titanic. or $"
)


class AccessRules:
    """The rules of one broker, compiled. `tenants`: group → prefix of every name that it uses."""

    def __init__(self, rules: Iterable[Rule], tenants: Mapping[str, str] | None = None) -> None:
        compiled = [_Compiled(rule) for rule in rules]
        self._any = bool(compiled)
        self._denials = [one for one in compiled if not one.rule.allow]
        self._grants = [one for one in compiled if one.rule.allow]
        self._tenants = {group: prefix.encode() for group, prefix in (tenants or {}).items()}
        self._verdicts: dict[tuple[str, tuple[str, ...], str, bytes], Verdict] = {}

    def allows(self, user: str, groups: tuple[str, ...], action: str, name: bytes) -> Verdict:
        """Whether `user` (empty: nobody knows who it is) may do `action` with `name`, which is
        written in full, a tenant's prefix included. For "subscribe", `name` is a pattern, and all
        of its topics are asked for at once."""
        key = (user, groups, action, name)
        verdict = self._verdicts.get(key)
        if verdict is None:
            if len(self._verdicts) >= MOST_VERDICTS:
                self._verdicts.clear()
            verdict = self._verdicts[key] = self._judge(user, groups, action, name)
        return verdict

    def prefix(self, groups: tuple[str, ...]) -> bytes:
        """What stands in front of the names of who is in `groups`: of the first that is a
        tenant's; empty when none is."""
        for group in groups:
            if group in self._tenants:
                return self._tenants[group]
        return b""

    def callable_by(self, caller: HasAccessRules, names: Iterable[bytes]) -> list[bytes]:
        """Those of the full `names` that `caller` may call, as it calls them."""
        user, groups, prefix = caller.user, caller.groups, caller.prefix
        return [
            shown_name(prefix, name)
            for name in names
            if name.startswith(prefix) and self.allows(user, groups, CALL, name).allowed
        ]

    def _judge(self, user: str, groups: tuple[str, ...], action: str, name: bytes) -> Verdict:
        if action in NOT_FOR_PEERS and name.startswith(RESERVED):
            return NO_ONE
        if not self._any:
            return NO_RULES
        text = name.decode("utf-8", "replace")
        for one in self._denials:
            if one.speaks_of(user, groups, action) and one.meets(action, text):
                return Verdict(False, f"{one.rule.source} denies it")
        for one in self._grants:
            if one.speaks_of(user, groups, action) and one.covers(action, text):
                return Verdict(True, f"{one.rule.source} allows it")
        return NO_RULE_ALLOWS


def full_name(prefix: bytes, name: bytes) -> bytes:
    """The name by which the broker knows what a tenant calls `name`."""
    if not prefix or name.startswith(UNPREFIXED):
        return name
    return prefix + name


def shown_name(prefix: bytes, name: bytes) -> bytes:
    """What a tenant calls the thing that the broker knows as `name`."""
    return name[len(prefix) :] if prefix and name.startswith(prefix) else name


class _Compiled:
    """A rule whose globs are ready to be used."""

    def __init__(self, rule: Rule) -> None:
        unknown = sorted(rule.actions - set(ACTIONS))
        if unknown:
            raise ConfigurationError(
                f"{rule.source}: unknown action {unknown[0]!r}; there is: {', '.join(ACTIONS)}"
            )
        self.rule = rule
        self._everybody = not rule.users and not rule.groups
        self._users = [_glob(glob) for glob in rule.users if glob]
        self._nobody = "" in rule.users
        self._groups = [_glob(glob) for glob in rule.groups]
        self._names = [_glob(glob) for glob in rule.names]

    def speaks_of(self, user: str, groups: tuple[str, ...], action: str) -> bool:
        if action not in self.rule.actions:
            return False
        if self._everybody or (user and any(match(user) for match in self._users)):
            return True
        if self._nobody and not user:
            return True
        return any(match(group) for match in self._groups for group in groups)

    def covers(self, action: str, name: str) -> bool:
        """Whether the names of this rule hold `name`; of a pattern, all that it may stand for."""
        if action == SUBSCRIBE:
            name = _marked(name)
        return any(match(name) for match in self._names)

    def meets(self, action: str, name: str) -> bool:
        """Whether the names of this rule hold `name`; of a pattern, anything that it may stand
        for."""
        if action == SUBSCRIBE:
            pattern = _symbols_of_pattern(name)
            return any(_intersect(_symbols_of_glob(glob), pattern) for glob in self.rule.names)
        return any(match(name) for match in self._names)


# ── globs: * is any number of characters, ? is one ────────────────────────────────────────────────

_MARK: Final = "\x00"
"""Stands for the wild token of a pattern where only a `*` may hold it."""


def _glob(glob: str) -> Matcher:
    """Takes the first place where each part fits and never looks back: names are peers', and a rule
    with many stars must not cost more for one of them than for another."""
    first, *rest = (
        "".join(f"[^{_MARK}]" if char == "?" else re.escape(char) for char in part)
        for part in glob.split("*")
    )
    if rest:
        *middle, last = rest
        first += "".join(f"(?>.*?{part})" for part in middle if part) + ".*" + last
    return re.compile(first, re.DOTALL).fullmatch


def _marked(pattern: str) -> str:
    return ".".join(_MARK if part in WILD else part for part in pattern.split("."))


WILD: Final = ("*", ">")
"""The tokens of a pattern of topics that stand for others."""
_ANY: Final = "any"
_MANY: Final = "many"
_MANY_BUT_DOTS: Final = "many, and no dot"
_Symbol: TypeAlias = tuple[str, str]
"""(kind, character): one character that is fixed has the kind ""."""


def _symbols_of_glob(glob: str) -> list[_Symbol]:
    kinds = {"*": _MANY, "?": _ANY}
    return [(kinds.get(char, ""), char) for char in glob]


def _symbols_of_pattern(pattern: str) -> list[_Symbol]:
    symbols: list[_Symbol] = []
    for part in pattern.split("."):
        if symbols:
            symbols.append(("", "."))
        if part == "*":
            symbols.append((_MANY_BUT_DOTS, ""))
        elif part == ">":
            symbols.append((_MANY, ""))
        else:
            symbols.extend(("", char) for char in part)
    return symbols


def _intersect(one: list[_Symbol], other: list[_Symbol]) -> bool:
    """Whether some text is described by both."""
    reached = {(0, 0)}
    waiting = [(0, 0)]
    while waiting:
        i, j = waiting.pop()
        if i == len(one) and j == len(other):
            return True
        for step in _steps(one, i, other, j):
            if step not in reached:
                reached.add(step)
                waiting.append(step)
    return False


def _steps(one: list[_Symbol], i: int, other: list[_Symbol], j: int) -> list[tuple[int, int]]:
    left = one[i] if i < len(one) else None
    right = other[j] if j < len(other) else None
    steps = []
    if left is not None and left[0] == _MANY:
        steps.append((i + 1, j))
        if right is not None:
            steps.append((i, j + 1))
    if right is not None and right[0] in (_MANY, _MANY_BUT_DOTS):
        steps.append((i, j + 1))
        if left is not None and (right[0] == _MANY or left != ("", ".")):
            steps.append((i + 1, j))
    if left is not None and right is not None and _alike(left, right):
        steps.append((i + 1, j + 1))
    return steps


def _alike(left: _Symbol, right: _Symbol) -> bool:
    if _MANY in (left[0], right[0]) or right[0] == _MANY_BUT_DOTS:
        return False
    return left[0] == _ANY or left[1] == right[1]
