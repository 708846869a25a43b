"""Pages whose examples are whole programs: their files are written, their commands typed."""

from __future__ import annotations

import pytest

from tests.cli.shell import SOURCE
from tests.cli.test_readme import Terminal, play, terminal

__all__ = ["terminal"]

DOCS = SOURCE.parent / "docs"


@pytest.mark.parametrize(("page", "commands"), [("pools", 4), ("proxies", 7)])
def test_every_file_and_command_of_the_page_does_what_it_says(
    terminal: Terminal,
    page: str,
    commands: int,
) -> None:
    assert play((DOCS / f"{page}.md").read_text("utf-8"), terminal) == commands
