"""What an operating system may lack: every guard for Windows and macOS is in this module.

docs/platforms.md says what holds where. The rest of the package imports no module, and uses no
name, that is missing on one of the three systems.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Coroutine, Iterator
from typing import Any, Final, TypeVar

from majordomus.errors import ConfigurationError


def _optional(module: str) -> Any:
    """Import a module of the standard library; None where the system lacks it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


_fcntl: Final = _optional("fcntl")
_resource: Final = _optional("resource")
_termios: Final = _optional("termios")
_SIOCGIFADDR: Final = 0x8915
_UNIX: Final[int | None] = getattr(socket, "AF_UNIX", None)
_os: Final[Any] = os
"""`os`, with names that only some systems have."""

# ── signals ───────────────────────────────────────────────────────────────────────────────────────

SIGHUP: Final[signal.Signals | None] = getattr(signal, "SIGHUP", None)
"""The signal that reloads settings; None where there is none."""
HANGUP: Final[tuple[signal.Signals, ...]] = () if SIGHUP is None else (SIGHUP,)
"""SIGHUP, where there is one."""
CHILD_ENDED: Final[tuple[signal.Signals, ...]] = tuple(
    [signal.Signals(number) for number in [getattr(signal, "SIGCHLD", None)] if number is not None]
)
"""SIGCHLD, where there is one."""

# ── sockets ───────────────────────────────────────────────────────────────────────────────────────


def stream_socket(family: int) -> socket.socket:
    """Make a non-blocking TCP socket. Raises: OSError."""
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setblocking(False)
    return made


def is_unix(connection: socket.socket) -> bool:
    """Return whether this is a Unix-domain socket."""
    return _UNIX is not None and connection.family == _UNIX


def unix_socket() -> socket.socket:
    """Make a non-blocking Unix-domain socket. Raises: OSError."""
    if _UNIX is None:
        raise OSError(errno.EAFNOSUPPORT, "this system has no Unix-domain sockets")
    return stream_socket(_UNIX)


def is_listening(path: str) -> bool:
    """Return whether a process listens on the Unix-domain socket `path`.

    A socket whose queue of new connections is full has a listener. So has one that this user may
    not use, as far as can be known, and a socket for datagrams, such as that of syslog: connections
    to the file of one whose process is gone are refused.
    """
    if _UNIX is None:
        return False
    with unix_socket() as probe:
        try:
            probe.connect(path)
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.EACCES, errno.EPERM, errno.EPROTOTYPE)
    return True


def interface_address(name: str) -> str:
    """Return the IPv4 address of a network interface, as eth0. Linux only.

    Raises: OSError when there is no such interface, or the system cannot tell.
    """
    if _fcntl is None or sys.platform != "linux":
        raise OSError(0, "interfaces have no names here")
    socket.if_nametoindex(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        packed = struct.pack("256s", name.encode()[:15])
        found = _fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, packed)
    return socket.inet_ntoa(found[20:24])


POLLIN: Final[int] = getattr(select, "POLLIN", 0)


def poller() -> Any:
    """Return a new poll object, which has no limit of descriptors; None where there is none."""
    return select.poll() if hasattr(select, "poll") else None


# ── event loops ───────────────────────────────────────────────────────────────────────────────────


LOOP_FACTORY: Final = asyncio.SelectorEventLoop if sys.platform == "win32" else None
"""Makes an event loop that can watch sockets, where the default one cannot: that of Windows waits
for completion ports."""

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, on an event loop that can watch sockets."""
    with asyncio.Runner(loop_factory=LOOP_FACTORY) as runner:
        return runner.run(main)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop that can watch sockets."""
    return asyncio.new_event_loop() if LOOP_FACTORY is None else LOOP_FACTORY()


def check_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Raises: ConfigurationError for an event loop that cannot watch sockets."""
    if getattr(type(loop), "add_reader", None) is asyncio.AbstractEventLoop.add_reader:
        raise ConfigurationError(
            f"{type(loop).__name__} cannot watch sockets: "
            "run on asyncio.SelectorEventLoop (docs/platforms.md)"
        )


# ── descriptors and processes ─────────────────────────────────────────────────────────────────────

UNLIMITED: Final = -1 if _resource is None else int(_resource.RLIM_INFINITY)
"""A limit of `descriptor_limits` that is none."""


def descriptor_limits() -> tuple[int, int]:
    """Return the soft and the hard limit of descriptors; UNLIMITED where there is none."""
    if _resource is None:
        return UNLIMITED, UNLIMITED
    soft, hard = _resource.getrlimit(_resource.RLIMIT_NOFILE)
    return int(soft), int(hard)


def raise_descriptor_limit() -> None:
    """Raise the soft limit to the hard one. macOS refuses a soft limit above OPEN_MAX."""
    if _resource is not None:
        _soft, hard = descriptor_limits()
        with contextlib.suppress(OSError, ValueError):
            _resource.setrlimit(_resource.RLIMIT_NOFILE, (hard, hard))


def process_usage() -> dict[str, float]:
    """Return what this process uses: `cpu` seconds, `started` (seconds since 1970), `rss` bytes,
    `descriptors`, `most_descriptors` and `pid`. Values that the system does not report cheaply are
    left out.
    """
    used: dict[str, float] = {
        "pid": os.getpid(),
        "cpu": round(time.process_time(), 3),
        "started": _STARTED,
        "most_descriptors": descriptor_limits()[0],
    }
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - a Path costs more than the file
            used["rss"] = int(file.read().split()[1]) * page_size()
        open_now = os.stat("/proc/self/fd").st_size  # noqa: PTH116 - the count, since Linux 6.2
    except OSError:
        return used
    if open_now:
        used["descriptors"] = open_now
    return used


_STARTED: Final = round(time.time(), 3)


def usable_processors() -> int:
    """Return the number of processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


HAS_CHILDREN: Final = _fcntl is not None and hasattr(os, "killpg")
"""Whether a child process can inherit descriptors and have a process group of its own, and a pipe
can take the numbers of signals."""


def check_children(what: str) -> None:
    """Raises: ConfigurationError where `what` would need child processes that there cannot be."""
    if not HAS_CHILDREN:
        raise ConfigurationError(
            f"{what} needs POSIX processes, which this system lacks (docs/platforms.md)"
        )


def unblock(descriptor: int) -> None:
    """Make a pipe non-blocking, where HAS_CHILDREN."""
    _os.set_blocking(descriptor, False)


def page_size() -> int:
    """Return the bytes of a page of memory."""
    return int(_os.sysconf("SC_PAGE_SIZE")) if hasattr(os, "sysconf") else 4096


def kill_group(group: int) -> None:
    """Kill a process group. Raises: OSError."""
    _os.killpg(group, signal.Signals["SIGKILL"])


def end_with(descriptor: int) -> bool:
    """Have the kernel end this process group when the other end of `descriptor` is closed.

    Returns False when it is closed already. Raises: OSError where the kernel cannot do it.
    """
    _fcntl.fcntl(descriptor, _fcntl.F_SETOWN, -_os.getpgrp())
    flags = _fcntl.fcntl(descriptor, _fcntl.F_GETFL)
    _fcntl.fcntl(descriptor, _fcntl.F_SETFL, flags | _os.O_ASYNC)
    unblock(descriptor)
    try:
        return os.read(descriptor, 1) != b""
    except BlockingIOError:
        return True


# ── files ─────────────────────────────────────────────────────────────────────────────────────────

HAS_MODES: Final = hasattr(os, "geteuid")
"""Whether a file has an owner and bits that say who may read it."""


def is_owners(found: os.stat_result) -> bool:
    """Return whether a file belongs to this user or to root."""
    return not HAS_MODES or found.st_uid in (_os.geteuid(), 0)


def readable_by_others(found: os.stat_result, bits: int) -> bool:
    """Return whether a file has one of these bits of its mode."""
    return HAS_MODES and found.st_mode & bits != 0


NO_FOLLOW: Final = int(getattr(os, "O_NOFOLLOW", 0))
"""The flag of `os.open` that refuses a symbolic link; 0 where the system has none."""


def is_locked(descriptor: int) -> bool:
    """Take the lock of an open file or folder, which ends with the descriptor. Returns whether
    another process has it; False also where there are no such locks."""
    if _fcntl is None:
        return False
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # this file system has none
        return False
    return False


def lock_file(descriptor: int) -> None:
    """Wait for the lock of an open file, which ends with the descriptor. Nothing where the system
    has no such locks."""
    if _fcntl is not None:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX)


HAS_KEYS: Final = _termios is not None
"""Whether `unbuffered_keys` can be used."""


def try_lock_file(descriptor: int) -> bool:
    """Take the exclusive lock of an open file for as long as it is open; False when another process
    has it. Windows opens the file for one process alone; there it is always True."""
    if _fcntl is None:
        return True
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def unbuffered_keys(descriptor: int) -> Iterator[None]:
    """Let a terminal deliver each key at once, without echo. Restores its mode at the end."""
    before = _termios.tcgetattr(descriptor)
    mode = _termios.tcgetattr(descriptor)
    mode[3] &= ~(_termios.ECHO | _termios.ICANON)  # mode[3]: the local flags
    mode[6][_termios.VMIN], mode[6][_termios.VTIME] = 1, 0  # mode[6]: the control characters
    _termios.tcsetattr(descriptor, _termios.TCSAFLUSH, mode)
    try:
        yield
    finally:
        _termios.tcsetattr(descriptor, _termios.TCSADRAIN, before)
