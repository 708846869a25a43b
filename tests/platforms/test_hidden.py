"""Clients, workers and a broker without what Windows and macOS lack (docs/platforms.md)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import majordomus

ROOT = Path(__file__).parents[2]
SOURCE = Path(majordomus.__file__).parent
PROGRAM = (
    "import tests.platforms.hidden, sys, pytest; "
    "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'tests/platforms/scenarios.py']))"
)
GUARDED = re.compile(
    r"^\s*(?:import|from) (?:fcntl|grp|pwd|resource|termios)\b"
    r"|\b(?:plain|socket)\.(?:AF_UNIX|SOCK_NONBLOCK|SOCK_CLOEXEC|TCP_INFO)\b"
    r"|\bsignal\.(?:SIGHUP|SIGCHLD|SIGIO|SIGKILL)\b"
    r"|\bos\.(?:eventfd\w*|fork|getpgrp|geteuid|getuid|killpg|sched_\w+|set_blocking|sysconf)\b"
    r"|\bselect\.(?:e?poll|POLLIN)\b",
    re.MULTILINE,
)


def test_clients_workers_and_a_broker_work_without_half_of_posix() -> None:
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE.parent}{os.pathsep}{ROOT}"}
    environment.pop("MAJORDOMUS_WIRE", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"\.{14,} ", done.stdout), done.stdout


def test_one_module_alone_uses_what_a_system_may_lack() -> None:
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if GUARDED.search(path.read_text("utf-8"))
    }
    assert found == {"system.py"}
