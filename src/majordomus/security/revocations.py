"""A file of revoked tokens and sessions, so that a revocation outlives a reload and a restart.

Each line is `UNTIL ID`: the last second at which a token of that id may be valid, since 1970, and
the id of a token or session. A line is written and synced before `add` returns. Brokers that name
the same file learn of each other's revocations, and of those of `majordomus token revoke`, within
a second. Lines whose time is over are dropped when the file has grown.

A writer locks the file (`flock`). After a replacement it may hold a file that nobody reads any
more: so it compares the inode with that of the name, and opens the file again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Final

from majordomus import system
from majordomus.errors import ConfigurationError
from majordomus.security import files

COMPACT_FROM: Final = 1000
"""Lines below which no line is dropped."""
LONGEST_ID: Final = 128


class Revocations:
    """The revocations in one file, which need not exist yet.

    ids: the end of each revocation, in seconds since 1970, by the id of a token or session.
    """

    def __init__(self, path: Path) -> None:
        """Read the file. Raises: ConfigurationError, also when other users can write it."""
        self.path = path
        self.ids: dict[str, float] = {}
        self._seen: files.Stamp | None = None
        self.look()

    def look(self) -> bool:
        """Read the file again if it has changed. A file that is gone takes no revocation back.

        Returns whether it has changed. Raises: ConfigurationError.
        """
        try:
            seen = files.stamp(self.path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _cannot("read", self.path, error) from error
        if seen == self._seen:
            return False
        self.ids.update(_parsed(files.read_own(self.path)))
        self._seen = seen
        return True

    def add(self, id: str, now: float, until: float) -> None:
        """Revoke `id` until the time `until`. It holds in this process even if it cannot be stored.

        Raises: ConfigurationError when `id` is not an id, or the line cannot be stored.
        """
        if not is_id(id):
            raise ConfigurationError(f"{id[:LONGEST_ID]!r} is not the id of a token or session")
        self.ids[id] = max(until, self.ids.get(id, 0.0))
        files.make_folder(self.path.parent)
        try:
            with _locked(self.path) as fd:
                line = f"{ceil(self.ids[id])} {id}\n"
                os.write(fd, (line if _ends_a_line(fd) else f"\n{line}").encode())
                os.fsync(fd)
                if len(self.ids) >= COMPACT_FROM:
                    self._compact(now)
        except OSError as error:
            raise _cannot("write", self.path, error) from error

    def _compact(self, now: float) -> None:
        """Replace the file, which is locked, if most of its lines are over."""
        if sum(until <= now for until in self.ids.values()) <= len(self.ids) // 2:
            return
        self.ids.update(_parsed(files.read_own(self.path)))
        left = {id: until for id, until in self.ids.items() if until > now}
        self.ids = left
        lines = (f"{ceil(until)} {id}\n" for id, until in left.items())
        files.replace(self.path, "".join(lines), files.SECRET)


def is_id(id: str) -> bool:
    """Whether `id` may be that of a token or session: printable ASCII without spaces."""
    return 0 < len(id) <= LONGEST_ID and id.isascii() and id.isprintable() and " " not in id


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file, open to append and locked. Raises: OSError, ConfigurationError."""
    while True:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | system.NO_FOLLOW
        fd = os.open(path, flags, files.SECRET)
        try:
            system.lock_file(fd)
            own = os.fstat(fd)
            if not stat.S_ISREG(own.st_mode):
                raise ConfigurationError(f"{path} is not a regular file")
            if stat.S_IMODE(own.st_mode) & files.OTHERS_WRITE:
                raise ConfigurationError(f"{path} can be written by others: chmod 600 {path}")
            if path.exists() and path.stat().st_ino == own.st_ino:
                yield fd
                return
        finally:
            os.close(fd)


def _ends_a_line(fd: int) -> bool:
    """Whether the file is empty or ends with a newline. A crash or an editor may leave it out."""
    size = os.fstat(fd).st_size
    if not size:
        return True
    os.lseek(fd, size - 1, os.SEEK_SET)
    return os.read(fd, 1) == b"\n"


def _parsed(text: str) -> dict[str, float]:
    """The revocations of a file. A line that was cut off by a crash is no revocation."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        until, _, id = line.partition(" ")
        if until.isdigit() and is_id(id):
            found[id] = max(float(until), found.get(id, 0.0))
    return found


def _cannot(verb: str, path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"cannot {verb} {path}: {error.strerror or error}")
