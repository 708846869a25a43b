"""Files that hold secrets. Only their owner can read them, at any time while they are written.

A secret file that other users can read is refused. A new file appears complete under its name, or
not at all, and never replaces another one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final, TypeAlias

from majordomus import system
from majordomus.errors import ConfigurationError

SECRET: Final = 0o600
PUBLIC: Final = 0o644
OTHERS: Final = 0o077
OTHERS_WRITE: Final = 0o022
ALL_WRITE: Final = 0o002
LARGEST: Final = 16 << 20
"""Bytes of a file that is read as a whole."""


Stamp: TypeAlias = tuple[int, int, int, int]
"""Modification time, size, inode and change time of a file: it changes when the file does.

The times are nanoseconds. A program may set the modification time back (`cp -p`, `rsync -t`); the
change time is the kernel's. Take the stamp before the file is read: a change in between is then
found by the next check.
"""


def stamp(path: Path | os.DirEntry[str]) -> Stamp:
    """The stamp of a file now. Raises: OSError."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns


def create(path: Path, text: str, mode: int) -> None:
    """Create a file with the given mode, which holds before the first byte is written.

    Raises: ConfigurationError when the file exists already or cannot be written.
    """
    part = _write_part(path, text, mode)
    try:
        try:
            os.link(part, path)  # unlike a rename, this never replaces a file
        except FileExistsError:
            raise ConfigurationError(f"{path} exists already; it is not overwritten") from None
        except OSError:  # a file system without links
            _create_in_place(path, text, mode)
    finally:
        part.unlink(missing_ok=True)


def replace(path: Path, text: str, mode: int) -> None:
    """Create or replace a file, atomically. Raises: ConfigurationError."""
    part = _write_part(path, text, mode)
    try:
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _cannot("write", path, error) from error


def read_secret(path: Path) -> str:
    """Read the text of a file that only its owner can read.

    Raises: ConfigurationError when other users can read it, or when it cannot be read.
    """
    return _read(path, secret=True)


def read(path: Path) -> str:
    """Read the text of a file. Raises: ConfigurationError when it cannot be read, or when every
    user can write it."""
    return _read(path, secret=False)


def read_own(path: Path) -> str:
    """Read the text of a file that only its owner can write. Raises: ConfigurationError."""
    return _read(path, secret=False, writers=OTHERS_WRITE)


def check_folder(path: Path) -> None:
    """Check that not every user can add files to a folder. Raises: ConfigurationError."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise _cannot("read", path, error) from error
    if mode & ALL_WRITE:
        raise ConfigurationError(f"{path} can be written by other users: chmod go-w {path}")


def make_folder(path: Path) -> None:
    """Create a folder and its parents if needed, with mode 700. Raises: ConfigurationError."""
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
    # The mode is passed to open: before a chmod, other users could read the file for a moment.
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


def _read(path: Path, *, secret: bool, writers: int = ALL_WRITE) -> str:
    try:
        # Not blocking: to open a FIFO for reading would wait for a writer.
        with open(path, "rb", opener=_open_at_once) as file:
            found = os.fstat(file.fileno())  # of the open file: its name may be replaced meanwhile
            if not stat.S_ISREG(found.st_mode):
                raise ConfigurationError(f"{path} is not a regular file")
            if secret:
                _check_owner_alone(path, found)
            if stat.S_IMODE(found.st_mode) & writers:
                raise ConfigurationError(f"{path} can be written by other users: chmod go-w {path}")
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise _cannot("read", path, error) from error
    if len(data) > LARGEST:
        raise ConfigurationError(f"{path} has more than {LARGEST >> 20} MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text") from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_owner_alone(path: Path, found: os.stat_result) -> None:
    if system.readable_by_others(found, OTHERS):
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigurationError(
            f"{path} holds a secret that other users can read (mode {mode:04o}): chmod 600 {path}, "
            "and replace the secret if one of them may have read it"
        )
    if not system.is_owners(found):
        raise ConfigurationError(f"{path} holds a secret, and belongs to another user")


def _cannot(verb: str, path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"cannot {verb} {path}: {error.strerror or error}")
