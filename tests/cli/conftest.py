"""Commands as a user runs them: real processes, each with a time limit, all ended afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import Running, Shell, clean_environment


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Runs `majordomus` in an empty folder."""
    made = Shell(tmp_path, clean_environment())
    yield made
    made.end()


@pytest.fixture
def broker(shell: Shell) -> Running:
    """A broker on a free port; `url` is where."""
    return shell.broker()
