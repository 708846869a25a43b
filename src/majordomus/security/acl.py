"""Access rules as people write them: a TOML file, checked, and read again when it changes.

    [[rule]]
    allow = ["call"]              # or deny = …: call, serve, publish, subscribe, manage
    users = ["ann", "build-*"]    # who one of these or one of `groups` matches;
    groups = ["staff"]            #   everybody, known or not, when both are left out
    names = ["shop.*"]            # services and topics; all when left out

    [tenants]
    acme = "acme."                # group = what stands in front of the names that it uses

In a glob `*` is any number of characters and `?` is one; the user `""` is who is not known. Nothing
here looks at a clock: whoever wants to see changes asks again.
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
"""Bytes. What is left of a name's 255 is the tenant's own."""


class _Written(msgspec.Struct, forbid_unknown_fields=True):
    """One [[rule]]."""

    allow: list[str] | None = None
    deny: list[str] | None = None
    users: list[str] | None = None
    groups: list[str] | None = None
    names: list[str] | None = None


def load(path: Path) -> AccessRules:
    """The rules in `path`. Raises: ConfigurationError, one line that says where what is wrong."""
    try:
        document = tomllib.loads(files.read(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    for name in document:
        if name not in ("rule", "tenants"):
            raise ConfigurationError(f"{path}: unknown table {name!r}; there is: rule, tenants")
    written = document.get("rule", [])
    if not isinstance(written, list):
        raise ConfigurationError(f"{path}: rules are written as [[rule]], with two brackets")
    rules = [_rule(path, number, one) for number, one in enumerate(written, 1)]
    return AccessRules(rules, _tenants(path, document.get("tenants", {})))


def _stamp(path: Path) -> files.Stamp | None:
    """Of the file as it is now. Raises nothing: a file that cannot be seen is not there."""
    try:
        return files.stamp(path)
    except OSError:
        return None


class AclFile:
    """The rules of one file. `changed` finds out whether it says something else by now.

    No rules allow everything, and who writes a file anew leaves it empty for a moment: that counts
    only when it is so at two looks, as it is with keys and passwords (watched.py).
    """

    def __init__(self, path: Path) -> None:
        """Raises: ConfigurationError when it cannot be read; a broker does not begin without."""
        self.path = path
        self._seen = _stamp(path)
        self._doubtful = False
        self.rights = load(path)

    def changed(self) -> bool:
        """Whether `rights` are new since the last look.

        Raises: ConfigurationError, once for each change, when the file is broken now, or gone:
        the rights stay as they were.
        """
        now = _stamp(self.path)
        if now == self._seen:
            self._doubtful = False
            return False
        _, size, _ = now or (0, -1, 0)
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
        raise ConfigurationError(f"{where}: either allow = [...] or deny = [...] is wanted")
    for name in ("allow", "deny", "users", "groups", "names"):
        if getattr(one, name) == []:
            raise ConfigurationError(f"{where}: {name} is empty; left out it means all")
    actions = one.allow if one.allow is not None else one.deny or []
    for action in actions:
        if action not in ACTIONS:
            raise ConfigurationError(
                f"{where}: unknown action {action!r}; there is: {', '.join(ACTIONS)}"
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
            raise ConfigurationError(f"{where}: {prefix!r} begins like the broker's own names")
        for other, theirs in tenants.items():
            if other != group and prefix.startswith(theirs) and prefix != theirs:
                raise ConfigurationError(
                    f"{where}: {prefix!r} begins with {theirs!r}, the prefix of {other}: "
                    "they would meet"
                )
    return tenants
