"""The pages on security run as they stand, and their files and transcripts are true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from majordomus.cli import majordomus
from tests.docs_runner import run_page

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["rights", "tokens"])
def test_programs_of_the_page_run(page: str, tmp_path: Path) -> None:
    run_page(DOCS / f"{page}.md", tmp_path)


def test_transcripts_of_the_rights_page_are_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DOCS / "rights.md").read_text("utf-8")
    rules = re.search(r"```toml\n# rights.toml\n(.*?)```", text, re.DOTALL)
    assert rules is not None
    monkeypatch.chdir(tmp_path)
    Path("rights.toml").write_text(rules[1], "utf-8")
    shown = re.findall(r"^\$ majordomus (.*)\n(.*)$", text, re.MULTILINE)
    assert len(shown) == 3
    for command, answer in shown:
        assert CliRunner().invoke(majordomus, shlex.split(command)).output == f"{answer}\n"
