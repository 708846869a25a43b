"""Starts programs of other projects as processes, and ends them."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE = Path(__file__).parent / "node"
PYTHON = (sys.executable, "-m")


def node() -> str:
    """The path of node. Without it or its packages the test is skipped, and in CI it fails."""
    program = shutil.which("node")
    missing = "" if program else "node is not installed"
    if program and not (NODE / "node_modules" / "zeromq").is_dir():
        missing = "npm's zeromq is not installed: run `npm ci` in tests/peers/node"
    if not missing:
        return str(program)
    if os.environ.get("REAL_PARTS") == "required":
        pytest.fail(f"{missing}, and CI needs it")
    pytest.skip(missing)


def run(
    *argv: str, timeout: float = 20.0, environment: Mapping[str, str] | None = None
) -> list[str]:
    """Run a program, which must exit with 0, and return the lines that it prints. `environment`
    has variables to add."""
    done = subprocess.run(
        argv,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@contextmanager
def running(
    *argv: str, ready: str = "ready", environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a program and wait until it prints the line `ready`; "" does not wait. `environment`
    has variables to add.

    At the end it gets SIGTERM and must exit with 0.
    """
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
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
