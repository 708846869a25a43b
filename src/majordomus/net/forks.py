"""Counts the forks of this process, so that an object of the parent is recognized in a child.

That costs no system call, as `os.getpid` does.
"""

from __future__ import annotations

import os

generation = 0
"""The number of forks between the first process that loaded this module and this one."""


def _forked() -> None:
    global generation  # noqa: PLW0603 - the module holds one number for the process
    generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
