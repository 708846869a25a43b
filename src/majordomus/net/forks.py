"""Which process this is, without a system call: what belongs to the parent is told apart by it."""

from __future__ import annotations

import os

generation = 0
"""How many forks lie between the first process that loaded this module and this one."""


def _forked() -> None:
    global generation  # noqa: PLW0603 - one number a process is what this module is
    generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
