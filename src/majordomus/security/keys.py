"""Which CURVE keys may connect, and who each one is: a TOML file, or a folder of public
certificates.

    [[key]]
    public = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
    user = "ann"
    groups = ["operators"]

In a folder every `*.key` counts, with its metadata `user` (by default the file's name) and
`groups` (parted by commas). Nothing here looks at a clock: whoever wants to see changes asks again.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from majordomus.core.broker.state.identity import Identity
from majordomus.errors import ConfigurationError
from majordomus.security import certificates, files

LONGEST: Final = 255
"""Characters of a user's or group's name."""
TABLE: Final = "key"
FIELDS: Final = ("public", "user", "groups")
MOST: Final = 1_000_000
"""Keys that are read."""

Keys: TypeAlias = Mapping[str, Identity]
"""Who each public key is."""
Signature: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""What changes when the files do: name, time of the last change, size, inode of each."""


def check_user(name: str) -> str:
    """`name`, when a user may be called so. Raises: ConfigurationError."""
    return _checked(name, "a user's name")


def check_group(name: str) -> str:
    """`name`, when a group may be called so. Raises: ConfigurationError."""
    checked = _checked(name, "a group's name")
    if "," in name or name != name.strip():
        raise ConfigurationError(f"{name!r}: a group's name has no comma, nor blanks around it")
    return checked


def _checked(name: str, what: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST:
        raise ConfigurationError(f"{what} is text of 1 to {LONGEST} characters, not {name!r:.60}")
    if not name.isprintable() or '"' in name:
        raise ConfigurationError(f"{name!r}: {what} has only printable characters and no quotes")
    return name


def signature(path: Path) -> Signature:
    """Of what `load` would read; empty when there is nothing. Raises: ConfigurationError."""
    try:
        if path.is_dir():
            return tuple(sorted((one.name, *files.stamp(one)) for one in _certificates(path)))
        return ((path.name, *files.stamp(path)),)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error


def load(path: Path, problems: list[str] | None = None) -> Keys:
    """All keys that may connect.

    A file of a folder that cannot be used is left out, and added to `problems`, if that is given:
    one that is being written must not keep the others from being taken away.
    Raises: ConfigurationError that says where what is wrong.
    """
    pairs = _from_folder(path, problems) if path.is_dir() else _from_file(path)
    known: dict[str, Identity] = {}
    for where, identity in pairs:
        if identity.key in known:
            raise ConfigurationError(f"{where}: the key {identity.key} is there twice")
        if len(known) >= MOST:
            raise ConfigurationError(f"{path}: more than {MOST:,} keys")
        known[identity.key] = identity
    return known


def _certificates(path: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.endswith(".key") and not entry.name.startswith("."):
                yield entry


def _from_folder(path: Path, problems: list[str] | None) -> Iterator[tuple[str, Identity]]:
    try:
        names = sorted(entry.name for entry in _certificates(path))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
    for name in names:
        try:
            identity = _of_certificate(path / name)
        except ConfigurationError as error:
            if problems is None:
                raise
            problems.append(str(error))
        else:
            yield str(path / name), identity


def _of_certificate(path: Path) -> Identity:
    found = certificates.read(path)
    groups = found.metadata.get("groups", "").split(",")
    return Identity(
        check_user(found.metadata.get("user") or path.name.removesuffix(".key")),
        tuple(check_group(group.strip()) for group in groups if group.strip()),
        found.public,
    )


def _from_file(path: Path) -> Iterator[tuple[str, Identity]]:
    try:
        document = tomllib.loads(files.read(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    entries = document.pop(TABLE, [])
    if document or not isinstance(entries, list):
        raise ConfigurationError(f"{path}: only tables [[{TABLE}]] are known here")
    for number, entry in enumerate(entries, 1):
        where = f"{path}: [[{TABLE}]] number {number}"
        try:
            yield where, _identity(entry)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from error


def _identity(entry: object) -> Identity:
    if not isinstance(entry, dict):
        raise ConfigurationError("a table is wanted")
    for name in entry:
        if name not in FIELDS:
            raise ConfigurationError(f"unknown key {name!r}; there are {', '.join(FIELDS)}")
    groups = entry.get("groups", [])
    if not isinstance(groups, list):
        raise ConfigurationError("groups is a list of names")
    return Identity(
        check_user(entry.get("user", "")),
        tuple(check_group(group) for group in groups),
        certificates.check_key(entry.get("public", ""), "public"),
    )
