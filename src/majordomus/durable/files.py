"""What stands beside the file of a store: its lock, its ballast, and the disk under it.

The lock is a file of its own, opened once: SQLite's own locks belong to the process, not to the
connection. The ballast is written, not sparse, so that its space is there when the disk is full.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import Final

from majordomus import system
from majordomus.durable.store import StoreError

BALLAST: Final = 24 << 20
"""Bytes of the ballast: a full write-ahead log between two checkpoints, and the largest batch."""
CHUNK: Final = 1 << 20
NETWORK_FILES: Final = frozenset(
    ("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "9p", "afs", "fuse.sshfs")
)
MOUNTS: Final = Path("/proc/self/mountinfo")


class FileLock:
    """The lock that one broker holds on a store.

    `close` removes a file that this lock has made. A process that opened the file before that would
    then lock a file without a name: the lock counts when the file still has its name.

    Raises: StoreError when another process has it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        while True:
            try:
                self._made = not path.exists()
                self._descriptor = os.open(
                    path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600
                )
            except OSError as error:
                raise StoreError(f"cannot open {path}: {error.strerror}") from error
            if not system.try_lock_file(self._descriptor):
                self._made = False
                self.close()
                raise StoreError(f"another process uses this store ({path} is locked)")
            if self._has_its_name():
                return
            self._made = False
            self.close()

    def close(self) -> None:
        """Release the lock. May be repeated."""
        if self._descriptor >= 0:
            if self._made:
                with contextlib.suppress(OSError):  # Windows removes no open file
                    self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = -1

    def _has_its_name(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False


class Ballast:
    """A file that is deleted when the disk is full, so that outcomes can be stored."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size

    @property
    def there(self) -> bool:
        """Whether the whole file is there."""
        try:
            return self.path.stat().st_size >= self.size
        except OSError:
            return False

    def check(self) -> None:
        """Raises: StoreError: what has the name of the ballast is no file that can be written."""
        try:
            usable = self.path.is_file() and os.access(self.path, os.W_OK)
        except OSError:
            usable = False
        if os.path.lexists(self.path) and not usable:
            raise StoreError(f"{self.path} is in the way of the ballast: move it away")

    def write(self) -> bool:
        """Write the file, if it is not there. False when the disk has no space for it."""
        if not self.size or self.there:
            return True
        try:
            with self.path.open("wb") as file:
                for _ in range(0, self.size, CHUNK):
                    file.write(os.urandom(min(CHUNK, self.size)))  # a file system may compress
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self.drop()
            return False
        return True

    def drop(self) -> bool:
        """Delete the file; False when it was not there."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True


def real_file(path: Path) -> Path:
    """Return the file that `path` names, without symbolic links: lock, ballast and log stand beside
    that one. It need not exist. Raises: StoreError: it cannot be the file of a store."""
    shown = os.fsencode(path).decode(errors="replace")
    if shown != str(path):  # SQLite takes names in UTF-8
        raise StoreError(f"the name {shown} is not UTF-8: use another one")
    if not str(path).strip():
        raise StoreError(f"{str(path)!r} is no name of a file")
    try:
        file = Path(os.path.realpath(path))
        folder = file.parent
        if not folder.is_dir():
            raise StoreError(f"the folder {folder} does not exist")
        found = file.lstat() if os.path.lexists(file) else None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {getattr(error, 'strerror', error)}") from error
    if found is None:
        return file
    if stat.S_ISDIR(found.st_mode):
        raise StoreError(f"{file} is a folder: name a file in it")
    if stat.S_ISLNK(found.st_mode):
        raise StoreError(f"{file} is a loop of symbolic links")
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"{file} is not a file")
    if found.st_nlink > 1:  # beside another name SQLite does not find the log of this one
        raise StoreError(
            f"{file} has {found.st_nlink} names (hard links): copy it, and use the copy"
        )
    if not os.access(file, os.R_OK | os.W_OK):
        raise StoreError(f"{file} cannot be read and written")
    return file


def sync_folder(folder: Path) -> None:
    """Make the names of new files of `folder` durable. Not every system can open a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """The bytes that the disk of `folder` has left; −1 where that is not known."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return -1


def file_system(path: Path, mounts: str) -> str:
    """The type of the file system of `path`, from the text of mountinfo; empty for an unknown one.

    A line is "36 35 98:0 /root /mount/point options - type source options".
    """
    found, longest = "", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(fields[4].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) > longest:
            found, longest = after.split()[0], len(point.parts)
    return found


def check_disk(folder: Path) -> None:
    """Raises: StoreError: `folder` is on a network file system, where a write-ahead log cannot be
    used."""
    try:
        mounts = MOUNTS.read_text("utf-8", "replace")
    except OSError:
        return
    kind = file_system(folder.resolve(), mounts)
    if kind in NETWORK_FILES:
        raise StoreError(f"{folder} is on a network file system ({kind}): use a local disk")
