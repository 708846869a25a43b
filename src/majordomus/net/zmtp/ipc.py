"""Make Unix sockets from `ipc://path` and `ipc://@name`: every rule about their files is here.

A path is bound only where no socket has a listener. A socket file whose process is gone is
replaced; any other file stays, and is an error. Names that begin with `@` are abstract: they have
no file and no permissions.
"""

from __future__ import annotations

import contextlib
import os
import socket as plain
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

from majordomus import system
from majordomus.errors import ConfigurationError

BACKLOG: Final = 4096
"""Connections that the kernel holds until they are accepted, at most net.core.somaxconn."""
LOCK_WAIT: Final = 2.0
"""Seconds for another process that binds in the same folder."""
SCHEME: Final = "ipc://"


class UnixListener:
    """A listening socket and its file.

    url: the endpoint that peers connect to.
    """

    def __init__(self, made: plain.socket, url: str, made_folder: bool) -> None:
        self.url = url
        self._socket = made
        self._made_folder = made_folder
        name = url.removeprefix(SCHEME)
        self._file = None if name.startswith("@") else Path(name).absolute()
        self._identity = _identity(self._file)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Remove the file, unless another one has replaced it, and close the socket. May be
        repeated.

        The file goes first: while the socket listens, no other broker replaces it.
        """
        file, self._file = self._file, None
        if file is not None and self._identity is not None and _identity(file) == self._identity:
            with contextlib.suppress(OSError):
                file.unlink()
        if file is not None and self._made_folder:
            with contextlib.suppress(OSError):
                file.parent.rmdir()
        self._socket.close()


def listen(url: str) -> UnixListener:
    """Make a non-blocking listening socket. The mode of its file is that of the umask; a peer needs
    the right to write to it.

    Raises: ConfigurationError when the endpoint cannot be bound.
    """
    name = url.removeprefix(SCHEME)
    made_folder = name == "*"
    try:
        if made_folder:
            name = f"{tempfile.mkdtemp(prefix='majordomus-')}/socket"
        if name.startswith("@"):
            made = _bound(name)
        else:
            with contextlib.ExitStack() as stack:
                _lock(Path(name).absolute().parent, stack)
                _remove_stale(name)
                made = _bound(name)
    except OSError as error:
        raise ConfigurationError(f"cannot bind {url}: {error.strerror or error}") from error
    return UnixListener(made, SCHEME + name, made_folder)


def connect(url: str) -> plain.socket:
    """Make a non-blocking socket and connect it.

    Raises: OSError when there is no listener, when its queue is full (EAGAIN), or without the right
        to connect.
    """
    made = system.unix_socket()
    try:
        made.connect(_address(url.removeprefix(SCHEME)))
    except BaseException:
        made.close()
        raise
    return made


def user_of(address: str) -> str:
    """Return the Unix user of an ipc connection, as `uid:1000`; another address as it is."""
    return address.partition(" ")[0]


def credentials(address: str) -> tuple[int, int] | None:
    """Return (uid, pid) of the address of an ipc connection, `uid:1000 pid:77`; None for others."""
    uid, found, pid = address.partition(" pid:")
    return (int(uid.removeprefix("uid:")), int(pid)) if found else None


def _address(name: str) -> str:
    """Return the address of a path or an abstract name; the latter has no NUL at its end, as with
    libzmq."""
    return "\0" + name[1:] if name.startswith("@") else name


def _bound(name: str) -> plain.socket:
    made = system.unix_socket()
    try:
        made.bind(_address(name))
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _lock(folder: Path, stack: contextlib.ExitStack) -> None:
    """Let one process at a time bind in this folder, until the end of `stack`.

    Between the check of a stale socket and the new one, another broker could bind: its socket would
    be removed. A folder that cannot be read or locked is used without.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    stack.callback(os.close, descriptor)
    until = time.monotonic() + LOCK_WAIT
    while system.is_locked(descriptor):
        if time.monotonic() > until:
            raise OSError(0, "another process binds in the same folder")
        time.sleep(0.01)


def _remove_stale(name: str) -> None:
    """Remove the socket file of a process that is gone.

    Raises: OSError for a socket with a listener, and for a file that is no socket.
    """
    try:
        mode = os.lstat(name).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(0, "a file that is not a socket has this path")
    if system.is_listening(name):
        raise OSError(0, "another process listens there")
    Path(name).unlink()


def _identity(file: Path | None) -> tuple[int, int] | None:
    """Return device and inode of a file; None where there is none."""
    if file is None:
        return None
    try:
        found = file.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
