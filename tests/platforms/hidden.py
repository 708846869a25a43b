"""Hides from this process what Windows lacks: import it before anything else.

    python -c "import tests.platforms.hidden, runpy; runpy.run_module('pytest', alter_sys=True)" …

Our own ZMTP is hidden as well, so libzmq serves everything, through pyzmq. Modules of the standard
library that need a hidden name here are left as they are: they were imported before.
"""

from __future__ import annotations

import _socket
import sys
from importlib.abc import MetaPathFinder

MODULES = {
    "fcntl",
    "grp",
    "pwd",
    "resource",
    "termios",
    "majordomus.net.zmq._pump",
    *(
        f"majordomus.net.zmtp.{name}"
        for name in ("dealer", "engine", "mechanisms", "router", "stream")
    ),
}
SOCKET = ("AF_UNIX", "SOCK_NONBLOCK", "SOCK_CLOEXEC", "TCP_INFO", "TCP_USER_TIMEOUT", "socketpair")
OS = (
    *("EFD_NONBLOCK", "EFD_CLOEXEC", "O_ASYNC", "O_NOFOLLOW"),
    *("eventfd", "eventfd_read", "eventfd_write", "fork", "forkpty", "geteuid"),
    *("getpgid", "getpgrp", "killpg", "pidfd_open"),
    *("register_at_fork", "sched_getaffinity", "set_blocking", "setsid", "sysconf"),
)
SELECT = ("epoll", "poll", "EPOLLIN", "POLLIN")
SIGNAL = ("SIGHUP", "SIGCHLD", "SIGIO", "SIGUSR1", "SIGUSR2", "SIGKILL", "pthread_kill")


class Hidden(MetaPathFinder):
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r} (hidden)", name=name)


def hide() -> None:
    """Hide everything. The standard library's own users are imported before or between."""
    for name in SOCKET:  # before `socket` is imported: it makes a pair of sockets without these
        if hasattr(_socket, name):
            delattr(_socket, name)
    import asyncio
    import multiprocessing.connection
    import os
    import select
    import selectors
    import signal
    import subprocess

    assert asyncio and multiprocessing.connection
    selectors.DefaultSelector = selectors.SelectSelector  # type: ignore[misc]
    subprocess._PopenSelector = selectors.SelectSelector  # type: ignore[attr-defined]
    for module, names in ((os, OS), (select, SELECT), (signal, SIGNAL)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Hidden())


hide()
