"""The programs of the pages on hooks and middleware run unchanged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from majordomus.core.broker.settings import FIXED
from tests.docs_runner import run_page

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("page", ["hooks", "middleware"])
def test_programs_of_the_page_run(page: str, tmp_path: Path) -> None:
    run_page(DOCS / f"{page}.md", tmp_path)


def test_page_names_the_settings_that_cannot_change_at_run_time() -> None:
    told = (DOCS / "hooks.md").read_text("utf-8").partition("<!-- fixed settings -->\n")[2]
    assert tuple(re.findall(r"`(\w+)`", told)) == (*FIXED, "bind")
