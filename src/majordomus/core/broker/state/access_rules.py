"""Access rules over users, groups, actions and names; the prefixes of tenants' names.

Once there is any rule, an action that no rule allows is denied, and a rule that denies wins over
every rule that allows. Verdicts are cached.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, Protocol, TypeAlias

from majordomus.core.broker.state.identity import UNIX_USER
from majordomus.errors import ConfigurationError
from majordomus.protocol import spec

CALL: Final = "call"
SERVE: Final = "serve"
PUBLISH: Final = "publish"
SUBSCRIBE: Final = "subscribe"
MANAGE: Final = "manage"
ACTIONS: Final = (CALL, SERVE, PUBLISH, SUBSCRIBE, MANAGE)

RESERVED: Final = spec.RESERVED_NAMES
"""Prefixes of the names that no peer can serve or publish, whatever the rules allow. `titanic.` is
not one of them: RFC 9 leaves these services to workers, and this broker has no store of its own."""
UNPREFIXED: Final = RESERVED
"""Prefixes of the names that are the same for every tenant."""

NOT_FOR_PEERS: Final = (SERVE, PUBLISH)
"""Actions that no peer may do with a reserved name. An event of such a name would pass from one
tenant to another."""

USER: Final = "$user"
"""In the names of a rule: the name of the user that asks."""
NO_TOKEN_HAS: Final = frozenset(".*>?\x00")
"""A user name with one of these is not one token of a name: `$user` never stands for it."""

MOST_VERDICTS: Final = 65_536
"""Cached verdicts. The cache is cleared when it is full, so that new names cannot make it grow."""


class Rule(NamedTuple):
    """One access rule. It applies to a user that one of `users` or `groups` matches, and to every
    user, authenticated or not, when both are empty.

    allow: whether it allows or denies.
    actions: the actions that it is about.
    users: globs of user names; "" matches unauthenticated clients. A glob that begins with `uid:`
        matches the Unix user of an ipc connection, unless a token names its user.
    groups: globs of group names.
    names: globs of full names of services or topics. A token `$user` is the name of the user.
    source: where it is written, for messages.
    """

    allow: bool
    actions: frozenset[str]
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    names: tuple[str, ...] = ("*",)
    source: str = "a rule"


class Verdict(NamedTuple):
    """Whether an action is allowed, and because of which rule. `why` is for operators: it is never
    sent to peers."""

    allowed: bool
    why: str


class HasAccessRules(Protocol):
    """The attributes of a caller or a peer that the rules use."""

    @property
    def user(self) -> str: ...
    @property
    def groups(self) -> tuple[str, ...]: ...
    @property
    def prefix(self) -> bytes: ...


Matcher: TypeAlias = Callable[[str], object]
NO_RULES: Final = Verdict(True, "there are no rules")
NO_RULE_ALLOWS: Final = Verdict(False, "no rule allows it")
NO_TOKEN: Final = Verdict(
    False, "no rule allows it: $user stands for no name that is empty or has one of . * > ?"
)
NO_ONE: Final = Verdict(False, "no one can serve or publish a name that begins with mmi. or $")


class AccessRules:
    """The rules of one broker, compiled. `tenants` maps a group to the prefix of its names."""

    def __init__(self, rules: Iterable[Rule], tenants: Mapping[str, str] | None = None) -> None:
        compiled = [_Compiled(rule) for rule in rules]
        self._any = bool(compiled)
        self._denials = [one for one in compiled if not one.rule.allow]
        self._grants = [one for one in compiled if one.rule.allow]
        self._tenants = {group: prefix.encode() for group, prefix in (tenants or {}).items()}
        self._verdicts: dict[tuple[str, tuple[str, ...], str, bytes], Verdict] = {}

    @property
    def count(self) -> int:
        """How many rules there are."""
        return len(self._denials) + len(self._grants)

    def allows(self, user: str, groups: tuple[str, ...], action: str, name: bytes) -> Verdict:
        """Decide whether `user` (empty when it is not authenticated) may do `action` with the full
        `name`. For "subscribe", `name` is a pattern, and the verdict is about all of its topics."""
        key = (user, groups, action, name)
        verdict = self._verdicts.get(key)
        if verdict is None:
            if len(self._verdicts) >= MOST_VERDICTS:
                self._verdicts.clear()
            verdict = self._verdicts[key] = self._decide(user, groups, action, name)
        return verdict

    def prefix(self, groups: tuple[str, ...]) -> bytes:
        """Return the prefix of the first of `groups` that is a tenant; empty when none is."""
        for group in groups:
            if group in self._tenants:
                return self._tenants[group]
        return b""

    def callable_by(self, caller: HasAccessRules, names: Iterable[bytes]) -> list[bytes]:
        """Return those of the full `names` that `caller` may call, without its prefix."""
        user, groups, prefix = caller.user, caller.groups, caller.prefix
        return [
            shown_name(prefix, name)
            for name in names
            if name.startswith(prefix) and self.allows(user, groups, CALL, name).allowed
        ]

    def _decide(self, user: str, groups: tuple[str, ...], action: str, name: bytes) -> Verdict:
        if action in NOT_FOR_PEERS and name.startswith(RESERVED):
            return NO_ONE
        if not self._any:
            return NO_RULES
        text = name.decode("utf-8", "replace")
        for one in self._denials:
            if one.applies_to(user, groups, action) and one.intersects(action, text, user):
                return Verdict(False, f"{one.rule.source} denies it")
        lacks_token = False
        for one in self._grants:
            if one.applies_to(user, groups, action):
                if one.covers(action, text, user):
                    return Verdict(True, f"{one.rule.source} allows it")
                lacks_token |= bool(one.of_users) and not is_token(user)
        return NO_TOKEN if lacks_token else NO_RULE_ALLOWS


def full_name(prefix: bytes, name: bytes) -> bytes:
    """Return the full name of what a tenant calls `name`."""
    if not prefix or name.startswith(UNPREFIXED):
        return name
    return prefix + name


def shown_name(prefix: bytes, name: bytes) -> bytes:
    """Return a tenant's name of the full `name`."""
    return name[len(prefix) :] if prefix and name.startswith(prefix) else name


def is_token(user: str) -> bool:
    """Whether `$user` can stand for this name: a name with dots or wildcards would be in the names
    of another user, or match them."""
    return bool(user) and NO_TOKEN_HAS.isdisjoint(user)


class _OfUser:
    """A glob of a rule with the token `$user`.

    Nothing before that token is a wildcard, so the names of one user begin with one text. A rule
    that denies applies to the names of all users where the user's own name is not one token.
    """

    def __init__(self, glob: str, source: str) -> None:
        """Raises: ConfigurationError."""
        tokens = glob.split(".")
        if tokens.count(USER) != 1 or glob.count(USER) != 1:
            raise ConfigurationError(
                f"{source}: {glob!r}: write {USER} once, as a whole word between dots"
            )
        at = tokens.index(USER)
        self._before = "".join(f"{token}." for token in tokens[:at])
        self._after = "".join(f".{token}" for token in tokens[at + 1 :])
        if set(self._before) & set("*?"):
            raise ConfigurationError(
                f"{source}: {glob!r}: no * or ? may stand before {USER}: "
                "it would match names of other users"
            )
        self._rest = _glob(self._after)
        self._of_all = _glob(f"{self._before}*{self._after}")

    def covers(self, user: str, name: str) -> bool:
        begin = self._before + user
        return is_token(user) and name.startswith(begin) and bool(self._rest(name[len(begin) :]))

    def denies(self, user: str, name: str) -> bool:
        return self.covers(user, name) if is_token(user) else bool(self._of_all(name))

    def symbols(self, user: str) -> list[_Symbol]:
        own: list[_Symbol] = [("", char) for char in user] if is_token(user) else [(_MANY, "*")]
        return [*_symbols_of_glob(self._before), *own, *_symbols_of_glob(self._after)]


class _Compiled:
    """A rule with compiled globs."""

    def __init__(self, rule: Rule) -> None:
        unknown = sorted(rule.actions - set(ACTIONS))
        if unknown:
            raise ConfigurationError(
                f"{rule.source}: unknown action {unknown[0]!r}; "
                f"the known ones are {', '.join(ACTIONS)}"
            )
        self.rule = rule
        self._every_user = not rule.users and not rule.groups
        self._users = [_glob(glob) for glob in rule.users if glob]
        self._unix_users = [_glob(glob) for glob in rule.users if glob.startswith(UNIX_USER)]
        self._unauthenticated = "" in rule.users
        self._groups = [_glob(glob) for glob in rule.groups]
        self.of_users = [_OfUser(glob, rule.source) for glob in rule.names if USER in glob]
        self._globs = [glob for glob in rule.names if USER not in glob]
        self._names = [_glob(glob) for glob in self._globs]

    def applies_to(self, user: str, groups: tuple[str, ...], action: str) -> bool:
        if action not in self.rule.actions:
            return False
        if self._every_user or (user and any(match(user) for match in self._users)):
            return True
        if self._unauthenticated and not user:
            return True
        return any(
            match(group)
            for group in groups
            for match in (self._unix_users if group.startswith(UNIX_USER) else self._groups)
        )

    def covers(self, action: str, name: str, user: str) -> bool:
        """Whether the names of this rule match `name`; for a pattern, all of its topics."""
        if action == SUBSCRIBE:
            name = _marked(name)
        if any(match(name) for match in self._names):
            return True
        return any(one.covers(user, name) for one in self.of_users)

    def intersects(self, action: str, name: str, user: str) -> bool:
        """Whether the names of this rule match `name`; for a pattern, any of its topics."""
        if action == SUBSCRIBE:
            pattern = _symbols_of_pattern(name)
            globs = [_symbols_of_glob(glob) for glob in self._globs]
            globs += [one.symbols(user) for one in self.of_users]
            return any(_intersect(glob, pattern) for glob in globs)
        if any(match(name) for match in self._names):
            return True
        return any(one.denies(user, name) for one in self.of_users)


# ── globs: * is any number of characters, ? is one ────────────────────────────────────────────────

_MARK: Final = "\x00"
"""Replaces the wildcard token of a pattern; of a glob, only `*` matches it."""


def _glob(glob: str) -> Matcher:
    """Compile a glob to a regular expression that takes the first match of each part and never
    backtracks. Names come from peers: a rule with many stars must not cost more for some names."""
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
"""The wildcard tokens of a pattern."""
_ANY: Final = "any"
_MANY: Final = "many"
_MANY_BUT_DOTS: Final = "many, and no dot"
_Symbol: TypeAlias = tuple[str, str]
"""(kind, character): a literal character has the kind ""."""


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
    """Whether any text matches both."""
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
