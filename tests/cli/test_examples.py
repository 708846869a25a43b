"""The programs in examples/ run as they are, but for the port."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cli.shell import LIMIT, SOURCE, Running, Shell
from tests.cli.test_readme import free_port

EXAMPLES = SOURCE.parent / "examples"


def copy(shell: Shell, example: str, port: int) -> None:
    """The files of an example into the test's folder, on a free port."""
    for path in (EXAMPLES / example).glob("*.py"):
        text = path.read_text("utf-8")
        assert "5555" in text
        shell.write(path.name, text.replace("5555", str(port)))


def start(shell: Shell, program: str) -> Running:
    """A program in the background, until the test ends."""
    return shell.adopt([sys.executable, program])


def test_hello_has_three_programs_that_find_each_other(shell: Shell) -> None:
    copy(shell, "hello", free_port())
    assert sorted(path.name for path in Path(shell.folder).iterdir()) == [
        "broker.py",
        "client.py",
        "worker.py",
    ]
    broker, worker = start(shell, "broker.py"), start(shell, "worker.py")
    done = subprocess.run(
        [sys.executable, "client.py"],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    printed = b"hello, world\nslept slept slept slept slept\n1\n2\n3\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, b"")
    assert (worker.stop(), broker.stop()) == (0, 0)
