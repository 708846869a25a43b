"""Access rules in a TOML file, which is read again when it changes.

    [[rule]]
    allow = ["call"]              # or deny = …: call, serve, publish, subscribe, manage
    users = ["ann", "build-*"]    # the rule applies if one of `users` or `groups` matches;
    groups = ["staff"]            #   without both it applies to all peers, also anonymous ones
    names = ["shop.*"]            # services and topics; all when left out
                                  #   "notes.$user.*": the name of the user that asks

    [tenants]
    acme = "acme."                # group = prefix of the names that its users see

In a pattern, `*` matches any number of characters and `?` one. The user `""` matches
unauthenticated peers. Nothing here uses a clock: the caller decides when to check for changes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from majordomus.core.broker.state.access_rules import ACTIONS, RESERVED, AccessRules, Rule
from majordomus.errors import ConfigurationError
from majordomus.security import files

LONGEST_PREFIX: Final = 100
"""Bytes of a prefix. The rest of a name's 255 bytes is the tenant's."""


class _Written(msgspec.Struct, forbid_unknown_fields=True):
    """One table [[rule]] as written. Its fields are those of the module's docstring."""

    allow: list[str] | None = None
    deny: list[str] | None = None
    users: list[str] | None = None
    groups: list[str] | None = None
    names: list[str] | None = None


def load(path: Path) -> AccessRules:
    """Read the rules in `path`. Raises: ConfigurationError with the place of the mistake."""
    try:
        document = tomllib.loads(files.read(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    for name in document:
        if name not in ("rule", "tenants"):
            raise ConfigurationError(
                f"{path}: unknown table {name!r}; the known ones are rule and tenants"
            )
    written = document.get("rule", [])
    if not isinstance(written, list):
        raise ConfigurationError(f"{path}: rules are written as [[rule]], with two brackets")
    rules = [_rule(path, number, one) for number, one in enumerate(written, 1)]
    return AccessRules(rules, _tenants(path, document.get("tenants", {})))


def _stamp(path: Path) -> files.Stamp | None:
    """The stamp of the file now; None when it cannot be read."""
    try:
        return files.stamp(path)
    except OSError:
        return None


class AclFile:
    """The access rules of one file, read again when it changes.

    An empty file allows everything, and a file is empty for a moment while an editor writes it. So
    an empty file counts only when two consecutive checks find it (as in watched.py).

    path: the file.
    rights: the rules of the last valid version.
    """

    def __init__(self, path: Path) -> None:
        """Read the file. Raises: ConfigurationError when it cannot be read."""
        self.path = path
        self._seen = _stamp(path)
        self._doubtful = False
        self.rights = load(path)

    def changed(self) -> bool:
        """Read the file again if it has changed. True when `rights` are new.

        Raises: ConfigurationError, once for each change, when the file is now invalid or missing.
            Then `rights` stay as they were.
        """
        now = _stamp(self.path)
        if now == self._seen:
            self._doubtful = False
            return False
        size = -1 if now is None else now[1]
        if size == 0 and not self._doubtful:
            self._doubtful = True
            return False
        self._seen, self._doubtful = now, False
        self.rights = load(self.path)
        return True


def _rule(path: Path, number: int, written: Any) -> Rule:
    where = f"{path}: rule {number}"
    try:
        one = msgspec.convert(written, _Written)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    if (one.allow is None) == (one.deny is None):
        raise ConfigurationError(f"{where}: write either allow = [...] or deny = [...]")
    for name in ("allow", "deny", "users", "groups", "names"):
        if getattr(one, name) == []:
            raise ConfigurationError(f"{where}: {name} is empty; leave it out to match all")
    actions = one.allow if one.allow is not None else one.deny or []
    for action in actions:
        if action not in ACTIONS:
            raise ConfigurationError(
                f"{where}: unknown action {action!r}; the known ones are {', '.join(ACTIONS)}"
            )
    return Rule(
        allow=one.allow is not None,
        actions=frozenset(actions),
        users=tuple(one.users or ()),
        groups=tuple(one.groups or ()),
        names=tuple(one.names or ("*",)),
        source=f"rule {number} of {path.name}",
    )


def _tenants(path: Path, written: object) -> Mapping[str, str]:
    try:
        tenants = msgspec.convert(written, dict[str, str])
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: tenants: {error}") from error
    for group, prefix in tenants.items():
        where = f"{path}: tenants: {group}"
        if not 0 < len(prefix.encode()) <= LONGEST_PREFIX or not prefix.isprintable():
            raise ConfigurationError(
                f"{where}: a prefix has 1 to {LONGEST_PREFIX} printable characters"
            )
        if prefix.encode().startswith(RESERVED):
            raise ConfigurationError(
                f"{where}: {prefix!r} is reserved: the broker's own names begin with it"
            )
        for other, theirs in tenants.items():
            if other != group and prefix.startswith(theirs) and prefix != theirs:
                raise ConfigurationError(
                    f"{where}: {prefix!r} begins with {theirs!r}, the prefix of {other}: "
                    "their names would overlap"
                )
    return tenants
