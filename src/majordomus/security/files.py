"""Files that hold secrets: written so that nobody else can ever read them, read only when nobody
else can.

A new file appears under its name complete or not at all, and takes no other's place.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final, TypeAlias

from majordomus.errors import ConfigurationError

SECRET: Final = 0o600
PUBLIC: Final = 0o644
OTHERS: Final = 0o077
LARGEST: Final = 16 << 20
"""Bytes of a file that is read as a whole."""


Stamp: TypeAlias = tuple[int, int, int]
"""When a file was written, its size and which file it is: it changes when the file does."""


def stamp(path: Path | os.DirEntry[str]) -> Stamp:
    """Of a file as it is now. Raises: OSError."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def create(path: Path, text: str, mode: int) -> None:
    """Makes a new file; its mode holds from its first byte on.

    Raises: ConfigurationError when there is such a file already, or it cannot be written.
    """
    part = _write_part(path, text, mode)
    try:
        try:
            os.link(part, path)  # unlike a rename, this takes nobody's place
        except FileExistsError:
            raise ConfigurationError(f"{path} is there already; it is not overwritten") from None
        except OSError:  # a file system without links
            _create_in_place(path, text, mode)
    finally:
        part.unlink(missing_ok=True)


def replace(path: Path, text: str, mode: int) -> None:
    """Makes the file, or takes the place of the one that is there. Raises: ConfigurationError."""
    part = _write_part(path, text, mode)
    try:
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _cannot("write", path, error) from error


def read_secret(path: Path) -> str:
    """The text of a file that only its owner can read.

    Raises: ConfigurationError when others can, or when it cannot be read.
    """
    return _read(path, secret=True)


def read(path: Path) -> str:
    """The text of a file. Raises: ConfigurationError when it cannot be read."""
    return _read(path, secret=False)


def make_folder(path: Path) -> None:
    """The folder with those above it, for us alone where it is new. Raises: ConfigurationError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot("make", path, error) from error


def _write_part(path: Path, text: str, mode: int) -> Path:
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        _create_in_place(part, text, mode)
    except OSError as error:
        raise _cannot("write", path, error) from error
    return part


def _create_in_place(path: Path, text: str, mode: int) -> None:
    # The mode is given to open: a chmod afterwards would leave a moment for others.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    fd = os.open(path, flags, mode)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _read(path: Path, *, secret: bool) -> str:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())  # of what is open: the name may change hands meanwhile
            if not stat.S_ISREG(found.st_mode):
                raise ConfigurationError(f"{path} is no file")
            if secret:
                _check_owner_alone(path, found)
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise _cannot("read", path, error) from error
    if len(data) > LARGEST:
        raise ConfigurationError(f"{path} has more than {LARGEST >> 20} MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 text") from error


def _check_owner_alone(path: Path, found: os.stat_result) -> None:
    if stat.S_IMODE(found.st_mode) & OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigurationError(
            f"{path} holds a secret that others can read (mode {mode:04o}): chmod 600 {path}, "
            "and make a new one if somebody may have read it"
        )
    if found.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(f"{path} holds a secret, and belongs to another user")


def _cannot(verb: str, path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"cannot {verb} {path}: {error.strerror or error}")
