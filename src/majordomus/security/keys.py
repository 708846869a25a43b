"""The CURVE keys that may connect, and the identity of each: a TOML file, or a folder of public
certificates.

    [[key]]
    public = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
    user = "ann"
    groups = ["operators"]

In a folder, every file `*.key` counts. Its metadata are `user` (by default the name of the file)
and `groups` (separated by commas). Nothing here uses a clock: the caller decides when to check for
changes.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from majordomus.core.broker.state.identity import UNIX_USER, Identity
from majordomus.errors import ConfigurationError
from majordomus.security import certificates, files

LONGEST: Final = 255
"""Characters of a user's or group's name."""
TABLE: Final = "key"
FIELDS: Final = ("public", "user", "groups")
MOST: Final = 1_000_000
"""Most keys that are read."""

Keys: TypeAlias = Mapping[str, Identity]
"""The identity for each public key."""
Signature: TypeAlias = tuple[tuple[str, files.Stamp], ...]
"""Name and stamp of each file: it changes when a file does."""


def check_user(name: str) -> str:
    """Check the name of a user, and return it. Raises: ConfigurationError."""
    return _checked(name, "a user's name")


def check_group(name: str) -> str:
    """Check the name of a group, and return it. Raises: ConfigurationError."""
    checked = _checked(name, "a group's name")
    if "," in name or name != name.strip():
        raise ConfigurationError(
            f"{name!r}: a group's name must have no comma and no blanks around it"
        )
    return checked


def _checked(name: str, what: str) -> str:
    if isinstance(name, str) and name.startswith(UNIX_USER):
        raise ConfigurationError(
            f"{name!r:.60}: {what} must not begin with {UNIX_USER} (Unix users of ipc connections)"
        )
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST:
        raise ConfigurationError(f"{what} must be 1 to {LONGEST} characters, not {name!r:.60}")
    if not name.isprintable() or '"' in name:
        raise ConfigurationError(
            f"{name!r}: {what} must have printable characters only, and no quotes"
        )
    return name


def signature(path: Path) -> Signature:
    """The signature of the files that `load` reads; empty without any.

    Raises: ConfigurationError.
    """
    try:
        if path.is_dir():
            return tuple(sorted((one.name, _stamp_of(one)) for one in _certificates(path)))
        return ((path.name, files.stamp(path)),)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error


def _stamp_of(entry: os.DirEntry[str]) -> files.Stamp:
    """The stamp of a file of the folder; zeros for one that is gone, or a link to nothing. Such a
    file is left out, and does not hide the others."""
    try:
        return files.stamp(entry)
    except FileNotFoundError:
        return (0, 0, 0, 0)


def load(path: Path, problems: list[str] | None = None) -> Keys:
    """Read all keys that may connect.

    With `problems`, an invalid file of a folder is skipped, and its error is added there. A file
    that is just being written must not delay the removal of other keys.

    Raises: ConfigurationError with the place of the mistake.
    """
    pairs = _from_folder(path, problems) if path.is_dir() else _from_file(path)
    known: dict[str, Identity] = {}
    for where, identity in pairs:
        if identity.key in known:
            raise ConfigurationError(f"{where}: the key {identity.key} is listed twice")
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
    files.check_folder(path)
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
        if _is_certificate(path):
            raise ConfigurationError(
                f"{path} is a certificate: give the folder that holds it, or a TOML file of keys"
            ) from None
        raise ConfigurationError(f"{path}: {error}") from error
    entries = document.pop(TABLE, [])
    if document or not isinstance(entries, list):
        raise ConfigurationError(f"{path}: only tables [[{TABLE}]] are allowed")
    for number, entry in enumerate(entries, 1):
        where = f"{path}: [[{TABLE}]] number {number}"
        try:
            yield where, _identity(entry)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from error


def _is_certificate(path: Path) -> bool:
    try:
        certificates.read(path)
    except ConfigurationError:
        return False
    return True


def _identity(entry: object) -> Identity:
    if not isinstance(entry, dict):
        raise ConfigurationError("this must be a table")
    for name in entry:
        if name not in FIELDS:
            raise ConfigurationError(
                f"unknown key {name!r}; the known ones are {', '.join(FIELDS)}"
            )
    groups = entry.get("groups", [])
    if not isinstance(groups, list):
        raise ConfigurationError("groups must be a list of names")
    return Identity(
        check_user(entry.get("user", "")),
        tuple(check_group(group) for group in groups),
        certificates.check_key(entry.get("public", ""), "public"),
    )
