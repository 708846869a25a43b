"""Starts other people's programs as real processes, and leaves none behind."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE = Path(__file__).parent / "node"
PYTHON = (sys.executable, "-m")


def node() -> str:
    """The node program; without it, or without its packages, the test skips, except in CI."""
    program = shutil.which("node")
    missing = "" if program else "node is not here"
    if program and not (NODE / "node_modules" / "zeromq").is_dir():
        missing = "npm's zeromq is not installed: run `npm ci` in tests/peers/node"
    if not missing:
        return str(program)
    if os.environ.get("CI"):
        pytest.fail(f"{missing}, and CI needs it")
    pytest.skip(missing)


def run(*argv: str, timeout: float = 20.0) -> list[str]:
    """The lines that a program prints; it must end well."""
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@contextmanager
def running(*argv: str, ready: str = "ready") -> Iterator[subprocess.Popen[str]]:
    """A program that has printed `ready` (at once when that is ""); ended by SIGTERM, and well."""
    with subprocess.Popen(
        argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            if ready:
                assert select.select([program.stdout], [], [], 20.0)[0], f"{argv}: not ready"
                line = program.stdout.readline()
                assert line.strip() == ready, f"{argv}: {line!r}"
            yield program
            assert program.poll() is None, f"{argv} ended early: {program.returncode}"
            program.send_signal(signal.SIGTERM)
            assert program.wait(10.0) == 0
        finally:
            program.kill()
